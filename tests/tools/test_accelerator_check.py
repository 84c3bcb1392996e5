"""The accelerator check: what its parts write, and how the time is shared among them."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mrdiff_jax.measuring import reports

TOOL = Path(__file__).parents[2] / "tools" / "accelerator_check.py"
sys.path.insert(0, str(TOOL.parent))
import accelerator_check as check  # noqa: E402

sys.path.pop(0)
run = reports.Report.run


def call(*flags):
    return subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True)


def options(**changes):
    return argparse.Namespace(**{"parts": "device,parity,training,benchmark", "sizes": "tiny", "methods": "mrdiff", **changes})


def test_the_device_part_leaves_its_results(tmp_path):
    assert call(f"--output={tmp_path}", "--parts=device", "--minutes=2").returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())["device"]
    assert found["about"]["jax"] == jax.__version__
    assert found["gemm_float32"]["tflops"] > 0
    assert found["process"]["ended"] == "finished"
    assert "TFLOP/s" in (tmp_path / "results.md").read_text()


def test_a_second_call_does_what_the_first_did_not(tmp_path, capsys, monkeypatch):
    ran, ends = [], {"device": "finished", "parity": "out of time"}
    monkeypatch.setattr(reports, "wait", lambda command, limit: ends.get(ran[-1], "finished"))
    monkeypatch.setattr(check.Report, "run", lambda self, part, *rest: ran.append(part) or run(self, part, *rest))
    flags = [f"--output={tmp_path}", "--parts=device,parity", "--minutes=1"]
    for _ in range(2):
        with pytest.raises(SystemExit):
            check.main(flags)
    assert ran == ["device", "parity", "parity"]
    assert "measured before, and kept: device" in capsys.readouterr().out
    monkeypatch.setattr(reports, "commit", lambda: "another")
    with pytest.raises(SystemExit):
        check.main(flags)
    assert ran[3:] == ["device", "parity"]


def test_results_that_cannot_be_read_are_one_line(tmp_path, capsys):
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        check.main([f"--output={tmp_path}", "--parts=device"])
    assert ended.value.code == 2
    assert "results.json: not readable as JSON" in capsys.readouterr().err


def test_shares_of_the_time_are_those_of_the_parts():
    found = check.tasks(options(sizes="paper,base64", methods="mrdiff,regression", set="somewhere"))
    shares = {part: sum(share for name, _, share in found if name.split()[0] == part) for part in check.PARTS}
    assert shares == pytest.approx(check.PARTS)
    assert [name for name, _, _ in check.tasks(options(set=""))][:2] == ["device", "parity"]
    assert not any(name.startswith("training") for name, _, _ in check.tasks(options(set="")))


def test_deviation_is_relative_to_the_largest_value():
    truth = {"a": np.array([1.0, -4.0]), "b": np.array([2.0])}
    assert check.deviation({"a": np.array([1.0, -4.0]), "b": np.array([2.2])}, truth) == pytest.approx(0.05)


def test_a_rate_stands_beside_that_of_the_matrix_product_of_its_type():
    device = {"gemm_float32": {"tflops": 10.0}, "gemm_bfloat16": {"tflops": 20.0}}
    found = {"training_step": {"gflops": 5000.0, "seconds": 1.0}}
    text = check.markdown({"device": device, "benchmark tiny float32": found, "benchmark tiny bfloat16": found})
    assert "| training_step | 1 | 5 | 0.5 |" in text
    assert "| training_step | 1 | 5 | 0.25 |" in text


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--parts=device,x", "no 'x'"),
        ("--sizes=huge", "no 'huge'"),
        ("--methods=gan", "no 'gan'"),
        ("--set=nowhere", "nowhere"),
    ],
)
def test_mistakes_are_told_before_anything_runs(tmp_path, capsys, flag, says):
    with pytest.raises(SystemExit) as ended:
        check.main([f"--output={tmp_path / 'out'}", flag])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_configuration_takes_the_data_of_a_configuration_file(tmp_path):
    flags = dict(set=str(TOOL.parents[1] / "configs" / "demo.py"), sources="", target="PDw", method="regression", batch_size=4)
    more = dict(base_channels=16, dtype="float32", learning_rate=1e-3, evaluate_batch=8)
    config = check.training_config(options(**flags, **more))
    assert (config.data.name, config.data.sources, config.data.target) == ("phantom", "T2w,PDw", "PDw")
    assert (config.method.name, config.data.batch_size, config.model.base_channels) == ("regression", 4, 16)
