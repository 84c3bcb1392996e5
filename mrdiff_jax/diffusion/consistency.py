"""Consistency training (Song et al. 2023, Alg. 3): noise levels, their number over the training, the loss, and sampling.

Noise levels are standard deviations of noise that is added to images in [-1, 1].
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax.diffusion.samplers import start
from mrdiff_jax.streams import normal_like, stream

Consistency = Callable[[Array, Array], Array]  # f(x (B, ...), sigma (B,)) -> clean images
DecayFormula = Literal["paper", "code"]
DISTANCES = ("pseudo_huber", "l1", "l2")

_TWO_STEP_INDEX, _TWO_STEP_LAST = 67, 150  # the second of two steps is at this index of the last grid (published for LSUN)


class Levels(NamedTuple):
    """The range of noise levels, and how they are spaced: evenly in sigma ** (1 / rho)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def at(self, index: Array, count: Array | int) -> Array:
        """Noise level at an index of a grid of that many, which falls from sigma_max at 0 to sigma_min at count - 1."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        sigma = (high + index / (count - 1) * (low - high)) ** self.rho
        return jnp.where(index == count - 1, self.sigma_min, sigma)  # exactly: there f is the identity


class Curriculum(NamedTuple):
    """How the grid grows with the progress k / K of the training, and how fast the target network follows.

    Attributes:
      start: s_0; N is s_0 at first.
      end: s_1; N is s_1 + 1 at last.
      decay: mu_0.
      formula: 'code' is exp(s_0 ln(mu_0) / (N - 1)), as both published programs compute it; 'paper' has N for N - 1.
    """

    start: int = 2
    end: int = 150
    decay: float = 0.95
    formula: DecayFormula = "code"

    def levels(self, progress: Array) -> Array:
        """N(k), int32."""
        squared = progress * ((self.end + 1) ** 2 - self.start**2) + self.start**2
        return jnp.ceil(jnp.sqrt(squared) - 1).astype(jnp.int32) + 1

    def target_decay(self, progress: Array) -> Array:
        """mu(k), the share that the target network keeps of itself."""
        count = self.levels(progress) - (self.formula == "code")
        return jnp.exp(self.start * np.log(self.decay) / count)


def draw_pair(levels: Levels, count: Array | int, rng: Array) -> tuple[Array, Array]:
    """Neighbouring noise levels of a grid of `count`, the larger first, each (B,): one pair drawn from each key."""
    index = jax.vmap(lambda key: jax.random.randint(key, (), 0, count - 1))(rng)
    return levels.at(index, count), levels.at(index + 1, count)


def training_loss(
    student: Consistency, target: Consistency, x_0: Array, noise: Array, pair: tuple[Array, Array], distance: str
) -> Array:
    """L_CT: the student at the larger noise level against the target network at the smaller one, with the same noise.

    Args:
      student: f, which is differentiated.
      target: f of the target network, which is not.
      x_0: (B, ...) clean images.
      noise: like x_0, standard normal.
      pair: (B,) the larger and the smaller level.
      distance: one of DISTANCES.
    """
    larger, smaller = pair

    def noisy(sigma: Array) -> Array:
        return x_0 + sigma.reshape(-1, *(1,) * (x_0.ndim - 1)) * noise

    wanted = jax.lax.stop_gradient(target(noisy(smaller), smaller))
    return between(student(noisy(larger), larger), wanted, distance).mean()


def between(a: Array, b: Array, distance: str) -> Array:
    """The distance of images (B, ...), (B,).

    'l1' and 'l2' are means over pixels; 'pseudo_huber' is sqrt(|a - b|^2 + c^2) - c of the whole image, c = 0.00054 sqrt(D)
    (Song and Dhariwal 2024, Sec. 3.3), D the number of pixels.
    """
    difference = (a - b).reshape(len(a), -1)
    if distance == "l1":
        return jnp.abs(difference).mean(-1)
    if distance == "l2":
        return jnp.square(difference).mean(-1)
    c = 0.00054 * difference.shape[-1] ** 0.5
    return jnp.sqrt(jnp.square(difference).sum(-1) + c**2) - c


def sampling_levels(levels: Levels, count: int, steps: int) -> np.ndarray:
    """The noise levels (steps,) at which f is evaluated, from sigma_max down, of a grid of `count`.

    One step is sigma_max alone; of two the second is the published one, index 67 of 0 .. 150, or its like on another grid; more
    lie evenly on the grid.

    Raises:
      ValueError: fewer than one, or more than the grid has above sigma_min.
    """
    last = count - 1
    if not 1 <= steps <= last:
        raise ValueError(f"a grid of {count} noise levels allows 1 to {last} steps")
    published = [0, round(_TWO_STEP_INDEX / _TWO_STEP_LAST * last)]
    indices = published if steps == 2 < last else np.round(np.arange(steps) * last / steps)
    low, high = levels.sigma_min ** (1 / levels.rho), levels.sigma_max ** (1 / levels.rho)
    return (high + np.asarray(indices) / last * (low - high)) ** levels.rho


def sample(f: Consistency, levels: Levels, sigmas: np.ndarray, like: Array, rng: Array) -> Array:
    """Multistep consistency sampling (Alg. 1): noise to an estimate, which is given noise of the next level, and so on.

    Args:
      f: the consistency function; its estimates are clipped to [-1, 1].
      levels: of the training.
      sigmas: (S,) falling noise levels, as `sampling_levels` gives them.
      like: (B, ...) gives the shape.
      rng: (B,) keys, one an example.
    """

    def estimate(x: Array, sigma: Array) -> Array:
        return jnp.clip(f(x, jnp.full(len(x), sigma)), -1, 1)

    def step(x_0: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        number, sigma, deviation = at
        return estimate(x_0 + deviation * normal_like(x_0, stream(rng, "walk", number)), sigma), None

    sigmas = np.asarray(sigmas, np.float32)
    first = estimate(sigmas[0] * start(like, rng), sigmas[0])
    rest = (np.arange(1, len(sigmas)), sigmas[1:], np.sqrt(sigmas[1:] ** 2 - np.float32(levels.sigma_min) ** 2))
    return jax.lax.scan(step, first, rest)[0]
