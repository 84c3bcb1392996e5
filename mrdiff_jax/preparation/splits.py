"""Which subjects are for training, validation and test: assigned by chance or by name, kept in a CSV that users may edit."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.visits import patients
from mrdiff_jax.storage.files import replacing

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Assignment:
    """How subjects get a split: those of test by the glob patterns 'a,b' of `test_subjects`, else a fraction by chance."""

    test_subjects: str = ""
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    seed: int = 0


def assign_splits(subjects: Sequence[str], by: Assignment) -> dict[str, str]:
    """Subject -> split.

    Subjects that look like visits of one patient (`visits.patients`) come into one split, but where a pattern parts them.
    A fraction above 0 means at least one patient, as long as one is left to train. Raises UserError where a pattern matches
    nobody, or train or test would be empty.
    """
    groups = list(patients(subjects).values())
    shuffled = [groups[i] for i in np.random.default_rng(by.seed).permutation(len(groups))]
    if by.test_subjects.strip():
        chosen = matching(by.test_subjects, subjects)
        test = [[subject for subject in group if subject in chosen] for group in shuffled]
        shuffled = [[subject for subject in group if subject not in chosen] for group in shuffled]
        rest = [group for group in shuffled if group]
    else:
        count = _share(by.test_fraction, len(groups))
        test, rest = shuffled[:count], shuffled[count:]
    validation = rest[: min(_share(by.validation_fraction, len(groups)), max(len(rest) - 1, 0))]
    splits = dict.fromkeys(sorted(subjects), "train")
    splits |= dict.fromkeys(chain(*validation), "validation") | dict.fromkeys(chain(*test), "test")
    visits = len(subjects) - len(groups)
    alike = f" (of which {visits + 1} or more look like visits of one patient)" if visits else ""
    return require_train_and_test(splits, f"the choice of test subjects{alike}")


def matching(patterns: str, subjects: Sequence[str]) -> set[str]:
    """The subjects that match one of the glob patterns 'a,b'. Raises UserError where a pattern matches nobody."""
    chosen: set[str] = set()
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        found = {subject for subject in subjects if fnmatchcase(subject, pattern)}
        if not found:
            raise UserError(f"test subjects: {pattern!r} matches none of the {len(subjects)} subjects")
        chosen |= found
    return chosen


def _share(fraction: float, count: int) -> int:
    return max(round(fraction * count), 1) if fraction > 0 else 0


def require_train_and_test(splits: Mapping[str, str], field: str) -> dict[str, str]:
    """The same splits. Raises UserError, naming the field that decides them, where nobody is in train or in test."""
    for split in ("train", "test"):
        if split not in splits.values():
            raise UserError(f"{field}: leaves no subject for {split}, of {len(splits)}; train and test need one each")
    return dict(splits)


def read_splits(path: Path, subjects: Sequence[str]) -> dict[str, str]:
    """Subject -> split from a CSV file with the columns subject, split.

    Raises UserError, naming the file and the row, for an unknown split or a subject given twice or not at all.
    """
    splits = read_rows(path)
    for subject in sorted(subjects):
        if subject not in splits:
            raise UserError(f"{path}: no row for {subject}; add '{subject},train' (or {', '.join(SPLITS[1:])})")
    return require_train_and_test({subject: splits[subject] for subject in sorted(subjects)}, str(path))


def read_rows(path: Path) -> dict[str, str]:
    """Subject -> split of all rows of such a file, whoever its subjects are. Raises UserError as `read_splits` does."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = {*(reader.fieldnames or ())}
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV of splits ({error})") from None
    if missing := {"subject", "split"} - columns:
        raise UserError(f"{path}: its first line does not name the column {min(missing)}; begin it with subject,split")
    splits: dict[str, str] = {}
    for line, row in rows:
        subject, split = ((row.get(key) or "").strip() for key in ("subject", "split"))
        if split not in SPLITS:
            raise UserError(f"{path}, row {line}: split {split!r} of {subject!r} is not one of {', '.join(SPLITS)}")
        if subject in splits:
            raise UserError(f"{path}, row {line}: {subject!r} stands there a second time; keep one row")
        splits[subject] = split
    return splits


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Write subject -> split as the CSV file that `read_splits` reads."""
    with replacing(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("subject", "split"), *sorted(splits.items())])
