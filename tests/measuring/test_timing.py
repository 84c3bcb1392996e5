"""Seconds by known answers: what waits takes wall time, what computes takes the processor's."""

import time

import pytest

from mrdiff_jax.measuring.timing import LEAST, compared, cpu_seconds, interleaved


def compute():
    start = cpu_seconds()
    while cpu_seconds() < start + 0.02:
        pass


def test_functions_are_called_in_turn_and_the_first_call_does_not_count():
    calls = []
    first, second = interleaved(lambda: calls.append("a"), lambda: calls.append("b"), repeats=4)
    assert calls == ["a", "b"] * 5
    assert first["repeats"] == second["repeats"] == 4


def test_what_takes_long_is_called_a_few_times():
    (record,) = interleaved(lambda: time.sleep(0.01), most=0.0, repeats=50)
    assert record["repeats"] == LEAST
    assert record["seconds"] >= 0.01


def test_waiting_takes_wall_time_and_computing_cpu_time():
    waits, computes = interleaved(lambda: time.sleep(0.02), compute, repeats=3)
    assert waits["seconds"] >= 0.02
    assert computes["cpu_seconds"] >= 0.02


def test_others_are_told_as_multiples_of_the_first():
    found = compared({"ours": lambda: time.sleep(0.01), "theirs": lambda: time.sleep(0.03)})
    assert found["ours"]["times_the_first"] == 1
    assert found["theirs"]["times_the_first"] == pytest.approx(found["theirs"]["seconds"] / found["ours"]["seconds"])
