"""Padding, backgrounds and wrap-around: what in a scan is taken for air, what stays, and what is refused."""

import numpy as np
import pytest
from scipy import ndimage

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import air

X, Y, Z = np.indices((30, 36, 12))
INSIDE = np.hypot((X - 14.5) / 10, (Y - 17.5) / 13) < 1
BOX = (X < 4) | (X > 25)  # outside of what was scanned
HEAD = np.where(INSIDE, 500.0 + 20 * (X - 14) + 15 * (Y - 17), 0) + np.abs(np.random.default_rng(0).normal(0, 6, INSIDE.shape))
SCORES = (HEAD - HEAD.mean()) / HEAD.std()
BRAIN = (HEAD - HEAD[INSIDE].mean()) / HEAD[INSIDE].std()


def cleaned(data):
    return air.without_padding(np.asarray(data, np.float32), "scan.nii")


@pytest.mark.parametrize("value", [-1.5, -3, -5, -10])
def test_padding_near_z_scores_takes_their_air(value):
    data, said = cleaned(np.where(BOX, value, SCORES))
    assert said.startswith(f"background {value:g} (")
    np.testing.assert_array_equal(data, np.where(BOX, SCORES[~BOX].min(), SCORES).astype(np.float32))


@pytest.mark.parametrize("value", [-9, 0, 5])
def test_what_surrounds_the_z_scores_of_a_brain_becomes_its_darkest(value):
    data, said = cleaned(np.where(INSIDE, BRAIN, value))
    assert said.startswith(f"background {value:g} (")
    np.testing.assert_array_equal(data, np.where(INSIDE, BRAIN, BRAIN[INSIDE].min()).astype(np.float32))


def test_bright_air_of_a_negative_brain_becomes_its_darkest():
    data, _ = cleaned(np.where(INSIDE, BRAIN - 20, 0))
    assert data[~INSIDE].max() == data.min()


def test_blurred_padding_is_taken_for_air():
    truth = np.where(BOX, 0, HEAD)
    data, said = cleaned(ndimage.gaussian_filter(np.where(BOX, -1024.0, HEAD), 0.7))
    assert said.startswith("padding -1024 (")
    assert data.min() > -11
    assert np.corrcoef(data.ravel(), truth.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    "data",
    [
        np.where(INSIDE, HEAD, 0),
        np.where(INSIDE, HEAD, 0) - 400,
        np.where(INSIDE, HEAD + 900, 0),  # 0 is air, however far below
        np.where(INSIDE, HEAD, 0) / 300 - 1,
        np.maximum(HEAD, 5) - 100,  # clipped noise of air, shifted
        HEAD - 100,
        SCORES,
        np.where(INSIDE, BRAIN, BRAIN[INSIDE].min()),
        ndimage.gaussian_filter(np.where(INSIDE, HEAD, 0) - 450, 0.7),
    ],
)
def test_air_stays_as_it_is(data):
    cleaned_data, said = cleaned(data)
    assert not said
    np.testing.assert_array_equal(cleaned_data, np.asarray(data, np.float32))


def wrapped(factor):
    return np.mod(np.rint(HEAD * factor) + 2**15, 2**16) - 2**15


@pytest.mark.parametrize("factor", [45, 130])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, 10), (1.3, 0), (1e-3, 0), (-2, 0)])
def test_values_that_wrapped_around_once_or_twice_are_refused_whatever_their_scale(factor, slope, intercept):
    with pytest.raises(UserError, match="wrapped around the ends of 16 bits") as refusal:
        cleaned(wrapped(factor) * slope + intercept)
    assert len(str(refusal.value)) < 160


def test_signed_values_around_grey_air_are_no_wrap_around():
    z = np.where(INSIDE, BRAIN - BRAIN[INSIDE].mean(), 0)
    for data in (z, np.clip(z * 3, -3, 3), z * 1e4):
        cleaned(data)


def test_infinite_voxels_are_refused_with_advice_that_helps():
    data = np.where(BOX, np.inf, HEAD)
    with pytest.raises(UserError, match=r"numpy\.nan_to_num\(data, nan=0, posinf=0, neginf=0\)") as refusal:
        cleaned(data)
    assert len(str(refusal.value)) < 170
    cleaned(np.nan_to_num(data, nan=0, posinf=0, neginf=0))
