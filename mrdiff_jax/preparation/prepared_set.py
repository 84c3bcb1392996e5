"""A prepared set of exams as a whole: its slices as a TFDS data set, its splits in a CSV for users to edit, its manifest."""

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import tfds_builder
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.splits import SPLITS, assign_splits, read_rows, require_train_and_test, write_splits
from mrdiff_jax.scans import visits
from mrdiff_jax.scans.contrasts import contradiction
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage.files import write_text

DATASET_FOLDER = "dataset"
SPLITS_FILE = "splits.csv"
MANIFEST_FILE = "manifest.csv"
WHOLE = "slices"  # the one split that is written: splits are applied when read
_INFO_FILE = "prepared.json"
_MANIFEST_COLUMNS = (
    *("exam", "subject", "session", "split", "contrast", "path", "sha256", "tr_ms", "te_ms", "ti_ms", "shape", "spacing_mm"),
    *("action", "transform", "shift_before_mm", "shift_mm", "overlap", "mirror_gain", "bias_correction", "padding"),
    *("offset", "factor", "slices", "blank_slices", "status", "reason"),
)

Record = Mapping[str, Any]  # of an exam, as `preparation.prepare` returns it


def read(root: Path) -> dict[str, Any]:
    """What a prepared set holds: contrasts, image_size, exams with subject, times and number of slices, fingerprint.

    Raises UserError where there is none.
    """
    path = root / DATASET_FOLDER / _INFO_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{root}: no prepared data set; make one with python -m mrdiff_jax.prepare --output={root}") from None


def check_times(root: Path, written: Mapping[str, Any], sources: Sequence[str]) -> None:
    """Raises UserError, naming exam and contrast, where a source has no TR and TE."""
    for exam in written["exams"]:
        for contrast in sources:
            if not all(exam["times"][written["contrasts"].index(contrast)][:2]):
                raise UserError(
                    f"{root}: {exam['exam']} lacks TR or TE of {contrast}; call prepare again (what is finished stays, times "
                    f"are added) with --tr={contrast}=MILLISECONDS and --te={contrast}=MILLISECONDS"
                )


def rows_of_splits(written: Mapping[str, Any], splits: Mapping[str, str]) -> dict[str, list[int]]:
    """Where the slices of each split stand in the data set."""
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    start = 0
    for exam in written["exams"]:
        rows[splits[exam["subject"]]] += range(start, start + exam["slices"])
        start += exam["slices"]
    return rows


def write_dataset(output: Path, records: Sequence[Record], options: Options) -> None:
    """Writes the slices of the exams, in the order of the records, unless they are written already; whole or not at all."""
    from mrdiff_jax.preparation import exam_task  # not above: training reads prepared sets without what prepares them

    exams = [[record["key"], record["times"]] for record in records]
    fingerprint = hashlib.sha256(json.dumps([asdict(options), exams]).encode()).hexdigest()
    folder = output / DATASET_FOLDER
    try:
        if read(output)["fingerprint"] == fingerprint:
            return
    except UserError:
        pass

    def examples() -> Iterator[dict[str, Any]]:
        for record in records:
            yield from exam_task.read_examples(exam_task.exam_folder(output, record["exam"]))

    with tempfile.TemporaryDirectory(prefix=".dataset-", dir=output, ignore_cleanup_errors=True) as temporary:
        whole = Path(temporary) / DATASET_FOLDER
        tfds_builder.write(
            whole,
            examples={WHOLE: examples},
            contrasts=options.contrasts,
            image_size=options.image_size,
            truths=(),
        )
        info = {
            "contrasts": options.contrasts,
            "image_size": options.image_size,
            "fingerprint": fingerprint,
            "options": asdict(options),
            "exams": [
                {key: record[key] for key in ("exam", "subject", "times")} | {"slices": len(record["slices"])}
                for record in records
            ],
        }
        (whole / _INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
        exam_task.replace_folder(whole, folder)


def known_splits(output: Path) -> dict[str, str]:
    """Subject -> split as `splits.csv` has it, of all its rows; empty where there is none. Raises UserError for a wrong row."""
    path = output / SPLITS_FILE
    return read_rows(path) if path.is_file() else {}


def update_splits(output: Path, subjects: Sequence[str], known: Mapping[str, str], **assignment: Any) -> dict[str, str]:
    """Subject -> split of the subjects: as `known`, which is kept whole, else by `assign_splits`.

    All of it is written to `splits.csv`, also the rows of subjects that are not there now, for they may come back.
    Raises UserError where nobody is left for train or test.
    """
    splits, chosen = _splits(subjects, known, assignment)
    write_splits(output / SPLITS_FILE, splits)
    return require_train_and_test(chosen, str(output / SPLITS_FILE))


def check_splits(subjects: Sequence[str], known: Mapping[str, str], **assignment: Any) -> None:
    """Raises UserError where the splits that `update_splits` would give leave nobody for train or test."""
    require_train_and_test(_splits(subjects, known, assignment)[1], "the subjects that can be prepared")


def _splits(
    subjects: Sequence[str], known: Mapping[str, str], assignment: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Subject -> split of all that are or were there, and of the subjects."""
    new = {} if known.keys() >= set(subjects) else _joined(assign_splits(subjects, **assignment), known)
    splits = new | known
    return splits, {subject: splits[subject] for subject in subjects}


def _joined(new: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """New splits in which a visit of a patient whose split is known follows it."""
    groups = visits.patients({*new, *known}).values()
    followed = {
        subject: known[old[0]] for group in groups if (old := [one for one in group if one in known]) for subject in group
    }
    return {subject: followed.get(subject, split) for subject, split in new.items()}


def refuse_duplicates(records: Sequence[Record]) -> list[Record]:
    """The records, with a reason where an exam has a scan twice, or one that an earlier exam has too."""
    owners: dict[str, str] = {}
    checked = []
    for record in records:
        own: dict[str, str] = {}
        for scan in [] if "reason" in record else record["scans"]:
            owner = owners.get(scan["sha256"]) or own.get(scan["sha256"])
            if owner:
                reason = f"{record['exam']}: its {scan['contrast']} has the voxels of {owner}; keep one of them"
                record = {**record, "reason": reason}
                break
            own[scan["sha256"]] = f"its {scan['contrast']}"
        else:
            owners |= dict.fromkeys(own, f"a scan of {record['exam']}")
        checked.append(record)
    return checked


def refuse_misaligned(record: Record, reference: str, max_shift_mm: float) -> Record:
    """The record, with a reason where a scan does not lie on the reference or fits better mirrored."""
    for scan in [] if "reason" in record else record["scans"]:
        what = misaligned(scan, reference, record["spacing"], max_shift_mm)
        if what:
            mend = "look at it on the page, then remove it or --keep-misaligned"
            return {**record, "reason": f"{record['exam']}: its {scan['contrast']} {what}; {mend}"}
    return record


def misaligned(placement: Mapping[str, Any], reference: str, spacing: Sequence[float], max_shift_mm: float) -> str:
    """How a scan that `placement.place` placed does not lie on the reference; '' where it does.

    Across thick slices a scan may be off by half a slice, which edges cannot tell from their blur.
    """
    limits = np.maximum(max_shift_mm, np.divide(spacing, 2))
    far = np.linalg.norm(np.array(placement.get("shift", (0, 0, 0))) / limits) > 1
    if placement.get("mirror_gain", 0.0) > 0:
        return f"fits {reference} better mirrored: left and right are swapped in one of them, or it is somebody else's"
    if far or placement.get("shift_mm", 0.0) > limits.max():
        of_limits = " x ".join(f"{limit:g}" for limit in limits) if limits.max() > limits.min() else f"{limits.max():g}"
        return f"lies {placement['shift_mm']:.1f} mm off {reference} (limit {of_limits} mm)"
    return ""


def write_manifest(output: Path, records: Sequence[Record], splits: Mapping[str, str]) -> None:
    """Writes a row for every source file, and one for an exam of which no file is known."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _MANIFEST_COLUMNS, restval="")
    table.writeheader()
    for record in records:
        table.writerows(_manifest_rows(record, splits))
    write_text(output / MANIFEST_FILE, text.getvalue())


def _manifest_rows(record: Record, splits: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    exam = {key: record[key] for key in ("exam", "subject", "session")}
    failed = "reason" in record
    exam |= {"status": "failed" if failed else "done", "reason": record.get("reason", "")}
    exam |= {} if failed else {"split": splits.get(record["subject"], ""), "slices": len(record["slices"])}
    for index, scan in enumerate(record["scans"] or [{}]):
        row = exam | {column: scan[column] for column in _MANIFEST_COLUMNS if column in scan}
        if "shape" in scan:
            tr, te, ti = (time or "" for time in record["times"][index])
            offset, factor = record["scale"][index]
            row |= {"tr_ms": tr, "te_ms": te, "ti_ms": ti, "offset": offset, "factor": factor}
            row |= {"shape": _spaced(scan["shape"]), "spacing_mm": _spaced(scan["spacing"])}
            row |= {"transform": _spaced(scan.get("transform", ()))}
        yield row


def _spaced(numbers: Sequence[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def clear_leftovers(output: Path) -> None:
    """Removes what a killed run was writing."""
    for path in (*output.glob(".dataset-*"), *output.glob("subjects/.*-*")):
        shutil.rmtree(path, ignore_errors=True)
    for path in (*output.glob(".partial-*"), *output.glob("subjects/*/.partial-*")):
        path.unlink()


def odd_times(contrast: str, options: Options, done: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines on finished exams whose times a contrast hardly has: they may hold another contrast."""
    found = {record["exam"]: SequenceTimes(*record["times"][options.contrasts.index(contrast)]) for record in done}
    odd = {exam: reason for exam, times in found.items() if (reason := contradiction(contrast, times))}
    if odd:
        exam, reason = next(iter(odd.items()))
        yield f"warning: {contrast} of {len(odd)} exams, as of {exam}: {reason}; check the scan, or fix its times"
    untimed = sum(times.te > 0 and not times.ti for times in found.values())
    if contrast == "FLAIR" and untimed:
        yield (
            f"warning: FLAIR of {untimed} exams has no inversion time, which every FLAIR has; if it is FLAIR, call again with "
            "--ti=FLAIR=MILLISECONDS"
        )
