"""Metrics against the numbers of their authors' own programs (GNU Octave, float64), and their properties."""

import contextlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.cbook
import nibabel as nib
import nilearn.datasets
import numpy as np
import pytest
import pywt
import skimage.data
import skimage.metrics
from scipy.ndimage import gaussian_filter

from mrdiff_jax import metrics
from mrdiff_jax.metrics.fsim import _median

SCORES = {"psnr": metrics.psnr, "ssim": metrics.ssim, "fsim": metrics.fsim, "gmsd": metrics.gmsd}
ERRORS = {"nmse": metrics.nmse, "mae": metrics.mae}
TOLERANCES = {
    np.float32: {"psnr": 1e-3, "ssim": 1e-5, "fsim": 1e-5, "gmsd": 1e-6},
    np.float64: dict.fromkeys(SCORES, 1e-8),
}
GOLDEN = {  # of the pairs that `pair` makes
    "camera": {"psnr": 25.9086137362, "ssim": 0.748041605536, "fsim": 0.901084290901, "gmsd": 0.121730768926},
    "shepp_logan": {
        "psnr": 20.5653738622,
        "ssim": 0.91021096495,
        "fsim": 0.954874725906,
        "gmsd": 0.11171913768,
    },
    "mni": {"psnr": 28.1820217601, "ssim": 0.919134846563, "fsim": 0.91190676087, "gmsd": 0.0951555029358},
    "sagittal": {
        "psnr": 29.7106072323,
        "ssim": 0.936896603972,
        "fsim": 0.92973246111,
        "gmsd": 0.0381080384956,
    },
}
FOLDER = Path(os.environ.get("MRDIFF_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


@pytest.fixture(autouse=True)
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def to_8_bit(image):
    return np.rint(np.clip(image / np.percentile(image, 99.5), 0, 1) * 255)


def blurred(image, sigma):
    return np.rint(gaussian_filter(image, sigma, mode="nearest"))


def pair(name):
    """(target, prediction, data_range) from sample images of installed packages."""
    if name == "camera":  # 512 x 512: FSIM at half resolution
        image = skimage.data.camera().astype(float)
        return image, blurred(image, 2), 255.0
    if name == "shepp_logan":  # 400 x 400 in [0, 1]
        image = skimage.data.shepp_logan_phantom()
        smooth = gaussian_filter(image, 1) ** 0.7
        return image.astype(np.float32), smooth.astype(np.float32), 1.0
    if name == "mni":  # 233 x 197: both sides odd
        folder = Path(nilearn.datasets.__file__).parent / "data"
        volume = np.asarray(nib.load(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz").dataobj)
        image = to_8_bit(np.rot90(volume[:, :, 90]))
        return image, blurred(image, 1.5), 255.0
    with matplotlib.cbook.get_sample_data("s1045.ima.gz") as file:  # 96 x 256
        image = to_8_bit(np.frombuffer(file.read(), ">u2").reshape(256, 256))[80:176]
    return image, blurred(image, 1), 255.0


def scores(prediction, target, data_range=1.0):
    """All four metrics of one pair of images (H, W)."""
    return {name: float(fn(prediction[None], target[None], data_range)[0]) for name, fn in SCORES.items()}


def precision(dtype):
    return jax.enable_x64(True) if dtype is np.float64 else contextlib.nullcontext()


def smooth_noise(shape, seed=0, sigma=1.5):
    """Random images with structure, in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=shape)
    noise = gaussian_filter(noise, sigma, axes=(-2, -1))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


@pytest.fixture(scope="module")
def batch():
    target = smooth_noise((4, 48, 57))
    noise = np.random.default_rng(1).normal(size=target.shape).astype(np.float32)
    return np.clip(target + 0.05 * noise, 0, 1), target


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name, dtype):
    target, prediction, data_range = pair(name)
    with precision(dtype):
        result = scores(prediction.astype(dtype), target.astype(dtype), data_range)
    for metric, expected in GOLDEN[name].items():
        assert abs(result[metric] - expected) < TOLERANCES[dtype][metric], metric


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden folder; MRDIFF_GOLDEN names it")
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_all_golden_values_of_the_folder(dtype):
    golden = json.loads((FOLDER / "golden.json").read_text())["pairs"]
    with np.load(FOLDER / "pairs.npz") as arrays, precision(dtype):
        for name, expected in golden.items():
            target, prediction, data_range = (arrays[f"{name}/{key}"] for key in ("ref", "test", "L"))
            result = scores(prediction.astype(dtype), target.astype(dtype), float(data_range))
            for metric, tolerance in TOLERANCES[dtype].items():
                value = float(expected[metric])
                if np.isnan(value):  # 0 / 0 in the authors' program: see test_constant_images
                    assert 0 < result[metric] <= 1, (name, metric)
                else:
                    assert result[metric] == value or abs(result[metric] - value) < tolerance, (name, metric)


def test_psnr_of_a_known_error():
    target = smooth_noise((1, 16, 16)) / 2
    np.testing.assert_allclose(metrics.psnr(target + 0.1, target), 20, atol=1e-4)


def test_ssim_equals_scikit_image(batch):
    for prediction, target, value in zip(*batch, metrics.ssim(*batch), strict=True):
        expected = skimage.metrics.structural_similarity(
            prediction, target, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        assert abs(value - expected) < 1e-5


def test_errors_of_pixels_equal_scikit_image_and_numpy(batch):
    prediction, target = (np.asarray(images, np.float64) for images in batch)
    roots = [
        skimage.metrics.normalized_root_mse(t, p, normalization="euclidean") for p, t in zip(prediction, target, strict=True)
    ]
    np.testing.assert_allclose(metrics.nmse(prediction, target), np.square(roots), rtol=1e-5)
    np.testing.assert_allclose(metrics.mae(prediction, target), np.abs(prediction - target).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(metrics.mae(255 * prediction, 255 * target, 255.0), metrics.mae(prediction, target), rtol=1e-5)
    assert np.isinf(metrics.nmse(prediction, np.zeros_like(target))).all()


@pytest.mark.parametrize("size", [(16, 16), (17, 31)])
def test_identity(size):
    image = smooth_noise(size)
    result = scores(image, image)
    assert result.pop("psnr") == np.inf
    for metric, value in result.items():
        assert abs(value - (metric != "gmsd")) < 1e-6, metric


@pytest.mark.parametrize("fn", SCORES.values(), ids=SCORES)
class TestEveryScore:
    def test_is_symmetric(self, fn, batch):
        np.testing.assert_allclose(fn(*batch), fn(*reversed(batch)), rtol=1e-5)

    @pytest.mark.parametrize("damage", ["noise", "blur"])
    def test_gets_worse_with_more_damage(self, fn, damage, batch):
        _, target = batch
        noise = np.random.default_rng(1).normal(size=target.shape[1:])
        damaged = {
            "noise": lambda amount: target[0] + amount * noise,
            "blur": lambda amount: gaussian_filter(target[0], 20 * amount),
        }[damage]
        predictions = np.float32([damaged(amount) for amount in (0.02, 0.04, 0.08, 0.16)])
        steps = np.diff(fn(predictions, np.broadcast_to(target[0], predictions.shape)))
        assert np.all(steps > 0) if fn is metrics.gmsd else np.all(steps < 0)

    def test_is_the_same_jitted_and_vmapped(self, fn, batch):
        expected = fn(*batch)
        assert expected.shape == (4,)
        assert expected.dtype == jnp.float32
        vmapped = jax.jit(jax.vmap(fn))(*(image.reshape(2, 2, 48, 57) for image in batch))
        np.testing.assert_allclose(vmapped.reshape(4), expected, rtol=1e-5)

    def test_scales_with_the_data_range(self, fn, batch):
        np.testing.assert_allclose(fn(*(4 * image for image in batch), 4.0), fn(*batch, 1.0), rtol=1e-5)

    def test_takes_integers_and_a_data_range_per_image(self, fn, batch):
        prediction, target = (np.rint(image * 255).astype(np.uint8) for image in batch)
        ranges = np.array([255, 300, 400, 500])
        result = fn(prediction, target, ranges)
        for i, data_range in enumerate(ranges):
            expected = fn(np.float32(prediction), np.float32(target), float(data_range))[i]
            np.testing.assert_allclose(result[i], expected, rtol=1e-5)

    def test_of_nan_is_nan(self, fn, batch):
        prediction, target = batch
        prediction = prediction.copy()
        prediction[1, 5, 5] = np.nan
        np.testing.assert_array_equal(np.isnan(fn(prediction, target)), [False, True, False, False])

    def test_refuses_images_that_do_not_fit(self, fn):
        image = np.zeros((2, 20, 24), np.float32)
        for other in (image[:1], image[:, :, :-1]):
            with pytest.raises(ValueError, match=r"differ in shape: \(2, 20, 24\) and \((1|2), 20, 2(3|4)\)"):
                fn(image, other)
        for wrong in (image[0], image[..., None], image[:, :15]):
            with pytest.raises(ValueError, match=r"at least 16 x 16, got \(" + str(wrong.shape)[1:-1]):
                fn(wrong, wrong)


class TestMask:
    @pytest.mark.parametrize("fn", (SCORES | ERRORS).values(), ids=SCORES | ERRORS)
    def test_that_holds_everywhere_or_nowhere_changes_nothing(self, fn, batch):
        prediction, target = batch
        for mask in (np.ones_like(target, bool), np.zeros_like(target, bool)):
            np.testing.assert_allclose(fn(prediction, target, mask=mask), fn(prediction, target), rtol=1e-5)

    @pytest.mark.parametrize("fn", (SCORES | ERRORS).values(), ids=SCORES | ERRORS)
    def test_hides_damage_outside(self, fn, batch):
        _, target = batch
        mask = np.zeros_like(target, bool)
        mask[:, :, :30] = True
        damaged = np.array(target)
        damaged[:, :, 45:] = 0.5  # further away than the filters reach
        perfect, whole = fn(target, target), fn(damaged, target)
        inside = fn(damaged, target, mask=mask)
        assert (np.abs(whole - perfect) > 0.01).all()
        if fn is metrics.fsim:  # its filters reach far, the finest of them do not
            assert (perfect - inside < 0.25 * (perfect - whole)).all()
        else:
            np.testing.assert_allclose(inside, perfect, atol=1e-6)

    def test_psnr_by_hand(self):
        target, prediction = np.zeros((1, 16, 16)), np.zeros((1, 16, 16))
        prediction[0, :2, :8] = 0.1
        mask = np.zeros((1, 16, 16), bool)
        mask[0, :2] = True
        np.testing.assert_allclose(metrics.psnr(prediction, target, mask=mask), 10 * np.log10(2 / 0.01), rtol=1e-6)

    def test_gmsd_is_the_deviation_inside(self):
        target = np.zeros((1, 16, 16))
        prediction = np.zeros((1, 16, 16))
        prediction[0, :8, 8:] = 1.0
        mask = np.zeros((1, 16, 16), bool)
        mask[0, :, :4] = True  # flat in both images
        assert metrics.gmsd(prediction, target) > 0.1
        assert metrics.gmsd(prediction, target, mask=mask) == 0


def test_constant_images():
    size = (16, 16)
    empty, grey, structured = np.zeros(size), np.full(size, 0.4), smooth_noise(size).astype(float)
    assert scores(empty, empty) == scores(grey, grey) == {"psnr": np.inf, "ssim": 1, "fsim": 1, "gmsd": 0}
    result = scores(grey, empty)
    assert abs(result["psnr"] - 10 * np.log10(1 / 0.4**2)) < 1e-4
    assert abs(result["ssim"] - 0.01**2 / (0.4**2 + 0.01**2)) < 1e-6
    # No phase congruency: the plain mean of the gradient similarity, 1 but for the zero padded border.
    assert (14 / 16) ** 2 < result["fsim"] < 1
    assert all(np.isfinite(value) for value in result.values())
    slightly_wrong = scores(structured + 0.02 * np.eye(16), structured)
    for image in (empty, grey):
        assert 0 < scores(image, structured)["fsim"] < slightly_wrong["fsim"]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("n", [5, 256])
def test_median(n, dtype):
    values = np.random.default_rng(n).exponential(size=(n, 1)).astype(dtype)
    with precision(dtype):
        for case in (values, np.round(values), np.where(values < 1, 0, values), values * 0):
            assert jax.jit(_median)(case) == np.median(case)


class TestWaveletBandErrors:
    def test_of_a_scaled_image_is_the_same_in_all_bands(self, batch):
        _, target = batch
        errors = metrics.wavelet_band_errors(1.25 * target, target)
        assert set(errors) == {"LL3", "LH3", "HL3", "HH3", "LH2", "HL2", "HH2", "LH1", "HL1", "HH1"}
        for error in errors.values():
            np.testing.assert_allclose(error, np.full(4, 0.25), rtol=1e-4)

    def test_equals_pywt(self, batch):
        transforms = (pywt.wavedec2(image, "haar", level=2) for image in batch)
        (ll_x, (lh_x, *_), (*_, hh_x)), (ll_y, (lh_y, *_), (*_, hh_y)) = transforms
        errors = metrics.wavelet_band_errors(*batch, levels=2)
        for name, x, y in (("LL2", ll_x, ll_y), ("LH2", lh_x, lh_y), ("HH1", hh_x, hh_y)):
            expected = np.linalg.norm(x - y, axis=(1, 2)) / np.linalg.norm(y, axis=(1, 2))
            np.testing.assert_allclose(errors[name], expected, rtol=1e-4)

    def test_finds_a_checkerboard_in_the_finest_diagonal_band(self):
        target = smooth_noise((1, 32, 32))
        errors = metrics.wavelet_band_errors(target + 0.1 * (-1) ** np.indices((32, 32)).sum(0)[None], target)
        assert errors.pop("HH1") > 0.5
        assert max(errors.values()) < 1e-4

    def test_of_bands_that_are_empty(self):
        target = np.full((1, 16, 16), 0.3, np.float32)
        errors = metrics.wavelet_band_errors(target + 0.1, target)
        np.testing.assert_allclose(errors.pop("LL3"), 1 / 3, rtol=1e-5)
        assert np.all(np.array(list(errors.values())) == 0)
        assert metrics.wavelet_band_errors(smooth_noise((1, 16, 16)), target)["HH1"] == np.inf
        assert metrics.wavelet_band_errors(0 * target, 0 * target)["LL3"] == 0


class TestRadialPowerSpectrum:
    def test_of_white_noise_is_flat(self):
        noise = np.random.default_rng(0).normal(scale=2, size=(40, 32, 47)).astype(np.float32)
        spectrum = metrics.radial_power_spectrum(noise)
        assert spectrum.shape == (40, 17)
        np.testing.assert_allclose(spectrum.mean(0)[2:], np.full(15, 4), rtol=0.15)

    @pytest.mark.parametrize("axis", [1, 2])
    def test_of_a_wave_is_one_ring(self, axis):
        wave = np.cos(2 * np.pi * 6 * np.indices((1, 32, 32))[axis] / 32)
        spectrum = np.array(metrics.radial_power_spectrum(wave))[0]
        assert spectrum.argmax() == 6
        assert np.delete(spectrum, 6).max() < 1e-6 * spectrum[6]
