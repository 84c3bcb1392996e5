"""The benchmark as a user runs it, on sizes that say nothing; the parts that need no process of their own are called here."""

import argparse
import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrdiff_jax.measuring import growth, reports, start
from mrdiff_jax.training import loop

TOOL = Path(__file__).parents[2] / "tools" / "benchmark.py"
sys.path.insert(0, str(TOOL.parent))
import benchmark  # noqa: E402

sys.path.pop(0)


def numbers(results):
    for found in results.values():
        for record in found.values():
            yield from (value for value in record.values() if isinstance(value, float))


def check(part, *name):
    """What a part finds, in this process."""
    found = {}
    options = argparse.Namespace(sizes=benchmark.TINY, tiny=True)
    benchmark.CHECKS[part](lambda name, record: found.update({name: record}), options, *name)
    return found


def test_a_user_gets_json_and_tables(tmp_path):
    flags = [f"--output={tmp_path}", "--tiny", "--parts=device,networks"]
    one_device = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=1")
    }  # compiles less
    done = subprocess.run([sys.executable, TOOL, *flags], capture_output=True, text=True, env=one_device)
    assert done.returncode == 0, done.stdout
    results, page = json.loads((tmp_path / "results.json").read_text()), (tmp_path / "results.md").read_text()
    assert list(results) == ["device", "training tiny", "synthesis tiny"]
    assert all(math.isfinite(number) and number >= 0 for number in numbers(results))
    programs = ("training step",), ("reverse step, 1 slice", "reverse step, 8 slices")
    rows = [results[task][name] for task, names in zip(list(results)[1:], programs, strict=True) for name in names]
    rows.append(results["synthesis tiny"]["volume of 24 slices, 50 steps"])
    for row in rows:
        assert all(
            row[column] > 0 for column in ("compile_s", "seconds", "gflop", "gflops", "share_of_gemm", "needs_mib", "peak_mib")
        )
    step, batch, volume = (row["gflop"] for row in rows[-3:])
    assert batch == pytest.approx(8 * step, rel=0.02)
    assert volume == pytest.approx(3 * 50 * batch, rel=0.02)
    assert "## training tiny (parameters" in page
    assert all(f"| {name} |" in page for names in programs for name in names)
    assert "| training tiny | finished |" in page


def test_the_start_is_timed_until_the_first_step(tmp_path):
    assert start.FIRST_STEP in inspect.getsource(loop)
    code = f"import sys, time; print('{start.FIRST_STEP} 1 s', file=sys.stderr, flush=True); time.sleep(60)"
    record = start.first_step([sys.executable, "-c", code], str(tmp_path))
    assert 0 < record["seconds"] < 60
    assert record["cpu_seconds"] > 0


def test_a_training_that_does_not_start_is_told_of(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('error: no data')"]
    with pytest.raises(RuntimeError, match="error: no data"):
        start.first_step(command, str(tmp_path))


def test_scores_and_pieces_are_timed_beside_others():
    scores, pieces = check("evaluation"), check("pieces")
    assert scores["scores of a synthesis"]["seconds_per_1000_slices"] > 0
    assert scores["FSIM of 4 pairs, ours"]["times_the_first"] == 1
    assert any("piq" in name for name in scores)
    assert list(pieces) == [
        *("Haar transform, ours", "Haar transform, jaxwt"),
        *("GroupNorm + SiLU with gradient, ours", "GroupNorm + SiLU with gradient, flax"),
    ]
    assert all(record["times_the_first"] > 0 for record in pieces.values())


def test_the_pipeline_is_timed_alone_and_under_training():
    record = check("data")["demo"]
    assert all(record[name] > 0 for name in ("batches_per_second", "step_s", "step_without_pipeline_s"))
    assert 0 <= record["idle_share"] < 1


def test_reading_a_set_is_measured():
    record = check("reading")["a set of noise"]
    assert record["set_mib"] == pytest.approx(benchmark.TINY.read * 3 * 64 * 64 * 2 / 2**20, rel=0.1)  # contrasts of uint16
    assert record["slices_per_second"] > 0
    assert record["peak_mib_after_all"] - record["peak_mib_after_a_twentieth"] < 100


def test_growth_is_measured_at_every_value_and_drawn(tmp_path):
    found = check("growth", "side")
    assert [row["side"] for row in found.values()] == [16, 16, 32, 32]
    for program in growth.PROGRAMS:
        small, large = (found[f"{program}, side {value}"]["gflop"] for value in (16, 32))
        assert 4 * small <= large < 6 * small  # all is in proportion to the pixels, but for the attention of the middle block
    growth.picture({"device": {}, "growth side": found}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_no_growth_no_picture(tmp_path):
    growth.picture({"device": {}, "growth side": {reports.PROCESS: {"ended": "failed"}}}, tmp_path / "growth.png")
    assert not list(tmp_path.iterdir())


def test_peers_are_timed_where_they_are_installed():
    found = check("peers")
    assert all("pip install" in record.get("note", "pip install") for record in found.values())
    assert all(any(library in name for name in found) for library in benchmark.LIBRARIES)


@pytest.mark.parametrize(
    ("flag", "says"), [("--parts=device,x", "no 'x'"), ("--networks=huge", "no 'huge'"), ("--parts=", "no ''")]
)
def test_mistakes_are_told_before_anything_runs(tmp_path, capsys, flag, says):
    with pytest.raises(SystemExit) as ended:
        benchmark.main([f"--output={tmp_path / 'out'}", flag])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
