"""Reverse samplers: free functions over a denoiser `f(x_t, t) -> x0_hat`, x_t of shape (B, ...).

t (B,) is the index of the step on the chain that the network was trained on.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax.diffusion.process import posterior
from mrdiff_jax.diffusion.schedules import Schedule, respace
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Sampling
from mrdiff_jax.streams import normal_like, stream

Denoiser = Callable[[Array, Array], Array]


def chain_of(schedule: Schedule, sampling: Sampling) -> Schedule:
    """The chain that the settings walk. Raises UserError where the schedule does not have it."""
    total = len(schedule.alpha_bar)
    if sampling.steps > total:
        raise UserError(f"--config.sample.steps={sampling.steps}: the chain has {total} steps")
    try:
        return respace(schedule, sampling.steps, sampling.spacing)
    except ValueError as error:
        raise UserError(
            f"--config.sample.steps={sampling.steps} with --config.sample.spacing={sampling.spacing}: {error}"
        ) from error


def start(like: Array, rng: Array) -> Array:
    """x_T: standard normal noise of the shape of `like`, one key an example."""
    return normal_like(like, stream(rng, "start"))


def sample(denoise: Denoiser, chain: Schedule, like: Array, rng: Array, sampling: Sampling) -> Array:
    """An image of the shape of `like` (B, ...), in [-1, 1], by the sampler of the settings; rng is one key an example."""
    x_T = start(like, rng)
    if sampling.sampler == "ddim":
        return ddim(denoise, chain, x_T, rng, sampling.eta)
    return {"ddpm": ddpm, "dpm": dpm_solver}[sampling.sampler](denoise, chain, x_T, rng)


class Reverse(NamedTuple):
    """Each step of a sampler: x <- x_0_weight x0 + x_t_weight x_t + deviation noise; fields (S,).

    x0 is x0_hat, moved on by `trend` times its difference from the step before.
    """

    x_0_weight: np.ndarray
    x_t_weight: np.ndarray
    deviation: np.ndarray
    trend: np.ndarray


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
    sigma = eta * np.sqrt(posterior(schedule).variance)
    return _walk(denoise, schedule, _along_noise(schedule, sigma), x_T, rng)


def ddpm(denoise: Denoiser, schedule: Schedule, x_T: Array, rng: Array) -> Array:
    """Samples by ancestral DDPM with the larger variance, beta_t (Ho et al. 2020, Sec. 3.2).

    The smaller one, the posterior's, is `ddim` with eta = 1. Arguments and result as there.
    """
    step = posterior(schedule)
    beta = 1 - schedule.alpha_bar / schedule.alpha_bar_previous
    return _walk(denoise, schedule, Reverse(step.x_0_weight, step.x_t_weight, np.sqrt(beta), np.zeros_like(beta)), x_T, rng)


def dpm_solver(denoise: Denoiser, schedule: Schedule, x_T: Array, rng: Array) -> Array:
    """Samples by DPM-Solver++(2M) (Lu et al. 2022, Alg. 2): a path of second order, for few steps.

    It is `ddim` with eta = 0, but for the trend of x0_hat along lambda = log(sqrt(alpha_bar / (1 - alpha_bar))), which counts
    from the second step to the last but one. Arguments and result as there.
    """
    steps = _along_noise(schedule, np.zeros(len(schedule.alpha_bar)))
    with np.errstate(divide="ignore"):
        reached = 0.5 * np.log(schedule.alpha_bar_previous / (1 - schedule.alpha_bar_previous))  # infinite at the clean image
    width = reached - 0.5 * np.log(schedule.alpha_bar / (1 - schedule.alpha_bar))  # of each step
    trend = np.append(0.5 * width[:-1] / width[1:], 0.0)
    trend[0] = 0.0
    return _walk(denoise, schedule, steps._replace(trend=trend), x_T, rng)


def _along_noise(schedule: Schedule, sigma: np.ndarray) -> Reverse:
    """Steps that keep the direction of the noise but for a share of deviation sigma (S,), which is drawn anew."""
    alpha_bar, previous = schedule.alpha_bar, schedule.alpha_bar_previous
    x_0_weight = np.sqrt(previous) - np.sqrt(np.maximum(1 - previous - sigma**2, 0) * alpha_bar / (1 - alpha_bar))
    x_t_weight = np.sqrt(np.maximum(1 - previous - sigma**2, 0) / (1 - alpha_bar))
    return Reverse(x_0_weight, x_t_weight, sigma, np.zeros_like(sigma))


def _walk(denoise: Denoiser, schedule: Schedule, steps: Reverse, x_T: Array, rng: Array) -> Array:
    """Walks the chain from noise to image; the last step adds no noise."""
    steps = steps._replace(deviation=np.append(0.0, steps.deviation[1:]))
    chain = jnp.asarray(schedule.timesteps), jax.tree.map(lambda c: jnp.asarray(c, x_T.dtype), steps)

    def reverse_step(walk: tuple[Array, Array], at: tuple[Array, Reverse]) -> tuple[tuple[Array, Array], None]:
        (x_t, before), (t, step) = walk, at
        x0_hat = jnp.clip(denoise(x_t, jnp.full(x_t.shape[0], t)).astype(x_t.dtype), -1, 1)
        x_0 = x0_hat + step.trend * (x0_hat - before)
        noise = normal_like(x_t, stream(rng, "walk", t))
        return (step.x_0_weight * x_0 + step.x_t_weight * x_t + step.deviation * noise, x0_hat), None

    (sample, _), _ = jax.lax.scan(reverse_step, (x_T, jnp.zeros_like(x_T)), chain, reverse=True)
    return sample
