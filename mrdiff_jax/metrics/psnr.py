"""Peak signal-to-noise ratio."""

import jax
import jax.numpy as jnp

from mrdiff_jax.metrics._images import checked, pixel_mean


@jax.jit
def psnr(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Peak signal-to-noise ratio, in decibels.

    (B, H, W), (B, H, W) -> (B,). Equal images give inf, which `evaluation.averages` leaves out of means.
    Raises ValueError if the shapes differ or a side is below 16.
    """
    prediction, target = checked(prediction, target)
    error = pixel_mean((prediction - target) ** 2, mask)
    return 10 * jnp.log10(jnp.asarray(data_range, error.dtype) ** 2 / error)
