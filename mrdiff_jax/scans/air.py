"""What air is in a scan, and the padding that was put where nothing was scanned."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.scan_path import ScanPath

LEAST_SHARE = 5e-4  # of the voxels: fewer of one value are no padding
MOST_VALUES = 4  # of padding on one side
LEAST_GREY_SHARE = 0.05  # of the voxels: a constant that fewer have is no background
FAR = 4.0  # times the spread of the other values: padding lies at least so far below or above them,
FAR_BELOW_ZERO = 0.05  # or so far below, where it is a whole number under LEAST_BELOW_ZERO and the others are not negative
LEAST_BELOW_ZERO = -10.0
FAR_ABOVE, LEAST_ABOVE = 1.0, 1000.0  # or so far above, where it is a whole number over the second
BLURRED = 0.25  # times the padding: voxels that interpolation left between it and the others, at most
FOREGROUND_LEVEL = 0.1  # of a scaled range [0, 1]: what is closer to the level of air counts as air
ENDS_16_BIT = ((-(2**15), 2**15 - 1), (0, 2**16 - 1))  # of signed and unsigned integers
END_MARGIN, WRAPPED_GAP = 2048, 8192  # how near to both ends values lie, and how many lack between, where they wrapped around


def air_level(volume: np.ndarray, counted: np.ndarray | None = None) -> float:
    """The value of air: the median over the corners of a volume (X, Y, Z); of the voxels that are `counted`, if given.

    Where no corner is counted, it is the lowest of the values that are.
    """
    corners = tuple(slice(None, None, max(n - 1, 1)) for n in volume.shape[:2])
    if counted is None:
        return float(np.median(volume[corners]))
    values = volume[corners][counted[corners]]
    return float(np.median(values) if values.size else volume[counted].min())


def is_foreground(scaled: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Where images in [0, 1] show something: they differ from air, whose levels broadcast against them.

    The one rule for what is scored as body and for which slices are kept; it needs no more than the image. The mask of bodies
    that `preparation.bias_field` draws starts from the same air, but has a threshold of its own (Otsu's): it is for volumes in
    scanner units, and must hold dim parts, too.
    """
    return np.abs(scaled - air) > FOREGROUND_LEVEL


def without_padding(data: np.ndarray, path: Path | ScanPath) -> tuple[np.ndarray, str]:
    """The voxels of a scan (X, Y, Z) with its padding taken for air, and what was so taken; '' where it has none.

    Padding is what is not a number around the edges of the volume, and values of many voxels far below or above all others.
    A constant around a body whose values lie on both sides of it, as in z-scored scans without a skull, takes the darkest.

    Raises UserError, naming the values, for voxels that are not finite elsewhere, and for integers of 16 bits that wrapped
    around: bright voxels that became negative, or negative ones bright.
    """
    padding, found = _padding(data, path)
    if padding.all():
        raise UserError(f"{path}: has no voxel that is a number; convert it again from the scanner's files")
    said = []
    if found:
        air = np.float32(air_level(data, ~padding))
        data = np.where(padding, air, data)
        said.append(f"padding {' and '.join(found)} ({padding.mean():.1%} of the voxels) taken for air")
    outside = _grey_outside(data, padding)
    if outside is not None:
        grey, darkest = data[outside][0], data[~outside].min()
        said.append(f"background {grey:g} ({outside.mean():.1%} of the voxels) set to the darkest value, {darkest:.4g}")
        data = np.where(outside, darkest, data)
    return data, "; ".join(said)


def _padding(data: np.ndarray, path: Path | ScanPath) -> tuple[np.ndarray, list[str]]:
    """Where a scan is padded, and with which values."""
    padding = _not_numbers(data, path)
    values = np.sort(data[~padding], axis=None)
    names = ["nan"] if padding.any() else []
    while values.size and (found := _padding_range(values)):
        low, high, value = found
        padding |= (data >= low) & (data <= high)
        values = values[(values < low) | (values > high)]
        names.append(f"{value:g}")
    if values.size:
        _refuse_wrapped(values, path)
    return padding, names


def _grey_outside(data: np.ndarray, padding: np.ndarray) -> np.ndarray | None:
    """Where a scan whose padding was filled is constant around its body, and neither dark nor bright; None where it is not."""
    level = np.float32(air_level(data))
    constant = data == level
    if (constant & ~padding).mean() < LEAST_GREY_SHARE or constant.all():
        return None
    low, high = np.percentile(data[~constant], (0.5, 99.5))
    if not low + FOREGROUND_LEVEL * (high - low) < level < high - FOREGROUND_LEVEL * (high - low):
        return None
    parts, _ = ndimage.label(constant)
    at_edge = [np.unique(parts.take(side, axis)) for axis in range(2) for side in (0, -1)]
    return constant & np.isin(parts, np.concatenate(at_edge))


def _not_numbers(data: np.ndarray, path: Path | ScanPath) -> np.ndarray:
    """Where a scan has NaN. Raises UserError where it has them inside, or infinite values."""
    wrong = ~np.isfinite(data)
    if not wrong.any():
        return wrong
    parts, count = ndimage.label(wrong)
    at_bound = np.zeros(data.shape, np.uint8)
    for axis in range(3):
        for side in (0, -1):
            at_bound[tuple(side if other == axis else slice(None) for other in range(3))] += 1
    outside = np.isin(np.arange(1, count + 1), parts[at_bound >= 2])
    inside = int((wrong & ~np.isin(parts, 1 + np.flatnonzero(outside))).sum())
    infinite = int(np.isinf(data).sum())
    if inside or infinite:
        what = f"{infinite} infinite" if infinite else f"{inside} NaN that do not reach an edge of the volume"
        raise UserError(
            f"{path}: voxels are not finite ({wrong.mean():.2%}: {what}); set them to the value of air, "
            "with numpy.nan_to_num for one, or convert it again"
        )
    return wrong


def _padding_range(values: np.ndarray) -> tuple[float, float, float] | None:
    """(lowest, highest, outermost) of the padding among sorted values, those blurred into the scan included."""
    below = _far_below(values)
    if below is not None:
        return float(values[0]), below, float(values[0])
    above = _far_below(-values[::-1], at_top=True)
    return None if above is None else (-above, float(values[-1]), float(values[-1]))


def _far_below(values: np.ndarray, at_top: bool = False) -> float | None:
    """Up to which value sorted values are padding, with one value or a few; None where there is none."""
    for highest in _frequent(values):
        limit = _limit(values, highest, at_top)
        if limit is not None:
            return limit
    return None


def _frequent(values: np.ndarray) -> np.ndarray:
    """The lowest few of sorted values that many voxels have; none where the very lowest has not."""
    least = max(LEAST_SHARE * values.size, 8)
    if np.searchsorted(values, values[0], "right") < least:
        return values[:0]
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf))
    counts = np.diff(starts, append=values.size)
    return values[starts[counts >= least][:MOST_VALUES]]


def _limit(values: np.ndarray, highest: float, at_top: bool) -> float | None:
    """Up to which value sorted values are padding whose values end with `highest`; None where it is not far off the rest."""
    highest = float(highest)
    count = int(np.searchsorted(values, highest, "right"))
    rest = values[count:]
    if rest.size < 8:
        return None
    low, high = rest[int(0.01 * rest.size)], rest[int(0.99 * rest.size)]
    if at_top:
        low = rest[int(0.001 * rest.size)]  # bright vessels and fat are few
    far = FAR
    if highest.is_integer() and at_top and highest <= -LEAST_ABOVE:
        far = FAR_ABOVE
    elif highest.is_integer() and not at_top and highest <= LEAST_BELOW_ZERO and low >= 0:
        far = FAR_BELOW_ZERO
    spread = float(high - low)
    if spread <= 0 or low - highest <= far * spread or (not at_top and highest >= 0):
        return None
    limit = low - min(spread, (low - highest) / 2)
    blurred = int(np.searchsorted(rest, limit))
    return float(np.nextafter(limit, -np.inf, dtype=np.float32)) if blurred <= BLURRED * count else None


def _refuse_wrapped(values: np.ndarray, path: Path | ScanPath) -> None:
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
                f"{high}, none between ({fewer / values.size:.2%}); convert it again with more bits"
            )
