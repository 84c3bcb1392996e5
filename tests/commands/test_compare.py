"""The command `compare` as a user calls it, and its page in a browser."""

import csv
import html
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import browser
from helpers.made_results import make_results

from mrdiff_jax.evaluation import results
from mrdiff_jax.storage import json_files

ROOT = Path(__file__).parents[2]
COMPARE = [sys.executable, "-m", "mrdiff_jax.compare"]


def call(*arguments):
    return subprocess.run([*COMPARE, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120)


def make_run(folder, error, *, seed=0, method="mrdiff", **kwargs):
    folder.mkdir(parents=True)
    results.write(make_results(error, seed=seed, **kwargs), folder)
    json_files.write(folder / "run.json", {"--config.method.name": method, "--config.train.seed": seed})
    json_files.write(folder / "config.json", {"train": {"steps": 10, "seed": seed}})
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The output of a comparison of two imaginary runs, and what was printed."""
    folder = tmp_path_factory.mktemp("compare")
    runs = [make_run(folder / "runs" / "first", 0.05), make_run(folder / "runs" / "second", 0.1, seed=1)]
    run = call(*runs, "--output", folder / "out", "--names=MRDiff,Regression")
    assert run.returncode == 0, run.stderr
    return folder / "out", run.stdout


def test_writes_tables_figures_and_page(compared):
    output, printed = compared
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    figures = {
        f"figures/{name}.{kind}" for name in ("qualitative", "boxplots", "ablation", "frequencies") for kind in ("png", "pdf")
    }
    assert names == {"index.html", "table1.md", "table1.csv", "table1.tex"} | figures
    assert (output / "table1.md").read_text() in printed
    assert "| MRDiff | **" in printed
    assert str(output / "index.html") in printed
    assert all(path.stat().st_size > 5000 for path in (output / "figures").iterdir())


def test_written_results_are_read_as_they_were(tmp_path):
    made = make_results(0.05)
    stored = results.read(make_run(tmp_path / "run", 0.05))
    assert stored.rows == made.rows
    assert stored.summary == made.summary
    assert stored.images.places == made.images.places


@pytest.mark.parametrize(
    ("second", "flags", "message"),
    [
        ({"subjects": 5}, [], "sub-05, sub-06, sub-07"),
        ({}, ["--names=a"], "--names=a: give each of the 2 rows a name"),
        (None, [], "second: no such folder; name the workdir of a run"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, second, flags, message):
    make_run(tmp_path / "first", 0.05)
    if second is not None:
        make_run(tmp_path / "second", 0.1, **second)
    run = call(tmp_path / "first", tmp_path / "second", "--output", tmp_path / "out", *flags)
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The output of a comparison of rows of several seeds and of a folder with a comma in its name, and what was printed."""
    folder = tmp_path_factory.mktemp("seeds")
    names = ("mrdiff-10", "mrdiff-11", "alpha", "beta", "odd,mrdiff-10")
    ten, eleven, alpha, beta, odd = (make_run(folder / name, 0.05 + 0.02 * i, seed=i) for i, name in enumerate(names))
    run = call(f"{ten},{eleven}", f"{alpha},{beta}", odd, "--output", folder / "out")
    assert run.returncode == 0, run.stderr
    return folder / "out", run.stdout


def test_seeds_joined_by_commas_are_a_row_called_by_what_is_alike(seeds):
    output, printed = seeds
    with (output / "table1.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["region"], row["metric"]) == ("whole slice", "psnr")]
    found = {row["method"]: row["seeds"] for row in rows}
    assert found == {"mrdiff": "2", "alpha": "2", "odd,mrdiff-10": "1", "linear regression": "", "copy of PDw": ""}
    means = [results.read(output.parent / name).summary.synthesis["psnr"] for name in ("mrdiff-10", "mrdiff-11")]
    assert float(rows[0]["mean"]) == pytest.approx(sum(means) / 2)
    assert float(rows[0]["seed_deviation"]) == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    spread = f"(± {float(rows[0]['seed_deviation']):.2f}"
    page = (output / "index.html").read_text()
    for text in (printed, page, (output / "table1.md").read_text(), (output / "table1.tex").read_text().replace(r"\pm", "±")):
        assert spread in text
        assert "Training seeds: 2 of mrdiff, 2 of alpha." in text
    assert "the images are of each row's first seed" in html.unescape(page)


def test_other_methods_in_a_row_are_one_line_that_names_both(tmp_path):
    ours, theirs = make_run(tmp_path / "ours", 0.05), make_run(tmp_path / "theirs", 0.1, seed=1, method="hinet")
    run = call(f"{ours},{theirs}", "--output", tmp_path / "out")
    assert run.returncode == 2
    assert run.stderr == (
        f"error: {theirs}: --config.method.name is hinet, but mrdiff in {ours}; runs of one row may differ in"
        " --config.train.seed alone\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_space_between_seeds_is_named(tmp_path):
    run = call("a-0,", "a-1", "--output", tmp_path / "out")
    assert run.returncode == 2
    assert run.stderr == "error: a-0,: give the seeds of a row as RUN-0,RUN-1, without a space\n"


def test_at_least_one_run_is_needed(tmp_path):
    run = call("--output", tmp_path)
    assert run.returncode == 2
    assert "no run given" in run.stderr


@pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium here")
class TestInABrowser:
    """A script put at the end of the page acts as a user would and leaves what it finds in an element."""

    @pytest.fixture
    def run(self, compared, tmp_path):
        def run(script):
            return browser.found((compared[0] / "index.html").read_text(), script, tmp_path)

        return run

    def test_a_click_on_a_heading_sorts(self, run):
        found = run(
            """const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[1];
            const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join(",");
            head.querySelector("button").click(); const down = order();
            head.querySelector("button").click(); document.getElementById("found").textContent = down + ";" + order();"""
        )
        down = ["MRDiff", "Regression", "linear regression", "copy of PDw"]
        assert found == f"{','.join(down)};{','.join(down[::-1])}"

    def test_slices_can_be_leafed_through_and_errors_are_those_of_the_images(self, run):
        found = run(
            """setTimeout(() => { document.getElementById("next").click(); setTimeout(() => {
            const canvas = document.querySelectorAll("#made canvas"), at = (c, x, y) =>
              [...c.getContext("2d").getImageData(x * c.width, y * c.height, 1, 1).data];
            document.getElementById("found").textContent = JSON.stringify({
              number: document.getElementById("number").textContent,
              note: document.querySelector("#made figcaption span").textContent, canvases: canvas.length,
              image: at(canvas[0], 0.5, 0.5), air: at(canvas[canvas.length - 2], 0, 0) }); }, 800); }, 800);"""
        )
        assert '"number":"1  (2 of 3)"' in found
        assert '"canvases":6' in found
        assert "PSNR" in found
        assert '"air":[26,26,26,255]' in found  # the intercept of the linear regression, 0.1
