"""How far an estimate of an image is from the image: losses are means of these over all their elements."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import Array

from mrdiff_jax.wavelets import to_bands

Distance = Literal["l1", "l2", "wavelet_l1"]
LEVELS = 3  # of wavelet_l1, where the sides can be halved so often


def wavelet_l1(difference: Array) -> Array:
    """Absolute values of the Haar packet of a difference (..., H, W, C), three levels deep.

    Sides that are no multiple of 8 have fewer levels. A brightness that cannot be foretold is one of 64 coefficients there, not
    an error of every pixel; so l1 of the packet may follow shapes where l1 and l2 of the pixels follow brightness.
    """
    levels = next(n for n in range(LEVELS, -1, -1) if not any(side % 2**n for side in difference.shape[-3:-1]))
    return jnp.abs(to_bands(difference, levels))


DISTANCES: dict[Distance, Callable[[Array], Array]] = {"l1": jnp.abs, "l2": jnp.square, "wavelet_l1": wavelet_l1}
