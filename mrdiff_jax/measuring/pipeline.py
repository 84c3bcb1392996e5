"""What the input pipeline gives, and what a training that waits for it loses."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrdiff_jax import parallel
from mrdiff_jax.config import Config
from mrdiff_jax.data.batches import READ_OPTIONS
from mrdiff_jax.measuring.timing import Record
from mrdiff_jax.training.loop import Run
from mrdiff_jax.training.meter import Meter


def batches_per_second(iterator: Iterator[Any], seconds: float = 3.0) -> float:
    """Batches a second that a pipeline gives to a device that takes no time, measured for that long."""
    _skip_what_was_read_ahead(iterator)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(iterator)
        count += 1
    return count / (time.perf_counter() - start)


def input_pipeline(config: Config, steps: int, seconds: float, repeats: int = 3) -> Record:
    """A training's pipeline alone, and its step beside the same on a batch that is there: medians of stretches in turn.

    `parallel.initialize` comes before.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, Path(folder))
        run.checkpoints.close()
        alone, state = batches_per_second(run.iterator, seconds), parallel.replicate(run.initial())
        there, progress = next(run.iterator), np.zeros(jax.local_device_count(), np.float32)

        def seconds_of_a_step(batch: Callable[[], Any]) -> float:
            """Over a stretch of steps that are handed out as the loop does."""
            nonlocal state
            meter, start = Meter(0), time.perf_counter()
            for _ in range(steps):
                state, metrics = run.train_step(state, parallel.shard(batch()), progress)
                meter.add(metrics)
            jax.block_until_ready(metrics)
            return (time.perf_counter() - start) / steps

        seconds_of_a_step(lambda: there)  # compiles
        rounds = []
        for _ in range(repeats):
            _skip_what_was_read_ahead(run.iterator)
            rounds.append([seconds_of_a_step(lambda: next(run.iterator)), seconds_of_a_step(lambda: there)])
    fed, held = (float(median) for median in np.median(rounds, axis=0))
    record = {"batches_per_second": alone, "step_s": fed, "step_without_pipeline_s": held}
    return record | {"idle_share": max(0.0, 1 - held / fed)}


def _skip_what_was_read_ahead(iterator: Iterator[Any]) -> None:
    for _ in range(READ_OPTIONS.prefetch_buffer_size):
        next(iterator)
