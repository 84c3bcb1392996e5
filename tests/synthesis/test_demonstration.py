"""The first look: the model that ships, on a subject that it has not seen."""

import csv
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from mrdiff_jax.data import phantom
from mrdiff_jax.errors import UserError
from mrdiff_jax.synthesis import demonstration
from mrdiff_jax.synthesis.from_scans import SynthesisOptions
from mrdiff_jax.synthesis.synthesizer import Synthesizer

SETTINGS = SynthesisOptions(steps=1, samples=2)


@pytest.fixture(scope="module")
def shipped():
    return Synthesizer.load(demonstration.MODEL)


@pytest.fixture(scope="module")
def made(shipped, tmp_path_factory):
    """The folder, and the scores that were returned."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    return folder, demonstration.run(shipped, folder, SETTINGS)


def test_the_subject_was_not_trained_on_and_has_a_tumour(shipped):
    assert shipped.trained.config.data.name == "phantom"
    assert shipped.trained.config.data.subjects <= demonstration.SUBJECT
    (lesion,) = phantom.draw_subject(np.random.default_rng([shipped.trained.config.data.seed, demonstration.SUBJECT])).lesions
    assert lesion[3] > 15  # mm, its radius


def test_the_synthesis_is_far_better_than_the_sources(made):
    _, scores = made
    assert list(scores) == ["synthesis", "linear regression", "T2w as it is", "PDw as it is"]
    assert scores["synthesis"]["psnr"] > 28
    assert scores["synthesis"]["psnr"] - 3 > scores["linear regression"]["psnr"] > scores["PDw as it is"]["psnr"] + 3
    assert scores["synthesis"]["tumour_rmse"] < scores["linear regression"]["tumour_rmse"]
    for name in ("T2w as it is", "PDw as it is"):
        assert scores[name]["psnr"] + 5 < scores["synthesis"]["psnr"]
        assert scores[name]["ssim"] + 0.2 < scores["synthesis"]["ssim"]


def test_it_leaves_scans_synthesis_picture_and_table(made):
    folder, scores = made
    name = phantom.subject_name(demonstration.SUBJECT)
    scans = {f"{name}_{contrast}" for contrast in ("T1w", "T2w", "PDw", "desc-synthetic_T1w", "desc-syntheticStd_T1w")}
    expected = {f"{scan}{end}" for scan in scans for end in (".nii.gz", ".json")} | {"picture.png", "scores.csv"}
    assert {path.name for path in folder.iterdir()} == expected
    true, synthetic, deviation = (
        nib.load(folder / f"{name}_{end}.nii.gz") for end in ("T1w", "desc-synthetic_T1w", "desc-syntheticStd_T1w")
    )
    np.testing.assert_array_equal(synthetic.affine, true.affine)
    correlation = np.corrcoef(synthetic.get_fdata().ravel(), true.get_fdata().ravel())[0, 1]
    assert correlation > 0.95
    assert 0 < deviation.get_fdata().max() < np.abs(synthetic.get_fdata() - true.get_fdata()).max()
    with Image.open(folder / "picture.png") as picture:
        assert picture.width > picture.height > 500
    with (folder / "scores.csv").open() as file:
        rows = {row.pop("images"): row for row in csv.DictReader(file)}
    assert {row: {metric: float(value) for metric, value in values.items()} for row, values in rows.items()} == scores


def test_what_is_interrupted_leaves_nothing(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        demonstration.run(shipped, tmp_path / "new", SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_not_touched(shipped, tmp_path):
    with pytest.raises(UserError, match=r"--output=.* is there; remove it"):
        demonstration.run(shipped, tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give --workdir and --output, or --demo"),
        (["--workdir=run"], "error: give --workdir and --output, or --demo"),
        (["--demo", "--workdir=run"], "--workdir: --demo has a model, a subject and sources of its own; leave it out"),
        (["--demo", "--samples=1"], "--samples=1: --demo shows how samples differ; give 2 or more"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, message, tmp_path):
    command = [sys.executable, "-m", "mrdiff_jax.synthesize", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_scores(tmp_path):
    command = [sys.executable, "-m", "mrdiff_jax.synthesize", "--demo", "--steps=1", "--samples=2"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "PSNR" in ended.stdout
    assert "synthesis" in ended.stdout
    assert (tmp_path / "mrdiff-demo" / "picture.png").is_file()


def test_the_card_tells_the_model_that_ships(shipped):
    card = (Path(demonstration.MODEL).parent / "README.md").read_text(encoding="utf-8")
    assert shipped.trained.sha256[:16] in card
    assert f"{shipped.trained.step:,}" in card
