"""Errors of single pixels, summed up: normalised mean squared error and mean absolute error."""

import jax
import jax.numpy as jnp

from mrdiff_jax.metrics._images import checked, pixel_mean


@jax.jit
def nmse(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Normalised mean squared error: the squared error beside the square of the target; 0 is perfect, 1 what a black image has.

    (B, H, W), (B, H, W) -> (B,). `data_range` does not count. A black target gives inf.
    Raises ValueError if the shapes differ or a side is below 16.
    """
    prediction, target = checked(prediction, target)
    error, power = pixel_mean((prediction - target) ** 2, mask), pixel_mean(target**2, mask)
    return jnp.where(power > 0, error / jnp.where(power > 0, power, 1), jnp.inf)


@jax.jit
def mae(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Mean absolute error, as a share of the data range.

    (B, H, W), (B, H, W) -> (B,). Raises ValueError if the shapes differ or a side is below 16.
    """
    prediction, target = checked(prediction, target)
    return pixel_mean(jnp.abs(prediction - target), mask) / jnp.asarray(data_range, prediction.dtype)
