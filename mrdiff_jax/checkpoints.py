"""Checkpoints: the state of a run and of its data iterator, written aside and renamed, so that none is ever torn.

The only file that knows of orbax.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from mrdiff_jax.errors import UserError

Tree = TypeVar("Tree")


class Checkpoints:
    """The checkpoints below a run's folder, the newest `keep` of them."""

    def __init__(self, workdir: Path, keep: int):
        self.folder = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "data"))

    def latest(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, iterator: grain.DatasetIterator) -> None:
        """Saves a state (numpy arrays) and the position of the data; goes on in the background."""
        if step == self.latest():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator))
        self._manager.save(step, args=items)

    def restore(self, state: Tree, iterator: grain.DatasetIterator) -> Tree:
        """Restores the newest checkpoint: returns the state, shaped like the one given, and moves the iterator."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), data=grain.checkpoint.CheckpointRestore(iterator))
        return self._manager.restore(self._newest(), args=items).state

    def restore_state(self, state: Tree) -> Tree:
        """Restores the newest checkpoint's state alone, shaped like the one given."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        return self._manager.restore(self._newest(), args=items).state

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _newest(self) -> int:
        return _require(self.latest(), self.folder)


def restore_average(workdir: Path, choose: Callable[[Tree], Tree]) -> tuple[int, Tree]:
    """Restores of a run's newest checkpoint a part of the averaged parameters, and nothing else; nothing is written.

    Args:
      workdir: folder of the run.
      choose: takes the shapes of all averaged parameters, and keeps those to restore.

    Returns:
      The step, and the parameters as numpy arrays.

    Raises:
      UserError: there is no checkpoint, or it cannot be read.
    """
    folder = (workdir / "checkpoints").absolute()
    step = _require(max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), default=None), folder)
    state = folder / str(step) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        try:
            tree = checkpointer.metadata(state).item_metadata.tree["ema_params"]
            wanted = {"ema_params": choose(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree))}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
            return step, checkpointer.restore(state, args)["ema_params"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # what damaged files make orbax raise
            raise UserError(f"{state}: cannot be read ({_first_line(error)}); remove {step}, or train again") from error


def _require(step: int | None, folder: Path) -> int:
    if step is None:
        raise UserError(f"{folder}: no checkpoint; train first, with --mode=train")
    return step


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
