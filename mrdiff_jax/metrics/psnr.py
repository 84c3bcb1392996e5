"""Peak signal-to-noise ratio."""

import jax
import jax.numpy as jnp

from mrdiff_jax.metrics._images import checked


@jax.jit
def psnr(prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0) -> jax.Array:
    """Peak signal-to-noise ratio over the whole image, in decibels.

    (B, H, W), (B, H, W) -> (B,). Equal images give inf, which `stats` leaves out of means.
    Raises ValueError if the shapes differ or a side is below 16.
    """
    prediction, target = checked(prediction, target)
    error = jnp.mean((prediction - target) ** 2, axis=(1, 2))
    return 10 * jnp.log10(jnp.asarray(data_range, error.dtype) ** 2 / error)
