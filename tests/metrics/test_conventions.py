"""Each preset against a case computed by hand, and the body mask."""

import dataclasses

import numpy as np
import pytest

from mrdiff_jax.metrics.conventions import BANDS, CONVENTIONS, METRICS, body_mask, scorer


@pytest.fixture
def images():
    """(prediction, target, body): a bright square on air; predicted at half its brightness, with a spot in the air."""
    rng = np.random.default_rng(0)
    target = np.zeros((2, 32, 32), np.float32)
    target[:, 8:24, 8:24] = rng.uniform(0.4, 0.8, (2, 16, 16))
    prediction = target / 2
    prediction[:, 2, 2] = 0.1
    return prediction, target, target > 0


def psnr(prediction, target, data_range=1.0):
    return 10 * np.log10(data_range**2 / np.mean((prediction - target) ** 2, axis=(1, 2)))


def scored(name, images):
    return {column: np.asarray(values) for column, values in scorer(CONVENTIONS[name])(*images).items()}


def largest(images):
    return images.max((1, 2), keepdims=True)


def test_the_default_never_rescales_and_scores_whole_and_body(images):
    prediction, target, body = images
    scores = scored("default", images)
    np.testing.assert_allclose(scores["psnr"], psnr(prediction, target), rtol=1e-5)
    inside = 10 * np.log10(1 / np.mean((target / 2)[body].reshape(2, -1) ** 2, axis=1))
    np.testing.assert_allclose(scores["psnr_body"], inside, rtol=1e-5)
    for name in ("ssim", "fsim", "gmsd"):
        np.testing.assert_allclose(scores[name], METRICS[name](prediction, target), rtol=1e-5)
        np.testing.assert_allclose(scores[f"{name}_body"], METRICS[name](prediction, target, mask=body), rtol=1e-5)


@pytest.mark.parametrize("name", ["syndiff", "resvit"])
def test_each_by_its_own_maximum(name, images):
    prediction, target, _ = images
    expected = psnr(prediction / largest(prediction), target / largest(target))
    np.testing.assert_allclose(scored(name, images)["psnr"], expected, rtol=1e-4)
    assert (expected > psnr(prediction, target) + 5).all()  # the spot alone is left of the error


def test_d2diff_takes_each_from_0_to_1(images):
    prediction, target, body = images
    expected = psnr(prediction / largest(prediction), target / largest(target))
    lifted = (prediction + 0.1, target + 0.2, body)
    np.testing.assert_allclose(scored("d2diff", lifted)["psnr"], expected, rtol=1e-4)


def test_fast_ddpm_rounds_to_8_bits(images):
    prediction, target, _ = images
    expected = psnr(np.rint(prediction * 255), np.rint(target * 255), 255)
    np.testing.assert_allclose(scored("fast-ddpm", images)["psnr"], expected, rtol=1e-5)


def test_hinet_forgives_what_lies_where_the_truth_is_0(images):
    assert (scored("hinet", images)["psnr"] > 100).all()  # the spot is gone and the brightness scaled away


def test_apt_looks_at_the_bright_truth_only(images):
    assert (scored("apt", images)["psnr"] > 100).all()
    target = np.full((2, 16, 16), 0.5, np.float32)
    target[:, 0, 0], target[0, 8, 8], target[1, 8, 8] = 1, 0.009, 0.011  # on either side of 0.01
    prediction = target.copy()
    prediction[:, 8, 8] = 0.3
    below, above = scored("apt", (prediction, target, np.ones_like(target, bool)))["psnr"]
    assert below > 100
    np.testing.assert_allclose(above, 10 * np.log10(256 / 0.289**2), rtol=1e-4)


def test_selfrdb_divides_by_the_mean_inside_the_mask(images):
    prediction, target, body = images
    assert (scored("selfrdb", images)["psnr"] > 100).all()
    skewed = (prediction + 0.1 * (target > 0.6), target, body)
    truth = target / target[body].reshape(2, -1).mean(1)[:, None, None]
    guess = skewed[0] * body
    guess = guess / guess[body].reshape(2, -1).mean(1)[:, None, None]
    expected = psnr(guess, truth, truth.max((1, 2)))
    np.testing.assert_allclose(scored("selfrdb", skewed)["psnr"], expected, rtol=1e-4)


@pytest.mark.parametrize("name", CONVENTIONS)
class TestEveryConvention:
    def test_finds_a_perfect_synthesis_perfect(self, name, images):
        _, target, body = images
        scores = scored(name, (target, target, body))
        assert (scores["ssim"] > 0.99999).all()
        assert (scores["gmsd"] < 1e-6).all()

    def test_has_its_columns_and_says_what_it_does(self, name, images):
        convention = CONVENTIONS[name]
        assert set(scored(name, images)) == set(convention.columns())
        assert convention.columns()[:4] == list(METRICS)
        assert set(BANDS) < set(convention.columns())
        assert convention.aggregation in ("subject", "slice")
        described = convention.describe(name)
        assert described.name == name
        assert all(dataclasses.asdict(described).values())

    def test_takes_empty_images(self, name, images):
        _, target, _ = images
        nothing, everywhere = np.zeros_like(target), np.ones_like(target, bool)
        scores = scored(name, (nothing, nothing, everywhere))
        assert not any(np.isnan(values).any() for values in scores.values())
        assert np.isfinite(scored(name, (nothing, target, target > 0))["psnr"]).all()


class TestBodyMask:
    def test_is_the_filled_union_of_truth_and_sources_without_specks(self):
        images = np.full((1, 32, 32, 2), 0.02, np.float32)
        images[0, 4:20, 4:20, 0] = 0.5
        images[0, 10:14, 10:14, 0] = 0.02  # a hole
        images[0, 16:24, 6:22, 1] = 0.3
        images[0, 28, 28, 1] = 1.0  # a speck
        expected = np.zeros((32, 32), bool)
        expected[4:20, 4:20] = expected[16:24, 6:22] = True
        wrong = body_mask(images)[0] ^ expected
        assert wrong.sum() <= 8  # the opening rounds corners
        assert body_mask(images)[0, 12, 12]
        assert not body_mask(images)[0, 28, 28]

    def test_knows_bright_air(self):
        images = np.full((1, 32, 32, 1), 0.5, np.float32)
        images[0, 8:16, 8:16] = 0.0
        assert body_mask(images).sum() == pytest.approx(64, abs=4)

    def test_does_not_fill_through_neighbouring_slices(self):
        images = np.zeros((3, 32, 32, 1), np.float32)
        images[:, 8:16, 8:16] = 1
        images[1] = 0
        images[1, 2:6, 4:20] = 1
        assert not body_mask(images)[1, 12, 12]

    def test_of_an_empty_slice_is_everywhere(self):
        assert body_mask(np.zeros((2, 16, 16, 3), np.float32)).all()
