"""The command as a user calls it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training.test_loop import assert_same, final_state

from mrdiff_jax import cli
from mrdiff_jax.synthesis.synthesizer import Synthesizer
from mrdiff_jax.training.loop import train_and_evaluate

ROOT = Path(__file__).parents[2]
MAIN = [sys.executable, "-m", "mrdiff_jax.main"]


def call(*flags, **kwargs):
    return subprocess.run([*MAIN, *map(str, flags)], cwd=ROOT, capture_output=True, text=True, timeout=300, **kwargs)


def test_demo_config_trains_and_evaluates_from_the_command_line(tiny_flags, tmp_path):
    run = call("--config=configs/demo.py", f"--workdir={tmp_path}", *tiny_flags)
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert f"{summary['synthesis']['psnr']:.2f}" in run.stdout
    assert "steps/s" in run.stderr
    assert "left" in run.stderr
    made_of = Synthesizer.load(tmp_path).trained
    assert made_of.step == 4
    assert made_of.data.target == "T1w"
    assert made_of.data.sources["PDw"].te < made_of.data.sources["T2w"].te
    (tmp_path / "training_data.json").unlink()
    again = call("--workdir", tmp_path, "--mode=eval")  # with the settings of the run
    assert again.returncode == 0, again.stderr
    assert again.stdout == run.stdout
    assert Synthesizer.load(tmp_path).trained.data == made_of.data
    more = call("--config.train.steps=6", f"--workdir={tmp_path}", "--config.evaluate.panels=1")
    assert more.returncode == 0, more.stderr
    assert "step 6/6" in more.stderr
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 6


def test_a_run_whose_settings_cannot_be_read_asks_for_them(tmp_path):
    run = call(f"--workdir={tmp_path}")
    assert run.returncode == 2
    assert run.stderr == f"error: {tmp_path}: holds no run that could go on; give --config to begin one\n"
    (tmp_path / "config.json").write_text("{")
    run = call(f"--workdir={tmp_path}")
    assert run.returncode == 2
    assert re.fullmatch(r"error: \S+/config.json: not readable as JSON .*; give the --config that began the run\n", run.stderr)
    (tmp_path / "config.json").write_text('{"model": {"depth": 3}}')
    run = call(f"--workdir={tmp_path}")
    assert run.stderr == (
        f"error: {tmp_path}/config.json: config.model.depth: a field that this version does not know; "
        "give the --config that began the run\n"
    )


def test_a_killed_run_goes_on_exactly(tiny_config, tiny_flags, tmp_path):
    steps, killed = 120, tmp_path / "killed"
    flags = ["--config=configs/demo.py", f"--workdir={killed}", *tiny_flags, "--config.train.steps=100000"]
    flags += ["--config.train.checkpoint_every=10", "--config.train.evaluate_every=100000"]
    flags += ["--config.mrdiff.loss_draws=all", "--config.optimizer.clip_norm=0", "--config.optimizer.ema_decay=0.9999"]
    flags += ["--config.model.norm_groups=32", "--config.optimizer.hold=1"]  # what the demo has and tiny_config not
    flags += ["--config.mrdiff.distance=l2"]
    process = subprocess.Popen([*MAIN, *flags], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((killed / "checkpoints").glob("[0-9]*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    tiny_config.train.update(steps=steps, checkpoint_every=10, evaluate_every=100_000)
    train_and_evaluate(tiny_config, killed)
    train_and_evaluate(tiny_config, tmp_path / "whole")
    a, b = final_state(tiny_config, killed), final_state(tiny_config, tmp_path / "whole")
    assert int(a.step) == int(b.step) == steps
    assert_same(a, b)
    assert np.isfinite(float(a.variables.params["generator"]["encoder"]["conv_in"]["bias"].sum()))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config=configs/demo.py", "--workdir=X", "--config.data.image_sise=64"],
            "data.image_sise: no such field; did you mean image_size?",
        ),
        (
            ["--config=configs/demo.py", "--workdir=X", "--config.hinet.depth", "3"],
            "hinet.depth: no such field; config.hinet has",
        ),
        (["--config=configs/demo.py", "--workdir=X", "--config.loss.weight=2"], "--config.loss: no such field"),
        (["--config=configs/demo.py", "--workdir=X", "--config.train.steps=many"], "many"),
        (["--config=configs/none.py", "--workdir=X"], "configs/none.py: no such file; the configurations"),
        (["--config=configs/none.py", "--workdir=X", "--config.train.steps=3"], "configs/none.py: no such file"),
        (["--config=configs/demo.py"], "--workdir is needed; --help has an example"),
        (["--config=configs/demo.py", "--workdir=X", "--config.data.target=CT"], "config.data.target"),
        (["--config=configs/demo.py", "--workdir=X", "--config.train.max_minutes=nan"], "train.max_minutes=nan"),
        (["--config=configs/demo.py", "--workdir=gs://bucket/run"], "gs://bucket/run: a URL"),
        (["--config=configs/demo.py", "--workdir=X/lr[3e-3]"], "lr[3e-3]"),
        (["--config=configs/bids.py", "--workdir=X", "--config.data.root=/no/such/folder"], "/no/such/folder"),
        (["--config=configs/demo.py:author", "--workdir=X"], ":authors"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(flags, message, tmp_path):
    run = call(*[flag.replace("=X", f"={tmp_path / 'x'}") for flag in flags])
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_an_interrupted_command_promises_no_more_than_it_can_and_ends_at_once(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)  # not by way of what would tear down a compilation that still runs
    monkeypatch.setattr(cli.host, "use_large_pages", lambda: None)
    monkeypatch.setattr(cli, "_parse", lambda *_: [])
    monkeypatch.setattr(cli, "log_to_console", lambda: None)
    monkeypatch.setattr(cli, "keep_programs", lambda: None)
    with pytest.raises(SystemExit, match=r"^1$"):
        cli.run(interrupted, "")
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["x", "--config.a=(1,)", "--config.a=(2,)", "--b=1", "--b=2"], ["x", "--config.a=(2,)", "--b=1", "--b=2"]),
        (["x", "--config.a", "(1,)", "run", "-config.a=(2,)"], ["x", "run", "-config.a=(2,)"]),
        (["x", "--config.n=-1", "--config.n", "-2"], ["x", "--config.n", "-2"]),
        (["x", "run", "run", "--config=c.py", "--config.flag", "--config.a=1"], None),
    ],
)
def test_a_field_that_is_given_twice_counts_as_last_given(given, left):
    assert cli._last_of_each(given) == (given if left is None else left)


@pytest.mark.parametrize(
    ("setting", "message"),
    [("JAX_PLATFORMS=cuda", "JAX_PLATFORMS=cuda: "), ("JAX_COORDINATOR_ADDRESS=127.0.0.1:1", "set JAX_NUM_PROCESSES")],
)
def test_what_a_cluster_sets_wrongly_is_one_line(setting, message, tmp_path):
    name, _, value = setting.partition("=")
    run = call("--config=configs/demo.py", f"--workdir={tmp_path / 'x'}", env=os.environ | {name: value})
    assert run.returncode == 2, run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: ")
    assert message in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
