"""Image quality: how close a synthesised image is to the acquired one.

All take images (B, H, W) of at least 16 x 16 and give one result per image, (B,). `data_range` is the
distance between the smallest and the largest value an image may hold: one number, or one per image. `mask`,
boolean (B, H, W), limits what is averaged, not what is filtered, to its pixels; an empty one counts as the whole image.
"""

from mrdiff_jax.metrics.errors import mae, nmse
from mrdiff_jax.metrics.fsim import fsim
from mrdiff_jax.metrics.gmsd import gmsd
from mrdiff_jax.metrics.psnr import psnr
from mrdiff_jax.metrics.spectra import radial_power_spectrum, wavelet_band_errors
from mrdiff_jax.metrics.ssim import ssim

__all__ = ["fsim", "gmsd", "mae", "nmse", "psnr", "radial_power_spectrum", "ssim", "wavelet_band_errors"]
