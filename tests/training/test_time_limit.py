"""The clock of a run: what is left to train, and what is over."""

import math

import pytest

from mrdiff_jax.training import time_limit
from mrdiff_jax.training.time_limit import TimeLimit


@pytest.fixture
def clock(monkeypatch):
    """The time, which stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(time_limit.time, "monotonic", lambda: now[0])
    return now


def test_training_leaves_the_time_of_the_evaluation(clock):
    limit = TimeLimit(minutes=10)
    clock[0] += 30  # what must be compiled counts
    assert (limit.left(), limit.share()) == (math.inf, 0)
    limit.begin(evaluation=100)
    assert limit.left() == pytest.approx(600 - 30 - 110 - 20)
    clock[0] = 100 + 235
    assert limit.share() == pytest.approx(0.5)
    clock[0] = 100 + 470
    assert (limit.left(), limit.share()) == (0, 1)


def test_without_a_limit_there_is_time_for_ever(clock):
    limit = TimeLimit(minutes=0)
    limit.begin(evaluation=100)
    clock[0] += 1e6
    assert not limit
    assert (limit.left(), limit.share()) == (math.inf, 0)


def test_no_time_to_train_is_warned_of(clock, caplog):
    limit = TimeLimit(minutes=1)
    clock[0] += 1
    limit.begin(evaluation=100)
    assert (limit.left(), limit.share()) == (0, 1)
    assert "raise --config.train.max_minutes" in caplog.text
