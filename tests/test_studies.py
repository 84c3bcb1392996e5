"""Damages of known size, and the studies of a tiny run."""

import csv

import numpy as np
import pytest

from mrdiff_jax import results, studies
from mrdiff_jax.comparison import Comparison
from mrdiff_jax.config import samplings
from mrdiff_jax.errors import UserError
from mrdiff_jax.report import page
from mrdiff_jax.tables import markdown
from mrdiff_jax.train import evaluate_only, train_and_evaluate

SOURCES = ("T2w", "PDw")


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0.2, 0.7, (3, 24, 16, 2)).astype(np.float32)


@pytest.fixture
def spoiled(images):
    index = np.array([4, 5, 6])
    return {name: spoil(images, index) for name, spoil in studies.damages(SOURCES, 0).items()}


def test_noise_is_rician(images):
    empty = np.zeros((1, 256, 256, 1), np.float32)
    air = studies.add_noise(empty, np.array([0]), 0.05, seed=0)
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
    bright = studies.add_noise(empty + 0.5, np.array([0]), 0.05, seed=0)
    assert bright.mean() == pytest.approx(0.5 + 0.05**2 / (2 * 0.5), rel=0.01)
    assert bright.std() == pytest.approx(0.05, rel=0.02)


def test_noise_of_a_slice_is_its_own_wherever_it_stands(images):
    together = studies.add_noise(images, np.array([4, 5, 6]), 0.1, seed=0)
    np.testing.assert_array_equal(studies.add_noise(images[1:2], np.array([5]), 0.1, seed=0)[0], together[1])
    assert not np.array_equal(studies.add_noise(images[1:2], np.array([5]), 0.1, seed=1)[0], together[1])
    assert not np.array_equal(together[0] - images[0], together[1] - images[1])


def test_the_bias_field_has_its_strength_and_is_smooth():
    field = studies.bias_field(32, 48, 0.4)
    assert (field.min(), field.max()) == pytest.approx((0.6, 1.4))
    assert np.abs(np.diff(field, axis=1)).max() < 0.03


def test_a_shift_moves_the_last_source_alone(images, spoiled):
    moved = spoiled["PDw shifted by 2 px"]
    np.testing.assert_array_equal(moved[:, 2:, :, 1], images[:, :-2, :, 1])
    np.testing.assert_array_equal(moved[..., 0], images[..., 0])


def test_a_missing_source_is_zeros(images, spoiled):
    assert not spoiled["T2w missing"][..., 0].any()
    np.testing.assert_array_equal(spoiled["T2w missing"][..., 1], images[..., 1])
    assert not any("missing" in name for name in studies.damages(("T2w",), 0))


def test_damages_keep_range_and_leave_the_originals_alone(images, spoiled):
    for name, found in spoiled.items():
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        assert np.array_equal(found, images) == (name == studies.UNSPOILED)


def test_samplings():
    assert samplings("1, 50,8x50") == [(1, 1), (1, 50), (8, 50)]
    assert samplings("") == []
    for wrong in ("x5", "0", "3x", "2x2x2", "-1", "ten", "0x5"):
        with pytest.raises(UserError, match=r"--config\.evaluate\.sampling=.*1,50,8x50"):
            samplings(wrong)


def test_studies_of_a_run_reach_the_comparison(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    train_and_evaluate(tiny_config, tmp_path)
    assert not (tmp_path / "studies.csv").exists()
    tiny_config.evaluate.update(sampling="1,3x2", robustness=True, study_slices=2)
    evaluate_only(tiny_config, tmp_path)
    with (tmp_path / "studies.csv").open() as file:
        rows = list(csv.DictReader(file))
    settings = {row["setting"] for row in rows if row["study"] == "robustness"}
    assert settings == set(studies.damages(SOURCES, 0))
    assert {row["setting"] for row in rows if row["study"] == "sampling"} == {"1 step", "2 steps, mean of 3"}
    assert len(rows) == (len(settings) + 2) * 3 * 2

    stored = results.read(tmp_path)
    main = {(row["subject"], row["slice"]): row["psnr"] for row in stored.rows["synthesis"]}
    for row in stored.studies:
        if (row["setting"], row["method"]) == (studies.UNSPOILED, "synthesis"):
            assert row["psnr"] == pytest.approx(main[row["subject"], row["slice"]], abs=1e-3)
    linear = {
        row["setting"]: row["psnr"] for row in stored.studies if row["method"] == "linear" and row["study"] == "robustness"
    }
    assert linear["Rician noise 0.1"] < linear["Rician noise 0.02"] < linear[studies.UNSPOILED]

    comparison = Comparison({"tiny": stored})
    assert "## Robustness" in markdown(comparison)
    assert "T2w missing" in page(comparison, [], 0)

    tiny_config.evaluate.update(sampling="", robustness=False)
    evaluate_only(tiny_config, tmp_path)
    assert not (tmp_path / "studies.csv").exists()
