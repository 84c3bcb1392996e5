"""What an evaluation leaves behind, and what reading it refuses."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from conftest import TINY

from mrdiff_jax import metrics
from mrdiff_jax.config import default
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.metrics import conventions
from mrdiff_jax.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run."""
    config = default("paper")
    config.update_from_flattened_dict(TINY | {"train.steps": 2})
    folder = tmp_path_factory.mktemp("run")
    train_and_evaluate(config, folder)
    return folder


def columns_of(rows, column):
    return np.array([row[column] for row in rows])


def test_scores_can_be_computed_again_from_the_images(workdir):
    stored = results.read(workdir)
    rows, images = stored.rows["synthesis"], stored.images
    assert list(images.places) == [(row["subject"], row["slice"]) for row in rows]
    np.testing.assert_allclose(columns_of(rows, "psnr"), metrics.psnr(images.synthesis, images.target), atol=1e-3)
    body = conventions.body_mask(np.concatenate([images.sources, images.target[..., None]], -1))
    ssim = metrics.ssim(images.synthesis, images.target, mask=body)
    np.testing.assert_allclose(columns_of(rows, "ssim_body"), ssim, atol=1e-4)
    bands = metrics.wavelet_band_errors(images.synthesis, images.target)
    np.testing.assert_allclose(columns_of(rows, "HH1"), bands["HH1"], rtol=1e-3)


def test_references_can_be_made_again(workdir):
    stored = results.read(workdir)
    summary = stored.summary
    references = References(summary.sources.index(summary.copied), np.array(summary.linear_weights))
    for name, image in references.predict(stored.images.sources).items():
        psnr = metrics.psnr(image, stored.images.target)
        np.testing.assert_allclose(columns_of(stored.rows[name], "psnr"), psnr, atol=1e-3)


def test_the_images_are_the_data_set(workdir, tiny_config):
    examples, images = open_dataset(tiny_config.data).split("test"), results.read(workdir).images
    for i in range(len(examples)):
        np.testing.assert_array_equal(images.target[i], examples[i]["target"])
        np.testing.assert_array_equal(images.sources[i], examples[i]["sources"])


def test_the_summary_says_how_and_agrees_with_the_rows(workdir):
    stored = results.read(workdir)
    summary, rows = stored.summary, stored.rows["synthesis"]
    convention = conventions.CONVENTIONS["default"]
    assert summary.convention == convention.describe("default")
    assert list(rows[0]) == ["subject", "slice", *convention.columns()]
    means = [columns_of([r for r in rows if r["subject"] == s], "gmsd_body").mean() for s in {r["subject"] for r in rows}]
    assert summary.body.synthesis["gmsd_body"] == pytest.approx(np.mean(means))
    assert set(summary.bands.references["linear"]) == set(conventions.BANDS)
    for name in ("metrics.csv", "references.csv"):
        with (workdir / name).open(newline="") as file:
            assert {row["convention"] for row in csv.DictReader(file)} == {"default"}


def test_an_evaluation_that_fails_leaves_the_one_before(workdir, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(workdir, folder)
    stored = results.read(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(results.np, "savez_compressed", full)
    better = [row | {"psnr": 99.0} for row in stored.rows["synthesis"]]
    with pytest.raises(OSError, match="No space"):
        results.write(dataclasses.replace(stored, rows=stored.rows | {"synthesis": better}), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_spectra_are_those_of_the_images(workdir):
    stored = results.read(workdir)
    np.testing.assert_allclose(stored.spectra["frequency"], np.arange(9) / 16)
    subjects = stored.images.subject
    power = np.asarray(metrics.radial_power_spectrum(stored.images.target))
    expected = np.mean([power[subjects == subject].mean(0) for subject in np.unique(subjects)], 0)
    np.testing.assert_allclose(stored.spectra["target"], expected, rtol=1e-3)
    assert set(stored.spectra) == {"frequency", "target", "synthesis", "copy", "linear"}


def test_another_convention_and_fewer_images(workdir, tiny_config, tmp_path):
    (tmp_path / "checkpoints").symlink_to(workdir / "checkpoints")
    tiny_config.evaluate.update(convention="fast-ddpm", images=2)
    summary = evaluate_only(tiny_config, tmp_path)
    stored = results.read(tmp_path)
    assert len(stored.images.places) == 2
    assert summary.convention.name == "fast-ddpm"
    assert summary.body is None
    assert not any(column.endswith("_body") for column in stored.rows["linear"][0])
    slices = columns_of(stored.rows["synthesis"], "ssim")
    assert summary.synthesis["ssim"] == pytest.approx(slices.mean())


def test_validation_subjects_can_be_scored_to_choose_by(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    tiny_config.evaluate.split = "validation"
    tiny_config.data.validation_fraction = 0.0
    with pytest.raises(UserError, match=r"evaluate\.split=validation: no subject is left.*validation_fraction"):
        train_and_evaluate(tiny_config, tmp_path / "none")
    tiny_config.data.validation_fraction = 0.3
    summary = train_and_evaluate(tiny_config, tmp_path / "run")
    splits = open_dataset(tiny_config.data).splits
    for name, rows in results.read(tmp_path / "run").rows.items():
        assert {row["subject"] for row in rows} == {s for s, split in splits.items() if split == "validation"}, name
    assert summary.split == "validation"


def test_nothing_is_pickled(workdir):
    with np.load(workdir / "images.npz", allow_pickle=False) as stored:
        assert {name: stored[name].dtype.kind for name in stored} == {
            "subject": "U", "slice": "i", "target": "u", "synthesis": "u", "sources": "u"
        }  # fmt: skip


@pytest.mark.parametrize("name", ["metrics.json", "metrics.csv", "references.csv", "spectra.csv", "images.npz"])
def test_a_missing_or_broken_file_is_told_by_the_folder(workdir, tmp_path, name):
    for path in workdir.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    results.read(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(UserError, match=rf"{tmp_path}: .*cannot be read.*--mode=eval"):
        results.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{tmp_path}: no {name}.*--mode=eval"):
        results.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda s: s.pop("bands"), "metrics.json: no entry 'bands'"),
        (lambda s: s["body"].pop("references"), "metrics.json: body: no entry 'references'"),
        (lambda s: s["references"].pop("copy"), "metrics.json: references: no entry 'copy'"),
        (lambda s: s["synthesis"].pop("psnr"), "metrics.json: scores: no entry 'psnr'"),
        (lambda s: s["convention"].update(colour="red"), "metrics.json: convention: unknown entry 'colour'"),
        (lambda s: s.update(Body=s.pop("body")), "metrics.json: unknown entry 'Body'"),
        (lambda s: s.update(slices="ten"), 'metrics.json: slices is "ten"'),
        (lambda s: s.update(sources="T1w"), 'metrics.json: sources is "T1w"'),
    ],
)
def test_a_summary_with_missing_or_wrong_entries_is_told_by_the_entry(workdir, tmp_path, change, wrong):
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    path = tmp_path / "run" / "metrics.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=rf"{tmp_path}/run: .*{re.escape(wrong)}.*evaluate the run again with --mode=eval"):
        results.read(tmp_path / "run")


def test_a_mean_that_is_not_finite_is_null_in_the_file_and_nan_again(workdir, tmp_path):
    stored = results.read(workdir)
    scores = stored.summary.synthesis | {"psnr": float("inf")}
    results.write(dataclasses.replace(stored, summary=dataclasses.replace(stored.summary, synthesis=scores)), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["synthesis"]["psnr"] is None
    assert np.isnan(results.read(tmp_path).summary.synthesis["psnr"])


def test_the_csv_files_are_plain(workdir):
    with (workdir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == json.loads((workdir / "metrics.json").read_text())["slices"]
    assert all(np.isfinite(float(row["psnr"])) for row in rows)


def test_a_run_without_scores_is_told_how_to_get_them(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    with pytest.raises(UserError, match="my run: not the workdir of a run; name one"):
        results.read(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no metrics\.json; evaluate .* mrdiff train --workdir='.*/my run' --mode=eval"):
        results.read(folder)
