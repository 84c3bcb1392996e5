"""Subjects whose names look like visits of one patient, as sub-01a and sub-01b, X01_tp1 and X01_tp2, OAS1_0001_MR1 and _MR2."""

import re
from collections.abc import Iterable, Mapping

_WORDS = "tp|time_?point|ses|sess|session|visit|scan|exam|week|month|year|wave"
_NUMBERED = f"{_WORDS}|t|time|vis|v|mr|mri|mr_d|day|d|wk|w|mo|m|yr|y|fu|rec|run|acq|kontrolle"
_NAMED = (
    "baseline|base|bl|sc|screening|follow_?up|follow|fu|test|retest|rescan|repeat|before|after|initial|final|first|second|third|"
    "1st|2nd|3rd|old|new|erste?|zweite?|vor|nach|verlauf|verlaufskontrolle|kontrolle|avant|apres|prima|dopo|antes|despues|depois"
)
_OPERATION = "(?:pre|prae|post|intra)(?:[-_]?(?:op|operative|surgery|treatment|therapy|tx|rt|chemo))?"
_UNIT = "days?|weeks?|wks?|months?|mon|mo|years?|yrs?"
_SHORT_UNIT = "d|w|m|y"
_DATE = r"(?:19|20)\d\d(?P<between>[-_.]?)(?:0[1-9]|1[0-2])(?P=between)(?:0[1-9]|[12]\d|3[01])"
_MONTH = "(?:jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*"
_DAY_FIRST = r"(?:0?[1-9]|[12]\d|3[01])(?P<point>[-_.])(?:0?[1-9]|1[0-2])(?P=point)(?:19|20)\d\d"
_YEAR = rf"(?:{_MONTH}[-_.]?)?(?:19|20)\d\d(?:[-_.]?Q[1-4])?"
_PATIENT = "(?:p|pat|patient|patientid|sub|subj|subject|suj|sujet|vp|proband|case|fall)"
_PLACE = "(?:site|cent(?:er|re)|zentrum|clinic|klinik|hospital|scanner|group|gruppe|cohort|study|batch|fold|arm)"
_NUMBERED_PATIENT = rf"(?:.*[-_.])?{_PATIENT}[-_.]?(?!(?:19|20)\d\d[-_.])\d+"  # not patient_2020_01, the first of a year
_ONE = rf"(?!(?:.*[-_.])?{_PLACE}[-_.]?\d)(?:.*[a-z]\d+|{_NUMBERED_PATIENT})"  # not TCGA-06-2010, whose year is a number
_LONG_WAITS = "12|18|24|30|36|48|60|72"  # months: of 0112mo, the visit of patient 01
_FORMS = [  # of names: the patient's, and a visit; the first that fits counts
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(.*[^\W_])[-_.]?date[-_.]?\d[\d.-]*",
        rf"(?!{_PATIENT}[-_.][\d._-]+$)(.*[^\W_])[-_.]{_DATE}",  # sub-20200101 may be named by its only date
        rf"(.*\d)[-_.]{_DAY_FIRST}",
        rf"({_ONE})[-_.](?:{_YEAR}|{_MONTH}[-_.]?\d\d)",
        r"(.*brats[a-z]*-[a-z-]+\d{4,5})-\d{1,3}",  # BraTS-GLI-00005-001
        r"(.*\d)[-_.](?:baseline|\d+year)\w*arm\d+",  # of ABCD
        rf"(.*\d\d)[-_.]?(?:{_LONG_WAITS})(?:{_UNIT})",
        rf"(.*\d)[-_.]\d+(?:{_UNIT}|{_SHORT_UNIT})",
        rf"(.*\d)\d(?:{_UNIT})",
        rf"(.*\d)[-_.]?(?:{_NUMBERED})[-_.]?\d+[a-z]?(?:[-_.]\d)?",  # week-000-1, the first of that week
        rf"(.*\d)[-_.]?(?:{_WORDS})[-_.]?[a-f]",
        rf"(.*\d)[-_.]?(?:(?:{_NAMED}|{_OPERATION})[-_.]?\d*|s\d|[a-fr])",
        r"(.*?\d)[-_.](?:0\.\d+|1\.5|[37](?:\.0)?)T",  # of the field
        rf"(.*[^\W_])[-_.](?:(?:visit|tp|time_?point)[-_.]?\d+|{_NAMED}|{_OPERATION})",
        r"(.*\d\d)_\d",  # RHUH-0001_1
        r"(.*-\d{4,5})_\d\d",  # UPENN-GBM-00001_11
        rf"({_NUMBERED_PATIENT})[-_.]\d{{1,2}}",
        r"(.*\d)[-_.]?(?-i:I{1,3}|IV)",
        r"(.*[^\W_])(?:\(\d+\)|[-_. ]copy)",
        r"(.*(?-i:[a-z]))(?-i:V|TP)\d{1,2}",  # JohnV2
    )
]

_VISIT = re.compile(rf"{_DATE}|{_YEAR}|(?:{_WORDS})[-_.]?\d+|{_NAMED}|{_OPERATION}", re.IGNORECASE)


def is_visit(name: str) -> bool:
    """Whether a whole name is that of a visit and of no patient, as 2020-01-01, ses-1 and baseline."""
    return bool(_VISIT.fullmatch(name))


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
