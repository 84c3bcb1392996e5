"""The notebooks run from top to bottom, and those with outputs say what their sources say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
SHORTER = {  # as they are run here: what, by what
    "own_scans": {
        "range(7)": "range(4)",
        "image_size=64": "image_size=32",
        "image-size=64": "image-size=32",
        "--config.train.steps=300": "--config.train.steps=20 --config.model.channel_mult=(1,)",
        "--config.mrdiff.draws=2": "--config.mrdiff.draws=2 --config.model.attention_levels=()",
    }
}
LARGEST = 1_000_000  # bytes, of a notebook with its outputs
each = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@each
def test_it_runs_from_top_to_bottom(source, tmp_path):
    place = tmp_path / "notebooks"
    place.mkdir()
    shutil.copytree(FOLDER.parent / "configs", tmp_path / "configs")
    text = source.read_text()
    for long, short in SHORTER.get(source.stem, {}).items():
        assert long in text
        text = text.replace(long, short)
    (tmp_path / source.name).write_text(text)
    command = [sys.executable, "-m", "jupytext", "--to", "notebook", "--execute", "--run-path", str(place)]
    command += ["--output", str(place / "executed.ipynb"), str(tmp_path / source.name)]
    environment = os.environ | {"IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


@each
def test_the_notebook_with_outputs_is_of_the_same_cells(source):
    notebook = source.with_suffix(".ipynb")
    assert notebook.stat().st_size < LARGEST
    written, executed = (jupytext.read(path).cells for path in (source, notebook))
    assert [cell.source for cell in executed] == [cell.source for cell in written]
    for cell in executed:
        if cell.cell_type == "code":
            assert cell.execution_count, "executed"
            assert all(output.output_type != "error" for output in cell.outputs)
