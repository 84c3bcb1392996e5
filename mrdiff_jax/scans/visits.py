"""Subjects whose names look like visits of one patient, as sub-01a and sub-01b, X01_tp1 and X01_tp2, OAS1_0001_MR1 and _MR2."""

import re
from collections.abc import Iterable, Mapping

_NUMBERED = (
    "tp|t|time|time_?point|ses|sess|session|visit|vis|v|scan|mr|mri|mr_d|exam|day|d|week|wk|w|month|mo|m|year|yr|y|fu|wave|rec"
)
_NAMED = "baseline|base|bl|followup|fu|test|retest|rescan|repeat|before|after|initial|final"
_OPERATION = "(?:pre|post|intra)(?:[-_]?(?:op|operative|surgery|treatment|therapy|tx|rt|chemo))?"
_UNIT = "days?|weeks?|wks?|months?|mon|mo|years?|yrs?"
_SHORT_UNIT = "d|w|m|y"
_DATE = r"(?:19|20)\d\d(?P<between>[-_.]?)(?:0[1-9]|1[0-2])(?P=between)(?:0[1-9]|[12]\d|3[01])"
_LONG_WAITS = "12|18|24|30|36|48|60|72"  # months: of 0112mo, the visit of patient 01
_FORMS = [  # of names: the patient's, and a visit; the first that fits counts
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(.*[^\W_])[-_.]?date[-_.]?\d[\d.-]*",
        rf"(.*[^\W_])[-_.]{_DATE}",
        rf"(.*\d\d)[-_.]?(?:{_LONG_WAITS})(?:{_UNIT})",
        rf"(.*\d)[-_.]\d+(?:{_UNIT}|{_SHORT_UNIT})",
        rf"(.*\d)\d(?:{_UNIT})",
        rf"(.*\d)[-_.]?(?:{_NUMBERED})[-_.]?\d+[a-z]?",
        rf"(.*\d)[-_.]?(?:(?:{_NAMED}|{_OPERATION})[-_.]?\d*|s\d|[a-f])",
        rf"(.*[^\W_])[-_.](?:(?:visit|tp|time_?point)[-_.]?\d+|{_NAMED}|{_OPERATION})",
        r"(.*\d\d)_\d",  # RHUH-0001_1
        r"(.*\d)(?-i:I{1,3}|IV)",
        r"(.*(?-i:[a-z]))(?-i:V|TP)\d{1,2}",  # JohnV2
    )
]


def patients(subjects: Iterable[str]) -> dict[str, list[str]]:
    """The subjects by patient, who is named by the first: those whose names differ in the visit at their end alone."""
    groups: dict[str, list[str]] = {}
    for subject in sorted(subjects):
        groups.setdefault(_patient(subject), []).append(subject)
    return {members[0]: members for members in groups.values()}


def _patient(subject: str) -> str:
    """The name of a subject without the visit at its end."""
    return next((match[1] for form in _FORMS if (match := form.fullmatch(subject))), subject)


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
