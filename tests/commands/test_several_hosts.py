"""Hosts that join: two processes on this machine, each with one device, train and score as one process with two."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def train(flags, workdir, devices, **environment):
    command = [sys.executable, "-m", "mrdiff_jax.main", "--config=configs/demo.py", *flags, f"--workdir={workdir}"]
    environment |= {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def on_two_hosts(flags, workdir):
    """What the processes print."""
    coordinator = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    return ended([train(flags, workdir, devices=1, **coordinator, JAX_PROCESS_ID=str(i)) for i in range(2)])


def ended(hosts):
    """What they print until they end, all well."""
    try:
        said = [host.communicate(timeout=300)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said
    return said


def test_the_first_host_answers_for_all():
    code = "import jax; from mrdiff_jax import parallel; parallel.initialize(2); i = jax.process_index();"
    code += "print(i, parallel.said_by_first(i == 0), parallel.said_by_first(i == 1))"
    command = [sys.executable, "-c", code]
    joined = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    environments = [os.environ | joined | {"JAX_PROCESS_ID": str(i)} for i in range(2)]
    hosts = [subprocess.Popen(command, env=each, stdout=subprocess.PIPE, text=True) for each in environments]
    assert [said.splitlines()[-1] for said in ended(hosts)] == ["0 True False", "1 True False"]


def scores(workdir):
    return json.loads((workdir / "metrics.json").read_text())["synthesis"]


def test_two_hosts_train_and_score_as_one_with_two_devices(tiny_flags, tmp_path):
    flags = [*tiny_flags, "--config.method.name=regression"]
    assert "2 device(s)" in on_two_hosts(flags, tmp_path / "two")[0]
    alone = train(flags, tmp_path / "one", devices=2)
    alone.communicate(timeout=300)
    assert alone.returncode == 0
    assert scores(tmp_path / "two") == pytest.approx(scores(tmp_path / "one"), rel=1e-3)


def test_two_hosts_agree_on_when_the_time_is_up(tiny_flags, tmp_path):
    flags = [*tiny_flags, "--config.method.name=regression", "--config.train.steps=1000000", "--config.train.max_minutes=0.001"]
    on_two_hosts(flags, tmp_path / "two")
    assert 1 < json.loads((tmp_path / "two" / "metrics.json").read_text())["step"] < 100
