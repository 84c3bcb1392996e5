"""Gradient magnitude similarity deviation (Xue et al. 2013)."""

import jax
import jax.numpy as jnp

from mrdiff_jax.metrics._images import box_downsample, gradient_magnitude, on_8_bit_scale, pixel_weights

PREWITT = (1 / 3, 1 / 3, 1 / 3)
C = 170.0


@jax.jit
def gmsd(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Gradient magnitude similarity deviation (Xue et al. 2013): 0 for equal images, larger is worse.

    (B, H, W), (B, H, W) -> (B,). Raises ValueError if the shapes differ or a side is below 16.
    """
    x, y = (gradient_magnitude(box_downsample(image, 2), PREWITT) for image in on_8_bit_scale(prediction, target, data_range))
    similarity = (2 * x * y + C) / (x**2 + y**2 + C)
    if mask is None:
        return jnp.std(similarity, axis=(1, 2), ddof=1)
    weights = pixel_weights(box_downsample(mask.astype(x.dtype), 2) >= 0.5, x)
    count = weights.sum((1, 2), keepdims=True)
    mean = (similarity * weights).sum((1, 2), keepdims=True) / count
    squares = ((similarity - mean) ** 2 * weights).sum((1, 2), keepdims=True)
    return jnp.sqrt(squares / jnp.maximum(count - 1, 1))[:, 0, 0]
