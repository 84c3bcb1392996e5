"""From the scans that fit a contrast to an exam: one for each, or a line that says why not."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mrdiff_jax.scans import itk_files
from mrdiff_jax.scans.contrasts import Header
from mrdiff_jax.scans.dicom_stack import bounded
from mrdiff_jax.scans.exam_files import ExamFiles, exam_name
from mrdiff_jax.scans.scan_path import NIFTI, ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage.files import walk_files

SEEN_LENGTH = 110  # characters that a message spends on what there is


class Candidate(NamedTuple):
    """A scan that may be of a contrast that is wanted."""

    path: ScanPath
    text: str  # what rules are searched in: the SeriesDescription, or a file's name
    label: str  # what a user knows it by
    header: Header = Header()
    uid: str = ""
    patient: bytes = b""  # as `same_patient.mark` has it


def exam_of(
    subject: str,
    session: str,
    fits: Mapping[str, Sequence[Candidate]],
    times: Mapping[str, SequenceTimes],
    fix: str,
    seen: str = "",
    doubts: Mapping[str, str] | None = None,
) -> ExamFiles:
    """An exam of the scans that fit each contrast; `seen` says what there is where none fits, `doubts` which might, and why."""
    name = exam_name(subject, session)
    seen = seen or ", ".join(contrast for contrast, scans in fits.items() if scans) or "no scans"
    chosen: dict[str, ScanPath] = {}
    problems = []
    for contrast, scans in fits.items():
        if len(scans) > 1:
            labels = [scan.label for scan in scans]
            listed = " and ".join(labels) if len(labels) == 2 else bounded(labels, SEEN_LENGTH)
            problems.append(f"{name}: {listed} all fit {contrast}; keep one, or {fix}")
        elif not scans and contrast in (doubts or {}):
            problems.append(f"{name}: {doubts[contrast]}")
        elif not scans:
            problems.append(f"{name}: has no {contrast} (it has {seen}); {fix}")
        elif scans[0].path in chosen.values():
            problems.append(f"{name}: {scans[0].label} fits {contrast} and another contrast too; {fix}")
        else:
            chosen[contrast] = scans[0].path
    return ExamFiles(name, subject, chosen, session, tuple(problems), times)


def nifti_files(root: Path, onerror: Callable[[OSError], None]) -> list[str]:
    """Paths of the NIfTI files under a folder, sorted, relative and with forward slashes; links are followed."""
    return [path for path in volume_files(root, onerror) if re.fullmatch(f".*{NIFTI}", path)]


def volume_files(root: Path, onerror: Callable[[OSError], None]) -> list[str]:
    """The same of NIfTI, MetaImage and NRRD files."""
    paths = (path.relative_to(root).as_posix() for path in walk_files(root, onerror))
    return sorted(path for path in paths if re.fullmatch(f".*{NIFTI}", path) or itk_files.is_itk(Path(path)))
