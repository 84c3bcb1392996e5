"""How far an estimate of an image is from the image: losses are means of these over all their elements."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import Array

from mrdiff_jax.wavelets import to_bands

Distance = Literal["l1", "l2", "wavelet_l1"]
PLACES = 4  # that wavelet_l1 leaves along a side, or more


def wavelet_l1(difference: Array) -> Array:
    """Absolute values of the Haar packet of a difference (..., H, W, C), so deep that four by four places are left.

    That is five levels of 128 x 128 pixels, and fewer where a side cannot be halved so often. A brightness that cannot be
    foretold is one coefficient of a place there, not an error of every pixel; so l1 of the packet may follow shapes where l1
    and l2 of the pixels follow brightness.
    """
    return jnp.abs(to_bands(difference, min(map(_halvings, difference.shape[-3:-1]))))


def _halvings(side: int) -> int:
    """How often a side can be halved before it would be odd, or shorter than it may be."""
    return 0 if side % 2 or side < 2 * PLACES else 1 + _halvings(side // 2)


DISTANCES: dict[Distance, Callable[[Array], Array]] = {"l1": jnp.abs, "l2": jnp.square, "wavelet_l1": wavelet_l1}
