"""Errors by spatial frequency: the fine detail that single scores hide."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import jaxwt
import numpy as np

from mrdiff_jax.metrics._images import checked


@functools.partial(jax.jit, static_argnames="levels")
def wavelet_band_errors(prediction: jax.Array, target: jax.Array, levels: int = 3) -> Mapping[str, jax.Array]:
    """Relative l2 error of each Haar wavelet band, |W(prediction) - W(target)| / |W(target)|.

    (B, H, W), (B, H, W) -> {'LL3', 'LH3', 'HL3', 'HH3', 'LH2', ..., 'HH1': (B,)}, level 1 the finest. A
    band that is empty in the target (nothing but rounding error) gives 0 if it is in the prediction too, else
    inf. Raises ValueError if the shapes differ or a side is below 16.
    """
    prediction, target = checked(prediction, target)
    of_error, of_target = (_bands(image, levels) for image in (prediction - target, target))
    rounding = 4 * jnp.finfo(target.dtype).eps * jnp.maximum(_norm(prediction), _norm(target))

    def relative(error: jax.Array, reference: jax.Array) -> jax.Array:
        alone = jnp.where(error > rounding, jnp.inf, 0.0)
        return jnp.where(reference > rounding, error / reference, alone)

    return {name: relative(_norm(of_error[name]), _norm(of_target[name])) for name in of_target}


def _bands(images: jax.Array, levels: int) -> dict[str, jax.Array]:
    approximation, *details = jaxwt.wavedec2(images, "haar", level=levels)
    names = [f"{kind}{level}" for level in range(levels, 0, -1) for kind in ("LH", "HL", "HH")]
    return {f"LL{levels}": approximation} | dict(zip(names, sum(details, ()), strict=True))


def _norm(images: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(images**2, axis=(1, 2)))


@jax.jit
def radial_power_spectrum(images: jax.Array) -> jax.Array:
    """Mean power over rings of equal spatial frequency.

    (B, H, W) -> (B, min(H, W) // 2 + 1): entry k is for k / min(H, W) cycles per pixel, from the mean to the
    Nyquist frequency. White noise of variance v has power v throughout. Raises ValueError if a side is below
    16.
    """
    (images,) = checked(images)
    b, h, w = images.shape
    rings = min(h, w) // 2 + 1
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    ring = np.rint(radius * min(h, w)).astype(np.int32).ravel()
    pixels = np.bincount(ring)[:rings]
    power = jnp.abs(jnp.fft.fft2(images)) ** 2 / (h * w)
    sums = jax.ops.segment_sum(power.reshape(b, h * w).T, ring, num_segments=rings)
    return sums.T / pixels[None].astype(images.dtype)
