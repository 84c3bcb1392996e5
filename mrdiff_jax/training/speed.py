"""How long a training step takes."""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from mrdiff_jax import parallel
from mrdiff_jax.config import Config
from mrdiff_jax.training.loop import Run

_PROGRESS = np.linspace(0.05, 0.95, 10)


def seconds_of_a_step(config: Config, seconds: float = 4.0) -> float:
    """Measures a training step, its batch included, for that long; over all of the training's progress, for steps may differ.

    The first step, which compiles, does not count. `parallel.initialize` comes before.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
        state, start, steps = parallel.replicate(run.initial()), 0.0, 0
        while not steps or time.monotonic() < start + seconds or steps % len(_PROGRESS) != 1:
            progress = np.full(jax.local_device_count(), _PROGRESS[steps % len(_PROGRESS)], np.float32)
            state, metrics = run.train_step(state, parallel.shard(next(run.iterator)), progress)
            jax.block_until_ready(metrics)
            start, steps = start or time.monotonic(), steps + 1
        run.checkpoints.close()
        return (time.monotonic() - start) / (steps - 1)
