"""The page of a prepared set: what was found in a scan is said beside its picture."""

import json
import re

import numpy as np
from PIL import Image

from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.page import page
from mrdiff_jax.preparation.records import ExamRecord, Placement, ScanRecord


def test_padding_and_blank_slices_are_shown(tmp_path):
    first, second = Placement("reference"), Placement("registered", shift_before_mm=4, shift_mm=0.3)
    padding = "padding -1024 (5.0% of the voxels) taken for air"
    scans = (
        ScanRecord("T1w", "a.nii", "1", placement=first, padding=padding),
        ScanRecord("T2w", "b.nii", "2", placement=second, blank_slices=3),
    )
    folder = tmp_path / "subjects" / "sub-01"
    folder.mkdir(parents=True)
    for scan in scans:
        Image.fromarray(np.zeros((8, 24), np.uint8)).save(folder / f"{scan.contrast}.webp")
    failed = ExamRecord("sub-02", "sub-02", "", scans=(ScanRecord("T1w", "c.nii"),), reason="c.nii: is damaged")
    done = ExamRecord("sub-01", "sub-01", "", scans=scans, slices=(4, 5))
    html = page(tmp_path, [done, failed], Options(("T1w", "T2w"), "T1w"), {"sub-01": "train"})
    exams = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', html, re.DOTALL)[1])
    assert [exam["exam"] for exam in exams] == ["sub-02", "sub-01"]
    assert exams[0]["scans"] == []
    assert [scan["note"] for scan in exams[1]["scans"]] == [
        f"reference, {padding}",
        "registered, 0.3 mm off (4.0 before), blank in 3 slices, which are left out",
    ]
