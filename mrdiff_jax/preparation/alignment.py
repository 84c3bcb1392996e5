"""Whether two contrasts lie on each other: the residual shift that their edges show, and a look for mirrored scans.

The shift does not come from the measure that registration optimises, so that it can find registration wrong. It compares the
directions of intensity gradients (Haber and Modersitzki, MICCAI 2006), which the edges of all contrasts share, in blocks. The
rim of the head or body has no say: the fat below the skin lies shifted against water, by millimetres in some sequences.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import scipy

from mrdiff_jax.preparation import bias_field, registration
from mrdiff_jax.preparation.registration import Grid
from mrdiff_jax.scans.volumes import Volume

WORKING_MM = 1.5  # voxels of the comparison; thicker ones stay
RIM_MM = 12.0  # skin, fat and skull; at most this share of the depth of the body:
RIM_SHARE = 0.3
REACH_MM = 15.0  # largest shift along an axis that is looked for
BLOCK_MM = 25.0  # least side of a block, and its least number of voxels: an axis of twice that is halved
BLOCK_VOXELS = 12
LEAST_SHARE = 0.05  # a block with a smaller share of the edges has no say
MIRROR_MM = 4.0  # voxels in which a scan and its mirror image are compared


class Alignment(NamedTuple):
    """How well a scan lies on the reference.

    shift_mm: how far its edges are off, the median over blocks inside the head or body; shift (3,): the same along the axes of
    the grid, signed, mm; overlap: of the edges as they lie, 0 by chance and 1 for the same scan.
    """

    shift_mm: float
    shift: tuple[float, float, float]
    overlap: float


def measure(fixed: np.ndarray, moving: np.ndarray, grid: Grid) -> Alignment:
    """Where `moving` lies against `fixed`, both (X, Y, Z) on `grid`."""
    factors = [max(1, min(round(WORKING_MM / mm), n // 8)) for mm, n in zip(grid.spacing, grid.shape, strict=True)]
    spacing = np.multiply(grid.spacing, factors)
    coarse = [_block_means(data, factors) for data in (fixed, moving)]
    inside = _inside(coarse, spacing)
    a, b = (_edges(data, spacing) * inside for data in coarse)
    weight = (a**2).sum(0)
    reach = np.minimum(np.ceil(REACH_MM / spacing), np.maximum(np.array(weight.shape) // 3, 1)).astype(int)
    blocks = [block for block in _blocks(weight, spacing) if weight[block].sum() >= LEAST_SHARE * weight.sum()]
    shifts = np.array([_shift(a[:, *block], _surroundings(b, block, reach)) * spacing for block in blocks])
    overlap = (a * b).sum() / max(np.sqrt(weight.sum() * (b**2).sum()), 1e-12)
    return Alignment(
        float(np.median(np.linalg.norm(shifts, axis=1))), tuple(np.median(shifts, axis=0).tolist()), float(overlap)
    )


def mirror_gain(fixed: Volume, moving: Volume, transform: np.ndarray) -> float:
    """How much better the scan's mirror image fits: the relative gain in mutual information, negative where it fits worse.

    `transform` is the registration of the scan as it is; its mirror image is registered here, coarsely.
    """
    mirrored = Volume(moving.data[::-1], moving.affine, moving.path)
    straight = registration.register(fixed, moving, MIRROR_MM, start=transform).information
    return registration.register(fixed, mirrored, MIRROR_MM).information / max(straight, 1e-9) - 1


def _block_means(data: np.ndarray, factors: list[int]) -> np.ndarray:
    kept = data[tuple(slice(n // factor * factor) for n, factor in zip(data.shape, factors, strict=True))]
    shape = [side for n, factor in zip(kept.shape, factors, strict=True) for side in (n // factor, factor)]
    return kept.reshape(shape).mean((1, 3, 5))


def _inside(volumes: list[np.ndarray], spacing: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the head or body without its rim."""
    body = bias_field.body_in_volumes(volumes, spacing)
    if body.all():  # no rim is in the picture
        return body
    depth = scipy.ndimage.distance_transform_edt(body, sampling=spacing)
    return depth > min(RIM_MM, RIM_SHARE * depth.max())


def _edges(data: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """(6, X, Y, Z): the gradient's direction as a traceless tensor, near 0 where the scan is flat.

    The inner product of two is the squared cosine of their angle less its mean over all angles, up to a factor.
    """
    data = np.clip(data, *np.percentile(data, (0.5, 99.5)))
    gradient = np.stack(np.gradient(scipy.ndimage.gaussian_filter(data, 0.75 * spacing.min() / spacing), *spacing))
    size = np.sqrt((gradient**2).sum(0))
    seen = size[size > 0.02 * size.max()]
    n = gradient / np.hypot(size, np.percentile(seen, 75) if seen.size else 1.0)
    trace = (n**2).sum(0) / 3
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    return np.stack([n[i] ** 2 - trace if i == j else np.sqrt(2) * n[i] * n[j] for i, j in pairs]).astype(np.float32)


def _blocks(weight: np.ndarray, spacing: np.ndarray) -> Iterator[tuple[slice, slice, slice]]:
    """The parts of the box that holds the edges, each axis halved where it is long enough."""
    dense = scipy.ndimage.uniform_filter(weight, 3) > 0.1 * weight.max()
    halves = []
    for axis, mm in enumerate(spacing):
        profile = dense.any(tuple(other for other in range(3) if other != axis))
        where = np.flatnonzero(profile)
        first, last = (where[0], where[-1] + 1) if where.size else (0, len(profile))
        side = last - first
        middle = (first + last) // 2
        whole = side * mm < 2 * BLOCK_MM or side < 2 * BLOCK_VOXELS
        halves.append([slice(first, last)] if whole else [slice(first, middle), slice(middle, last)])
    return product(*halves)


def _surroundings(b: np.ndarray, block: tuple[slice, ...], reach: np.ndarray) -> np.ndarray:
    """The block and `reach` voxels around it, zeros outside of the scan."""
    padded = np.pad(b, [(0, 0), *((r, r) for r in reach)])
    return padded[:, *(slice(part.start, part.stop + 2 * r) for part, r in zip(block, reach, strict=True))]


def _shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3,): where in `b`, against its middle, the pattern `a` fits best, in voxels: the peak of their correlation."""
    room = np.subtract(b.shape[1:], a.shape[1:])
    shape = [scipy.fft.next_fast_len(n, real=True) for n in b.shape[1:]]
    axes = (-3, -2, -1)

    def correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        spectrum = np.conj(scipy.fft.rfftn(x, shape, axes)) * scipy.fft.rfftn(y, shape, axes)
        together = spectrum.reshape(-1, *shape[:2], shape[2] // 2 + 1).sum(0)
        return scipy.fft.irfftn(together, shape, axes)[tuple(slice(n + 1) for n in room)]

    energy = correlate(np.ones(a.shape[1:], np.float32), (b**2).sum(0))
    score = correlate(a, b) / np.sqrt(np.maximum(energy, 0.1 * energy.max() + 1e-6))
    peak = np.array(np.unravel_index(score.argmax(), score.shape))
    return peak + _vertex(score, peak) - room / 2


def _vertex(score: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """(3,): the way from a peak among samples to that of the parabolas through it, within half a voxel."""
    offset = np.zeros(3)
    for axis in range(3):
        line = score[tuple(slice(None) if i == axis else p for i, p in enumerate(peak))]
        if 0 < peak[axis] < len(line) - 1:
            before, at, after = line[peak[axis] - 1 : peak[axis] + 2]
            bend = before - 2 * at + after
            offset[axis] = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return np.clip(offset, -0.5, 0.5)
