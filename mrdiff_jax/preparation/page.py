"""One self-contained HTML page of a prepared set: every exam's contrasts, laid over each other to flick through."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mrdiff_jax import pages
from mrdiff_jax.preparation import exam_task
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import REFERENCE, ExamRecord, ScanRecord, prepared

FOOTER = (
    "Written by mrdiff prepare. Each picture shows the axial, coronal and sagittal slices through the middle of the body. The"
    " distance is how far the edges of a contrast are off those of the reference."
)


def page(output: Path, records: Sequence[ExamRecord], options: Options, splits: Mapping[str, str]) -> str:
    """The page as HTML that needs no other file and no network; failed exams come first."""
    failed, done = [record for record in records if record.reason], prepared(records)
    subjects = {record.subject for record in done}
    slices = sum(len(record.slices) for record in done)
    return pages.fill(
        "prepared",
        title=f"Prepared: {' + '.join(options.contrasts)}",
        lead=f"{len(done)} exams of {len(subjects)} subjects prepared, {slices} slices of "
        f"{options.image_size} x {options.image_size}; {len(failed)} failed.",
        footer=FOOTER,
        options=_options(options),
        data=[_exam(output, record, options, splits) for record in (*failed, *done)],
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


def _exam(output: Path, record: ExamRecord, options: Options, splits: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of an exam."""
    folder = exam_task.exam_folder(output, record.exam)
    return {
        "exam": record.exam,
        "split": "" if record.reason else splits.get(record.subject, ""),
        "reason": record.reason,
        "slices": len(record.slices),
        "scans": [
            _scan(scan, folder / f"{scan.contrast}.webp")
            for scan in sorted(record.scans, key=lambda scan: scan.contrast != options.reference)
            if scan.placement
        ],
    }


def _scan(scan: ScanRecord, picture: Path) -> dict[str, str]:
    image = base64.b64encode(picture.read_bytes()).decode()
    return {"contrast": scan.contrast, "note": ", ".join(_notes(scan)), "image": f"data:image/webp;base64,{image}"}


def _notes(scan: ScanRecord) -> Iterator[str]:
    """How a scan lies, and what else was found in it."""
    placement = scan.placement
    if placement.action == REFERENCE:
        yield REFERENCE
    else:
        before = f" ({placement.shift_before_mm:.1f} before)" if placement.action == "registered" else ""
        yield f"{placement.action}, {placement.shift_mm:.1f} mm off{before}"
    if placement.mirror_gain > 0:
        yield "fits better mirrored"
    if scan.padding:
        yield scan.padding
    if scan.blank_slices:
        yield f"blank in {scan.blank_slices} slices, which are left out"
