"""The search of learning rates as a user starts it, on a network that trains in seconds."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

ROOT = Path(__file__).parents[2]
FIELDS = [f"--config.{name}={value}" for name, value in TINY.items() if name != "optimizer.learning_rate"]


def call(output, *flags):
    tool = [sys.executable, ROOT / "tools" / "tune_rates.py", f"--config={ROOT / 'configs' / 'demo.py'}", *FIELDS]
    return subprocess.run([*tool, f"--output={output}", *flags], capture_output=True, text=True, env=dict(os.environ))


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_search_scores_the_validation_subjects_and_goes_on(tmp_path):
    output, flags = tmp_path / "rates.csv", ("--methods=regression", "--minutes=0.001")
    done = call(output, *flags, "--factors=1")
    assert done.returncode == 0, done.stderr
    (first,) = rows(output)
    assert first["method"] == "regression"
    assert float(first["learning_rate"]) == 3e-3  # that of configs/demo.py
    assert 0 < float(first["psnr"]) < 60
    more = call(output, *flags, "--factors=1,2")
    assert more.returncode == 0, more.stderr
    kept, added = rows(output)
    assert kept == first
    assert (added["learning_rate"], added["steps"]) == ("0.006", first["steps"])
    assert added["psnr"] != first["psnr"]
    other = call(output, *flags, "--config.data.batch_size=4")
    assert other.returncode == 2
    assert "rates.csv: has rows of other --config or --minutes flags" in other.stderr
    assert rows(output) == [kept, added]


def test_a_search_without_validation_subjects_is_refused(tmp_path):
    flags = ("--methods=regression", "--minutes=0.001", "--factors=1", "--config.data.validation_fraction=0")
    done = call(tmp_path / "rates.csv", *flags)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no subject is left for validation; raise --config.data.validation")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--minutes=1", "--config.data.batch_size", "4"), "--config.data.batch_size: write it with its value"),
        (("--minutes=1", "--factors=1,-3"), "--factors=1,-3: give numbers above 0"),
        (("--minutes=1", "--factors=a"), "--factors=a: give numbers above 0"),
        (("--minutes=1", "--methods=hinnet"), "did you mean hinet?"),
        (("--minutes=1", "--methods="), "--methods=: give one or more"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(tmp_path, flags, message):
    done = call(tmp_path / "rates.csv", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "rates.csv").exists()
