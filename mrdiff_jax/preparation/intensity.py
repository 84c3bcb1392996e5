"""Intensities of scans as numbers in [0, 1], and as these are stored."""

from collections.abc import Sequence

import numpy as np

_UINT16_MAX = 65535


def percentile_scale(volume: np.ndarray, percentiles: Sequence[float]) -> tuple[float, float]:
    """(offset, factor) of the affine map that takes the two percentiles of a volume to 0 and 1.

    Scanner value = offset + factor * scaled value. A factor of 0 says that the percentiles coincide.
    """
    low, high = np.percentile(volume, percentiles)
    return float(low), float(high - low)


def quantise(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint16; the rounding error is at most 7.7e-6."""
    return np.round(values * _UINT16_MAX).astype(np.uint16)


def dequantise(values: np.ndarray) -> np.ndarray:
    """The float32 values in [0, 1] behind `quantise`."""
    return values.astype(np.float32) / np.float32(_UINT16_MAX)
