"""Wall and CPU seconds of functions, called in turn."""

import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Record = dict[str, Any]
LEAST = 3  # rounds, however long they take


def interleaved(*functions: Callable[[], Any], most: float = 8.0, repeats: int = 20) -> list[Record]:
    """Median wall and CPU seconds of a call of each function, in turn, so that what else the machine does slows all alike.

    One call of each is not counted. There are `repeats` rounds, or fewer where they take longer than `most` seconds.
    """
    for function in functions:
        jax.block_until_ready(function())
    rounds, start = [], time.perf_counter()
    while len(rounds) < LEAST or (len(rounds) < repeats and time.perf_counter() - start < most):
        rounds.append([_cost(function) for function in functions])
    medians = np.median(np.reshape(rounds, (len(rounds), len(functions), 2)), axis=0)
    return [{"seconds": float(wall), "cpu_seconds": float(cpu), "repeats": len(rounds)} for wall, cpu in medians]


def _cost(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    jax.block_until_ready(function())
    return time.perf_counter() - wall, cpu_seconds() - cpu


def compared(functions: Mapping[str, Callable[[], Any]]) -> dict[str, Record]:
    """The same by name, with how many times as long as the first each takes."""
    records = dict(zip(functions, interleaved(*functions.values()), strict=True))
    first = next(iter(records.values()))["seconds"]
    return {name: record | {"times_the_first": record["seconds"] / first} for name, record in records.items()}


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """User and system seconds of this process, of all its threads; or of its children that have ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime
