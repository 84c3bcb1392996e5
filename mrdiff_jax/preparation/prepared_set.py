"""The folder that `prepare` leaves: the slices of all exams as one data set, and their splits in a CSV for users to edit."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import slice_set
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import ExamRecord
from mrdiff_jax.preparation.slice_set import ExamSlices, SliceSet
from mrdiff_jax.preparation.splits import Assignment, assign_splits, read_rows, require_train_and_test, write_splits
from mrdiff_jax.scans import visits
from mrdiff_jax.storage.files import replace_folder, scratch_folder

DATASET_FOLDER = "dataset"
SPLITS_FILE = "splits.csv"


def read(root: Path) -> SliceSet:
    """What a prepared set holds. Raises UserError where there is none, or it is damaged."""
    found = slice_set.read(root / DATASET_FOLDER)
    if found is None:
        raise UserError(f"{root}: no prepared data set; make one with mrdiff prepare --output={root}")
    return found


def check_times(root: Path, written: SliceSet, sources: Sequence[str]) -> None:
    """Raises UserError, naming exam and contrast, where a source has no TR and TE."""
    for exam in written.exams:
        for contrast in sources:
            times = exam.times[written.options.contrasts.index(contrast)]
            if not (times.tr and times.te):
                raise UserError(
                    f"{root}: {exam.exam} lacks TR or TE of {contrast}; call prepare again (what is finished stays, times "
                    f"are added) with --tr={contrast}=MILLISECONDS and --te={contrast}=MILLISECONDS"
                )


def write_dataset(output: Path, records: Sequence[ExamRecord], options: Options) -> None:
    """Writes the slices of the exams, in the order of the records, unless they are written already; whole or not at all."""
    from mrdiff_jax.preparation import exam_task  # not above: training reads prepared sets without what prepares them

    exams = [[record.exam, record.subject, record.key, record.times] for record in records]
    fingerprint = hashlib.sha256(json.dumps([asdict(options), exams]).encode()).hexdigest()
    folder = output / DATASET_FOLDER
    try:
        if read(output).fingerprint == fingerprint and slice_set.has_examples(folder):
            return
    except UserError:
        pass

    def slices() -> Iterator[ExamSlices]:
        for record in records:
            examples = exam_task.read_examples(exam_task.exam_folder(output, record.exam), record)
            yield ExamSlices(record.exam, record.subject, record.times, examples)

    with scratch_folder(output, ".dataset-") as temporary:
        whole = temporary / DATASET_FOLDER
        slice_set.write(whole, slices(), options, fingerprint)
        replace_folder(whole, folder)


def known_splits(output: Path) -> dict[str, str]:
    """Subject -> split as `splits.csv` has it, of all its rows; empty where there is none. Raises UserError for a wrong row."""
    path = output / SPLITS_FILE
    return read_rows(path) if path.is_file() else {}


def update_splits(output: Path, subjects: Sequence[str], known: Mapping[str, str], assignment: Assignment) -> dict[str, str]:
    """Subject -> split of the subjects: as `known`, which is kept whole, else by `assign_splits`.

    All of it is written to `splits.csv`, also the rows of subjects that are not there now, for they may come back.
    Raises UserError where nobody is left for train or test.
    """
    splits, chosen = _splits(subjects, known, assignment)
    write_splits(output / SPLITS_FILE, splits)
    return require_train_and_test(chosen, str(output / SPLITS_FILE))


def check_splits(subjects: Sequence[str], known: Mapping[str, str], assignment: Assignment) -> None:
    """Raises UserError where the splits that `update_splits` would give leave nobody for train or test."""
    require_train_and_test(_splits(subjects, known, assignment)[1], "the subjects that can be prepared")


def _splits(subjects: Sequence[str], known: Mapping[str, str], assignment: Assignment) -> tuple[dict[str, str], dict[str, str]]:
    """Subject -> split of all that are or were there, and of the subjects."""
    new = {} if known.keys() >= set(subjects) else _joined(assign_splits(subjects, assignment), known)
    splits = new | known
    return splits, {subject: splits[subject] for subject in subjects}


def _joined(new: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """New splits in which a visit of a patient whose split is known follows it."""
    groups = visits.patients({*new, *known}).values()
    followed = {
        subject: known[old[0]] for group in groups if (old := [one for one in group if one in known]) for subject in group
    }
    return {subject: followed.get(subject, split) for subject, split in new.items()}


def clear_leftovers(output: Path) -> None:
    """Removes what a killed run was writing."""
    for path in (*output.glob(".dataset-*"), *output.glob("subjects/.*-*")):
        shutil.rmtree(path, ignore_errors=True)
    for path in (*output.glob(".partial-*"), *output.glob("subjects/*/.partial-*")):
        path.unlink()
