"""What lies where: the scans of subjects in BIDS folders, by filename pattern, in DICOM folders, and in archives' layouts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import archives
from mrdiff_jax.scans.bids import find_bids
from mrdiff_jax.scans.candidates import Candidate, exam_of, volume_files
from mrdiff_jax.scans.contrasts import NAMES
from mrdiff_jax.scans.exam_files import ExamFiles, ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.series_choice import adni_folders, by_series, subject_folders
from mrdiff_jax.scans.visits import is_visit
from mrdiff_jax.storage.files import refuse_unreadable


def find_subjects(
    root: Path, layout: str, contrasts: Sequence[str], *, pattern: str = "", rules: Mapping[str, str] | None = None
) -> list[ExamFiles]:
    """The exams (a subject's session each) under `root`, sorted by name, in one of `archives.LAYOUTS`.

    An exam whose `problems` is not empty cannot be used: each problem is one line that names the subject or file and the
    fix (a contrast missing or there twice, a damaged file, a subject there twice). Scan paths are for `volumes.read_scan`;
    `times` are the archive's documented ones, the least trusted.

    Args:
      root: the folder.
      layout: one of `archives.LAYOUTS`.
      contrasts: the names wanted, as T1w, T2w, PDw, FLAIR, ce-gad_T1w, T2wFS.
      pattern: of 'pattern', path of a scan under root, as '{subject}/{session}/{contrast}_*.nii.gz'; {session} may be left out.
      rules: regular expression by contrast, case ignored: searched in the SeriesDescription (or a NIfTI file's name) for
        'dicom', 'adni' and 'spine', whatever the header says; elsewhere it must match all of the text that stands for the
        contrast. Contrasts without one follow the layout's own, series of DICOM what `contrasts.judge` makes of them.

    Raises:
      UserError: no such folder or layout, a pattern or rule that cannot be read, or no subject at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the folder of your scans")
    own = _checked(rules or {})
    match layout:
        case "bids":
            exams = find_bids(root, contrasts)
        case "pattern":
            exams = _find_pattern(root, contrasts, pattern, own)
        case "ixi":
            exams = _by_path(root, [archives.IXI_FILE], contrasts, archives.IXI_RULES | own)
        case "brats":
            exams = _by_path(root, archives.BRATS_FILES, contrasts, archives.BRATS_RULES | own)
        case "adni":
            exams = by_series(adni_folders(root), contrasts, own, archives.ADNI_TIMES, archives.ADNI_SERIES)
        case "dicom" | "spine":
            times = archives.SPINE_TIMES if layout == "spine" else {}
            exams = by_series(subject_folders(root), contrasts, own, times)
        case _:
            raise UserError(f"no layout {layout!r}; choose one of {', '.join(archives.LAYOUTS)}")
    if not exams:
        raise UserError(f"{root}: {_nothing_found(root, layout, pattern)}")
    exams = [replace(exam, ruled=frozenset(own)) for exam in _named_apart(exams)]
    return sorted(exams, key=lambda exam: (exam.subject, exam.session))


def parse_rules(texts: Sequence[str]) -> dict[str, str]:
    """Rules by contrast from texts such as 'T1w=MP-?RAGE'.

    Raises:
      UserError: a text without '=', or a contrast named twice.
    """
    rules: dict[str, str] = {}
    for text in texts:
        contrast, equals, rule = (part.strip() for part in text.partition("="))
        if not (contrast and equals and rule) or contrast in rules:
            raise UserError(f"--rules={text}: write CONTRAST=TEXT, each contrast once, as T1w=MP-?RAGE")
        rules[contrast] = rule
    return rules


def _checked(rules: Mapping[str, str]) -> dict[str, str]:
    """The rules that are not empty. Raises UserError where one is no regular expression."""
    for contrast, rule in rules.items():
        try:
            re.compile(rule)
        except re.error as error:
            raise UserError(f"--rules={contrast}={rule}: not a regular expression ({error})") from None
    return {contrast: rule for contrast, rule in rules.items() if rule}


def _named_apart(exams: Sequence[ExamFiles]) -> list[ExamFiles]:
    """The exams, with a problem for those whose names differ in upper and lower case at most."""
    count = Counter(exam.name.casefold() for exam in exams)
    problem = "another exam has this name, but for upper and lower case; rename or remove one"
    return [
        replace(exam, problems=(*exam.problems, f"{exam.name}: {problem}")) if count[exam.name.casefold()] > 1 else exam
        for exam in exams
    ]


def _nothing_found(root: Path, layout: str, pattern: str) -> str:
    expected = {
        "bids": "has no sub-*/anat folders",
        "pattern": f"no file fits the pattern {pattern!r}",
        "dicom": "has no folder for each subject",
        "spine": "has no folder for each subject",
        "adni": "has no folders of ADNI subjects, as 002_S_0295",
        "ixi": "has no files named as IXI012-HH-1211-T1.nii.gz",
        "brats": "has no files named as *_t1.nii.gz or *-t1n.nii.gz",
    }[layout]
    example = next(iter(volume_files(root, refuse_unreadable)), "")
    seen = f" (it has {example})" if example else ""
    fix = "; fix --pattern, or say how a contrast is written with --rules=T1w=t1" if layout == "pattern" else ""
    return f"{expected}{seen}{fix or '; name its folder, or choose another --layout'}"


def _find_pattern(root: Path, contrasts: Sequence[str], pattern: str, own: Mapping[str, str]) -> list[ExamFiles]:
    # contrasts that are not wanted are known too, lest 'ce-gad_T1w' be taken for the T1w of a subject '..._ce-gad'
    rules = {contrast: re.escape(contrast) for contrast in (*contrasts, *NAMES)} | own
    exams = _by_path(root, [_expression(pattern, rules)], contrasts, rules)
    visit = next((exam.subject for exam in exams if is_visit(exam.subject)), "")
    if visit and re.search(r"\*.*/\{subject\}/", pattern):  # the folder above may be the patient's
        fix = "if so, write {subject}/{session}/ for the two folders; else name the one above instead of *"
        raise UserError(f"--pattern={pattern}: takes {visit!r} for a subject, which looks like a visit; {fix}")
    return exams


def _expression(pattern: str, rules: Mapping[str, str]) -> re.Pattern:
    spelled = "|".join(sorted(rules.values(), key=len, reverse=True))
    fields = {"subject": "[^/]+?", "session": "[^/]+?", "contrast": f"(?i:{spelled})"}
    wild = {"**/": "(.*/)?", "*": "[^/]*"}
    text, seen = "", set()
    for part in re.split(r"(\{\w*\}|\*\*/|\*)", pattern):
        name = part[1:-1] if part[:1] == "{" else ""
        if name and name not in fields:
            raise UserError(f"--pattern={pattern}: no field {part}; the fields are {{subject}}, {{session}} and {{contrast}}")
        text += wild.get(part) or (
            re.escape(part) if not name else f"(?P={name})" if name in seen else f"(?P<{name}>{fields[name]})"
        )
        seen.add(name)
    if not {"subject", "contrast"} <= seen:
        raise UserError(f"--pattern={pattern}: needs {{subject}} and {{contrast}}, as {{subject}}_{{contrast}}.nii.gz")
    return re.compile(text)


def _by_path(
    root: Path, expressions: Sequence[re.Pattern], contrasts: Sequence[str], rules: Mapping[str, str]
) -> list[ExamFiles]:
    """The exams of files whose paths fit one of the expressions, with groups subject, contrast, and session or site."""
    exams: dict[tuple[str, str], dict[str, list[Candidate]]] = {}
    times: dict[tuple[str, str], Mapping[str, SequenceTimes]] = {}
    unreadable: list[OSError] = []
    for path in volume_files(root, unreadable.append):
        match = next(filter(None, (expression.fullmatch(path) for expression in expressions)), None)
        if not match:
            continue
        groups = match.groupdict()
        name = groups["subject"], groups.get("session") or ""
        fits = exams.setdefault(name, {contrast: [] for contrast in contrasts})
        times[name] = archives.IXI_TIMES.get(groups.get("site", ""), {})
        for contrast in contrasts:
            if re.fullmatch(rules.get(contrast, re.escape(contrast)), groups["contrast"], re.IGNORECASE):
                fits[contrast].append(Candidate(ScanPath(root / path), groups["contrast"], path))
    found = [exam_of(*name, fits, times[name], fix="remove the subject") for name, fits in exams.items()]
    for error in unreadable:
        name = Path(error.filename).relative_to(root).as_posix()
        problem = f"{error.filename}: cannot be read ({error.strerror}); fix its permissions"
        found.append(ExamFiles(name, name, {}, problems=(problem,)))
    return found
