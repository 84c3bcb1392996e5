"""Where the scans of an exam lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes


def exam_name(subject: str, session: str) -> str:
    """The name of a subject's session: 'p1' and 'jan' are 'p1_ses-jan', so that all sessions of a subject can be told to be."""
    return f"{subject}_ses-{session.removeprefix('ses-')}" if session else subject


@dataclass(frozen=True)
class ExamFiles:
    """Where the scans of one exam (a subject's session) lie: a path for each contrast, for `volumes.read_scan`.

    problems: lines that say why the exam cannot be used; times: those documented for all scans of its archive; lesions:
    the mask of its lesions, if there is one; found: of BIDS all NIfTI files that are there, by what stands for the contrast;
    empty: of BIDS that there is no anat folder; ruled: contrasts that a rule of the user's names, which nothing contradicts.
    """

    name: str
    subject: str
    scans: Mapping[str, ScanPath]
    session: str = ""
    problems: tuple[str, ...] = ()
    times: Mapping[str, SequenceTimes] = field(default_factory=dict)
    lesions: Path | None = None
    ruled: frozenset[str] = frozenset()
    found: Mapping[str, ScanPath] = field(default_factory=dict)
    empty: bool = False
