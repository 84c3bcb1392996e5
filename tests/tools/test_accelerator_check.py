"""The accelerator check: what each part writes, that a part that is stopped keeps what it has, and what training imports."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "accelerator_check.py"
sys.path.insert(0, str(TOOL.parent))
import accelerator_check as check  # noqa: E402

sys.path.pop(0)


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


def test_a_part_out_of_time_keeps_what_it_has(tmp_path):
    file = tmp_path / "found.json"
    code = f"import pathlib, time; pathlib.Path({str(file)!r}).write_text('1'); time.sleep(60)"
    assert check.wait([sys.executable, "-c", code], 2) == "out of time"
    assert file.read_text() == "1"


def test_a_part_that_fails_is_told_of():
    assert check.wait([sys.executable, "-c", "raise SystemExit('no such thing')"], 30) == "failed (1): no such thing"


def test_shares_of_the_time_are_those_of_the_parts():
    found = check.tasks(options(sizes="paper,base64", methods="mrdiff,regression", set="somewhere"))
    shares = {part: sum(share for name, _, share in found if name.split()[0] == part) for part in check.PARTS}
    assert shares == pytest.approx(check.PARTS)
    assert [name for name, _, _ in check.tasks(options(set=""))][:2] == ["device", "parity"]
    assert not any(name.startswith("training") for name, _, _ in check.tasks(options(set="")))


def test_what_is_weighed_is_what_the_program_computes():
    a = np.ones((64, 64), np.float32)
    compiled, record = check.compile_and_weigh(jax.pmap(jnp.matmul, devices=jax.local_devices()[:1]), (a, a))
    assert record["gflop"] == pytest.approx(2 * 64**3 / 1e9, rel=1e-3)
    assert record["compile_s"] > 0
    np.testing.assert_array_equal(compiled(a[None], a[None])[0], a @ a)


def test_what_does_not_fit_is_a_result(monkeypatch):
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 1000}

    matmul = jax.pmap(jnp.matmul, devices=jax.local_devices()[:1])
    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    a = np.ones((64, 64), np.float32)
    compiled, record = check.compile_and_weigh(matmul, (a, a))
    assert compiled is None
    assert record["out_of_memory"]


def test_deviation_is_relative_to_the_largest_value():
    truth = {"a": np.array([1.0, -4.0]), "b": np.array([2.0])}
    assert check.deviation({"a": np.array([1.0, -4.0]), "b": np.array([2.2])}, truth) == pytest.approx(0.05)


def test_a_loop_counts_as_often_as_it_runs():
    peaks = {"gemm_float32": {"tflops": 10.0}}
    bench = {"synthesis_of_50_steps": {"gflop": 100.0, "seconds": 1.0}, "reverse_step": {"gflop": 100.0, "seconds": 0.02}}
    text = check.markdown({"device": peaks, "benchmark tiny float32": bench})
    assert text.count("| 5 | 0.5 |") == 2


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
