"""Scores of the references: computed once for a data set and a convention, and the same from then on."""

import shutil

import numpy as np
import pytest

from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.scoring import Scorer, SliceScores


@pytest.fixture
def dataset(tiny_config):
    """A tiny phantom of this file's own, with no scores of references kept."""
    tiny_config.data.seed = 9
    dataset = open_dataset(tiny_config.data)
    shutil.rmtree(dataset.folder / "references", ignore_errors=True)
    return dataset


def test_references_are_scored_once(dataset, monkeypatch):
    fitted, scores = scoring.reference_scores(dataset, "test", Scorer("default"), 2)
    assert set(scores) == {"target", "copy", "linear"}
    assert len(scores["linear"].rows) == len(scores["target"].spectra) == len(dataset.split("test"))
    monkeypatch.setattr(Scorer, "__call__", None)
    again, kept = scoring.reference_scores(dataset, "test", Scorer("default"), 2)
    assert again.better_source == fitted.better_source
    np.testing.assert_array_equal(again.weights, fitted.weights)
    for name, found in scores.items():
        assert kept[name].rows == found.rows
        np.testing.assert_array_equal(kept[name].spectra, found.spectra)
    assert [path.suffix for path in (dataset.folder / "references").iterdir()] == [".npz"]


def test_another_convention_or_other_sources_are_scored_anew(dataset, tiny_config):
    _, default = scoring.reference_scores(dataset, "test", Scorer("default"), 2)
    _, other = scoring.reference_scores(dataset, "test", Scorer("syndiff"), 2)
    tiny_config.data.sources = "FLAIR,T2w"
    _, third = scoring.reference_scores(open_dataset(tiny_config.data), "test", Scorer("default"), 2)
    assert len({found["linear"].rows[0]["psnr"] for found in (default, other, third)}) == 3
    assert "psnr_body" not in other["copy"].rows[0]


def test_a_cache_that_cannot_be_written_is_no_mistake(dataset, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    _, scores = scoring.reference_scores(dataset, "test", Scorer("default"), 2)
    assert len(scores["copy"].rows) == len(dataset.split("test"))
    assert not list((dataset.folder / "references").iterdir())


def test_a_mean_spectrum_is_over_slices_and_then_subjects():
    rows = [{"subject": name} for name in ("a", "a", "b")]
    found = SliceScores(rows, [np.array(values, float) for values in ([1, 2], [3, 4], [10, 20])])
    np.testing.assert_allclose(found.mean_spectrum(), [6, 11.5])
