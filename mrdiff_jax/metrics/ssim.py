"""Structural similarity (Wang et al. 2004)."""

import jax
import jax.numpy as jnp
import numpy as np

from mrdiff_jax.metrics._images import on_8_bit_scale, pixel_mean

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def _gaussian_mean(images: jax.Array) -> jax.Array:
    """Mean under the 11 x 11 Gaussian window, where it fits: (..., H, W) -> (..., H - 10, W - 10)."""
    weights = np.exp(-0.5 * (np.arange(WINDOW) - WINDOW // 2) ** 2 / SIGMA**2)
    weights = (weights / weights.sum()).tolist()
    h, w = (side - WINDOW + 1 for side in images.shape[-2:])
    rows = sum(weight * images[..., i : i + h, :] for i, weight in enumerate(weights))
    return sum(weight * rows[..., i : i + w] for i, weight in enumerate(weights))


@jax.jit
def ssim(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Structural similarity (Wang et al. 2004): Gaussian window, sigma 1.5, K = (0.01, 0.03), 'valid' part.

    (B, H, W), (B, H, W) -> (B,), at most 1. Raises ValueError if the shapes differ or a side is below 16.
    """
    x, y = on_8_bit_scale(prediction, target, data_range)
    # Moments about the target's mean: the same variances, with less cancellation in float32.
    centre = y.mean((1, 2), keepdims=True)
    mean_x, mean_y, xx, yy, xy = _gaussian_mean(
        jnp.stack([x - centre, y - centre, (x - centre) ** 2, (y - centre) ** 2, (x - centre) * (y - centre)])
    )
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    mean_x, mean_y = mean_x + centre, mean_y + centre
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * cov + C2) / (var_x + var_y + C2)
    margin = WINDOW // 2
    inner = None if mask is None else mask[:, margin:-margin, margin:-margin]
    return pixel_mean(luminance * structure, inner)
