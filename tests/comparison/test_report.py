"""The page: self-contained, escaped, and with the slices that matter."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.made_results import comparison_of, make_results
from PIL import Image

from mrdiff_jax.comparison import report

VOID = {"meta", "input", "img", "br", "link"}


class Nesting(HTMLParser):
    """Fails where elements do not nest, and gathers what a browser would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loaded += [attributes[name] for name in ("src", "href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def comparison():
    return comparison_of({"ours": make_results(0.05), "<b>theirs</b> & co": make_results(0.1, seed=1)})


@pytest.fixture
def html(comparison, tmp_path):
    picture = tmp_path / "picture.png"
    Image.new("L", (4, 4)).save(picture)
    return report.page(comparison, [report.Figure(picture, "A figure", "What it shows")], 0)


def viewer_data(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_needs_nothing_else_and_nests(html):
    page = Nesting()
    page.feed(html)
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.loaded)
    assert {address[1:] for address in page.loaded if address.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html


def test_escapes_names(html):
    assert "<b>theirs" not in html.split('id="data"')[0]
    assert "&lt;b&gt;theirs&lt;/b&gt; &amp; co" in html
    assert "<b>theirs</b> & co" in viewer_data(html)["methods"]


def test_shows_table_tests_and_convention(html, comparison):
    cell = comparison.table("body")["ours"]["ssim_body"]
    assert f"<b>{cell.mean:.4f} ± {cell.deviation:.4f}</b>" in html
    assert "Wilcoxon" in html
    assert "one affine map per volume" in html


def test_strips_hold_sources_truth_and_methods(html, comparison):
    data = viewer_data(html)
    assert len(data["slices"]) == 24
    entry = data["slices"][4]
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["strip"]))))
    pictures = comparison.pictures(entry["subject"], entry["slice"])
    expected = [*pictures.sources.values(), pictures.truth, *pictures.methods.values()]
    assert strip.shape == (32, 32 * 6)
    np.testing.assert_allclose(np.split(strip / 255, 6, axis=1), expected, atol=0.5 / 255 + 1e-6)
    assert data["methods"] == list(pictures.methods)
    row = next(r for r in comparison.rows["ours"] if (r["subject"], r["slice"]) == (entry["subject"], entry["slice"]))
    assert entry["scores"]["ours"]["psnr"] == f"{row['psnr']:.2f}"


def test_worst_and_best_subjects_come_first_when_slices_are_limited(comparison):
    ranked = comparison.ranked_subjects
    chosen = report.choose_slices(comparison, 19)
    assert len(chosen) == 19
    assert {subject for subject, _ in chosen} >= {*ranked[:3], *ranked[-3:]}
    assert sum(subject in {*ranked[:3], *ranked[-3:]} for subject, _ in chosen) == 18
    assert len(set(report.choose_slices(comparison, 7))) == 7
    assert report.choose_slices(comparison, 0) == comparison.common_slices


def test_one_subject_and_no_common_images(tmp_path):
    first, second = (make_results(error, subjects=1) for error in (0.05, 0.1))
    assert "too few for a test" in report.page(comparison_of({"a": first, "b": second}), [], 0)
    second.images.places.clear()
    assert viewer_data(report.page(comparison_of({"a": first, "b": second}), [], 0))["slices"] == []


def test_sessions_stand_under_their_subject(comparison):
    """Two exams of one subject: one row in the table, which leads to the first of them."""
    made = comparison.runs["ours"].results[0]
    names = {"sub-00": "sub-00_ses-1", "sub-01": "sub-00_ses-2"}
    rows = {
        method: [row | {"subject": names.get(row["subject"], row["subject"])} for row in found]
        for method, found in made.rows.items()
    }
    subjects = np.array([names.get(str(subject), str(subject)) for subject in made.images.subject])
    images = dataclasses.replace(made.images, subject=subjects)
    sessions = comparison_of({"ours": dataclasses.replace(made, rows=rows, images=images)})
    assert len(sessions.ranked_subjects) == 7
    html = report.page(sessions, [], 0)
    assert '<a href="#slices" data-subject="sub-00_ses-1">sub-00</a>' in html
    assert {entry["subject"] for entry in viewer_data(html)["slices"]} >= {"sub-00_ses-1", "sub-00_ses-2"}
    assert len(report.choose_slices(sessions, 20)) == 20
