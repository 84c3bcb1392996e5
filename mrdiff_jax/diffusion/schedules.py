"""Noise schedules, and shorter chains over the same noise levels."""

from typing import Literal, NamedTuple

import numpy as np

Spacing = Literal["fractional", "stride"]


class Schedule(NamedTuple):
    """A noise schedule.

    Attributes:
      alpha_bar: (S,) share of the signal's variance left at each step, decreasing.
      timesteps: (S,) int, index of each step on the chain of training; 0 .. T-1 unless respaced.
    """

    alpha_bar: np.ndarray
    timesteps: np.ndarray

    @property
    def alpha_bar_previous(self) -> np.ndarray:
        """(S,) alpha_bar of the step before; 1, no noise, before the first."""
        return np.append(1.0, self.alpha_bar[:-1])


def cosine_schedule(steps: int) -> Schedule:
    """Cosine schedule (Nichol and Dhariwal 2021), betas clipped at 0.999."""

    def level(t: np.ndarray) -> np.ndarray:
        return np.cos((t / steps + 0.008) / 1.008 * np.pi / 2) ** 2

    t = np.arange(steps)
    return _from_betas(np.minimum(1 - level(t + 1) / level(t), 0.999))


def linear_schedule(steps: int) -> Schedule:
    """Linear schedule (Ho et al. 2020): betas 1e-4 .. 0.02 at 1000 steps, scaled to other lengths, below 0.999."""
    return _from_betas(np.minimum(np.linspace(1e-4, 0.02, steps) * 1000 / steps, 0.999))


def _from_betas(betas: np.ndarray) -> Schedule:
    return Schedule(np.cumprod(1 - betas), np.arange(len(betas)))


SCHEDULES = {"cosine": cosine_schedule, "linear": linear_schedule}


def respace(schedule: Schedule, steps: int, spacing: Spacing = "fractional") -> Schedule:
    """A shorter chain over the same noise levels.

    Args:
      schedule: the chain of training, of T steps.
      steps: steps to keep, 1 <= steps <= T.
      spacing: 'fractional' keeps rounded fractional strides with both ends, 0 and T - 1; 'stride' keeps 0, s, 2s, ... with
        the whole s that gives that many (DDIM's). A single step is T - 1, the direct estimate from noise, in both.

    Raises:
      ValueError: more steps than the chain has, fewer than one, or no whole stride gives that many.
    """
    total = len(schedule.alpha_bar)
    if not 1 <= steps <= total:
        raise ValueError(f"a chain of {total} steps cannot be respaced to {steps}")
    if steps == 1:
        kept = np.array([total - 1])
    elif spacing == "fractional":
        strides = np.full(steps - 1, (total - 1) / (steps - 1))
        kept = np.round(np.append(0, np.cumsum(strides))).astype(int)  # summed, as ADM does: rounding decides some halves
    else:
        strides = [stride for stride in range(1, total) if len(range(0, total, stride)) == steps]
        if not strides:
            raise ValueError(f"no whole stride makes {steps} steps of {total}; take a divisor, or spacing 'fractional'")
        kept = np.arange(0, total, strides[0])
    return Schedule(schedule.alpha_bar[kept], schedule.timesteps[kept])
