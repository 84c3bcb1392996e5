"""What lies where: the scans of subjects in BIDS folders, by filename pattern, in DICOM folders, and in archives' layouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mrdiff_jax.data.volumes import ExamFiles

LAYOUTS = ("bids", "pattern", "dicom", "adni", "ixi", "brats", "spine")


def find_subjects(
    root: Path, layout: str, contrasts: Sequence[str], *, pattern: str = "", rules: Mapping[str, str] | None = None
) -> list[ExamFiles]:
    """The exams (a subject's session each) under `root`, sorted by name, in one of LAYOUTS.

    An exam whose `problems` is not empty cannot be used: each problem is one line that names the subject or file and the
    mend (a contrast missing or there twice, a damaged file, a subject there twice). Scan paths are for `volumes.read_scan`;
    `times` are the archive's documented ones, the least trusted.

    Args:
      root: the folder.
      layout: one of LAYOUTS.
      contrasts: the names wanted, as T1w, T2w, PDw, FLAIR, ce-gad_T1w, T2wFS.
      pattern: of 'pattern', path of a scan under root, as '{subject}/{session}/{contrast}_*.nii.gz'; {session} may be left out.
      rules: regular expression by contrast, searched (case ignored) in the SeriesDescription for DICOM layouts; for
        'pattern' it must match all of the {contrast} text; '' or absent: the layout's own rule.

    Raises:
      UserError: no such folder or layout, a pattern or rule that cannot be read, or no subject at all.
    """
    raise NotImplementedError


def parse_rules(texts: Sequence[str]) -> dict[str, str]:
    """Rules by contrast from texts such as 'T1w=MP-?RAGE'.

    Raises:
      UserError: a text without '=', a contrast named twice, or what is no regular expression.
    """
    raise NotImplementedError
