"""One self-contained HTML page of a prepared set: every exam's contrasts, laid over each other to flick through."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from mrdiff_jax.preparation import exam_task
from mrdiff_jax.preparation.options import Options


def page(output: Path, records: Sequence[Mapping[str, Any]], options: Options, splits: Mapping[str, str]) -> str:
    """The page as HTML that needs no other file and no network; failed exams come first."""
    files = resources.files("mrdiff_jax") / "page"
    failed = [record for record in records if "reason" in record]
    ordered = [*failed, *(record for record in records if "reason" not in record)]
    subjects = {record["subject"] for record in records if "reason" not in record}
    slices = sum(len(record["slices"]) for record in records if "reason" not in record)
    return Template((files / "prepared.html").read_text(encoding="utf-8")).substitute(
        style=(files / "page.css").read_text(encoding="utf-8") + (files / "prepared.css").read_text(encoding="utf-8"),
        script=(files / "prepared.js").read_text(encoding="utf-8"),
        title=escape(" + ".join(options.contrasts)),
        lead=escape(
            f"{len(records) - len(failed)} exams of {len(subjects)} subjects prepared, {slices} slices of "
            f"{options.image_size} x {options.image_size}; {len(failed)} failed."
        ),
        options=_options(options),
        data=json.dumps([_exam(output, record, options, splits) for record in ordered]).replace("<", "\\u003c"),
    )


def _options(options: Options) -> str:
    rows = {
        "Grid": f"that of {options.reference}; registration {options.registration}, interpolation {options.interpolation}",
        "Bias fields": "removed by N4" if options.bias_correction else "left as they are",
        "Outside of the body": "black" if options.mask == "body" else "left as it is",
        "Scaling": "percentiles {:g} and {:g} of each volume to 0 and 1".format(*options.percentiles),
        "Slices": f"{options.plane}, {options.slices or 'all that show enough of the body in every contrast'}; "
        + (f"{options.field_mm:g} mm around the body" if options.field_mm else "the whole field of view, padded to a square"),
    }
    return "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows.items())


def _exam(output: Path, record: Mapping[str, Any], options: Options, splits: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of an exam."""
    folder = exam_task.exam_folder(output, record["exam"])
    return {
        "exam": record["exam"],
        "split": splits.get(record["subject"], "") if "reason" not in record else "",
        "reason": record.get("reason", ""),
        "slices": len(record.get("slices", ())),
        "scans": [
            _scan(scan, folder / f"{scan['contrast']}.webp", options.reference)
            for scan in sorted(record["scans"], key=lambda scan: scan["contrast"] != options.reference)
            if "sha256" in scan
        ],
    }


def _scan(scan: Mapping[str, Any], picture: Path, reference: str) -> dict[str, str]:
    note = "reference"
    if scan["contrast"] != reference:
        note = f"{scan['action']}, {scan['shift_mm']:.1f} mm off"
        if scan["action"] == "registered":
            note += f" ({scan['shift_before_mm']:.1f} before)"
        if scan["mirror_gain"] > 0:
            note += ", fits better mirrored"
    image = base64.b64encode(picture.read_bytes()).decode()
    return {"contrast": scan["contrast"], "note": note, "image": f"data:image/webp;base64,{image}"}
