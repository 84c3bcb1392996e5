"""Turns weights of the authors' PyTorch code into a checkpoint of ours.

    python tools/import_authors_weights.py --weights=model300000.pt --ema=ema_0.9999_300000.pt \
        --config=configs/adni.py:authors --workdir=runs/authors

With the same config and workdir `python -m mrdiff_jax.main --mode=eval` evaluates them, and `--mode=train` goes on from them
with fresh moments of the optimiser. The number of steps is read from the file's name, as their code does.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import grain
import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict, config_flags

from mrdiff_jax import cli, methods
from mrdiff_jax.checkpoints import Checkpoints
from mrdiff_jax.config import validate
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods import Params
from mrdiff_jax.methods.mrdiff import build_network
from mrdiff_jax.train_state import TrainState, create_train_state, make_optimizer
from mrdiff_jax.unet import Backbone

StateDict = Mapping[str, np.ndarray]

_WEIGHTS = flags.DEFINE_string("weights", None, "Their state dict, .pt or .safetensors.")
_EMA = flags.DEFINE_string("ema", None, "Its moving average, with which we synthesise; by default the weights themselves.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings, as configs/adni.py:authors.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to make.")
flags.mark_flags_as_required(["weights", "config", "workdir"])

# what their network is where ours leaves a choice, which the shapes of the parameters need not show
_STRUCTURE = {
    "method.name": ("mrdiff",),
    "model.wavelet_domain": (True,),
    "model.wavelet_of": ("features",),
    "model.decoder_skips": (True,),
    "model.signals": ("spin_echo", "spin_echo,spin_echo"),
    "model.positivity": ("relu",),
    "model.norm_groups": (32,),
    "model.spectral_norm": (True,),
}

# our layers and theirs: single ones, and those inside a residual or an attention block
_SINGLE = {
    "step_embedding/in": "time_embed.0",
    "step_embedding/out": "time_embed.2",
    "target_stem": "input_conv.0",
    "source_stem_0": "cond_enc.0",
    "source_stem_1": "cond_enc.1",
    "source_stem_2": "cond_enc.3",
    "encoder/conv_in": "input_blocks.0.0",
    "generator/norm_out": "out.0",
    "generator/conv_out": "out.2",
    "decoder/norm_out": "out2.0",
    "decoder/conv_out": "out2.2",
}
_INSIDE = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "film": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "out": "proj_out",
}
_TRAILING = {"skip_connection": (1, 1), "qkv": (1,), "proj_out": (1,)}  # linear layers that they have as 1 x 1 convolutions


def blocks(size: Backbone) -> Iterator[tuple[str, str]]:
    """Our residual and attention blocks and theirs; attention is named at every level, whether it is there or not."""
    yield "map_block", "features_extraction.0"
    yield "signal_block", "features_accumulation.0"
    levels, place = range(len(size.channels)), 0
    for level in levels:
        if level:
            place += 1
            yield f"encoder/down_{level}", f"input_blocks.{place}.0"
        for i in range(size.blocks_per_level):
            place += 1
            yield f"encoder/block_{level}_{i}", f"input_blocks.{place}.0"
            yield f"encoder/attention_{level}_{i}", f"input_blocks.{place}.1"
    for ours, suffix in (("generator", ""), ("decoder", "2")):
        for i, part in enumerate(("middle_in", "middle_attention", "middle_out")):
            yield f"{ours}/{part}", f"middle_block{suffix}.{i}"
        place = -1
        for level in reversed(levels):
            for i in range(size.blocks_per_level + 1):
                place += 1
                yield f"{ours}/block_{level}_{i}", f"output_blocks{suffix}.{place}.0"
                yield f"{ours}/attention_{level}_{i}", f"output_blocks{suffix}.{place}.1"
            yield f"{ours}/up_{level}", f"output_blocks{suffix}.{place}.{2 if level in size.attention_levels else 1}"


def entries(like: Params, size: Backbone) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each of our parameters, by path ('stats/map_block/film/u'), name and shape of the entry that fills it."""
    layers = _SINGLE | {f"{ours}/{a}": f"{theirs}.{b}" for ours, theirs in blocks(size) for a, b in _INSIDE.items()}
    leaves, found = flatten_dict(like, sep="/"), {}
    for path, leaf in leaves.items():
        layer, _, leaf_name = path.partition("/")[2].rpartition("/")
        weight = "weight_orig" if f"stats/{layer}/u" in leaves else "weight"
        name = {"kernel": weight, "scale": weight, "bias": "bias", "u": "weight_u", "v": "weight_v"}[leaf_name]
        trailing = _TRAILING.get(layers[layer].rpartition(".")[2], ()) if leaf_name == "kernel" else ()
        found[path] = f"{layers[layer]}.{name}", np.shape(leaf)[::-1] + trailing
    return found


def haar_filters(size: Backbone) -> dict[str, np.ndarray]:
    """The wavelet filters in their state dict, which are constant: LL, LH (minus our cV), HL (minus our cH), HH."""
    low, high = (1, 1), (-1, 1)
    bands = {"LL": (low, low), "LH": (low, high), "HL": (high, low), "HH": (high, high)}
    deepest = size.channels[-1] // 4
    channels = {"wt": size.base_channels // 8, "iwt": 1, "iwt_c": 2, "iwt_f": deepest, "wt_f": deepest}
    return {
        f"{module}.{band}.weight": np.tile(np.float32(0.5) * np.outer(*sides), (count, 1, 1, 1))
        for module, count in channels.items()
        for band, sides in bands.items()
    }


def check(theirs: StateDict, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that a state dict has just the entries that are wanted.

    Raises:
      ValueError: some are missing, surplus or of another shape; the message names the first of them.
    """
    missing = [name for name in shapes if name not in theirs]
    surplus = [name for name in theirs if name not in shapes]
    misshapen = [
        f"{name} {np.shape(theirs[name])} in place of {shape}"
        for name, shape in shapes.items()
        if name in theirs and np.shape(theirs[name]) != shape
    ]
    for what, names in (("lacks", missing), ("has the surplus", surplus), ("has the ill-shaped", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{what} {', '.join(names[:3])}{more}; give the --config.model that it was trained with")


def arrange(theirs: StateDict, like: Params, size: Backbone) -> Params:
    """Their entries under our names, in our layout: channels last, inputs before outputs, and q, k, v before heads."""
    flat = {}
    for path, (name, _) in entries(like, size).items():
        value = theirs[name]
        if ".qkv." in name:
            c = len(value) // 3
            heads = max(c // size.head_channels, 1)
            value = value.reshape(heads, 3, c // heads, -1).swapaxes(0, 1).reshape(value.shape)
        if value.shape[2:] == (3, 3):
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim > 1:
            value = value.reshape(value.shape[:2]).T
        flat[path] = np.array(value, np.float32)
    return unflatten_dict(flat, sep="/")


# parameters of a block by which it reads channels, and by which it writes them: name, axis of the channels, and whether a
# channel's sign goes into it; a normalisation gives the sign back, so that what follows sees another order alone
_READS = (
    ("norm_in/scale", -1, True),
    ("norm_in/bias", -1, False),
    ("conv_in/kernel", -2, False),
    ("norm/scale", -1, True),
    ("norm/bias", -1, False),
    ("qkv/kernel", -2, False),
    ("skip/kernel", -2, True),
)
_WRITES = tuple((f"{layer}/{leaf}", -1, True) for layer in ("conv_out", "skip", "out") for leaf in ("kernel", "bias"))


def in_our_bands(params: Params, size: Backbone) -> Params:
    """The same network on our bands, cA, cH, cV, cD, where theirs has LL, LH, HL, HH = cA, -cV, -cH, cD.

    The bands are channels of the encoder's input, of both outputs, and of the deepest features: the last level of the encoder
    writes e_t, which is split into bands, and the signals come back as bands, for both decoders to read.
    """
    flat, last, deepest = flatten_dict(params["generator"], sep="/"), len(size.channels) - 1, size.channels[-1]

    def turn(block: str, leaves: tuple[tuple[str, int, bool], ...], part: slice = slice(None)) -> None:
        for leaf, axis, signed in leaves:
            if (path := f"{block}/{leaf}") in flat:
                flat[path] = flat[path].copy()
                channels = np.moveaxis(flat[path], axis, 0)[part]
                channels[:] = _other_bands(channels, signed)

    turn("encoder", (("conv_in/kernel", -2, True),))
    for i in range(size.blocks_per_level):
        for block in (f"encoder/block_{last}_{i}", f"encoder/attention_{last}_{i}"):
            turn(block, _WRITES)
            if block != f"encoder/block_{last}_0":
                turn(block, _READS)
    for half in ("generator", "decoder"):
        for block in ("middle_in", "middle_attention", "middle_out"):
            turn(f"{half}/{block}", _READS)
            turn(f"{half}/{block}", _WRITES)
        turn(f"{half}/block_{last}_0", _READS, slice(None, deepest))
        for i in range(size.blocks_per_level):
            turn(f"{half}/block_{last}_{i}", _READS, slice(deepest, None))
        turn(half, (("conv_out/kernel", -1, True), ("conv_out/bias", -1, True)))
    return params | {"generator": unflatten_dict(flat, sep="/")}


def _other_bands(x: np.ndarray, signed: bool) -> np.ndarray:
    """Trades the second and the third band along the first axis; this undoes itself."""
    sign = -1 if signed else 1
    low, second, third, diagonal = np.split(x, 4)
    return np.concatenate([low, sign * third, sign * second, diagonal])


def to_params(theirs: StateDict, like: Params, size: Backbone) -> Params:
    """Parameters, in the structure and shapes of `like`, from their whole state dict.

    Raises:
      ValueError: an entry is missing, surplus or ill-shaped, or a wavelet filter is not Haar's; the message names it.
    """
    filters = haar_filters(size)
    check(theirs, dict(entries(like, size).values()) | {name: value.shape for name, value in filters.items()})
    for name, value in filters.items():
        if not np.allclose(theirs[name], value, atol=1e-6):
            raise ValueError(f"has {name} that is not the filter of the Haar transform")
    return in_our_bands(arrange(theirs, like, size), size)


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
        raise UserError(f"{path}: cannot be read as a state dict: {error}") from error


def fresh_state(config: ConfigDict) -> TrainState:
    """The state with which a run of this config starts."""
    side, sources = config.data.image_size, len(config.data.sources.split(","))
    times = {name: np.ones((1, sources), np.float32) for name in ("tr", "te", "ti")}
    images = {"sources": np.zeros((1, side, side, sources), np.float32), "target": np.zeros((1, side, side), np.float32)}
    return create_train_state(methods.create(config), make_optimizer(config.optimizer), jax.random.key(0), images | times)


def check_structure(config: ConfigDict) -> None:
    """Checks that a config describes their network, but for its size.

    Raises:
      UserError: the first field that does not, with what it must be.
    """
    validate(config)
    for field, choices in _STRUCTURE.items():
        section, name = field.split(".")
        if config[section][name] not in choices:
            raise UserError(f"--config.{field}={config[section][name]}: the authors' network has {choices[0]}; take :authors")
    mult = config.model.channel_mult
    if len(mult) < 2 or mult[-1] == mult[-2]:
        raise UserError(f"--config.model.channel_mult={mult}: the last level must have a number of channels of its own")


def write_checkpoint(config: ConfigDict, weights: Path, ema: Path | None, workdir: Path) -> int:
    """Writes the first checkpoint of a run whose parameters, and their average, come from state dicts; returns its step.

    Raises:
      UserError: a field, a file or the workdir does not fit.
    """
    check_structure(config)
    if any((workdir / "checkpoints").glob("[0-9]*")):
        raise UserError(f"{workdir}: holds checkpoints already; choose another --workdir")
    state, size = fresh_state(config), build_network(config).backbone

    def imported(path: Path) -> Params:
        theirs = read(path)
        try:
            return to_params(theirs, state.params, size)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error

    params = imported(weights)
    steps = re.search(r"\d{6,}$", weights.stem)
    step = int(steps[0]) if steps else 0
    state = state.replace(step=np.int32(step), params=params, ema_params=imported(ema) if ema else params)

    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(json.loads(config.to_json()), indent=2) + "\n")
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(step, state, iter(grain.MapDataset.range(1).to_iter_dataset()))  # of data, the first position
    checkpoints.close()
    return step


def main() -> None:
    """Runs what the flags ask for."""
    config, workdir = cli.config_of(_CONFIG), Path(_WORKDIR.value)
    step = write_checkpoint(config, Path(_WEIGHTS.value), Path(_EMA.value) if _EMA.value else None, workdir)
    print(f"{workdir}: a checkpoint of step {step}; to evaluate it: python -m mrdiff_jax.main --mode=eval, with this config")


if __name__ == "__main__":
    cli.run(main, __doc__)
