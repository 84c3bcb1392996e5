"""The scans in BIDS folders."""

import re
from collections.abc import Sequence
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.dicom_stack import bounded
from mrdiff_jax.scans.exam_files import ExamFiles, exam_name
from mrdiff_jax.scans.scan_path import NIFTI, ScanPath

EMPTY_ROOM = "sub-emptyroom"  # what BIDS calls MEG recordings of noise
SEEN_LENGTH = 60  # characters that a message spends on what there is
OTHER_FORMATS = (".img", ".img.gz", ".mgz", ".mgh", ".nrrd", ".mha", ".mhd", ".mnc")


def find_exams(root: Path, contrasts: Sequence[str], lesions: str = "") -> list[ExamFiles]:
    """The exams under a BIDS-like folder, root/sub-*/[ses-*/]anat/sub-*_[ses-*_]CONTRAST.nii[.gz], sorted by name.

    `lesions` is what stands in the place of CONTRAST in the names of lesion masks, which an exam may lack.

    Raises UserError where there are none, or an exam lacks a contrast or has it twice.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; set --config.data.root to the folder of your scans")
    exams = find_bids(root, contrasts, lesions)
    for exam in exams:
        if exam.problems:
            raise UserError(exam.problems[0])
    if not exams:
        raise UserError(f"{root}: has no sub-*/anat folders; arrange the scans as BIDS asks")
    return exams


def find_bids(root: Path, contrasts: Sequence[str], lesions: str = "", some: bool = False) -> list[ExamFiles]:
    """The exams that `find_exams` finds, those that cannot be used with their problems; with `some` one contrast is enough."""
    exams = []
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir() and path.name != EMPTY_ROOM):
        empty, problem = True, f"{folder}: has no anat folder; remove the subject"
        try:
            sessions = [path for path in [folder, *sorted(folder.glob("ses-*"))] if (path / "anat").is_dir()]
            exams += [_exam_files(folder.name, session, contrasts, lesions, some) for session in sessions]
        except OSError as error:
            sessions, empty, problem = [], False, f"{folder}: cannot be read ({error.strerror}); fix its permissions"
        if not sessions:
            exams.append(ExamFiles(folder.name, folder.name, {}, problems=(problem,), empty=empty))
    return exams


def _exam_files(subject: str, session: Path, contrasts: Sequence[str], lesions: str, some: bool) -> ExamFiles:
    of_session = "" if session.name == subject else session.name
    name = exam_name(subject, of_session)
    found: dict[str, ScanPath] = {}
    problems, foreign = [], []
    for path in sorted((session / "anat").iterdir()):
        stem = re.sub(f"{NIFTI}$", "", path.name)
        if path.name.startswith(f"{subject}_") and path.name.endswith(OTHER_FORMATS):
            foreign.append(f"{path.name}, which is no NIfTI: convert it")
        if stem == path.name or not stem.startswith(f"{subject}_"):
            continue
        contrast = stem.removeprefix(f"{subject}_").removeprefix(f"{session.name}_")
        if contrast in found and contrast in contrasts:
            problems.append(f"{path}: a second {contrast} beside {found[contrast].name}; keep one of them")
        found.setdefault(contrast, ScanPath(path))
    seen = bounded([*foreign, *sorted(found)], SEEN_LENGTH) or "no scans"
    lacking = [contrast for contrast in contrasts if contrast not in found]
    problems += [
        f"{session / 'anat'}: {name} has no {contrast} (it has {seen}); "
        "choose other contrasts, remove the subject, or prepare with --layout=pattern"
        for contrast in ([] if some and len(lacking) < len(contrasts) else lacking)
    ]
    scans = {contrast: found[contrast] for contrast in contrasts if contrast in found}
    mask = found[lesions].path if lesions in found else None
    return ExamFiles(
        name,
        subject,
        scans,
        of_session,
        tuple(problems),
        lesions=mask,
        found=found,
    )
