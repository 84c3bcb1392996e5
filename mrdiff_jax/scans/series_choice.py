"""Which DICOM series of an exam's folders is which contrast: by rules of the user's, or by what they say of themselves."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tqdm import tqdm

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import archives, dicom, same_patient
from mrdiff_jax.scans.candidates import SEEN_LENGTH, Candidate, exam_of, nifti_files
from mrdiff_jax.scans.contrasts import NAMES, Header, Verdict, judge
from mrdiff_jax.scans.dicom_stack import bounded
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.scan_path import NIFTI, ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage.files import is_hidden, refuse_unreadable, walk_files

_MASK_WORD = re.compile(  # in the names of files; in a SeriesDescription they say what was looked for
    r"(?<![a-z])(seg\w*|masks?|labels?|lesions?|tumou?rs?|rois?|gtv|ctv|edema|oedema|necrosis|parc\w*|aseg|annotations?|truth)(?![a-z])",
    re.IGNORECASE,
)


class Folders(NamedTuple):
    """Where the scans of an exam lie; a text stands for the descriptions of all series in the folder."""

    subject: str
    session: str
    texts: Mapping[Path, str]


def subject_folders(root: Path) -> Iterator[Folders]:
    """root/SUBJECT/[ses-*/], with DICOM files somewhere below."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)):
        for session in sorted(path for path in folder.glob("ses-*") if path.is_dir()) or [folder]:
            yield Folders(folder.name, "" if session == folder else session.name, {session: ""})


def adni_folders(root: Path) -> Iterator[Folders]:
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
                folders = {date: None}  # refused when its headers are read, for this exam alone
            exams[subject.name, date.name[:10]] |= dict.fromkeys(folders, date.parent.name)
    yield from (Folders(*name, texts) for name, texts in exams.items())


def by_series(
    folders: Iterable[Folders],
    contrasts: Sequence[str],
    own: Mapping[str, str],
    times: Mapping[str, SequenceTimes],
    archive: Mapping[str, str] = MappingProxyType({}),
) -> list[ExamFiles]:
    """The exams of folders of DICOM series (or NIfTI files), chosen by rules of the user's, or by what they say.

    `archive`: rules that descriptions must fit besides, by contrast.
    """
    rules = own | {contrast: re.escape(contrast) for contrast in contrasts if contrast not in {*own, *NAMES}}
    exams, uids, patients = [], [], []
    for subject, session, texts in tqdm(list(folders), desc="Reading headers", unit="exam", delay=1, disable=None):
        wanted = {text for text in texts.values() if not text or any(_may_be(text, name, rules, archive) for name in contrasts)}
        try:
            scans = [scan for folder, text in texts.items() if text in wanted for scan in _scans(folder, text, subject)]
        except (UserError, OSError) as error:
            exam = exam_of(subject, session, {}, times, fix="")
            exams.append(replace(exam, problems=(f"{exam.name}: {error}",)))
            uids.append(set())
            continue
        fits = {name: [scan for scan in scans if _fits(scan, name, rules, archive)] for name in contrasts}
        doubts = {name: doubt for name in contrasts if name not in rules and (doubt := _doubt(scans, name, archive))}
        seen = bounded([*(scan.label for scan in scans), *sorted({*texts.values()} - wanted)], SEEN_LENGTH) if texts else ""
        exams.append(exam_of(subject, session, fits, times, "say which it is, --rules=CONTRAST=TEXT", seen, doubts))
        uids.append({scan.uid for scan in scans} - {""})
        patients.append((subject, {scan.patient for scan in scans} - {b""}))
    same_patient.warn_of_shared(patients)
    return _told_apart(exams, uids)


def _judged(scan: Candidate) -> Verdict:
    """What a scan is; of a NIfTI file whose name may be that of a mask, with a doubt."""
    verdict = judge(scan.text, scan.header)
    word = _MASK_WORD.search(scan.text)
    if verdict.doubt or not word or not re.fullmatch(f".*{NIFTI}", scan.path.name):
        return verdict
    return verdict._replace(doubt=f"{word[0]!r} in its name may say that it is a mask")


def _may_be(text: str, contrast: str, rules: Mapping[str, str], archive: Mapping[str, str]) -> bool:
    """Whether a folder of that name may hold a contrast."""
    if contrast in rules:
        return bool(re.search(rules[contrast], text, re.IGNORECASE))
    return bool(re.search(archive.get(contrast, ""), text, re.IGNORECASE)) and contrast in judge(text, Header()).contrasts


def _fits(scan: Candidate, contrast: str, rules: Mapping[str, str], archive: Mapping[str, str]) -> bool:
    if contrast in rules:
        echo = archives.ECHO_OF.get(contrast) if scan.header.echoes == 2 else None
        return bool(re.search(rules[contrast], scan.text, re.IGNORECASE)) and echo in (None, scan.header.echo)
    return _may_be(scan.text, contrast, rules, archive) and _judged(scan).surely(contrast)


def _doubt(scans: Sequence[Candidate], contrast: str, archive: Mapping[str, str]) -> str:
    """Why no scan is taken for a contrast that some may be, and how to say that it is one; '' where there is none."""
    found = []
    for scan in scans:
        contrasts, doubt = _judged(scan)
        if contrast in contrasts and doubt and _may_be(scan.text, contrast, {}, archive):
            found.append(f"{scan.label}: {doubt}; if it is the {contrast}, give --rules={contrast}='{_rule_for(scan.text)}'")
    more = f" ({len(found) - 1} more series are in doubt)" if len(found) > 1 else ""
    return f"{found[0]}{more}" if found else ""


def _rule_for(text: str) -> str:
    """A rule that fits a description and no other, but for long ones."""
    special = re.sub(r"([][.*+?(){}|^$\\])", r"\\\1", text[:40])
    return f"^{special}$" if text == text[:40] else f"^{special}"


def _scans(folder: Path, text: str, subject: str) -> Iterator[Candidate]:
    """The NIfTI files and DICOM series in a folder."""
    files, own = nifti_files(folder, refuse_unreadable), rf"(?<![A-Za-z0-9]){re.escape(subject)}(?![A-Za-z0-9])"
    for path in files:
        yield Candidate(ScanPath(folder / path), text or re.sub(own, "", Path(path).name), path)
    if files and not any(map(dicom.is_dicom, walk_files(folder))):
        return
    found = dicom.find_series(folder)
    for index, series in enumerate(found, 1):
        chosen = "" if len(found) == 1 else f"#{index} "
        where = f" in {folder.name}" if text else ""
        path = ScanPath(folder, index if chosen else None)
        patient = series.frames[0].patient
        yield Candidate(
            path, text or series.description, f"{chosen}{series.label()}{where}", series.header, series.uid, patient
        )


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
