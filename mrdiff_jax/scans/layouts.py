"""What lies where: the scans of subjects in BIDS folders, by filename pattern, in DICOM folders, and in archives' layouts."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tqdm import tqdm

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import archives, dicom
from mrdiff_jax.scans.contrasts import NAMES, Header, judge
from mrdiff_jax.scans.dicom_stack import bounded
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import ExamFiles, find_bids
from mrdiff_jax.storage.files import refuse_unreadable, walk_files

SEEN_LENGTH = 110  # characters that a message spends on what there is
LAYOUTS = ("bids", "pattern", "dicom", "adni", "ixi", "brats", "spine")


def find_subjects(
    root: Path, layout: str, contrasts: Sequence[str], *, pattern: str = "", rules: Mapping[str, str] | None = None
) -> list[ExamFiles]:
    """The exams (a subject's session each) under `root`, sorted by name, in one of LAYOUTS.

    An exam whose `problems` is not empty cannot be used: each problem is one line that names the subject or file and the
    fix (a contrast missing or there twice, a damaged file, a subject there twice). Scan paths are for `volumes.read_scan`;
    `times` are the archive's documented ones, the least trusted.

    Args:
      root: the folder.
      layout: one of LAYOUTS.
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
            exams = _by_series(_adni_folders(root), contrasts, own, archives.ADNI_TIMES, archives.ADNI_SERIES)
        case "dicom" | "spine":
            times = archives.SPINE_TIMES if layout == "spine" else {}
            exams = _by_series(_subject_folders(root), contrasts, own, times)
        case _:
            raise UserError(f"no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
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
    example = next(iter(_nifti_files(root, refuse_unreadable)), "")
    seen = f" (it has {example})" if example else ""
    mend = "; mend --pattern, or say how a contrast is written with --rules=T1w=t1" if layout == "pattern" else ""
    return f"{expected}{seen}{mend or '; name its folder, or choose another --layout'}"


class _Scan(NamedTuple):
    path: Path  # for read_scan
    text: str  # what rules are searched in: the SeriesDescription, or a file's name
    label: str  # what a user knows it by
    header: Header = Header()
    uid: str = ""


def _exam(
    subject: str,
    session: str,
    fits: Mapping[str, Sequence[_Scan]],
    times: Mapping[str, SequenceTimes],
    fix: str,
    seen: str = "",
    doubts: Mapping[str, str] | None = None,
) -> ExamFiles:
    """An exam of the scans that fit each contrast; `seen` says what there is where none fits, `doubts` which might, and why."""
    name = f"{subject}_{session}" if session else subject
    seen = seen or ", ".join(contrast for contrast, scans in fits.items() if scans) or "no scans"
    chosen: dict[str, Path] = {}
    problems = []
    for contrast, scans in fits.items():
        if len(scans) > 1:
            labels = [scan.label for scan in scans]
            told = " and ".join(labels) if len(labels) == 2 else bounded(labels, SEEN_LENGTH)
            problems.append(f"{name}: {told} all fit {contrast}; keep one, or {fix}")
        elif not scans and contrast in (doubts or {}):
            problems.append(f"{name}: {doubts[contrast]}")
        elif not scans:
            problems.append(f"{name}: has no {contrast} (it has {seen}); {fix}")
        elif scans[0].path in chosen.values():
            problems.append(f"{name}: {scans[0].label} fits {contrast} and another contrast too; {fix}")
        else:
            chosen[contrast] = scans[0].path
    return ExamFiles(name, subject, chosen, session, tuple(problems), times)


# By the names of files


def _nifti_files(root: Path, onerror: Callable[[OSError], None]) -> list[str]:
    """Paths of the NIfTI files under a folder, sorted, relative and with forward slashes; links are followed."""
    paths = (path.relative_to(root).as_posix() for path in walk_files(root, onerror))
    return sorted(path for path in paths if re.fullmatch(f".*{archives.NIFTI}", path))


def _find_pattern(root: Path, contrasts: Sequence[str], pattern: str, own: Mapping[str, str]) -> list[ExamFiles]:
    # contrasts that are not wanted are known too, lest 'ce-gad_T1w' be taken for the T1w of a subject '..._ce-gad'
    rules = {contrast: re.escape(contrast) for contrast in (*contrasts, *NAMES)} | own
    return _by_path(root, [_expression(pattern, rules)], contrasts, rules)


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
    exams: dict[tuple[str, str], dict[str, list[_Scan]]] = {}
    times: dict[tuple[str, str], Mapping[str, SequenceTimes]] = {}
    unreadable: list[OSError] = []
    for path in _nifti_files(root, unreadable.append):
        match = next(filter(None, (expression.fullmatch(path) for expression in expressions)), None)
        if not match:
            continue
        groups = match.groupdict()
        name = groups["subject"], groups.get("session") or ""
        fits = exams.setdefault(name, {contrast: [] for contrast in contrasts})
        times[name] = archives.IXI_TIMES.get(groups.get("site", ""), {})
        for contrast in contrasts:
            if re.fullmatch(rules.get(contrast, re.escape(contrast)), groups["contrast"], re.IGNORECASE):
                fits[contrast].append(_Scan(root / path, groups["contrast"], path))
    found = [_exam(*name, fits, times[name], fix="remove the subject") for name, fits in exams.items()]
    for error in unreadable:
        name = Path(error.filename).relative_to(root).as_posix()
        problem = f"{error.filename}: cannot be read ({error.strerror}); fix its permissions"
        found.append(ExamFiles(name, name, {}, problems=(problem,)))
    return found


# By the descriptions of DICOM series


class _Folders(NamedTuple):
    """Where the scans of an exam lie; a text stands for the descriptions of all series in the folder."""

    subject: str
    session: str
    texts: Mapping[Path, str]


def _subject_folders(root: Path) -> Iterator[_Folders]:
    """root/SUBJECT/[ses-*/], with DICOM files somewhere below."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for session in sorted(path for path in folder.glob("ses-*") if path.is_dir()) or [folder]:
            yield _Folders(folder.name, "" if session == folder else session.name, {session: ""})


def _adni_folders(root: Path) -> Iterator[_Folders]:
    """[root/]ADNI/SUBJECT/DESCRIPTION/DATE_TIME/.../IMAGE/files, as LONI packs it; a day is a session."""
    exams: dict[tuple[str, str], dict[Path, str]] = defaultdict(dict)
    subjects = [path for level in ("*", "*/*") for path in root.glob(level) if re.fullmatch(archives.ADNI_SUBJECT, path.name)]
    for subject in sorted(subjects):
        dates = sorted(path for path in subject.glob("*/*") if re.match(archives.ADNI_DATE, path.name))
        if not dates:
            exams[subject.name, ""] = {}
        for date in dates:
            try:
                folders = dict.fromkeys(path.parent for path in walk_files(date))
            except UserError:
                folders = {date: None}  # told when its headers are read, for this exam alone
            exams[subject.name, date.name[:10]] |= dict.fromkeys(folders, date.parent.name)
    yield from (_Folders(*name, texts) for name, texts in exams.items())


def _by_series(
    folders: Iterable[_Folders],
    contrasts: Sequence[str],
    own: Mapping[str, str],
    times: Mapping[str, SequenceTimes],
    archive: Mapping[str, str] = MappingProxyType({}),
) -> list[ExamFiles]:
    """The exams of folders of DICOM series (or NIfTI files), told apart by rules of the user's, or by what they say.

    `archive`: rules that descriptions must fit besides, by contrast.
    """
    rules = own | {contrast: re.escape(contrast) for contrast in contrasts if contrast not in {*own, *NAMES}}
    exams, uids = [], []
    for subject, session, texts in tqdm(list(folders), desc="Reading headers", unit="exam", delay=1, disable=None):
        wanted = {text for text in texts.values() if not text or any(_may_be(text, name, rules, archive) for name in contrasts)}
        try:
            scans = [scan for folder, text in texts.items() if text in wanted for scan in _scans(folder, text, subject)]
        except (UserError, OSError) as error:
            exam = _exam(subject, session, {}, times, fix="")
            exams.append(replace(exam, problems=(f"{exam.name}: {error}",)))
            uids.append(set())
            continue
        fits = {name: [scan for scan in scans if _fits(scan, name, rules, archive)] for name in contrasts}
        doubts = {name: doubt for name in contrasts if name not in rules and (doubt := _doubt(scans, name, archive))}
        seen = bounded([*(scan.label for scan in scans), *sorted({*texts.values()} - wanted)], SEEN_LENGTH) if texts else ""
        exams.append(_exam(subject, session, fits, times, "say which it is, --rules=CONTRAST=TEXT", seen, doubts))
        uids.append({scan.uid for scan in scans} - {""})
    return _told_apart(exams, uids)


def _may_be(text: str, contrast: str, rules: Mapping[str, str], archive: Mapping[str, str]) -> bool:
    """Whether a folder of that name may hold a contrast."""
    if contrast in rules:
        return bool(re.search(rules[contrast], text, re.IGNORECASE))
    return bool(re.search(archive.get(contrast, ""), text, re.IGNORECASE)) and contrast in judge(text, Header()).contrasts


def _fits(scan: _Scan, contrast: str, rules: Mapping[str, str], archive: Mapping[str, str]) -> bool:
    if contrast in rules:
        echo = archives.ECHO_OF.get(contrast) if scan.header.echoes == 2 else None
        return bool(re.search(rules[contrast], scan.text, re.IGNORECASE)) and echo in (None, scan.header.echo)
    return _may_be(scan.text, contrast, rules, archive) and judge(scan.text, scan.header).surely(contrast)


def _doubt(scans: Sequence[_Scan], contrast: str, archive: Mapping[str, str]) -> str:
    """Why no scan is taken for a contrast that some may be, and how to say that it is one; '' where there is none."""
    found = []
    for scan in scans:
        contrasts, doubt = judge(scan.text, scan.header)
        if contrast in contrasts and doubt and _may_be(scan.text, contrast, {}, archive):
            found.append(f"{scan.label}: {doubt}; if it is the {contrast}, give --rules={contrast}='{_rule_for(scan.text)}'")
    more = f" ({len(found) - 1} more series are in doubt)" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else ""


def _rule_for(text: str) -> str:
    """A rule that fits a description and no other, but for long ones."""
    special = re.sub(r"([][.*+?(){}|^$\\])", r"\\\1", text[:40])
    return f"^{special}$" if text == text[:40] else f"^{special}"


def _scans(folder: Path, text: str, subject: str) -> Iterator[_Scan]:
    """The NIfTI files and DICOM series in a folder."""
    files = _nifti_files(folder, refuse_unreadable)
    for path in files:
        yield _Scan(folder / path, text or Path(path).name.replace(subject, ""), path)
    if files and not any(map(dicom.is_dicom, walk_files(folder))):
        return
    found = dicom.find_series(folder)
    for index, series in enumerate(found, 1):
        sign = "" if len(found) == 1 else f"#{index}"
        path = folder.with_name(f"{folder.name}{sign}")
        where = f" in {folder.name}" if text else ""
        yield _Scan(path, text or series.description, f"{sign} {series.label()}{where}".strip(), series.header, series.uid)


def _told_apart(exams: Sequence[ExamFiles], uids: Sequence[set[str]]) -> list[ExamFiles]:
    """The exams, with a problem for those that hold a DICOM series which another holds too; `uids` are of their series."""
    owners = defaultdict(list)
    for exam, own in zip(exams, uids, strict=True):
        for uid in own:
            owners[uid].append(exam.name)

    def with_problem(exam: ExamFiles, own: set[str]) -> ExamFiles:
        others = sorted({name for uid in own for name in owners[uid]} - {exam.name})
        if not others:
            return exam
        problem = f"{exam.name}: holds a DICOM series that {bounded(others, SEEN_LENGTH)} holds too; keep it in one place"
        return replace(exam, problems=(*exam.problems, problem))

    return list(map(with_problem, exams, uids))
