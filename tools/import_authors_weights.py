"""Turns weights of the authors' PyTorch code into a checkpoint of ours.

    python tools/import_authors_weights.py --weights=model300000.pt --ema=ema_0.9999_300000.pt \
        --config=configs/adni.py:authors --workdir=runs/authors

Then `mrdiff train --workdir=runs/authors --config.data.root=SCANS --mode=eval` evaluates them, and without `--mode=eval`
goes on from them with fresh moments of the optimiser. The number of steps is read from the file's name, as their code does.
"""

import re
from pathlib import Path

import grain
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from mrdiff_jax import cli
from mrdiff_jax.config import Config, resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.measuring import networks
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.mrdiff.authors_weights import StateDict, to_variables
from mrdiff_jax.methods.mrdiff.method import build_network
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.checkpoints import Checkpoints
from mrdiff_jax.storage.paths import check_workdir, local_path
from mrdiff_jax.workdir import CONFIG

_WEIGHTS = flags.DEFINE_string("weights", None, "Their state dict, .pt or .safetensors.")
_EMA = flags.DEFINE_string("ema", None, "Its moving average, with which we synthesise; by default the weights themselves.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings, as configs/adni.py:authors.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to make.")
flags.mark_flags_as_required(["weights", "config", "workdir"])

# what their network is where ours leaves a choice, which the shapes of the parameters need not show
_STRUCTURE = {
    "method.name": ("mrdiff",),
    "model.wavelet_levels": (1,),
    "mrdiff.wavelet_of": ("features",),
    "mrdiff.decoder_skips": (True,),
    "mrdiff.signals": ("spin_echo", "spin_echo,spin_echo"),
    "mrdiff.positivity": ("relu",),
    "model.norm_groups": (32,),
    "mrdiff.spectral_norm": (True,),
}


def read(path: Path) -> StateDict:
    """Reads a state dict.

    Raises:
      UserError: the file is of another kind, damaged, or holds something else.
    """
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise UserError(f"{path}: give a .pt or a .safetensors file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        import torch

        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in tensors.items()}
    except ImportError as error:
        raise UserError(f"{path}: reading it needs {error.name}; pip install {error.name}") from error
    except Exception as error:  # each library has its own
        raise UserError(
            f"{path}: cannot be read as a state dict, tensors by name; it is damaged or holds more than that"
        ) from error


def check_structure(config: Config) -> None:
    """Checks that a config describes their network, but for its size.

    Raises:
      UserError: the first field that does not, with what it must be.
    """
    for field, choices in _STRUCTURE.items():
        section, name = field.split(".")
        value = getattr(config.own if section == "mrdiff" else getattr(config, section), name)
        if value not in choices:
            raise UserError(f"--config.{field}={value}: the authors' network has {choices[0]}; take :authors")
    mult = config.model.channel_mult
    if len(mult) < 2 or mult[-1] == mult[-2]:
        raise UserError(f"--config.model.channel_mult={mult}: the last level must have a number of channels of its own")


def write_checkpoint(config: ConfigDict, weights: Path, ema: Path | None, workdir: Path) -> int:
    """Writes the first checkpoint of a run whose parameters, and their average, come from state dicts; returns its step.

    Raises:
      UserError: a field, a file or the workdir does not fit.
    """
    config = resolve(config)
    check_structure(config)
    if any((workdir / "checkpoints").glob("[0-9]*")):
        raise UserError(f"{workdir}: holds checkpoints already; choose another --workdir")
    files = {path: read(path) for path in (weights, ema) if path}
    state, size = networks.fresh_state(config), build_network(config).backbone

    def imported(path: Path) -> Variables:
        try:
            found = to_variables(files[path], state.variables.of("generator"), size)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        return Variables({"generator": found.pop("params")}, {"generator": found})

    variables = imported(weights)
    steps = re.search(r"(?<!\d)\d{6,9}$", weights.stem)
    step = int(steps[0]) if steps else 0
    state = state.replace(step=np.int32(step), variables=variables, average=(imported(ema) if ema else variables).params)

    workdir.mkdir(parents=True, exist_ok=True)
    json_files.write(workdir / CONFIG, config.to_dict())
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(step, state, iter(grain.MapDataset.range(1).to_iter_dataset()))  # of data, the first position
    checkpoints.close()
    return step


def main() -> None:
    """Runs what the flags ask for."""
    config, workdir = cli.config_of(_CONFIG), local_path(_WORKDIR.value, "--workdir")
    weights, ema = local_path(_WEIGHTS.value, "--weights"), local_path(_EMA.value, "--ema") if _EMA.value else None
    check_workdir(workdir)
    step = write_checkpoint(config, weights, ema, workdir)
    print(f"{workdir}: a checkpoint of step {step}; next, mrdiff train --workdir={workdir} --mode=eval with your data")


if __name__ == "__main__":
    cli.run(main, __doc__)
