"""The diffusion process: noise schedules, the forward process, and reverse samplers.

x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (paper, Eq. 2). The samplers are free functions over a denoiser
`f(x_t, t) -> x0_hat`, x_t of shape (B, ...), t of shape (B,): the step index on the chain that the network was trained on.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Denoiser = Callable[[Array, Array], Array]
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
        the whole s that gives so many (DDIM's). A single step is T - 1, the direct estimate from noise, in both.

    Raises:
      ValueError: more steps than the chain has, fewer than one, or no whole stride gives so many.
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


def ddim(denoise: Denoiser, schedule: Schedule, x_T: Array, rng: Array, eta: float = 1.0) -> Array:
    """Samples by DDIM (Song et al. 2021, Eq. 12).

    With eta = 1 each step draws from the posterior of the (respaced) chain, with eta = 0 the path is deterministic.

    Args:
      denoise: f(x_t, t) -> x0_hat; its estimates are clipped to [-1, 1].
      schedule: the chain to walk, respaced.
      x_T: (B, ...) standard normal noise.
      rng: (B,) keys, one an example.
      eta: share of fresh noise, in [0, 1].

    Returns:
      (B, ...) samples in [-1, 1].
    """
    alpha_bar, previous = schedule.alpha_bar, schedule.alpha_bar_previous
    sigma = eta * np.sqrt(posterior(schedule).variance)
    x_0_weight = np.sqrt(previous) - np.sqrt(np.maximum(1 - previous - sigma**2, 0) * alpha_bar / (1 - alpha_bar))
    x_t_weight = np.sqrt(np.maximum(1 - previous - sigma**2, 0) / (1 - alpha_bar))
    return _walk(denoise, schedule, Posterior(x_0_weight, x_t_weight, sigma**2), x_T, rng)


def ddpm(denoise: Denoiser, schedule: Schedule, x_T: Array, rng: Array) -> Array:
    """Samples by ancestral DDPM with the larger variance, beta_t (Ho et al. 2020, Sec. 3.2).

    The smaller one, the posterior's, is `ddim` with eta = 1. Arguments and result as there.
    """
    step = posterior(schedule)
    beta = 1 - schedule.alpha_bar / schedule.alpha_bar_previous
    return _walk(denoise, schedule, step._replace(variance=beta), x_T, rng)


def _walk(denoise: Denoiser, schedule: Schedule, step: Posterior, x_T: Array, rng: Array) -> Array:
    """Walks the chain from noise to image: x <- x_0_weight x0_hat + x_t_weight x + sqrt(variance) noise."""
    sigma = np.sqrt(step.variance)
    sigma[0] = 0.0  # the last step adds no noise
    coefficients = (step.x_0_weight, step.x_t_weight, sigma)
    chain = (jnp.asarray(schedule.timesteps), *(jnp.asarray(c, x_T.dtype) for c in coefficients))

    def reverse_step(x_t: Array, at: tuple[Array, ...]) -> tuple[Array, None]:
        t, x_0_weight, x_t_weight, sigma_t = at
        x0_hat = jnp.clip(denoise(x_t, jnp.full(x_t.shape[0], t)), -1, 1)
        return x_0_weight * x0_hat + x_t_weight * x_t + sigma_t * normal_like(x_t, rng, t), None

    return jax.lax.scan(reverse_step, x_T, chain, reverse=True)[0]


def normal_like(x: Array, rng: Array, salt: Array | int) -> Array:
    """Standard normal noise of the shape of x (B, ...), example i from the key `fold_in(rng[i], salt)`."""

    def draw(key: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, salt), x.shape[1:], x.dtype)

    return jax.vmap(draw)(rng)


def _column(values: Array, x: Array) -> Array:
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))
