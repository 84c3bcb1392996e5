"""Subjects whose names look like visits of one patient, as sub-01a and sub-01b, X01_tp1 and X01_tp2, OAS1_0001_MR1 and _MR2."""

import re
from collections.abc import Iterable, Mapping

_WORDS = "tp|t|time|timepoint|time_?point|ses|sess|session|visit|vis|v|scan|mr|mri|mr_d|exam|day|d|week|wk|w|month|mo|m|year|yr|y|fu|bl"
_PHASES = "pre|post|baseline|base|followup|bl|fu|retest|test"
_VISIT = re.compile(rf"(?P<patient>.*[^\W_]*\d)[-_.]?((?:{_WORDS})[-_.]?\d+|(?:{_PHASES})[-_.]?\d*|[a-f])", re.IGNORECASE)


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
    for members, fate in (
        *(
            (members, "but are in several splits; give them one in splits.csv, or training sees who is tested")
            for members in parted
        ),
        *((members, "and were kept in one split; if they are not, edit splits.csv") for members in groups),
    ):
        more = len(parted or groups) - 1
        others = f" (and {more} more such patients)" if more else ""
        return f"{members[0]} and {members[1]}{others} look like visits of one patient {fate}"
    return ""
