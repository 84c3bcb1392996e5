"""The commands under one name, and what each says of itself."""

import os
import subprocess
import sys

import pytest

import mrdiff_jax
from mrdiff_jax import cli, host
from mrdiff_jax.__main__ import COMMANDS


def mrdiff(*arguments):
    return subprocess.run([sys.executable, "-m", "mrdiff_jax", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("help",)])
def test_the_commands_are_listed(arguments):
    done = mrdiff(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == list(COMMANDS)


@pytest.mark.parametrize(
    ("command", "flags"),
    {
        "prepare": ("--input", "--reference"),
        "train": ("--config", "--mode"),
        "synthesize": ("--source", "--bids"),
        "compare": ("--names",),
        "export": ("--workdir",),
    }.items(),
)
def test_help_has_an_example_and_the_flags_with_their_defaults(command, flags):
    under_one_name, alone = mrdiff(command, "--help"), [sys.executable, "-m", f"mrdiff_jax.{COMMANDS[command][0]}", "--help"]
    assert (under_one_name.returncode, under_one_name.stderr) == (0, "")
    assert f"mrdiff {command} " in under_one_name.stdout
    assert all(f"  {flag}: " in under_one_name.stdout for flag in flags)
    by_module = subprocess.run(alone, capture_output=True, text=True).stdout
    described = [lines.index("") for lines in (under_one_name.stdout.splitlines(), by_module.splitlines())]
    assert under_one_name.stdout.splitlines()[: described[0]] == by_module.splitlines()[: described[1]]
    assert under_one_name.stdout.count("\n  --") == by_module.count("\n  --")


def test_it_tells_its_version():
    assert mrdiff("--version").stdout == f"{mrdiff_jax.__version__}\n"


def test_a_reader_that_has_gone_is_no_mistake():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "mrdiff_jax", "train", "--help"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert ended.stderr == ""


@pytest.mark.skipif(not host.large_pages_are_a_choice(), reason="where programs choose whether their pages are large")
def test_a_command_runs_with_large_pages(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text("import os, sys; print(os.environ['GLIBC_TUNABLES']); sys.exit()")
    before = {name: value for name, value in os.environ.items() if name not in host.RESTART}
    command = [sys.executable, "-m", "mrdiff_jax", "train", f"--config={probe}", f"--workdir={tmp_path}"]
    assert subprocess.run(command, capture_output=True, text=True, env=before).stdout == "glibc.malloc.hugetlb=1\n"


def test_a_command_is_handed_its_flags():
    done = mrdiff("train", "--config=nowhere.py", "--workdir=out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nowhere.py" in done.stderr


def test_no_such_command():
    done = mrdiff("synthesise")
    assert done.returncode == 2
    assert done.stderr == "error: synthesise: no such command; did you mean synthesize?; mrdiff --help lists them\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workdir=RUN"],
        ["--workdir", "RUN", "--mode=eval"],
        ["-workdir=RUN"],
        ["--mode=eval", "--workdir=~/a run: 2"],
        ["--workdir=elsewhere", "--workdir=RUN"],  # the last counts
        ["--workdir=RUN", "--config.train.init", "workdir"],
        ["--workdir=RUN", "--config.data.root", "config"],
    ],
)
def test_without_settings_those_of_the_run_are_taken(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / "a run: 2"
    run.mkdir()
    (run / "config.json").touch()
    arguments = [argument.replace("RUN", str(run)) for argument in arguments]
    command, config, *rest = cli._with_settings_of_run(["mrdiff", *arguments])
    assert (command, rest) == ("mrdiff", arguments)
    assert config.startswith("--config=")
    assert config.endswith(f"settings_of_run.py:{run}")


@pytest.mark.parametrize("arguments", [["--config=a.py", "--workdir=RUN"], ["--workdir="], ["workdir"], ["--mode=eval"]])
def test_settings_that_are_given_and_folders_that_are_not_are_left_to_the_flags(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").touch()
    assert cli._with_settings_of_run(["mrdiff", *arguments]) == ["mrdiff", *arguments]


def test_a_folder_without_a_run_is_named(tmp_path):
    done = mrdiff("train", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}: holds no run that could go on; give --config to begin one\n"
