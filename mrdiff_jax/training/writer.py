"""Where a run's numbers and pictures go: `log.jsonl` and TensorBoard event files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrdiff_jax.storage import json_files
from mrdiff_jax.workdir import LOG


class Writer:
    """Writes scalars and images of one run; on processes other than the first it does nothing."""

    def __init__(self, workdir: Path, active: bool):
        self._events = self._lines = None
        if active:
            from tensorboardX import SummaryWriter  # not above: an evaluation logs nothing

            self._events = SummaryWriter(str(workdir), max_queue=0, flush_secs=30)
            self._lines = (workdir / LOG).open("a", buffering=1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records named scalars at a step."""
        if self._events is None:
            return
        self._lines.write(json_files.text({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Records an RGB image (H, W, 3) uint8 at a step."""
        if self._events is not None:
            self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is pending."""
        if self._events is not None:
            self._events.close()
            self._lines.close()
