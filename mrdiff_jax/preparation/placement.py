"""One scan laid on another, checked; and scans that lie on each other, corrected."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import alignment, bias_field, registration
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import Placement
from mrdiff_jax.preparation.registration import Grid
from mrdiff_jax.scans import volumes
from mrdiff_jax.scans.volumes import Volume

LEAST_SLICES = 2
ALIGNED_MM = 1.0  # scans on one grid that are this close are left alone
WORTH_IT = 0.8  # and those that registration does not bring closer than this share of their shift


def place(fixed: Volume, moving: Volume, options: Options) -> tuple[np.ndarray, Placement]:
    """A scan on the grid of the reference, (X, Y, Z) float32, and how it came there with what the checks say.

    Scans that share a grid and lie on each other are left alone, and so are those that registration brings hardly closer.
    Raises UserError where the grids differ and registration is not allowed, or one of the two is a single slice.
    """
    for volume in (fixed, moving):
        if min(volume.data.shape) < LEAST_SLICES:
            raise UserError(f"{volume.path}: has a single slice, which cannot be laid on another scan; give a volume")
    grid, identity = registration.grid_of(fixed), np.eye(4)
    shared = volumes.same_grid(fixed, moving)
    if not shared and options.registration == "never":
        raise UserError(f"{moving.path}: its grid differs from that of {fixed.path}; prepare with --registration=auto")
    before = alignment.measure(fixed.data, moving.data if shared else registration.resample(moving, grid, identity), grid)
    data, found, transform, action = moving.data, before, identity, "left alone"
    if options.registration == "auto" and not (shared and before.shift_mm <= ALIGNED_MM):
        registered = registration.register(fixed, moving).transform
        moved = registration.resample(moving, grid, registered, options.interpolation)
        after = alignment.measure(fixed.data, moved, grid)
        if not shared or after.shift_mm < WORTH_IT * before.shift_mm:
            data, found, transform, action = moved, after, registered, "registered"
    return data, Placement(
        action=action,
        transform=tuple(transform.ravel().round(6).tolist()),
        shift_before_mm=round(before.shift_mm, 3),
        shift_mm=round(found.shift_mm, 3),
        shift=tuple(round(mm, 3) for mm in found.shift),
        overlap=round(found.overlap, 4),
        mirror_gain=round(alignment.mirror_gain(fixed, moving, transform), 4),
    )


def misaligned(placement: Placement, reference: str, spacing: Sequence[float], max_shift_mm: float) -> str:
    """How a scan that was placed does not lie on the reference; '' where it does.

    Across thick slices a scan may be off by half a slice, as edges cannot be distinguished from their blur.
    """
    limits = np.maximum(max_shift_mm, np.divide(spacing, 2))
    far = np.linalg.norm(np.array(placement.shift) / limits) > 1
    if placement.mirror_gain > 0:
        return f"fits {reference} better mirrored: left and right are swapped in one of them, or it is somebody else's"
    if far or placement.shift_mm > limits.max():
        of_limits = " x ".join(f"{limit:g}" for limit in limits) if limits.max() > limits.min() else f"{limits.max():g}"
        return f"lies {placement.shift_mm:.1f} mm off {reference} (limit {of_limits} mm)"
    return ""


def correct(
    data: Mapping[str, np.ndarray], grid: Grid, options: Options
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, str]]:
    """Aligned volumes by contrast without bias fields and without what lies outside of the body; its mask; what was done.

    Outside of the body a volume takes its value at the lower percentile. Where air is not dark (real-valued inversion
    recovery), the values have two signs, which a bias field model does not allow: such a scan is not corrected.
    """
    mask = bias_field.body_in_volumes(list(data.values()), grid.spacing)
    corrected, done = {}, {}
    for contrast, volume in data.items():
        done[contrast] = "none"
        if options.bias_correction:
            grey = bias_field.has_grey_air(volume)
            done[contrast] = "left out: air is grey" if grey else "N4"
            volume = volume if grey else bias_field.remove_bias(volume, mask, grid.spacing)
        if options.mask == "body":
            volume = np.where(mask, volume, np.percentile(volume, options.percentiles[0]))
        corrected[contrast] = volume.astype(np.float32)
    return corrected, mask, done
