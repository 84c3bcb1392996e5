"""A folder of results: written with every measurement, kept when a part is stopped or fails."""

import sys

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.measuring.reports import Report, brief, measurements, table, wait


@pytest.fixture
def report(tmp_path):
    report = Report(tmp_path / "out", lambda results: f"{len(results)} parts\n")
    report.begin()
    return report


def test_every_measurement_is_written(report):
    report.add("device", "gemm", {"tflops": 1.5})
    report.add("device", "gemm", {"tflops": 2.5})
    report.add("data", "demo", {"idle": float("nan")})
    assert report.read() == {"device": {"gemm": {"tflops": 2.5}}, "data": {"demo": {"idle": None}}}
    assert (report.folder / "results.md").read_text() == "2 parts\n"
    report.begin()
    assert report.read() == {}


def test_what_was_measured_before_stays_until_its_part_is_measured_again(report):
    report.add("device", "gemm", {"tflops": 1.5})
    report.add("data", "demo", {"idle": 0.1})
    report.begin(keep=True)
    assert set(report.read()) == {"device", "data"}
    report.run("data", [sys.executable, "-c", ""])
    assert set(report.read()["data"]) == {"process"}
    assert report.read()["device"] == {"gemm": {"tflops": 1.5}}
    (report.folder / "results.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        report.begin(keep=True)


def test_a_part_out_of_time_keeps_what_it_has(report, tmp_path):
    file = tmp_path / "found.txt"
    code = f"import pathlib, time; pathlib.Path({str(file)!r}).write_text('1'); time.sleep(60)"
    assert report.run("slow", [sys.executable, "-c", code], limit=2)
    assert report.read()["slow"]["process"]["ended"] == "out of time"
    assert measurements(report.read()["slow"]) == {}
    assert file.read_text() == "1"


def test_a_part_that_fails_is_told_of(report):
    assert report.run("well", [sys.executable, "-c", ""])
    assert not report.run("badly", [sys.executable, "-c", "raise SystemExit('no such thing')"])
    assert report.read()["badly"]["process"]["ended"] == "failed (1): no such thing"
    assert wait([sys.executable, "-c", ""], 30) == "finished"


def test_a_table_has_the_columns_that_some_row_has():
    rows = {"a": {"x": 1.23456, "note": "one|two"}, "b": {"y": 2}}
    assert table("T", rows)[2:] == [
        "",
        "| | x | note | y |",
        "|---|---|---|---|",
        "| a | 1.235 | one/two |  |",
        "| b |  |  | 2 |",
    ]
    assert table("T", rows, ("y", "z"))[3:] == ["| | y |", "|---|---|", "| a |  |", "| b | 2 |"]
    assert table("T", {}) == []
    assert table("T", rows, ("z",))[3:] == ["- a: x 1.235, note one/two", "- b: y 2"]
    assert brief({"x": 0.5, "y": "z"}) == "x 0.5, y z"
