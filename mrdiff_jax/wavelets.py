"""The orthonormal Haar transform of MRDiff (paper, Sec. 2.2), by strided slices and a butterfly."""

import jax.numpy as jnp
from jax import Array


def dwt2(x: Array) -> Array:
    """Haar wavelet transform of images.

    Args:
      x: (..., H, W, C), H and W even.

    Returns:
      Bands of shape (..., H/2, W/2, 4C), band-major in pywt's order cA, cH, cV, cD, which are LL, LH, HL, HH; so the first C
      channels are the low-pass band of every input channel.

    Raises:
      ValueError: a side is odd; the message names the shape.
    """
    h, w = x.shape[-3:-1]
    if h % 2 or w % 2:
        raise ValueError(f"the Haar transform needs even sides, got an array of shape {x.shape}")
    a, b = x[..., ::2, ::2, :], x[..., ::2, 1::2, :]
    c, d = x[..., 1::2, ::2, :], x[..., 1::2, 1::2, :]
    top, top_detail, bottom, bottom_detail = a + b, a - b, c + d, c - d
    bands = (top + bottom, top - bottom, top_detail + bottom_detail, top_detail - bottom_detail)
    return 0.5 * jnp.concatenate(bands, axis=-1)


def idwt2(bands: Array) -> Array:
    """Inverse of `dwt2`.

    Args:
      bands: (..., h, w, 4C), band-major in the order cA, cH, cV, cD.

    Returns:
      (..., 2h, 2w, C).

    Raises:
      ValueError: the channels do not divide into four bands; the message names the shape.
    """
    if bands.shape[-1] % 4:
        raise ValueError(f"the inverse Haar transform needs 4 bands of channels, got an array of shape {bands.shape}")
    low, horizontal, vertical, diagonal = jnp.split(0.5 * bands, 4, axis=-1)
    top, bottom = low + horizontal, low - horizontal
    top_detail, bottom_detail = vertical + diagonal, vertical - diagonal
    rows = (
        _interleave(top + top_detail, top - top_detail, axis=-2),
        _interleave(bottom + bottom_detail, bottom - bottom_detail, axis=-2),
    )
    return _interleave(*rows, axis=-3)


def to_bands(x: Array, levels: int) -> Array:
    """The wavelet packet of images: every band is transformed again, that many times; 0 levels leave images as they are.

    Maps (..., H, W, C) to (..., H / 2^levels, W / 2^levels, 4^levels C). Raises ValueError as `dwt2` does.
    """
    for _ in range(levels):
        x = dwt2(x)
    return x


def to_pixels(bands: Array, levels: int) -> Array:
    """Inverse of `to_bands`. Raises ValueError as `idwt2` does."""
    for _ in range(levels):
        bands = idwt2(bands)
    return bands


def _interleave(even: Array, odd: Array, axis: int) -> Array:
    """Joins the even and the odd samples along an axis, counted from the end."""
    pairs = jnp.stack([even, odd], axis=axis)  # the new axis stands before `axis + 1` of the input, that is, behind it
    shape = list(even.shape)
    shape[axis] *= 2
    return pairs.reshape(shape)
