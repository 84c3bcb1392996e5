"""The alignment check sees shifts, turns and mirror images, and passes scans that lie on each other."""

import numpy as np
import pytest
from helpers.made_heads import MM, grid, head, rigid
from helpers.scans import real_scans
from scipy import ndimage

from mrdiff_jax.preparation import alignment, bias_field, registration
from mrdiff_jax.preparation.registration import Grid
from mrdiff_jax.scans.volumes import Volume, read_nifti


@pytest.mark.parametrize("contrast", ["T2w", "FLAIR"])
def test_contrasts_that_lie_on_each_other_pass(contrast):
    found = alignment.measure(head("T1w"), head(contrast, seed=1), grid())
    assert found.shift_mm < 0.8
    assert 0.2 < found.overlap <= 1


@pytest.mark.parametrize("shift", [(3, 0, 0), (0, -3, 0), (0, 0, 3), (2, 2, -1)])
def test_a_shift_of_3_mm_is_seen_with_its_direction(shift):
    found = alignment.measure(head("T1w"), head("T2w", move=rigid(0, (1, 0, 0), shift), seed=1), grid())
    assert found.shift_mm == pytest.approx(3, abs=0.5)
    np.testing.assert_allclose(found.shift, shift, atol=0.5)


def test_a_turn_is_seen_though_the_middle_stays():
    found = alignment.measure(head("T1w"), head("T2w", move=rigid(10, (0, 0, 1), (0, 0, 0)), seed=1), grid())
    assert found.shift_mm > 2


def test_fat_that_is_shifted_against_water_is_not_misalignment():
    fixed, moved = head("T1w"), head("T1w", move=rigid(0, (1, 0, 0), (0, 4, 0)), seed=1)
    fat = ndimage.distance_transform_edt(bias_field.body_in_volumes([fixed], (MM,) * 3), sampling=(MM,) * 3) < 8
    assert alignment.measure(fixed, np.where(fat, moved, head("T2w", seed=1)), grid()).shift_mm < 1
    assert alignment.measure(fixed, moved, grid()).shift_mm > 3


def test_where_no_air_is_seen_all_edges_count(monkeypatch):
    on = grid((24, 24, 24))  # within the brain
    fixed, moving = head("T1w", on), head("T2w", on, seed=1)
    monkeypatch.setattr(bias_field, "body_in_volumes", lambda volumes, spacing: np.ones(volumes[0].shape, bool))
    found, mirrored = alignment.measure(fixed, moving, on), alignment.measure(fixed[::-1], moving[::-1], on)
    assert found.overlap == pytest.approx(mirrored.overlap, rel=1e-4)


def test_few_thick_slices_will_do():
    thick = grid((80, 80, 10), (1.4, 1.4, 6))
    assert alignment.measure(head("T1w", thick), head("T2w", thick, seed=1), thick).shift_mm < 0.7
    moved = head("T2w", thick, rigid(0, (1, 0, 0), (0, 3, 0)), seed=1)
    assert alignment.measure(head("T1w", thick), moved, thick).shift_mm == pytest.approx(3, abs=0.7)


def test_an_empty_scan_has_no_overlap():
    found = alignment.measure(head("T1w"), np.zeros(grid().shape, np.float32), grid())
    assert found.overlap == 0
    assert np.isfinite(found.shift_mm)


def test_a_mirrored_scan_is_told_wherever_it_lies():
    fixed = Volume(head("T1w"), grid().affine, None)
    moving = Volume(head("T2w", move=rigid(5, (0, 0, 1), (4, 0, 0)), seed=1), grid().affine, None)
    transform = registration.register(fixed, moving, 2.0).transform
    assert alignment.mirror_gain(fixed, moving, transform) < -0.01
    mirrored = Volume(moving.data[::-1], moving.affine, None)
    transform = registration.register(fixed, mirrored, 2.0).transform
    assert alignment.mirror_gain(fixed, mirrored, transform) > 0.01


def halved(volume):
    """The scan at 2 mm: quick to check."""
    x, y, z = (n // 2 * 2 for n in volume.data.shape)
    data = volume.data[:x, :y, :z].reshape(x // 2, 2, y // 2, 2, z // 2, 2).mean((1, 3, 5))
    return Volume(data, volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0]), None)


def test_real_registered_scans_pass_and_a_shift_and_a_flip_of_them_do_not():
    folder = real_scans("open_ms/registered") / "sub-MS07" / "anat"
    fixed, moving = (halved(read_nifti(folder / f"sub-MS07_{contrast}.nii.gz")) for contrast in ("FLAIR", "T2w"))
    on = Grid(fixed.data.shape, fixed.affine)
    assert alignment.measure(fixed.data, moving.data, on).shift_mm < 1
    assert alignment.mirror_gain(fixed, moving, np.eye(4)) < -0.02
    shifted = registration.resample(moving, on, rigid(0, (1, 0, 0), (3, 0, 0)), "cubic")
    assert alignment.measure(fixed.data, shifted, on).shift_mm > 2.5
    flipped = Volume(moving.data[::-1], moving.affine, None)
    assert alignment.mirror_gain(fixed, flipped, np.eye(4)) > 0.02


def test_real_scans_of_ten_thick_slices_pass():
    folder = real_scans("lgg") / "sub-DU5874" / "anat"
    fixed, moving = (read_nifti(folder / f"sub-DU5874_{contrast}.nii.gz") for contrast in ("FLAIR", "T1w"))
    on = Grid(fixed.data.shape, fixed.affine)
    assert alignment.measure(fixed.data, moving.data, on).shift_mm < 1
    assert alignment.measure(fixed.data, np.roll(moving.data, 3, axis=0), on).shift_mm > 2.5
