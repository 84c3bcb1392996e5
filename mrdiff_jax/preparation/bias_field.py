"""Where the body is in a scan, and the bias field of the coil taken out of it (N4)."""

from collections.abc import Sequence

import numpy as np
import scipy
import SimpleITK as sitk

from mrdiff_jax.scans.air import air_level

SMOOTHING_MM = 2.0
CLOSING_MM = 8.0  # gaps in the rim of the body up to this wide are bridged
BODY_SHARE = 0.4  # of Otsu's threshold: a body's dim parts belong to it
GREY_AIR = 0.1  # of the range: air as bright as this is that of a real-valued (phase-sensitive) inversion recovery
N4_MM = 5.0  # voxels in which the field is fitted
N4_ITERATIONS = (40, 40, 20)


def has_grey_air(volume: np.ndarray) -> bool:
    """Whether air is not dark: values of both signs lie around it, as in real-valued inversion recovery."""
    low, high = np.percentile(volume, (0.5, 99.5))
    return bool(air_level(volume) - low > GREY_AIR * (high - low))


def body_in_volumes(volumes: Sequence[np.ndarray], spacing: Sequence[float]) -> np.ndarray:
    """(X, Y, Z) bool: the head or body, without holes, as any of the aligned volumes shows it; `spacing` in mm."""
    mask = np.any([_bright(volume, spacing) for volume in volumes], axis=0)
    width = [max(1, round(CLOSING_MM / mm)) for mm in spacing[:2]]
    margin = [(w, w) for w in width]
    for z in range(mask.shape[2]):
        closed = scipy.ndimage.binary_closing(np.pad(mask[..., z], margin), np.ones(width))
        filled = scipy.ndimage.binary_fill_holes(closed)
        mask[..., z] = filled[width[0] : -width[0], width[1] : -width[1]]
    parts, count = scipy.ndimage.label(mask)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else np.ones_like(mask)


def _bright(volume: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Where a volume differs from air."""
    low, high = np.percentile(volume, (0.5, 99.5))
    signal = np.abs(np.clip(volume, low, high) - air_level(volume))
    signal = scipy.ndimage.gaussian_filter(signal, [SMOOTHING_MM / mm if mm < SMOOTHING_MM else 0 for mm in spacing])
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(signal))
    return signal > BODY_SHARE * threshold.GetThreshold()


def remove_bias(volume: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The volume without its smooth bias field, float32, by N4 (Tustison et al., IEEE Trans Med Imaging 29:1310, 2010).

    The field is a factor of what is above air: of values less the air level, whatever it is. It is fitted inside the mask, in
    coarse voxels. Values at the level of air or below stay as they are.
    """
    air = air_level(volume)
    signal = volume.astype(np.float32) - np.float32(air)
    image, inside = (sitk.GetImageFromArray(np.ascontiguousarray(a.T)) for a in (signal, mask.astype(np.uint8)))
    for each in (image, inside):
        each.SetSpacing([float(mm) for mm in spacing])
    factors = [max(1, min(round(N4_MM / mm), n // 4)) for mm, n in zip(spacing, volume.shape, strict=True)]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(N4_ITERATIONS)
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(inside, factors))
    field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(image))).T
    return np.where(signal > 0, signal / field + air, volume).astype(np.float32)
