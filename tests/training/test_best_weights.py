"""Of a training the weights of its best validation are kept, scored and read (`train.best_by`)."""

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.evaluation.scoring import SliceScores
from mrdiff_jax.experiments.runs import Entry
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.storage.checkpoints import Checkpoints
from mrdiff_jax.training.loop import train_and_evaluate


@pytest.fixture
def made_up_scores(monkeypatch):
    """The GMSD of one validation after the other; where it is an exception, the run ends there."""
    waiting, original = [], SliceScores.means

    def means(scores, columns, convention):
        found = original(scores, columns, convention)
        if columns is not METRICS:  # of a validation in training
            return found
        score = waiting.pop(0)
        if isinstance(score, BaseException):
            raise score
        return found | {"gmsd": score}

    monkeypatch.setattr(SliceScores, "means", means)
    return waiting


@pytest.fixture
def choosing(tiny_config):
    tiny_config.train.update(best_by="gmsd", evaluate_every=2, checkpoint_every=100, keep_checkpoints=1, steps=6)
    return tiny_config


@pytest.mark.parametrize("in_two_calls", [False, True])
def test_the_weights_of_the_best_validation_are_those_of_the_run(choosing, tmp_path, made_up_scores, in_two_calls):
    made_up_scores += [0.2, 0.1, 0.3]  # the best is neither first nor last
    if in_two_calls:
        choosing.train.steps = 2
        train_and_evaluate(choosing, tmp_path)
        choosing.train.steps = 6
    summary = train_and_evaluate(choosing, tmp_path)
    assert (summary.step, summary.trained) == (4, 6)
    assert "step 4, the best by validation of 6" in (tmp_path / "report.html").read_text()
    assert Checkpoints(tmp_path, keep=1).latest() == 6  # from which training would go on
    assert evaluate_only(choosing, tmp_path) == summary
    assert train_and_evaluate(choosing, tmp_path) == summary  # and validates no step twice
    assert Entry("row", 0, 6, tmp_path).ended()
    choosing.train.best_by = ""
    with pytest.raises(UserError, match=r"holds a run with --config\.train\.best_by=gmsd, now ;"):
        evaluate_only(choosing, tmp_path)


def test_a_run_killed_before_a_validation_makes_up_for_it(choosing, tmp_path, made_up_scores):
    made_up_scores += [0.2, KeyboardInterrupt(), 0.1, 0.3]
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(choosing, tmp_path)
    summary = train_and_evaluate(choosing, tmp_path)
    assert (summary.step, summary.trained) == (4, 6)


def test_without_validation_subjects_the_last_weights_count(tiny_config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("mrdiff_jax.log.logger.propagate", True)
    tiny_config.train.best_by = "psnr"
    tiny_config.data.validation_fraction = 0.0
    assert train_and_evaluate(tiny_config, tmp_path).step == tiny_config.train.steps
    assert "no subject is left for validation: the last weights count, not the best" in caplog.text
