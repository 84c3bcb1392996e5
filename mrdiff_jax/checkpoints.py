"""Checkpoints: the state of a run and of its data iterator, written aside and renamed, so that none is ever torn.

The only file that knows of orbax.
"""

from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
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
        step = self.latest()
        if step is None:
            raise UserError(f"{self.folder}: no checkpoint; train first, with --mode=train")
        return step
