"""Trained models: what synthesis needs of a run, read from its workdir or from an exported pair of files.

An exported pair is NAME.safetensors, the averaged weights that synthesis reads (and the feature maps, if asked for), and
NAME.json: the configuration, and what `data.training_data.TrainingData` says of the training data.
"""

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import flax.errors
import jax
import numpy as np
from safetensors import SafetensorError, numpy, safe_open

from mrdiff_jax import methods
from mrdiff_jax.config import Config, from_json
from mrdiff_jax.data.training_data import TrainingData
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.methods import reading
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import replacing

_FORMAT = "mrdiff_jax synthesizer"
_DESCRIPTION = {"format", "step", "maps", "weights_sha256", "training_data", "config"}


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
      config: of the run.
      data: what its training slices were.
      step: steps of training.
      variables: numpy arrays, averages where they are kept: those that synthesis reads.
      maps: whether those that the feature maps need are among them.
    """

    config: Config
    data: TrainingData
    step: int
    variables: Variables
    maps: bool = False

    @cached_property
    def sha256(self) -> str:
        """Checksum of the variables; the same for a workdir and what is exported from it."""
        return _checksum(reading.flatten(self.variables))


def load(path: Path, maps: bool = False) -> Trained:
    """Reads a trained model from a workdir, or from either file of an exported pair.

    Args:
      path: of the folder or the file.
      maps: whether to read as well what the feature maps need; an exported pair holds that if it was written so.

    Raises:
      UserError: a file is missing, cannot be read, or does not fit the others (the message names it and the parameter); or
        there are no feature maps.
    """
    if path.is_dir():
        return _load_workdir(path, maps)
    if path.suffix in (".safetensors", ".json"):
        return _load_pair(path.with_suffix(".safetensors"), path.with_suffix(".json"), maps)
    raise UserError(f"{path}: no such folder; give the workdir of a run, or an exported .safetensors file")


def _load_workdir(workdir: Path, maps: bool) -> Trained:
    from mrdiff_jax.storage.checkpoints import restore_part  # orbax, which an exported pair does without

    config = _config(json_files.read(workdir / "config.json", "not the workdir of a run"), workdir / "config.json")
    fix = f"mrdiff train --workdir={shlex.quote(str(workdir))} --mode=eval, with the data of the run, writes it"
    described = workdir / "training_data.json"
    data = _training_data(json_files.read(described, fix), config, described, f"remove it, then {fix}")
    choose = _chooser(config, maps, workdir / "checkpoints")
    step, variables = reading.restore_evaluated(partial(restore_part, workdir), choose)
    return Trained(config, data, step, variables, maps)


def _load_pair(weights: Path, description: Path, maps: bool) -> Trained:
    about = json_files.read(description, "it belongs beside its .safetensors file")
    if about.get("format") != _FORMAT:
        raise UserError(f"{description}: does not describe an exported model; give the .json file of the export")
    if missing := ", ".join(sorted(_DESCRIPTION - about.keys())):
        raise UserError(f"{description}: says nothing of {missing}; it is of an older version, export the model again")
    if maps and not about["maps"]:
        raise UserError(f"{weights}: lacks what feature maps need; export it with --maps, or give --workdir the run itself")
    config = _config(about["config"], description)
    data = _training_data(about["training_data"], config, description, "export the model again")
    try:
        with safe_open(weights, framework="numpy") as file:
            shapes = {name: jax.ShapeDtypeStruct(file.get_slice(name).get_shape(), np.float32) for name in file.keys()}  # noqa: SIM118
            chosen = reading.flatten(_chooser(config, about["maps"], weights)(reading.unflatten(shapes)))
            if surplus := sorted(shapes.keys() - chosen.keys()):
                raise UserError(f"{weights}: {surplus[0]} is no part of the model in {description.name}")
            arrays = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights}: not a readable safetensors file ({error}); export it again") from error
    if _checksum(arrays) != about["weights_sha256"]:
        raise UserError(f"{weights}: holds other weights than {description.name} was written with; keep pairs together")
    variables = reading.unflatten(arrays)
    if about["maps"] and not maps:
        variables = _chooser(config, maps, weights)(variables)
    return Trained(config, data, about["step"], variables, maps)


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
        "maps": trained.maps,
        "weights_sha256": trained.sha256,
        "training_data": trained.data.to_json(),
        "config": trained.config.to_dict(),
    }
    with replacing(path.with_suffix(".safetensors")) as aside:
        aside.write_bytes(numpy.save(reading.flatten(trained.variables)))
    json_files.write(description, about)


def _chooser(config: Config, maps: bool, path: Path) -> Callable[[Variables], Variables]:
    """From the shapes of all variables to those that synthesis, and the feature maps, read.

    It raises UserError, naming the file at `path` and the parameter, where the shapes do not fit the configuration.

    Raises:
      UserError: the method has no feature maps.
    """
    method = methods.create(config)
    if maps and not method.described:
        raise UserError(f"{path}: the method {config.method.name} has no feature maps")

    def choose(shapes: Variables) -> Variables:
        try:
            return reading.synthesis_part(method, config, shapes, maps=maps)
        except (flax.errors.FlaxError, KeyError, TypeError) as error:
            why = re.sub(r"\s*\(https?://\S+\)", "", " ".join(str(error).split()))
            raise UserError(f"{path}: does not fit the configuration beside it: {why}") from error

    return choose


def _config(values: dict[str, Any], path: Path) -> Config:
    try:
        return from_json(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _training_data(data: Any, config: Config, path: Path, fix: str) -> TrainingData:
    """The description of the training data, checked against itself and the configuration."""
    try:
        read = TrainingData.from_json(data)
    except ValueError as error:
        raise UserError(f"{path}: is damaged, or of another version ({error}); {fix}") from error
    names = (*read.sources, read.target)
    configured = (*split_names(config.data.sources), config.data.target.strip())
    if names != configured:
        raise UserError(f"{path}: is of {', '.join(names)}, the configuration beside it of {', '.join(configured)}; {fix}")
    return read


def _checksum(flat: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(flat.items()):
        digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
