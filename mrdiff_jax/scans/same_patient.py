"""Subjects whose DICOM files name one patient. PatientID is compared as a keyed hash, in memory; it is never kept or shown."""

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from mrdiff_jax.log import logger
from mrdiff_jax.scans.visits import patients

_KEY = secrets.token_bytes(32)  # of this process: a hash says nothing outside of it
_PLACEHOLDERS = (
    *("", "0", "none", "na", "n/a", "unknown"),
    *("anon", "anonym", "anonymous", "anonymized", "anonymised", "deidentified"),
)


def mark(patient_id: str) -> bytes:
    """What is equal for files of one patient in this process; empty where none is named."""
    name = patient_id.strip().casefold()
    return b"" if name in _PLACEHOLDERS else hashlib.blake2b(name.encode(), key=_KEY).digest()


def warn_of_shared(marks: Iterable[tuple[str, Collection[bytes]]]) -> None:
    """Warns where several subjects are one patient, by the marks of each, though their names do not look it."""
    owners: dict[bytes, set[str]] = defaultdict(set)
    subjects = set()
    for subject, own in marks:
        subjects.add(subject)
        for one in own:
            owners[one].add(subject)
    shared = sorted(_unlike(owners.values(), len(subjects)))
    if shared:
        first, second, *_ = shared[0]
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        logger.warning(
            "%s and %s%s have one PatientID; if they are one patient, give them one split in --splits", first, second, more
        )


def _unlike(groups: Iterable[Collection[str]], count: int) -> Iterator[list[str]]:
    """The groups whose names do not look like one patient's; an ID that most of `count` subjects have is a placeholder."""
    for group in groups:
        if len(group) > 1 and not (count > 2 and len(group) > count / 2) and len(patients(group)) > 1:
            yield sorted(group)
