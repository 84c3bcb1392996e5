"""Subjects whose names look like visits of one patient, as sub-01a and sub-01b, X01_tp1 and X01_tp2, OAS1_0001_MR1 and _MR2."""

import re
from collections.abc import Iterable, Mapping

_NUMBERED = "tp|t|time|time_?point|ses|sess|session|visit|vis|v|scan|mr|mri|mr_d|exam|day|d|week|wk|w|month|mo|m|year|yr|y|fu"
_NAMED = "pre|post|baseline|base|bl|followup|fu|test|retest"
_VISIT = re.compile(rf"(?P<patient>.*\d)[-_.]?((?:{_NUMBERED})[-_.]?\d+|(?:{_NAMED})[-_.]?\d*|[a-f])", re.IGNORECASE)


def patients(subjects: Iterable[str]) -> dict[str, list[str]]:
    """The subjects by patient, who is named by the first: those whose names differ in the visit at their end alone."""
    groups: dict[str, list[str]] = {}
    for subject in sorted(subjects):
        match = _VISIT.fullmatch(subject)
        groups.setdefault(match["patient"] if match else subject, []).append(subject)
    return {members[0]: members for members in groups.values()}


def look_alike(splits: Mapping[str, str]) -> str:
    """One line about subjects that look like visits of one patient, and their splits; '' where there are none."""
    groups = [members for members in patients(splits).values() if len(members) > 1]
    parted = [members for members in groups if len({splits[member] for member in members}) > 1]
    chosen = parted or groups
    if not chosen:
        return ""
    fate = "were kept in one split; edit splits.csv if they are not"
    if parted:
        fate = "are in several splits; give them one in splits.csv"
    more = f" (and {len(chosen) - 1} more pairs)" if len(chosen) > 1 else ""
    return f"{chosen[0][0]} and {chosen[0][1]}{more} look like visits of one patient: they {fate}"
