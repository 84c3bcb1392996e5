"""Trained models: what synthesis needs of a run, read from its workdir or from an exported pair of files.

An exported pair is NAME.safetensors, the averaged weights that synthesis reads, and NAME.json: the configuration, and what
`data.training_data.TrainingData` says of the training data.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.errors
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
from safetensors import SafetensorError, numpy, safe_open

from mrdiff_jax import methods
from mrdiff_jax.config import from_json, split_names
from mrdiff_jax.data.training_data import TrainingData
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods import Method, Params
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import replacing

_FORMAT = "mrdiff_jax synthesizer"
_DESCRIPTION = {"format", "step", "weights_sha256", "training_data", "config"}


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
      config: of the run.
      data: what its training slices were.
      step: steps of training.
      params: averaged parameters, numpy arrays: those that synthesis reads.
      maps: whether those that the feature maps need are among them.
    """

    config: ConfigDict
    data: TrainingData
    step: int
    params: Params
    maps: bool = False

    @cached_property
    def sha256(self) -> str:
        """Checksum of the parameters; the same for a workdir and what is exported from it."""
        return _checksum(flatten_dict(self.params, sep="/"))


def load(path: Path, maps: bool = False) -> Trained:
    """Reads a trained model from a workdir, or from either file of an exported pair.

    Args:
      path: of the folder or the file.
      maps: whether to read as well what the feature maps need; an exported pair does not hold that.

    Raises:
      UserError: a file is missing, cannot be read, or does not fit the others; the message names it and the parameter.
    """
    if path.is_dir():
        return _load_workdir(path, maps)
    if path.suffix in (".safetensors", ".json"):
        return _load_pair(path.with_suffix(".safetensors"), path.with_suffix(".json"), maps)
    raise UserError(f"{path}: no such folder; give the workdir of a run, or an exported .safetensors file")


def _load_workdir(workdir: Path, maps: bool) -> Trained:
    from mrdiff_jax.storage.checkpoints import restore_average  # orbax, which an exported pair does without

    config = _config(json_files.read(workdir / "config.json", "not the workdir of a run"), workdir / "config.json")
    mend = "python -m mrdiff_jax.main --mode=eval, with the config and the data of the run, writes it"
    described = workdir / "training_data.json"
    data = _training_data(json_files.read(described, mend), config, described, f"remove it, then {mend}")
    step, params = restore_average(workdir, _chooser(config, maps, workdir / "checkpoints"))
    return Trained(config, data, step, params, maps)


def _load_pair(weights: Path, description: Path, maps: bool) -> Trained:
    about = json_files.read(description, "it belongs beside its .safetensors file")
    if about.get("format") != _FORMAT or not about.keys() >= _DESCRIPTION:
        raise UserError(f"{description}: does not describe an exported model; give the .json file of the export")
    config = _config(about["config"], description)
    data = _training_data(about["training_data"], config, description, "export the model again")
    try:
        with safe_open(weights, framework="numpy") as file:
            shapes = {name: jax.ShapeDtypeStruct(file.get_slice(name).get_shape(), np.float32) for name in file.keys()}  # noqa: SIM118
            chosen = flatten_dict(_chooser(config, maps, weights)({"stats": {}} | unflatten_dict(shapes, sep="/")), sep="/")
            if surplus := sorted(shapes.keys() - chosen.keys()):
                raise UserError(f"{weights}: {surplus[0]} is no parameter of the model in {description.name}")
            params = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: not a readable safetensors file ({error}); export it again") from error
    trained = Trained(config, data, about["step"], {"stats": {}} | unflatten_dict(params, sep="/"))
    if trained.sha256 != about["weights_sha256"]:
        raise UserError(f"{weights}: holds other weights than {description.name} was written with; keep pairs together")
    return trained


def export(trained: Trained, path: Path) -> None:
    """Writes a trained model as PATH.safetensors and PATH.json.

    Raises:
      UserError: the JSON file is there and describes no exported model.
    """
    description = path.with_suffix(".json")
    if description.exists() and json_files.read(description, "choose another --output").get("format") != _FORMAT:
        raise UserError(f"{description}: is there and no export; choose another --output")
    about = {
        "format": _FORMAT,
        "step": trained.step,
        "weights_sha256": trained.sha256,
        "training_data": trained.data.to_json(),
        "config": json.loads(trained.config.to_json()),
    }
    with replacing(path.with_suffix(".safetensors")) as aside:
        aside.write_bytes(numpy.save(flatten_dict(trained.params, sep="/")))
    json_files.write(description, about)


def _chooser(config: ConfigDict, maps: bool, path: Path) -> Callable[[Params], Params]:
    """From the shapes of all parameters to those that synthesis, and the feature maps, read.

    It raises UserError, naming the file at `path` and the parameter, where the shapes do not fit the configuration.
    """
    method = methods.create(config)

    def choose(shapes: Params) -> Params:
        try:
            return methods.parameters_read(_synthesis(method, maps), shapes, *_example(config))
        except (flax.errors.FlaxError, KeyError) as error:
            why = re.sub(r"\s*\(https?://\S+\)", "", " ".join(str(error).split()))
            mend = "; feature maps need the workdir" if maps else ""
            raise UserError(f"{path}: does not fit the configuration beside it: {why}{mend}") from error

    return choose


def _synthesis(method: Method, maps: bool) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return method.synthesize(*args), method.describe(*args) if maps else ()

    return run


def _example(config: ConfigDict) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    """Shapes of a batch of one, and of its key."""
    side, k = config.data.image_size, len(split_names(config.data.sources))
    shapes = {"sources": (1, side, side, k), "tr": (1, k), "te": (1, k), "ti": (1, k)}
    key = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}, key


def _config(values: dict[str, Any], path: Path) -> ConfigDict:
    try:
        return from_json(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _training_data(data: Any, config: ConfigDict, path: Path, mend: str) -> TrainingData:
    """The description of the training data, checked against itself and the configuration."""
    try:
        read = TrainingData.from_json(data)
    except ValueError as error:
        raise UserError(f"{path}: is damaged, or of another version ({error}); {mend}") from error
    names = (*read.sources, read.target)
    configured = (*split_names(config.data.sources), config.data.target.strip())
    if names != configured:
        raise UserError(f"{path}: is of {', '.join(names)}, the configuration beside it of {', '.join(configured)}; {mend}")
    return read


def _checksum(flat: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(flat.items()):
        digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
