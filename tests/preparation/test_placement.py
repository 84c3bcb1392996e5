"""A scan is placed on the grid of another, or refused; and its bias field is taken out."""

from pathlib import Path

import numpy as np
import pytest
from helpers.made_heads import grid, head

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import placement
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import Placement
from mrdiff_jax.scans.volumes import Volume

CONTRASTS = ("T1w", "T2w")
THICK = grid((40, 44, 22), (3, 3, 5))
OPTIONS = Options(CONTRASTS, "T1w", image_size=32)


def test_another_grid_is_refused_where_registration_is_not_allowed():
    fixed = Volume(head("T1w", THICK), THICK.affine, Path("a.nii.gz"))
    with pytest.raises(UserError, match="grid differs"):
        placement.place(fixed, Volume(fixed.data[:-1], fixed.affine, Path("b.nii.gz")), Options(CONTRASTS, "T1w", "never"))


def test_grey_air_is_blackened_and_its_scan_not_bias_corrected():
    signed = head("T1w", THICK).astype(np.float32)
    signed = np.where(signed > 200, 2 * signed - 900, 0) + 1000  # air at 1000, tissue on both sides
    done, mask, said = placement.correct({"T1w": signed, "T2w": head("T2w", THICK)}, THICK, OPTIONS)
    assert said["T1w"].startswith("left out")
    assert said["T2w"] == "N4"
    assert np.ptp(done["T1w"][~mask]) == 0
    assert done["T1w"][~mask].max() <= np.percentile(signed, 1)
    np.testing.assert_array_equal(done["T1w"][mask], signed[mask])


def test_n4_takes_a_bias_field_out():
    clean = head("T1w", grid(), noise=0.005)
    x = np.linspace(-1, 1, clean.shape[0])[:, None, None]
    done, mask, _ = placement.correct({"T1w": clean * np.exp(0.4 * x).astype(np.float32)}, grid(), OPTIONS)
    inside = mask & (clean > 300)

    def slope(volume):
        return np.polyfit(np.broadcast_to(x, clean.shape)[inside], np.log(volume[inside] / clean[inside]), 1)[0]

    assert abs(slope(done["T1w"])) < 0.15


def test_half_a_slice_is_allowed_across_slices_alone():
    def told(*shift):
        moved = Placement("registered", shift=shift, shift_mm=float(np.linalg.norm(shift)), mirror_gain=-0.1)
        return placement.misaligned(moved, "T1w", (1.0, 1.0, 7.0), 2.0)

    assert told(0, 0, 3) == ""
    assert told(1, 1, 2) == ""
    for shift in ((3, 0, 0), (0, -3, 0), (0, 0, 4), (-2, 2, 1)):
        assert "limit 2 x 2 x 3.5 mm" in told(*shift)
