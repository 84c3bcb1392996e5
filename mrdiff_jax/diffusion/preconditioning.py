"""Preconditioning of a denoiser by its noise level (Karras et al. 2022), with the boundary of consistency models.

f(x, sigma) = c_skip x + c_out F(c_in x, c_noise),  f(x, sigma_min) = x exactly  (Song et al. 2023, Sec. 3 and App. C)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Scalings(NamedTuple):
    """c_skip, c_out, c_in and c_noise, each of the shape of the noise levels."""

    skip: Array
    out: Array
    input: Array
    noise: Array


class Preconditioning(NamedTuple):
    """What the scalings depend on.

    Attributes:
      sigma_min: the noise level at which f is the identity.
      sigma_data: standard deviation of the clean images.
    """

    sigma_min: float = 0.002
    sigma_data: float = 0.5

    def scalings(self, sigma: Array) -> Scalings:
        """The scalings at noise levels of any shape."""
        above, data = sigma - self.sigma_min, self.sigma_data
        total = jnp.sqrt(sigma**2 + data**2)
        return Scalings(data**2 / (above**2 + data**2), above * data / total, 1 / total, 250 * jnp.log(sigma))

    def apply(self, network: Callable[[Array, Array], Array], x: Array, sigma: Array) -> Array:
        """f(x, sigma).

        Args:
          network: F(scaled x, c_noise (B,)) -> an array like x.
          x: (B, ...) images with noise.
          sigma: (B,) its standard deviation.
        """
        scalings = self.scalings(sigma)
        skip, out, scale = (c.reshape(c.shape + (1,) * (x.ndim - 1)) for c in scalings[:3])
        return skip * x + out * network(scale * x, scalings.noise).astype(x.dtype)
