"""The forward process, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (paper, Eq. 1 and 2), and its posterior."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax.diffusion.schedules import Schedule


def q_sample(schedule: Schedule, x_0: Array, t: Array, noise: Array) -> Array:
    """Draws x_t from q(x_t | x_0) (paper, Eq. 2).

    Args:
      schedule: an unrespaced schedule.
      x_0: (B, ...) clean images.
      t: (B,) int, steps.
      noise: like x_0, standard normal.
    """
    alpha_bar = _column(jnp.asarray(schedule.alpha_bar, x_0.dtype)[t], x_0)
    return jnp.sqrt(alpha_bar) * x_0 + jnp.sqrt(1 - alpha_bar) * noise


def x_0_of_noise(schedule: Schedule, x_t: Array, t: Array, noise: Array) -> Array:
    """The x_0 whose x_t has this noise: undoes `q_sample`; arguments as there."""
    alpha_bar = _column(jnp.asarray(schedule.alpha_bar, x_t.dtype)[t], x_t)
    return (x_t - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)


class Posterior(NamedTuple):
    """q(x_{t-1} | x_t, x_0) = N(x_0_weight x_0 + x_t_weight x_t, variance) at each step of a chain; fields (S,)."""

    x_0_weight: np.ndarray
    x_t_weight: np.ndarray
    variance: np.ndarray


def posterior(schedule: Schedule) -> Posterior:
    """The posterior of the forward process at every step (Ho et al. 2020, Eq. 7)."""
    alpha_bar, previous = schedule.alpha_bar, schedule.alpha_bar_previous
    alpha = alpha_bar / previous
    return Posterior(
        x_0_weight=np.sqrt(previous) * (1 - alpha) / (1 - alpha_bar),
        x_t_weight=np.sqrt(alpha) * (1 - previous) / (1 - alpha_bar),
        variance=(1 - previous) / (1 - alpha_bar) * (1 - alpha),
    )


def _column(values: Array, x: Array) -> Array:
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))
