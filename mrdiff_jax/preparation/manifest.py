"""The table of a prepared set: a row for every source file, with what was found and done."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrdiff_jax.preparation.records import ExamRecord
from mrdiff_jax.storage.files import write_text

MANIFEST_FILE = "manifest.csv"
_MANIFEST_COLUMNS = (
    *("exam", "subject", "session", "split", "contrast", "path", "sha256", "tr_ms", "te_ms", "ti_ms", "shape", "spacing_mm"),
    *("action", "transform", "shift_before_mm", "shift_mm", "overlap", "mirror_gain", "bias_correction", "padding"),
    *("offset", "factor", "slices", "blank_slices", "status", "reason"),
)


def write_manifest(output: Path, records: Sequence[ExamRecord], splits: Mapping[str, str]) -> None:
    """Writes a row for every source file, and one for an exam of which no file is known."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _MANIFEST_COLUMNS, restval="")
    table.writeheader()
    for record in records:
        table.writerows(_manifest_rows(record, splits))
    write_text(output / MANIFEST_FILE, text.getvalue())


def _manifest_rows(record: ExamRecord, splits: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    exam = {"exam": record.exam, "subject": record.subject, "session": record.session, "reason": record.reason}
    if record.reason:
        exam |= {"status": "failed"}
    else:
        exam |= {"status": "done", "split": splits.get(record.subject, ""), "slices": len(record.slices)}
    if not record.scans:
        yield exam
    for index, scan in enumerate(record.scans):
        row = exam | {"contrast": scan.contrast, "path": scan.path}
        yield row | (_measured(record, index) if scan.sha256 else {})


def _measured(record: ExamRecord, index: int) -> dict[str, Any]:
    """What is known of a scan that was read."""
    values = record.scans[index].to_json()
    values |= {f"{name}_ms": time or "" for name, time in record.times[index]._asdict().items()}
    values |= dict(zip(("offset", "factor"), record.scale[index], strict=True))
    values |= {"shape": _spaced(values["shape"]), "spacing_mm": _spaced(values["spacing"])}
    values |= {"transform": _spaced(values.get("transform", ()))}
    return {column: value for column, value in values.items() if column in _MANIFEST_COLUMNS}


def _spaced(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)
