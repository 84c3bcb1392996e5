"""Integers of 16 bits that wrapped around: bright voxels that became negative, or negative ones bright."""

from pathlib import Path

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.scan_path import ScanPath

ENDS_16_BIT = ((-(2**15), 2**15 - 1), (0, 2**16 - 1))  # of signed and unsigned integers
END_MARGIN, WRAPPED_GAP = 2048, 8192  # how near to both ends values lie, and how many lack between, where they wrapped around
CENTRED, GAP_SHARE = END_MARGIN / 2**16, WRAPPED_GAP / 2**16  # the same, of a range of any scale
LEAST_AIR = 0.2  # of the voxels
LEAST_WRAPPED = 1e-4  # of the voxels below the gap
JUMP = 0.75  # of the range: neighbours further apart, where values wrapped twice
LEAST_JUMPS = 1e-3  # of all pairs of neighbours
_AGAIN = "convert it again with more bits"


def refuse(data: np.ndarray, padding: np.ndarray, air: float, path: Path | ScanPath) -> None:
    """Raises UserError where the voxels of a scan (X, Y, Z) that are no padding wrapped around, scaled since or not."""
    values = np.sort(data[~padding], axis=None)
    if not values.size:
        return
    _refuse_whole(values, path)
    extent = float(values[-1]) - float(values[0])
    centre = (float(values[-1]) + float(values[0])) / 2
    if abs(air - centre) > CENTRED * extent or np.mean(np.abs(values - centre) <= CENTRED * extent) < LEAST_AIR:
        return  # air was 0, in the middle of the integers
    gaps = np.diff(values)
    place = int(gaps.argmax())
    wrapped = place + 1
    if (
        gaps[place] >= GAP_SHARE * extent
        and abs(values[wrapped] - centre) <= CENTRED * extent
        and wrapped >= max(8, LEAST_WRAPPED * values.size)
    ):
        raise UserError(
            f"{path}: values wrapped around the ends of 16 bits, it seems: none between {values[place]:.4g} and "
            f"{values[wrapped]:.4g}, the air; {_AGAIN}"
        )
    if _jumps(data, padding, JUMP * extent) >= LEAST_JUMPS:
        raise UserError(
            f"{path}: values wrapped around the ends of 16 bits, it seems: neighbours jump between {values[0]:.4g} and "
            f"{values[-1]:.4g}; {_AGAIN}"
        )


def _refuse_whole(values: np.ndarray, path: Path | ScanPath) -> None:
    """Raises UserError where sorted values are whole numbers of 16 bits on both ends of their range, with none between."""
    for low, high in ENDS_16_BIT:
        if not (low <= values[0] <= low + END_MARGIN and high - END_MARGIN <= values[-1] <= high):
            continue
        gaps = np.diff(values)
        place = int(gaps.argmax())
        if gaps[place] >= WRAPPED_GAP and (values == np.rint(values)).all():
            fewer = min(place + 1, values.size - place - 1)
            raise UserError(
                f"{path}: values wrapped around the ends of 16 bits: {low} to {values[place]:g} and {values[place + 1]:g} to "
                f"{high}, none between ({fewer / values.size:.2%}); {_AGAIN}"
            )


def _jumps(data: np.ndarray, padding: np.ndarray, least: float) -> float:
    """The share of neighbours along the first two axes, no padding among them, that differ by more than `least`."""
    found = count = 0
    for axis in range(2):
        known = ~padding.take(range(1, data.shape[axis]), axis) & ~padding.take(range(data.shape[axis] - 1), axis)
        found += int((np.abs(np.diff(data, axis=axis)) > least)[known].sum())
        count += int(known.sum())
    return found / max(count, 1)
