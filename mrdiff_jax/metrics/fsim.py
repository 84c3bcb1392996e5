"""Feature similarity (Zhang et al. 2011) on phase congruency (Kovesi 1999), as in the authors' program."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mrdiff_jax.metrics._images import box_downsample, gradient_magnitude, on_8_bit_scale, pixel_weights

ORIENTATIONS, SCALES = 4, 4
SMALLEST_WAVELENGTH, WAVELENGTH_RATIO = 6, 2  # pixels
SIGMA_ON_F = 0.55  # bandwidth of a log-Gabor filter
THETA_SIGMA = math.pi / ORIENTATIONS / 1.2  # angular spread, radians
LOW_PASS_CUTOFF, LOW_PASS_ORDER = 0.45, 15
EPSILON = 1e-4
NOISE_DEVIATIONS, NOISE_REDUCTION = 2.0, 1.7
SCHARR = (3 / 16, 10 / 16, 3 / 16)
T1, T2 = 0.85, 160.0


def _frequencies(n: int) -> np.ndarray:
    """The authors' frequency axis, zero first; for odd n it is stretched to reach 1/2."""
    axis = np.arange(n) - n // 2
    return np.fft.ifftshift(axis / (n - n % 2))


@functools.lru_cache(maxsize=32)
def _filter_bank(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The log-Gabor filters, (orientation, scale, H, W), and the energy of noise, (orientation,).

    Noise is what would give a median squared response of 1 at the finest scale.
    """
    fy, fx = np.meshgrid(_frequencies(height), _frequencies(width), indexing="ij")
    radius = np.hypot(fy, fx)
    low_pass = 1 / (1 + (radius / LOW_PASS_CUTOFF) ** (2 * LOW_PASS_ORDER))
    radius[0, 0] = 1
    wavelength = SMALLEST_WAVELENGTH * WAVELENGTH_RATIO ** np.arange(SCALES)[:, None, None]
    log_gabor = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * math.log(SIGMA_ON_F) ** 2)) * low_pass
    log_gabor[:, 0, 0] = 0
    angle = np.arange(ORIENTATIONS)[:, None, None] * math.pi / ORIENTATIONS
    from_axis = np.angle(np.exp(1j * (np.arctan2(-fy, fx) - angle)))
    spread = np.exp(-(from_axis**2) / (2 * THETA_SIGMA**2))
    filters = spread[:, None] * log_gabor

    # The noise power follows from the median, as squared Rayleigh amplitudes have mean = median / log 2.
    noise_power = 1 / math.log(2) / (filters[:, 0] ** 2).sum((1, 2))
    kernel = np.fft.ifft2(filters.sum(1)).real
    tau = np.sqrt(noise_power * height * width * (kernel**2).sum((1, 2)))
    rayleigh = math.sqrt(math.pi / 2) + NOISE_DEVIATIONS * math.sqrt(2 - math.pi / 2)
    return filters, tau * rayleigh / NOISE_REDUCTION


def _median(values: jax.Array) -> jax.Array:
    """Median of non-negative floats, (H, W) -> (): bisection on the bits, exact, far faster than a sort."""
    n = values.size
    integer = jnp.dtype(f"int{values.dtype.itemsize * 8}")
    bits = jax.lax.bitcast_convert_type(values, integer)
    rank = (n + 1) // 2

    def add_bit(i: jax.Array, found: jax.Array) -> jax.Array:
        trial = found | (jnp.ones((), integer) << (integer.itemsize * 8 - 2 - i).astype(integer))
        below = jnp.sum(bits < trial, dtype=jnp.float32)  # exact, and faster than int32
        return jnp.where(below < rank, trial, found)

    found = jax.lax.fori_loop(0, integer.itemsize * 8 - 1, add_bit, jnp.zeros((), integer))
    lower = jax.lax.bitcast_convert_type(found, values.dtype)
    if n % 2:
        return lower
    above = bits > found
    tied = jnp.sum(above, dtype=jnp.int32) < n - rank
    upper = jnp.where(tied, lower, jnp.min(jnp.where(above, values, jnp.inf)))
    return (lower + upper) / 2


def _phase_congruency(image: jax.Array) -> jax.Array:
    """Phase congruency of one image (H, W) -> (H, W), in [0, 1); 0 where nothing varies."""
    # The filters stop the mean anyway; without an offset a constant image is exactly empty.
    spectrum = jnp.fft.fft2(image - image[0, 0])

    def add_orientation(sums: tuple[jax.Array, jax.Array], bank: tuple[jax.Array, jax.Array]) -> tuple:
        energy, amplitude = sums
        filters, threshold = bank
        responses = jnp.fft.ifft2(spectrum[None] * filters)
        # Scales as separate arrays: XLA fuses their sums twice as fast as a reduction over an axis.
        even, odd = list(responses.real), list(responses.imag)
        squared = [e**2 + o**2 for e, o in zip(even, odd, strict=True)]
        sum_even, sum_odd = sum(even), sum(odd)
        length = jnp.sqrt(sum_even**2 + sum_odd**2)
        across = sum(jnp.abs(e * sum_odd - o * sum_even) for e, o in zip(even, odd, strict=True))
        noise = threshold * jnp.sqrt(_median(squared[0]))
        energy += jnp.maximum((length**2 - across) / (length + EPSILON) - noise, 0)
        return (energy, amplitude + sum(jnp.sqrt(s) for s in squared)), None

    banks = tuple(jnp.asarray(array, image.dtype) for array in _filter_bank(*image.shape))
    zero = jnp.zeros_like(image)
    (energy, amplitude), _ = jax.lax.scan(add_orientation, (zero, zero), banks)
    return energy / jnp.where(amplitude > 0, amplitude, 1)


@jax.jit
def fsim(
    prediction: jax.Array, target: jax.Array, data_range: float | jax.Array = 1.0, mask: jax.Array | None = None
) -> jax.Array:
    """Feature similarity of luminance (Zhang et al. 2011).

    (B, H, W), (B, H, W) -> (B,), at most 1. A constant image has phase congruency 0 (0 / 0 in the authors'
    program); if neither image has any, all pixels weigh the same. Raises ValueError if the shapes differ or a
    side is below 16.
    """
    images = jnp.concatenate(on_8_bit_scale(prediction, target, data_range))
    factor = max(1, math.floor(min(images.shape[1:]) / 256 + 0.5))
    images = box_downsample(images, factor)
    pc_x, pc_y = jnp.split(jax.lax.map(_phase_congruency, images), 2)
    g_x, g_y = jnp.split(gradient_magnitude(images, SCHARR), 2)
    similarity = (2 * pc_x * pc_y + T1) / (pc_x**2 + pc_y**2 + T1)
    similarity *= (2 * g_x * g_y + T2) / (g_x**2 + g_y**2 + T2)
    weight = jnp.maximum(pc_x, pc_y)
    inside = None if mask is None else box_downsample(mask.astype(weight.dtype), factor) >= 0.5
    weight, every = weight * pixel_weights(inside, weight), pixel_weights(inside, weight)
    weight = jnp.where(weight.max((1, 2), keepdims=True) > 0, weight, every)
    return jnp.sum(similarity * weight, axis=(1, 2)) / jnp.sum(weight, axis=(1, 2))
