"""The page of a run: what it shows of the files in a workdir, and how it behaves in a browser."""

import io
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import browser
from helpers.made_results import make_results
from helpers.models import tiny
from PIL import Image

from mrdiff_jax.config import resolve
from mrdiff_jax.evaluation import figures, results, run_page
from mrdiff_jax.evaluation.run_page import MOST_PANELS


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run with a log, pictures of two validations, and scores; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    (folder / "panels").mkdir(parents=True)
    changes = {"mrdiff.lambda_cct": 0.123, "optimizer.learning_rate": 2e-4}  # of which the second is the recipe's rate
    (folder / "config.json").write_text(json.dumps(resolve(tiny(**changes)).to_dict()))
    losses = [{"step": step, "train/L_G": 1 / step, "train/steps_per_second": 3.0} for step in (10, 20, 30)]
    rows = [*losses, {"step": 20, "validation/psnr": 25.0}, {"step": 30, "validation/psnr": 26.0}]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"step": 40, "tra')
    for step in (20, 30):
        Image.new("RGB", (40, 20), (step, 0, 0)).save(folder / "panels" / f"step_{step:07d}.png")
    Image.new("RGB", (40, 20), (90, 0, 0)).save(folder / "samples.png")
    results.write(make_results(0.1), folder)
    assert run_page.write(folder)
    return folder


@pytest.fixture
def run(evaluated, tmp_path):
    """A copy to change."""
    return shutil.copytree(evaluated, tmp_path / "run")


class Page(HTMLParser):
    """The data of a page for its script, its text, what is bold, and what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.data, self.text, self.bold, self.loaded, self.images, self._open = "", "", [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        self.images += tag == "img" and bool(dict(attrs).get("src"))
        self.loaded += [value for name, value in attrs if name in ("src", "href") and not value.startswith(("data:", "#"))]

    def handle_data(self, data):
        self.text += data
        if self._open[-1:] == ["b"]:
            self.bold.append(data)
        if self._open[-1:] == ["script"] and not self.data:
            self.data = data

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass


def test_scores_pictures_curves_and_settings_are_there(evaluated):
    page = Page((evaluated / "report.html").read_text())
    summary = json.loads((evaluated / "metrics.json").read_text())
    assert f"{summary['synthesis']['psnr']:.2f}" in page.text
    assert f"{summary['errors']['references']['linear']['nmse_body']:.4f}" in page.text
    titles = [panel["title"] for panel in json.loads(page.data)]
    assert titles == ["validation, step 20", "validation, step 30", "test subjects, step 10"]
    assert page.images == 2  # losses, validation
    assert "config.mrdiff.lambda_cct" in page.text
    assert "0.123" in page.bold
    assert "0.0002" in page.text
    assert "0.0002" not in page.bold
    assert page.loaded == []


def test_whose_subjects_were_scored_is_said(run):
    changes = {"split": "validation", "sample": {"sampler": "ddim", "steps": 5}, "seed": 7}
    (run / "metrics.json").write_text(json.dumps(json.loads((run / "metrics.json").read_text()) | changes))
    page = Page(run_page.page(run))
    assert "8 validation subjects; 24 slices; step 10; sampler ddim, steps 5; seed 7" in page.text
    assert json.loads(page.data)[-1]["title"] == "validation subjects, step 10"
    assert "test subjects" not in page.text


def test_commands_can_be_pasted_into_a_shell(evaluated):
    text = Page((evaluated / "report.html").read_text()).text
    assert f"mrdiff train --workdir='{evaluated}' --config.train.steps=STEPS" in text
    assert f"mrdiff synthesize --workdir='{evaluated}' --source T2w=SCAN --source PDw=SCAN --output T1w.nii.gz" in text


def test_a_run_that_has_only_begun_has_a_page(run):
    for name in ("metrics.json", "samples.png", "log.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "panels")
    page = Page(run_page.page(run))
    assert "not been evaluated yet" in page.text
    assert "Nothing has been logged yet" in page.text
    assert json.loads(page.data) == []


def test_of_many_pictures_some_are_shown_the_last_among_them(run):
    for step in range(100, 160):
        shutil.copy(run / "panels" / "step_0000020.png", run / "panels" / f"step_{step:07d}.png")
    titles = [panel["title"] for panel in json.loads(Page(run_page.page(run)).data)]
    assert len(titles) <= MOST_PANELS + 1
    assert titles[-2:] == ["validation, step 159", "test subjects, step 10"]


def test_names_cannot_break_the_page(run):
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"target": "<script>alert(1)</script>", "sources": "T2w,</script><b>"}
    (run / "config.json").write_text(json.dumps(config))
    text = run_page.page(run)
    assert "<script>alert" not in text
    assert "</script><b>" not in text


def test_a_page_that_cannot_be_made_is_said_and_no_more(run, caplog):
    (run / "config.json").write_text("{")
    assert not run_page.write(run)
    assert "report.html: could not be written" in caplog.text


@pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium here")
def test_pictures_can_be_leafed_through_in_a_browser(evaluated, tmp_path):
    script = """const seen = [], later = (act) => new Promise(done => setTimeout(() => done(act()), 300));
    const see = () => seen.push(step.textContent + (shown.naturalWidth ? "" : " missing"));
    const last = () => document.getElementById("found").textContent = seen.join("; ") + ", disabled " + previous.disabled;
    later(see).then(() => { previous.click(); return later(see); })
      .then(() => { panel.value = 0; panel.dispatchEvent(new Event("input")); return later(see); }).then(last);"""
    seen = browser.found((evaluated / "report.html").read_text(), script, tmp_path)
    assert seen == "test subjects, step 10; validation, step 30; validation, step 20, disabled true"


@pytest.mark.parametrize(
    "values",
    [(27.001, 27.002, 27.0025), (0.90001, 0.90002, 0.90003), (0.2021, 0.2025, 0.203), (3e-5, 3.1e-5, 3.2e-5), (0, 1, 2)],
)
def test_the_labels_of_curves_stay_inside_the_picture(values):
    for names in (("a",), ("a", "b", "c")):
        for logarithmic in (False, True):
            png = figures.curves(dict.fromkeys(names, ((10, 20, 30), values)), logarithmic)
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
            assert min(edge.min() for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])) == 255
