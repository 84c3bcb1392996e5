"""Checkpoints: the state of a run and of its data iterator, written aside and renamed, so that none is ever torn.

Each holds the checksums of its files, and is read only if they are right. Reading writes nothing: a run may be read while it
trains. The only file that knows of orbax.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.storage import checksums, scores

Tree = TypeVar("Tree")
T = TypeVar("T")
_DATED = "_CHECKPOINT_METADATA"  # to which orbax adds when the checkpoint gets its name
_SETTLE = 1.0  # s: until the threads of a save that failed have ended; later they would write to the terminal
_ECHOES = (
    "Task exception was never retrieved",
    "run() raised an exception",
    "Failed to run",
    "Save Finalize thread",
    "Metadata file does not exist",
)


class Checkpoints:
    """The checkpoints below a run's folder, of which saving leaves the newest `keep`, and of those with a score the best."""

    def __init__(self, workdir: Path, keep: int):
        self.folder, self._keep = _folder(workdir), keep
        scores.read(self.folder)  # damage is told before the work, not after it
        self._manager: ocp.CheckpointManager | None = None

    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return max(_steps(self.folder), default=None)

    def save(self, step: int, state: Any, iterator: grain.DatasetIterator) -> None:
        """Saves a state (numpy arrays) and the position of the data; goes on in the background, but for the first.

        Raises:
          UserError: it, or one before, could not be written, or the first not be read again.
        """
        if step == self.latest():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator))
        with self._saving():
            first = self._manager is None
            if first:
                self._manager = self._open()
            self._manager.save(step, args=items)
            if first:
                self._manager.wait_until_finished()
        if first:
            self._try(step)

    def note(self, step: int, score: float, how: Mapping[str, Any], highest: bool) -> None:
        """Notes the score of a step's checkpoint, as `scores.note`."""
        if jax.process_index() == 0:
            scores.note(self.folder, step, score, how, highest)

    def has_score(self, step: int) -> bool:
        """Whether one is noted of a step."""
        return step in scores.read(self.folder).steps

    def restore(self, state: Tree, iterator: grain.DatasetIterator) -> Tree:
        """Restores the newest checkpoint: returns the state, shaped like the one given, and moves the iterator."""

        def read(path: Path) -> Tree:
            grain.checkpoint.CheckpointHandler().restore(path / "data", item=iterator)
            return _restored(path, state)

        step, restored = _read(self.folder, max, read)
        if jax.process_index() == 0:
            scores.forget_after(self.folder, step)
        return restored

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
          UserError: it could not be.
        """
        if self._manager is None:
            return
        with self._saving():
            self._manager.wait_until_finished()
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        _silence_echoes()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestAndBest(self.folder, self._keep),
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._sign),
        )
        return ocp.CheckpointManager(self.folder, options=options, item_names=("state", "data"))

    def _sign(self) -> None:
        """Adds the checksums to what is written, before it gets its name."""
        if jax.process_index() == 0:
            for folder in self._half_written():
                checksums.write(folder, without=[_DATED])

    def _try(self, step: int) -> None:
        """Reads something of a checkpoint."""
        try:
            _restored_part(self.folder / str(step), lambda shapes: {"step": shapes["step"]})
        except Exception as error:
            raise UserError(f"{self.folder}: what was saved there cannot be read again ({_reason(error)})") from error

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Says what goes wrong in one line, and clears away what is half written."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            manager, self._manager = self._manager, None
            with suppress(Exception):
                manager.close()
            del manager
            time.sleep(_SETTLE)
            for half in self._half_written():
                shutil.rmtree(half, ignore_errors=True)
            newest = "there is none" if self.latest() is None else f"the newest is of step {self.latest()}"
            raise UserError(f"{self.folder}: a checkpoint could not be saved ({_reason(error)}); {newest}") from error

    def _half_written(self) -> list[Path]:
        return list(self.folder.glob("*orbax-checkpoint-tmp*"))


@dataclass
class _NewestAndBest:
    """Which checkpoints stay."""

    folder: Path
    keep: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        stay = {*sorted(steps)[-self.keep :], scores.read(self.folder).best(steps)}
        return [step in stay for step in steps]


def restore_part(workdir: Path, choose: Callable[[Tree], Tree]) -> tuple[int, Tree]:
    """Restores a part of the state in a run's best checkpoint, or its newest where none has a score, and nothing else.

    Args:
      workdir: folder of the run.
      choose: takes the shapes of the whole state, as nested dictionaries, and keeps those to restore.

    Returns:
      The step, and that part as numpy arrays.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    folder = _folder(workdir)
    return _read(folder, partial(_best, folder), lambda path: _restored_part(path, choose))


def _folder(workdir: Path) -> Path:
    return (workdir / "checkpoints").absolute()


def _steps(folder: Path) -> list[int]:
    """Of the checkpoints that are whole, rising."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())


def _best(folder: Path, steps: list[int]) -> int:
    """Of these steps the one with the best score, or the newest where none has one."""
    found = scores.read(folder).best(steps)
    return max(steps) if found is None else found


def _read(folder: Path, pick: Callable[[list[int]], int], read: Callable[[Path], T]) -> tuple[int, T]:
    """The step of the checkpoint that is picked, and what `read` makes of it; one that a training removes meanwhile is none.

    Raises:
      UserError: there is none, or it is damaged; the message names the older ones that are not.
    """
    while True:
        steps = _steps(folder)
        if not steps:
            raise UserError(f"{folder}: no checkpoint; train first, with --mode=train")
        step = pick(steps)
        path = folder / str(step)
        try:
            if checksums.kept(path):
                problem = checksums.damage(path)
            else:
                problem = ""
                logger.warning("%s: has no checksums, so nobody knows whether it is damaged", path)
            if not problem:
                return step, read(path)
        except UserError:
            raise
        except Exception as error:  # damaged files make orbax raise whatever they meet
            problem = _reason(error)
        now = _steps(folder)
        if now and pick(now) == step:
            raise UserError(f"{path}: is damaged ({problem}); {_instead(folder, steps, step)}")


def _instead(folder: Path, steps: list[int], damaged: int) -> str:
    sound = [step for step in steps if checksums.kept(folder / str(step)) and not checksums.damage(folder / str(step))]
    if not sound:
        return "no other one is known to be sound: train again, into another --workdir"
    if damaged < steps[-1]:
        return f"sound: {', '.join(map(str, sound))}; remove {damaged}, and another of them takes its place"
    remove = [str(step) for step in steps if step > sound[-1]]
    return f"sound: {', '.join(map(str, sound))}; remove {' and '.join(remove)}, and all goes on from {sound[-1]}"


def _restored(path: Path, state: Tree) -> Tree:
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        return checkpointer.restore(path / "state", args=ocp.args.StandardRestore(abstract))


def _restored_part(path: Path, choose: Callable[[Tree], Tree]) -> Tree:
    """What `choose` keeps of the shapes of the state, as numpy arrays."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata(path / "state").item_metadata.tree
        wanted = choose(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
        return checkpointer.restore(path / "state", args)


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "No space left on device" if "No space left on device" in text else text.splitlines()[0][:120]


def _silence_echoes() -> None:
    """From now on leaves out what threads print beside the error: where one array cannot be written, a traceback for each."""
    default = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            default(unraisable)

    sys.unraisablehook = hook


def _says_something(record: logging.LogRecord) -> bool:
    """Not what is said here in one line, nor that orbax misses a file that it does not write."""
    return not any(part in record.getMessage() for part in _ECHOES)


for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_says_something)
