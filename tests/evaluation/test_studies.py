"""The studies: damages of known size, measures with known answers, and all of them on a tiny run."""

import csv
import types

import numpy as np
import pytest
from helpers.segmenter import SEGMENTER
from scipy import ndimage

from mrdiff_jax.comparison.report import page
from mrdiff_jax.comparison.runs import Comparison
from mrdiff_jax.comparison.seeds import Seeds
from mrdiff_jax.comparison.tables import markdown
from mrdiff_jax.config import STUDIES, samplings
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results, studies
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.evaluation.studies import (
    denoising,
    hallucination,
    lesions,
    maps,
    physics,
    robustness,
    segmentation,
    uncertainty,
)
from mrdiff_jax.training.loop import train_and_evaluate

SOURCES = ("T2w", "PDw")
LESION_SEED = 4  # of a phantom whose one test subject has a tumour


class TestRobustness:
    @pytest.fixture
    def batch(self):
        images = np.random.default_rng(0).uniform(0.2, 0.7, (3, 24, 16, 2)).astype(np.float32)
        return {"sources": images, "index": np.array([4, 5, 6]), "spacing": np.array([1, 2, 0.5], np.float32)}

    @pytest.fixture
    def spoiled(self, batch):
        return {name: spoil(batch) for name, spoil in robustness.damages(SOURCES, 0).items()}

    def test_noise_is_rician(self):
        empty = np.zeros((1, 256, 256, 1), np.float32)
        air = robustness.add_noise(empty, np.array([0]), 0.05, seed=0)
        assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
        bright = robustness.add_noise(empty + 0.5, np.array([0]), 0.05, seed=0)
        assert bright.mean() == pytest.approx(0.5 + 0.05**2 / (2 * 0.5), rel=0.01)
        assert bright.std() == pytest.approx(0.05, rel=0.02)

    def test_noise_of_a_slice_is_its_own_wherever_it_stands(self, batch):
        images = batch["sources"]
        together = robustness.add_noise(images, batch["index"], 0.1, seed=0)
        np.testing.assert_array_equal(robustness.add_noise(images[1:2], np.array([5]), 0.1, seed=0)[0], together[1])
        assert not np.array_equal(robustness.add_noise(images[1:2], np.array([5]), 0.1, seed=1)[0], together[1])
        assert not np.array_equal(together[0] - images[0], together[1] - images[1])

    def test_the_bias_field_has_its_strength_and_is_smooth(self):
        field = robustness.bias_field(32, 48, 0.4)
        assert (field.min(), field.max()) == pytest.approx((0.6, 1.4))
        assert np.abs(np.diff(field, axis=1)).max() < 0.03

    def test_a_shift_is_in_mm_and_moves_the_last_source_alone(self, batch, spoiled):
        images, moved = batch["sources"], spoiled["PDw shifted by 2 mm"]
        np.testing.assert_allclose(moved[0, :, 4:, 1], images[0, :, 2:-2, 1], atol=1e-6)  # pixels of 1 mm
        np.testing.assert_allclose(moved[1, :, 4:, 1], images[1, :, 3:-1, 1], atol=1e-6)  # of 2 mm
        np.testing.assert_allclose(moved[2, :, 6:, 1], images[2, :, 2:-4, 1], atol=1e-6)  # of 0.5 mm
        np.testing.assert_array_equal(moved[..., 0], images[..., 0])

    def test_a_shift_by_part_of_a_pixel_is_exact_where_the_image_is_smooth(self):
        ramp = np.tile(np.linspace(0.1, 0.9, 64, dtype=np.float32), (8, 1))
        moved = robustness.shift(ramp, 0.3)
        np.testing.assert_allclose(moved[:, 12:-12], ramp[:, 12:-12] - 0.3 * (ramp[0, 1] - ramp[0, 0]), atol=1e-5)

    def test_a_missing_source_is_zeros(self, batch, spoiled):
        assert not spoiled["T2w missing"][..., 0].any()
        np.testing.assert_array_equal(spoiled["T2w missing"][..., 1], batch["sources"][..., 1])
        assert not any("missing" in name for name in robustness.damages(("T2w",), 0))

    @pytest.mark.parametrize("told", [True, False])
    def test_a_method_that_does_without_some_sources_is_told_which_are_missing(self, batch, told):
        seen = []

        def synthesis(spoiled):
            seen.append(spoiled.get("available"))
            return spoiled["sources"][..., 0]

        scored = types.SimpleNamespace(rows=[])
        references = types.SimpleNamespace(predict=lambda sources: {"linear": sources[..., 0]})
        context = types.SimpleNamespace(
            evaluator=types.SimpleNamespace(score=lambda image, of: scored, references=references),
            dataset=types.SimpleNamespace(sources=SOURCES),
            config=types.SimpleNamespace(evaluate=types.SimpleNamespace(seed=0)),
            method=types.SimpleNamespace(any_sources=told),
            batches=lambda text: [batch],
            synthesis=synthesis,
        )
        assert list(robustness.run(context)) == []
        by_setting = dict(zip(robustness.damages(SOURCES, 0), seen, strict=True))
        if not told:
            assert set(seen) == {None}
            return
        assert by_setting["T2w missing"].tolist() == [[0, 1]] * 3
        assert by_setting["PDw missing"].tolist() == [[1, 0]] * 3
        assert by_setting[robustness.UNSPOILED].tolist() == [[1, 1]] * 3

    def test_damages_keep_range_and_leave_the_originals_alone(self, batch, spoiled):
        for name, found in spoiled.items():
            assert found.dtype == np.float32
            assert found.min() >= 0
            assert found.max() <= 1
            assert np.array_equal(found, batch["sources"]) == (name == robustness.UNSPOILED)


class TestUncertainty:
    @pytest.fixture
    def drawn(self):
        """Real and predicted error where the truth is one more draw, of a deviation that grows from pixel to pixel."""
        rng, k = np.random.default_rng(0), 8
        deviation = np.geomspace(0.004, 0.1, 200_000)
        *draws, truth = rng.normal(0.5, deviation, (k + 1, len(deviation)))
        error = np.abs(np.mean(draws, 0) - truth)
        return error, np.sqrt(1 + 1 / k) * np.std(draws, 0, ddof=1)

    def test_where_the_truth_is_one_more_draw_it_is_calibrated(self, drawn):
        found = uncertainty.calibration(*drawn)
        assert found["rmse"] == pytest.approx(found["predicted"], rel=0.01)
        for width in (1, 2):
            assert found[f"within_{width}"] == pytest.approx(uncertainty.coverage(width, 8), abs=0.004)
        assert found["correlation"] > 0.4

    def test_too_sure_of_itself(self, drawn):
        found = uncertainty.calibration(drawn[0], 0.5 * drawn[1])
        assert found["rmse"] == pytest.approx(2 * found["predicted"], rel=0.01)
        assert found["within_2"] == pytest.approx(uncertainty.coverage(1, 8), abs=0.004)

    def test_no_spread_has_no_correlation(self, drawn):
        found = uncertainty.calibration(drawn[0], 0 * drawn[0])
        assert np.isnan(found["correlation"])
        assert found["within_2"] == 0

    def test_coverage_of_many_samples_is_that_of_a_gaussian(self):
        assert [uncertainty.coverage(width, 100_000) for width in (1, 2)] == pytest.approx([0.6827, 0.9545], abs=1e-4)
        assert uncertainty.coverage(1, 2) == pytest.approx(0.5)  # Cauchy

    def test_bins_hold_every_pixel_once_and_the_squares_of_both_errors(self, drawn):
        bins = uncertainty.reliability(*drawn)
        assert sum(sums["pixels"] for sums in bins.values()) == len(drawn[0])
        inside = (drawn[1] >= 0.016) & (drawn[1] < 0.016 * np.sqrt(2))
        of_bin = bins["from 0.0160"]
        assert of_bin["pixels"] == inside.sum()
        assert of_bin["error_squares"] == pytest.approx(np.sum(drawn[0][inside] ** 2))
        assert of_bin["predicted_squares"] == pytest.approx(np.sum(drawn[1][inside] ** 2))


class TestMaps:
    def test_the_best_channel_keeps_its_sign(self):
        rng = np.random.default_rng(0)
        truth, features = rng.normal(size=300), rng.normal(size=(300, 5))
        features[:, 1], features[:, 3] = truth + rng.normal(size=300), -truth + 0.3 * rng.normal(size=300)
        features[:, 4] = 0  # dead
        np.testing.assert_array_equal(maps.best_channel(features, truth), [0, 0, 0, -1, 0])

    def test_the_linear_fit_finds_what_channels_know_together(self):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(400, 4))
        truth = features @ [1, -2, 0, 0.5] + 7
        weights = maps.linear(features[:200], truth[:200])
        assert maps.correlation(features[200:] @ weights, truth[200:]) == pytest.approx(1)
        noise = maps.linear(rng.normal(size=(200, 4)), truth[:200])
        assert abs(maps.correlation(rng.normal(size=(200, 4)) @ noise, truth[200:])) < 0.3

    def test_correlation(self):
        a, b = np.random.default_rng(0).normal(size=(2, 50))
        assert maps.correlation(a, a + b) == pytest.approx(np.corrcoef(a, a + b)[0, 1])
        assert np.isnan(maps.correlation(a, np.ones(50)))

    def test_blocks_are_means_over_the_brain_alone(self):
        true = np.zeros((4, 4, 3), np.float32)
        true[:2, :2] = 1000, 80, 900
        true[0, 0] = 0, 0, 0
        true[:2, 2] = 2000, 90, 800
        means, brain = maps.block_means(true, 2)
        np.testing.assert_allclose(means[0, 0], [1000, 80, 900])
        np.testing.assert_allclose(means[0, 1], [2000, 90, 800])
        np.testing.assert_array_equal(brain, [[True, False], [False, False]])


class TestFalseStructures:
    @pytest.fixture
    def slice_(self):
        """A disc, in its right half chequered, and where the body is."""
        y, x = np.mgrid[:96, :96] - 48
        body = np.hypot(x, y) < 40
        return (body * (0.4 + 0.2 * ((x > 0) & (x // 8 % 2 == y // 8 % 2)))).astype(np.float32), body

    def test_the_truth_itself_has_none(self, slice_):
        target, body = slice_
        found = hallucination.structures(target, target, body)
        assert list(found) == ["background", "flat regions", "edges"]
        assert all(value == 0 for of_region in found.values() for value in of_region.values())

    @pytest.mark.parametrize(("column", "region"), [(20, "flat regions"), (4, "background")])
    def test_a_blob_is_an_invention_where_it_stands(self, slice_, column, region):
        target, body = slice_
        wrong = target.copy()
        wrong[46:50, column : column + 4] += 0.4
        found = hallucination.structures(wrong, target, body)
        others = [found[name] for name in ("background", "flat regions") if name != region]
        assert 0 < found[region]["invented"] < 0.05
        assert found[region]["rmse"] > 0.01
        assert [of_region["invented"] for of_region in others] == [0]
        assert found["edges"]["lost"] == 0

    def test_blur_loses_edges_and_invents_none(self, slice_):
        target, body = slice_
        found = hallucination.structures(ndimage.gaussian_filter(target, 6), target, body)
        assert found["edges"]["lost"] > 0.5
        assert found["flat regions"]["invented"] == found["background"]["invented"] == 0

    def test_an_edge_out_of_place_by_a_pixel_is_neither(self, slice_):
        target, body = slice_
        found = hallucination.structures(np.roll(target, 1, 0), target, body)
        assert found["edges"]["lost"] == found["flat regions"]["invented"] == found["background"]["invented"] == 0
        assert found["edges"]["rmse"] > 0.05

    def test_what_is_empty_is_nan(self):
        constant = np.full((32, 32), 0.5, np.float32)
        found = hallucination.structures(constant, constant, np.ones((32, 32), bool))
        assert np.isnan(found["edges"]["lost"])
        assert np.isnan(found["background"]["rmse"])
        assert found["flat regions"] == {"rmse": 0, "invented": 0}


def test_errors_inside_lesions_are_apart_from_the_rest():
    target, body, lesion = np.zeros((8, 8)), np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    body[1:7, 1:7], lesion[2:4, 2:4] = True, True
    synthesis = np.where(lesion, -0.3, 0.1)
    synthesis[0] = 0.9  # outside the body
    found = lesions.errors(synthesis, target, body, lesion)
    assert found["lesions"] == pytest.approx({"rmse": 0.3, "bias": -0.3})
    assert found["rest of the body"] == pytest.approx({"rmse": 0.1, "bias": 0.1})
    assert np.isnan(lesions.errors(synthesis, target, lesion, lesion)["rest of the body"]["rmse"])


def test_samplings():
    assert samplings("1, 50,8x50") == [(1, 1), (1, 50), (8, 50)]
    assert samplings("") == []
    for wrong in ("x5", "0", "3x", "2x2x2", "-1", "ten", "0x5"):
        with pytest.raises(UserError, match=r"--config\.evaluate\.sampling=.*1,50,8x50"):
            samplings(wrong)


class TestWhatCanBeDone:
    def choose(self, config, asked, *, example=(), **method):
        dataset = types.SimpleNamespace(split=lambda name: [dict(example)])
        config.evaluate.studies = asked
        return studies.chosen(
            config,
            dataset,
            types.SimpleNamespace(**{"feature_maps": None, "reconstruct": None, "samples": True, "denoise": print} | method),
        )

    def test_all_is_what_data_and_method_allow(self, tiny_config):
        assert self.choose(tiny_config, "") == []
        assert self.choose(tiny_config, "all") == ["sampling", "denoising", "robustness", "uncertainty", "hallucination"]
        known = {"maps": np.ones((4, 4, 3)), "lesions": np.ones((4, 4))}
        tiny_config.evaluate.segmenter = SEGMENTER
        assert self.choose(tiny_config, "all", example=known, feature_maps=print, reconstruct=print) == list(STUDIES)

    def test_a_deterministic_method_has_no_studies_of_samples(self, tiny_config):
        assert self.choose(tiny_config, "all", samples=False, denoise=None) == ["robustness", "hallucination"]
        with pytest.raises(UserError, match="'denoising' cannot be done: this method has no chain of noise"):
            self.choose(tiny_config, "denoising", denoise=None)
        with pytest.raises(UserError, match="'uncertainty' cannot be done: this method does not sample"):
            self.choose(tiny_config, "uncertainty", samples=False)

    @pytest.mark.parametrize(
        ("asked", "example", "reason"),
        [
            (
                "segmentation",
                {},
                r"'segmentation' cannot be done: .* give one, as --config\.evaluate\.segmenter='COMMAND {input}",
            ),
            ("maps", {}, "'maps' cannot be done: the true T1, T2 and S0 of this data set are not known"),
            ("maps", {"maps": 0}, "'maps' cannot be done: this method has no maps"),
            ("physics", {"maps": 0}, "'physics' cannot be done: this method does not explain its sources"),
            ("lesions", {}, r"'lesions' cannot be done: this data set has no masks of lesions; .*--config\.data\.lesions"),
            (
                "sampling,lesions",
                {"lesions": np.zeros((4, 4))},
                "'lesions' cannot be done: none of the slices that are scored",
            ),
        ],
    )
    def test_what_is_named_and_cannot_be_done_is_refused(self, tiny_config, asked, example, reason):
        with pytest.raises(UserError, match=reason):
            self.choose(tiny_config, asked, example=example)


def test_all_studies_of_a_run_reach_the_comparison(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    tiny_config.data.seed = LESION_SEED
    train_and_evaluate(tiny_config, tmp_path)
    assert not (tmp_path / "studies.csv").exists()
    tiny_config.evaluate.update(studies="all", sampling="1,3x2,2000", samples=2, study_slices=2, segmenter=SEGMENTER)
    evaluate_only(tiny_config, tmp_path)
    with (tmp_path / "studies.csv").open() as file:
        rows = list(csv.DictReader(file))
    settings = {study: {row["setting"] for row in rows if row["study"] == study} for study in STUDIES}
    assert settings["robustness"] == set(robustness.damages(SOURCES, 0))
    assert settings["sampling"] == {"1 step", "2 steps, mean of 3"}  # the chain has 1000
    assert settings["denoising"] == {f"t = {round(share * 999)}" for share in denoising.SHARES}
    assert settings["uncertainty"] == {"2 syntheses of 2 steps"}
    assert settings["maps"] == {"T1", "T2", "S0"}
    assert settings["physics"] == {f"{name}, {of}" for name in SOURCES for of in (physics.AS_SCANNED, *physics.CHANGES)}
    assert settings["hallucination"] <= {"background", "flat regions", "edges"}
    assert settings["segmentation"] == {"label 1", "label 2", segmentation.MEAN}
    assert settings["lesions"] == {"lesions", "rest of the body"}

    stored = results.read(tmp_path)
    main = {(row["subject"], row["slice"]): row["psnr"] for row in stored.rows["synthesis"]}

    def psnr(setting, method):
        of = {"study": "robustness", "setting": setting, "measure": "psnr", "method": method}
        return {(row["subject"], row["slice"]): row["value"] for row in stored.studies if of.items() <= row.items()}

    for key, value in psnr(robustness.UNSPOILED, "synthesis").items():
        assert value == pytest.approx(main[key], abs=1e-3)
    linear = [sum(psnr(name, "linear").values()) for name in ("Rician noise 0.1", "Rician noise 0.02", robustness.UNSPOILED)]
    assert linear == sorted(linear)

    comparison = Comparison({"tiny": Seeds([stored])})
    text, html = markdown(comparison), page(comparison, [], 0)
    titles = (
        "Sampling",
        "One estimate",
        "Robustness",
        "Calibration",
        "Content maps",
        "Sources at other times",
        "False structures",
        "Error inside lesions",
        "What a segmenter",
    )
    for title in titles:
        assert f"## {title}" in text
        assert f">{title}" in html
    curve = comparison.reliability()["tiny"]
    assert curve.share.sum() == pytest.approx(1)
    assert (np.diff(curve.predicted) > 0).all()

    tiny_config.evaluate.studies = ""
    evaluate_only(tiny_config, tmp_path)
    assert not (tmp_path / "studies.csv").exists()
