"""The comparison of methods as a user starts it, kills it and starts it again, on networks that train in seconds."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY
from helpers.models import TINY_METHODS

from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.experiments import plan, runs
from mrdiff_jax.experiments.plan import Rule
from mrdiff_jax.experiments.runs import Entry

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "run_comparison.py"

SMALL = TINY | TINY_METHODS["pix2pix"] | {"train.checkpoint_every": 1000, "train.evaluate_every": 1000}
FIELDS = [f"--config.{field}={value}" for field, value in SMALL.items() if field not in ("method.name", "train.steps")]


def command(output, *flags):
    return [sys.executable, TOOL, f"--config={ROOT / 'configs' / 'demo.py'}", *FIELDS, f"--output={output}", *flags]


def call(output, *flags, **variables):
    return subprocess.run(command(output, *flags), capture_output=True, text=True, env=os.environ | variables)


def rows(output):
    return list(csv.DictReader((output / "runs.csv").read_text().splitlines()))


def test_all_methods_and_seeds_are_trained_and_compared_and_a_killed_plan_goes_on(tmp_path):
    flags = ("--methods=regression,pix2pix", "--seeds=0,1", "--rule=steps", "--config.train.steps=4", "--parallel=2")
    first = subprocess.Popen(command(tmp_path / "out", *flags), stderr=subprocess.DEVNULL)
    ended = tmp_path / "out" / "regression-0" / "metrics.json"
    while not ended.exists() and first.poll() is None:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 1
    before = ended.stat().st_mtime_ns

    done = call(tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    assert "of 3 runs ended" in done.stderr or "of 2 runs ended" in done.stderr
    assert "left" in done.stderr
    assert ended.stat().st_mtime_ns == before  # what had ended was not run again
    runs = rows(tmp_path / "out")
    assert {(row["row"], row["seed"], row["steps"]) for row in runs} == {
        (method, seed, "4") for method in ("regression", "pix2pix") for seed in "01"
    }
    assert all(float(row["psnr"]) > 0 and int(row["parameters"]) > 0 for row in runs)
    run_by = (tmp_path / "out" / "pix2pix-1.log").read_text().splitlines()[0]
    assert "--config.method.name=pix2pix --config.train.seed=1" in run_by
    assert run_by.endswith(f"--config.train.steps=4 --config.train.max_minutes=0 --workdir={tmp_path / 'out' / 'pix2pix-1'}")
    of_seeds = [json.loads((tmp_path / "out" / f"regression-{seed}" / "config.json").read_text()) for seed in "01"]
    assert [config["train"]["seed"] for config in of_seeds] == [0, 1]
    table = (tmp_path / "out" / "comparison" / "table1.md").read_text()
    assert "| regression |" in table
    assert "| pix2pix |" in table
    assert (tmp_path / "out" / "comparison" / "index.html").exists()

    other = call(tmp_path / "out", *flags[:-1], "--config.data.batch_size=4")
    assert other.returncode == 2
    assert "plan.json: is a plan with settings" in other.stderr


def demo():
    config = runpy.run_path(str(ROOT / "configs" / "demo.py"))["get_config"]()
    config.update_from_flattened_dict(SMALL)
    return config


def test_equal_time_gives_steps_by_the_measured_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda configs, environment: {name: 0.5 / (i + 1) for i, name in enumerate(configs)})
    rows = {name: {"method.name": name} for name in ("regression", "pix2pix")}
    made = plan.make(demo(), rows, Rule("time", minutes=2.0), [], tmp_path, {})
    assert made.steps == {"regression": 240, "pix2pix": 480}
    assert plan.make(demo(), rows, Rule("time", minutes=2.0), [], tmp_path, {}) == made  # as it was written
    with pytest.raises(UserError, match=r"is a plan with minutes 2\.0, not 3\.0; name another --output"):
        plan.make(demo(), rows, Rule("time", minutes=3.0), [], tmp_path, {})


def test_speed_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(plan, "ROUNDS", 1)
    (seconds,) = plan.measure({"regression": plan.chosen(demo(), {"method.name": "regression"})}, {}).values()
    assert 0 < seconds < 10


def test_a_failed_run_costs_no_other(tmp_path, monkeypatch):
    def start(entry, settings, device):
        entry.workdir.mkdir()
        if entry.row != "bad":
            (entry.workdir / "metrics.json").write_text('{"step": 3, "trained": 4}')
        return subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({entry.row != 'good'})"])

    monkeypatch.setattr(runs, "start", start)
    rows = ("bad", "good", "ended by another process")
    entries = [Entry(row, 0, 4, tmp_path / f"{row}-0") for row in rows]
    assert runs.run(entries, {}, [], {row: {} for row in rows}, at_a_time=1) == entries[:1]


@pytest.mark.parametrize("fails", ["regression", "pix2pix"])
def test_the_others_are_compared_without_a_failed_run_unless_it_is_the_first_row(tmp_path, monkeypatch, fails):
    compared = []
    monkeypatch.setattr(runs, "table", lambda entries: " ".join(entry.row for entry in entries))
    monkeypatch.setattr(runs, "compare", lambda rows, output: compared.append({row: len(of) for row, of in rows.items()}))
    entries = [Entry(row, seed, 4, tmp_path / f"{row}-{seed}") for seed in (0, 1) for row in ("regression", "pix2pix")]
    failed = [entry for entry in entries if entry.row == fails]
    with pytest.raises(SystemExit, match=r"2 of 4 runs failed; see .*-0\.log, .*-1\.log; the same command tries them again"):
        runs.conclude(entries, failed, tmp_path)
    ended = "pix2pix" if fails == "regression" else "regression"
    assert (tmp_path / "runs.csv").read_text() == f"{ended} {ended}"
    assert compared == ([{"regression": 2}] if fails == "pix2pix" else [])


def test_the_first_row_stays_the_first_though_one_of_its_seeds_failed(tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(runs, "table", lambda entries: "")
    monkeypatch.setattr(runs, "compare", lambda rows, output: compared.extend(rows))
    entries = [Entry(row, seed, 4, tmp_path / f"{row}-{seed}") for seed in (0, 1) for row in ("regression", "pix2pix")]
    with pytest.raises(SystemExit, match="1 of 4 runs failed"):
        runs.conclude(entries, entries[:1], tmp_path)
    assert compared == ["regression", "pix2pix"]


def test_recipes_are_scaled_by_the_slices_that_were_seen_in_the_publication():
    lengths = [methods.settings(name).published for name in methods.NAMES]
    assert all(length.count > 0 and length.unit in ("epochs", "steps of 8 slices") for length in lengths)
    assert [plan.published_steps(name, slices=1000, batch_size=4) for name in ("mrdiff", "hinet")] == [700_000, 100_000]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--methods=regression,hinnet",), "no such method"),
        (("--seeds=0,0",), "--seeds=0,0: give one or more, each once"),
        (("--seeds=a",), "--seeds=a: give whole numbers from 0 on"),
        ((), "--minutes: the rule 'time' needs it, above 0"),
        (("--rule=steps", "--minutes=2"), "--minutes=2.0: is for the rule 'time', not 'steps'"),
        (("--rule=steps", "--config.train.seed=3"), "--config.train.seed=3: the rows, --seeds and --rule say that"),
        (("--minutes=2", "--config.train.steps=9"), "--config.train.steps=9: the rows, --seeds and --rule say that"),
        (("--rule=steps", "--config.data.image_size", "32"), "--config.data.image_size: write it with its value"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(tmp_path, flags, message):
    done = call(tmp_path / "out", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not os.path.exists(tmp_path / "out")


def test_more_runs_at_a_time_than_there_are_gpus_are_refused(tmp_path):
    done = call(tmp_path / "out", "--rule=steps", "--parallel=3", CUDA_VISIBLE_DEVICES="0,2")
    assert done.returncode == 2
    assert "--parallel=3: CUDA_VISIBLE_DEVICES=0,2 names fewer GPUs" in done.stderr
