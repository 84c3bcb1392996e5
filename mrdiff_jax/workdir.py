"""The folder of a run: what it holds beside checkpoints and results, whose it is, and who may write to it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax

from mrdiff_jax import parallel
from mrdiff_jax.config import Config
from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.data.training_data import TrainingData, describe_training
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.storage import json_files, lock
from mrdiff_jax.storage.files import write_text

CONFIG, IDENTITY, TRAINING_DATA, SPLITS = "config.json", "run.json", "training_data.json", "splits.csv"
LOG, PANELS, SAMPLES = "log.jsonl", "panels", "samples.png"
ANEW = "start anew in another --workdir, or remove this one"


def identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What makes a run itself, by flag; the rest may change when it goes on."""
    values = config.to_dict()
    sections = ("method", "data", "model", "optimizer", config.method.name)
    found = {f"--config.{section}.{field}": value for section in sections for field, value in values.get(section, {}).items()}
    for field in ("root", "cache", "splits_file"):  # where data and splits lie does not matter: their fingerprint says which
        found.pop(f"--config.data.{field}", None)
    settings = {f"--config.train.{name}": getattr(config.train, name) for name in ("seed", "init", "best_by")}
    settings |= {"the data set": dataset.fingerprint}
    return found | settings | parallel.numerics()


def check_same_run(workdir: Path, config: Config, dataset: Dataset) -> None:
    """Checks that a run in the workdir is this one.

    Raises:
      UserError: it has other settings or other data, and the message names all that differ; or it is of another version.
    """
    path = workdir / IDENTITY
    if not path.exists():
        return
    old = json_files.read(path, "remove it, if your settings are those of config.json beside it, and call again")
    current = identity(config, dataset)
    if unknown := sorted(current.keys() - old.keys()):
        raise UserError(f"{path}: was written by another version, which did not know {unknown[0]}; {ANEW}")
    if differ := [f"{name}={old[name]}, now {now}" for name, now in current.items() if old[name] != now]:
        raise UserError(f"{workdir}: holds a run with {'; '.join(differ)}; choose another --workdir or the same settings")


def claim(workdir: Path, config: Config, dataset: Dataset, method: Method) -> None:
    """Makes the workdir the home of this run: its settings, what identifies it, and the subjects of each split."""
    if jax.process_index():
        return
    check_same_run(workdir, config, dataset)  # again: until the lock was held, another process may have claimed it
    describe(workdir, dataset, method)
    json_files.write(workdir / CONFIG, config.to_dict())
    write_text(workdir / SPLITS, dataset.splits_file.read_text(encoding="utf-8"))
    json_files.write(workdir / IDENTITY, identity(config, dataset))


def describe(workdir: Path, dataset: Dataset, method: Method) -> None:
    """Leaves in the workdir what synthesis must know of the training data, unless it is there and readable."""
    if jax.process_index():
        return
    path = workdir / TRAINING_DATA
    try:
        TrainingData.from_json(json_files.read(path, ""))
    except (UserError, ValueError):
        json_files.write(path, describe_training(dataset, method.inverted).to_json())


def training(workdir: Path) -> AbstractContextManager[None]:
    """Held while a run trains: nobody else does. Raises UserError, naming the process, where another one trains."""
    return _alone(workdir / ".training.lock", "trains", wait=False)


def evaluating(workdir: Path, wait: bool = False) -> AbstractContextManager[None]:
    """Held while results are written. Raises UserError, or waits, where another process writes them."""
    return _alone(workdir / ".evaluating.lock", "evaluates", wait)


def _alone(path: Path, what: str, wait: bool) -> AbstractContextManager[None]:
    """A lock, where this process is the one that writes."""
    return nullcontext() if jax.process_index() else lock.hold(path, what, wait)
