"""What the steps of training report, gathered without holding up the devices."""

import time
from collections.abc import Mapping

import jax
import numpy as np
from jax import Array

_IN_FLIGHT = 2  # steps handed to the devices ahead of the one that is awaited


class Meter:
    """The scalars of the steps since the last report, on the devices until they are read, and the pace of these steps."""

    def __init__(self, step: int):
        """Starts after `step`."""
        self._step = step
        self._pending: list[Mapping[str, Array]] = []
        self._in_flight: list[Mapping[str, Array]] = []
        self._ended: Mapping[str, Array] = {}
        self.restart()

    def add(self, metrics: Mapping[str, Array]) -> None:
        """Takes the replicated scalars of the next step, and waits where the devices have fallen behind."""
        self._pending.append(metrics)
        self._step += 1
        self._timed += 1
        self._in_flight.append(metrics)
        if len(self._in_flight) > _IN_FLIGHT:
            self._ended = jax.block_until_ready(self._in_flight.pop(0))

    @property
    def pending(self) -> bool:
        """Whether there are steps since the last report."""
        return bool(self._pending)

    def progress(self) -> float:
        """Of the training, what was done when the newest step began that the devices have ended."""
        return float(self._ended["progress"].addressable_data(0)[0]) if self._ended else 0.0

    def restart(self) -> None:
        """Starts the clock again, after something other than training."""
        self._timed, self._since = 0, time.monotonic()

    def clear(self) -> None:
        """Forgets the scalars and starts the clock again."""
        self._pending = []
        self.restart()

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Each step with its scalars."""
        first = self._step - len(self._pending) + 1
        rows = jax.device_get(self._pending)
        return [(first + i, {name: float(value[0]) for name, value in row.items()}) for i, row in enumerate(rows)]

    def means(self) -> dict[str, float]:
        """The scalars averaged over the steps."""
        rows = [row for _, row in self.read()]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def speed(self) -> float:
        """Steps a second since the clock was started."""
        return self._timed / max(time.monotonic() - self._since, 1e-9)
