"""What the ablation trains; how its rows are trained and compared is tested with tools/run_comparison.py."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mrdiff_jax import methods
from mrdiff_jax.config import resolve
from mrdiff_jax.experiments.ablation import PARTS, rows
from mrdiff_jax.experiments.plan import chosen

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo.py"
TOOL = ROOT / "tools" / "ablate.py"


@pytest.fixture
def config():
    return runpy.run_path(str(DEMO))["get_config"]()


def test_components_come_one_by_one_as_in_figure_4(config):
    of_rows = {name: resolve(chosen(config, fields)).own for name, fields in rows(config, ["components"]).items()}
    assert {name: (own.lambda_d > 0, own.modulation, own.lambda_cct > 0) for name, own in of_rows.items()} == {
        "MRDiff": (True, True, True),
        "L_G": (False, True, False),
        "L_G+L_D_without_M": (True, False, False),
        "L_G+L_D": (True, True, False),
    }


def test_every_row_changes_the_configuration_and_can_be_trained(config):
    every = rows(config, list(PARTS))
    assert len({repr(resolve(chosen(config, fields))) for fields in every.values()}) == len(every)
    assert f"N_{config.mrdiff.draws}" not in every
    for fields in every.values():
        assert methods.create(resolve(chosen(config, fields)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--parts=componets",), "--parts=componets: no part 'componets'; choose from components, maps"),
        (("--config.method.name=regression",), "--config.method.name=regression: these are the components of mrdiff"),
        (("--parts=draws", "--config.mrdiff.draws=3"), "--config.mrdiff.draws=3: the rows, --seeds and --rule say that"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(tmp_path, flags, message):
    command = [sys.executable, TOOL, f"--config={DEMO}", "--rule=steps", f"--output={tmp_path / 'out'}", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
