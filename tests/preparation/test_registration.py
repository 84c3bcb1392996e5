"""Registration finds moves that are known, and resampling puts voxels where they belong."""

import nibabel as nib
import numpy as np
import pytest
from helpers.made_heads import displacement, grid, head, rigid
from helpers.scans import real_scans

from mrdiff_jax.preparation import registration
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.volumes import Volume, read_nifti


def volume(contrast, on=None, move=None, seed=0):
    on = on or grid()
    return Volume(head(contrast, on, move, seed), on.affine, None)


@pytest.mark.parametrize(
    ("move", "on"),
    [
        (rigid(15, (1, -2, 1), (14, -10, 10)), None),  # a shift of 20 mm
        (rigid(-9, (0, 1, 3), (0, 4, -6)), grid((60, 64, 24), (2, 1.8, 5), shift=(3, 0, 2))),  # thick slices
    ],
)
def test_finds_a_known_move_between_contrasts(move, on):
    fixed, moving = volume("T1w"), volume("T2w", on, move, seed=1)
    found = registration.register(fixed, moving, finest_mm=2.0)
    limit = 0.25 if on is None else 0.5
    assert displacement(found.transform, move) < limit
    np.testing.assert_allclose(found.transform[:3, :3] @ found.transform[:3, :3].T, np.eye(3), atol=1e-9)
    near = registration.register(fixed, moving, finest_mm=2.0, start=rigid(2, (1, 0, 0), (1, 1, 0)) @ move)
    assert displacement(near.transform, move) < limit


def test_the_same_scans_give_the_same_bits():
    fixed, moving = volume("T1w"), volume("T2w", move=rigid(4, (0, 0, 1), (2, 0, 0)))
    first, second = (registration.register(fixed, moving, finest_mm=4.0) for _ in range(2))
    assert first.transform.tobytes() == second.transform.tobytes()
    assert first.information == second.information


def test_resampling_to_its_own_grid_changes_nothing():
    one = volume("T1w", grid((9, 8, 7), (8, 9, 12)))
    for kind in registration.INTERPOLATORS:
        same = registration.resample(one, registration.grid_of(one), np.eye(4), kind)
        np.testing.assert_allclose(same, one.data, atol=0.05)
        assert same.dtype == np.float32


def test_resampling_takes_values_from_where_the_transform_points():
    data = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    one = Volume(data, np.diag([2.0, 3.0, 4.0, 1.0]), None)
    transform = np.eye(4)
    transform[:3, 3] = (2, -3, 4)  # a voxel on, a voxel back, a voxel on
    moved = registration.resample(one, registration.grid_of(one), transform)
    np.testing.assert_allclose(moved[:-1, 1:, :-1], data[1:, :-1, 1:], atol=1e-6)
    np.testing.assert_array_equal(moved[-1], np.float32(air_level(data)))  # beyond the scan there is its air
    seen = registration.field_of_view(one, registration.grid_of(one), transform)
    assert seen[:-1, 1:, :-1].all()
    assert not seen[-1].any()
    assert not seen[:, 0].any()


def test_resampling_obeys_oblique_and_permuted_affines():
    affine = rigid(30, (1, 1, 0), (0, 0, 0))
    affine[:3, :3] = affine[:3, :3] @ [[0, 2, 0], [0, 0, -2], [2, 0, 0]]
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 24.5)
    on = registration.Grid((50, 50, 50), affine)
    expected = head("T1w", on, noise=0)
    found = registration.resample(Volume(head("T1w", noise=0), grid().affine, None), on, np.eye(4))
    middle = (slice(10, 40),) * 3
    assert np.corrcoef(found[middle].ravel(), expected[middle].ravel())[0, 1] > 0.99


def itk_transform(path):
    """The world matrix (RAS) of an ITK transform file."""
    lines = dict(line.split(": ") for line in path.read_text().splitlines() if ": " in line)
    parameters, centre = (np.array(lines[key].split(), float) for key in ("Parameters", "FixedParameters"))
    matrix = np.eye(4)
    matrix[:3, :3] = parameters[:9].reshape(3, 3)
    matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
    flip = np.diag([-1, -1, 1, 1])
    return flip @ matrix @ flip


def test_real_scans_are_brought_where_the_data_s_authors_brought_them():
    session = real_scans("open_ms/unregistered") / "sub-MSL03" / "ses-2"
    fixed, moving = (read_nifti(next(session.glob(f"anat/*_{contrast}.nii.gz"))) for contrast in ("FLAIR", "T1w"))
    truth = itk_transform(next(session.glob("*T1W*.txt")))
    points = np.argwhere(fixed.data > np.percentile(fixed.data, 70))[::997]
    points = nib.affines.apply_affine(fixed.affine, points)

    def apart(a, b):
        return np.linalg.norm(nib.affines.apply_affine(a, points) - nib.affines.apply_affine(b, points), axis=1).mean()

    assert apart(np.eye(4), truth) > 4
    assert apart(registration.register(fixed, moving).transform, truth) < 1


def test_real_scans_that_are_moved_are_followed_to_a_fifth_of_a_millimetre():
    folder = real_scans("open_ms/registered") / "sub-MS07"
    fixed, still = (read_nifti(next(folder.rglob(f"*_{contrast}.nii.gz"))) for contrast in ("FLAIR", "T2w"))
    move = rigid(12, (1, -1, 2), (11, -9, 12))
    moved = Volume(still.data, move @ still.affine, still.path)
    before, after = (registration.register(fixed, moving).transform for moving in (still, moved))
    assert displacement(after, move @ before) < 0.2
