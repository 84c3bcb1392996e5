"""Where a run's numbers and pictures go: the console, `log.jsonl` and TensorBoard event files."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter

from mrdiff_jax.storage import json_files

logger = logging.getLogger("mrdiff_jax")


def log_to_console() -> None:
    """Sends this package's messages to stderr, a line each."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class Writer:
    """Writes scalars and images of one run; on processes other than the first it does nothing."""

    def __init__(self, workdir: Path, active: bool):
        self._events = SummaryWriter(str(workdir), max_queue=0, flush_secs=30) if active else None
        self._lines = (workdir / "log.jsonl").open("a", buffering=1) if active else None

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


def duration(seconds: float) -> str:
    """A time span as people say it: '45 s', '12 min', '3 h 20 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
