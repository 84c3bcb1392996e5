"""What air is in a scan, and the padding that was put where nothing was scanned."""

from pathlib import Path

import numpy as np
import scipy

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import wrap_around
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
BLUR_VOXELS = 3  # how far interpolation carries padding into a scan
ROUNDING, HARDLY = 1e-4, 0.01  # of padding's value: how far the lowest may be off it, and what is no blur yet, or no more
SOLID = 0.25  # of its voxels, those among others alone, at least
LEAST_GAP = 0.05  # of the spread of the other values: of a constant outside of them, with air of the scan's own beside it
LEAST_GAP_OF_NO_AIR = 1.3  # or with none, below them: less is the air of a body whose values were shifted
OWN_AIR = 0.1  # of the spread of the other values: those beside the constant are as dark, where they are air


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
    A constant around a body that is no darkest value, as in z-scored scans without a skull, or that lies in a gap below it,
    takes the darkest of the body.

    Raises UserError, naming the values, for voxels that are not finite elsewhere, and as `wrap_around.refuse` does.
    """
    padding, found = _padding(data, path)
    if padding.all():
        raise UserError(f"{path}: has no voxel that is a number; convert it again from the scanner's files")
    said = []
    if found:
        air = np.float32(air_level(data, ~padding))
        data = np.where(padding, air, data)
        said.append(f"padding {' and '.join(found)} ({padding.mean():.1%} of the voxels) taken for air")
    outside = _background(data, padding)
    if outside is not None:
        grey, darkest = data[outside][0], data[~outside].min()
        said.append(f"background {grey:g} ({outside.mean():.1%} of the voxels) set to the darkest value, {darkest:.4g}")
        data = np.where(outside, darkest, data)
    return data, "; ".join(said)


def _padding(data: np.ndarray, path: Path | ScanPath) -> tuple[np.ndarray, list[str]]:
    """Where a scan is padded, and with which values."""
    padding = _not_numbers(data, path)
    names = ["nan"] if padding.any() else []
    blurred = _blurred_padding(data)
    if blurred is not None:
        names.append(f"{data[blurred].min():g}")
        padding |= blurred
    far, more = far_off(data, padding)
    padding |= far
    if not padding.all():
        wrap_around.refuse(data, padding, air_level(data, ~padding), path)
    return padding, names + more


def far_off(data: np.ndarray, padding: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Where voxels that are not in `padding` are padding by their values, far from all others, and these values in words."""
    found = np.zeros(data.shape, bool)
    values, names = np.sort(data[~padding], axis=None), []
    while values.size and (ends := _padding_range(values)):
        low, high, value = ends
        found |= (data >= low) & (data <= high) & ~padding
        values = values[(values < low) | (values > high)]
        names.append(f"{value:g}")
    return found, names


def _blurred_padding(data: np.ndarray) -> np.ndarray | None:
    """Where a scan that has no negative values but near a negative constant is that constant, blurred; None where it is not."""
    lowest = data.min()  # NaN where there is one
    level = np.rint(lowest)
    if not (level <= LEAST_BELOW_ZERO and abs(lowest - level) <= ROUNDING * -level):
        return None
    constant = data <= level * (1 - HARDLY)
    spread = float(np.percentile(data, 99))
    if constant.mean() < LEAST_GREY_SHARE or not 0 < FAR_BELOW_ZERO * spread < -level:
        return None
    solid = scipy.ndimage.binary_erosion(constant, border_value=1)  # noise of air is not
    if solid.sum() < SOLID * constant.sum():
        return None
    near = scipy.ndimage.binary_dilation(constant, iterations=BLUR_VOXELS)
    blurred = data < level * HARDLY
    return None if (blurred & ~near).any() or (blurred == constant).all() else blurred


def _background(data: np.ndarray, padding: np.ndarray) -> np.ndarray | None:
    """Where a scan whose padding was filled is constant around its body, and not as dark as the rest; None where it is not.

    That is grey or bright, or so far below the rest, and below 0, that no air is.
    """
    for level, is_wrong in ((np.float32(air_level(data)), _not_dark), (data.min(), _too_dark)):
        constant = data == level
        if (constant & ~padding).mean() < LEAST_GREY_SHARE or constant.all():
            continue
        parts, _ = scipy.ndimage.label(constant)
        at_edge = [np.unique(parts.take(side, axis)) for axis in range(2) for side in (0, -1)]
        outside = constant & np.isin(parts, np.setdiff1d(np.concatenate(at_edge), 0))
        if outside.any() and is_wrong(data, constant, float(level)):
            return outside
    return None


def _not_dark(data: np.ndarray, constant: np.ndarray, level: float) -> bool:
    """Whether the level of a constant is in the midst of the other values, or above all of them."""
    low, high = np.percentile(data[~constant], (0.5, 99.5))
    brightest = data[~constant].max()
    grey = low + FOREGROUND_LEVEL * (high - low) < level < high - FOREGROUND_LEVEL * (high - low)
    return bool(grey or level > brightest + LEAST_GAP * (high - low))


def _too_dark(data: np.ndarray, constant: np.ndarray, level: float) -> bool:
    """Whether the level of a constant is negative, and below all other values by a gap that air does not have."""
    rest = data[~constant]
    low, high = np.percentile(rest, (0.5, 99.5))
    gap, spread = float(rest.min()) - level, float(high - low)
    if level >= 0 or gap <= LEAST_GAP * spread:
        return False
    beside = data[scipy.ndimage.binary_dilation(constant) & ~constant]
    return bool(gap > LEAST_GAP_OF_NO_AIR * spread or np.median(beside) <= low + OWN_AIR * spread)


def _not_numbers(data: np.ndarray, path: Path | ScanPath) -> np.ndarray:
    """Where a scan has NaN. Raises UserError where it has them inside, or infinite values."""
    wrong = ~np.isfinite(data)
    if not wrong.any():
        return wrong
    parts, count = scipy.ndimage.label(wrong)
    at_bound = np.zeros(data.shape, np.uint8)
    for axis in range(3):
        for side in (0, -1):
            at_bound[tuple(side if other == axis else slice(None) for other in range(3))] += 1
    outside = np.isin(np.arange(1, count + 1), parts[at_bound >= 2])
    inside = int((wrong & ~np.isin(parts, 1 + np.flatnonzero(outside))).sum())
    infinite = int(np.isinf(data).sum())
    if inside or infinite:
        what = f"{infinite} infinite" if infinite else f"{inside} NaN that do not reach an edge of the volume"
        fix = "set them to that of air, as numpy.nan_to_num(data, nan=0, posinf=0, neginf=0)"
        raise UserError(f"{path}: voxels are not finite ({wrong.mean():.2%}: {what}); {fix}")
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
