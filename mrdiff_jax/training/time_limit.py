"""How long a run may take, and how far it is by the clock."""

import math
import time

from mrdiff_jax.log import duration, logger

_SLACK = 20.0  # s, for what is not measured


class TimeLimit:
    """A limit on a whole run, its final evaluation included; it counts from here. 0 minutes is none."""

    def __init__(self, minutes: float):
        self.started = time.monotonic()
        self._seconds = 60 * minutes
        self._end = math.inf

    def begin(self, evaluation: float) -> None:
        """Training may begin: it must end so that an evaluation of that many seconds fits behind it."""
        if not self._seconds:
            return
        logger.info("time limit %s, of which the evaluation needs %s", duration(self._seconds), duration(evaluation))
        self._end = self.started + self._seconds - 1.1 * evaluation - _SLACK
        if not self.left():
            logger.warning("no time is left to train: the evaluation follows; raise --config.train.max_minutes")

    def left(self) -> float:
        """Seconds to train."""
        return max(self._end - time.monotonic(), 0.0)

    def share(self) -> float:
        """Of the time to train, what is over; 0 without a limit."""
        if self._end == math.inf:
            return 0.0
        return min((time.monotonic() - self.started) / max(self._end - self.started, 1e-9), 1.0)

    def __bool__(self) -> bool:
        return self._seconds > 0
