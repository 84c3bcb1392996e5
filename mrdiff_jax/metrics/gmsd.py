"""Gradient magnitude similarity deviation (Xue et al. 2013)."""

import jax
import jax.numpy as jnp

from mrdiff_jax.metrics._images import box_downsample, gradient_magnitude, on_8_bit_scale

PREWITT = (1 / 3, 1 / 3, 1 / 3)
C = 170.0


@jax.jit
def gmsd(prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0) -> jax.Array:
    """Gradient magnitude similarity deviation (Xue et al. 2013): 0 for equal images, larger is worse.

    (B, H, W), (B, H, W) -> (B,). Raises ValueError if the shapes differ or a side is below 16.
    """
    x, y = (gradient_magnitude(box_downsample(image, 2), PREWITT) for image in on_8_bit_scale(prediction, target, data_range))
    return jnp.std((2 * x * y + C) / (x**2 + y**2 + C), axis=(1, 2), ddof=1)
