"""Scans on disk: volumes in NIfTI or DICOM files with their sequence times, and the BIDS folders that hold them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import air, contrasts, nifti
from mrdiff_jax.scans.sequence_times import SequenceTimes, check, complete, read_sidecars

EMPTY_ROOM = "sub-emptyroom"  # what BIDS calls MEG recordings of noise
OTHER_FORMATS = (".img", ".img.gz", ".mgz", ".mgh", ".nrrd", ".mha", ".mhd", ".mnc")
GRID_TOLERANCE_MM = 1e-2
logger = logging.getLogger("mrdiff_jax")


@dataclass(frozen=True)
class Volume:
    """A scan: data (X, Y, Z) float32 on axes that run to the patient's right, front and top; affine (4, 4) to mm.

    padding: which padding was taken for air; '' where there was none.
    """

    data: np.ndarray
    affine: np.ndarray
    path: Path
    padding: str = ""


@dataclass(frozen=True)
class Exam:
    """One subject's aligned scans of one session.

    volumes (C, X, Y, Z) in scanner units, in the order of `contrasts`; spacing: the voxel size in mm;
    times (C, 3): TR, TE, TI in ms; maps (X, Y, Z, 3): true T1 (ms), T2 (ms) and S0, where known; lesions (X, Y, Z): the share
    of lesion in each voxel, where known.
    """

    name: str
    contrasts: tuple[str, ...]
    volumes: np.ndarray
    spacing: tuple[float, float, float]
    times: np.ndarray
    maps: np.ndarray | None = None
    lesions: np.ndarray | None = None


@dataclass(frozen=True)
class ExamFiles:
    """Where the scans of one exam (a subject's session) lie: a path for each contrast, for `read_scan`.

    problems: lines that say why the exam cannot be used; times: those documented for all scans of its archive; lesions:
    the mask of its lesions, if there is one; found: of BIDS all NIfTI files that are there, by what stands for the contrast;
    empty: of BIDS that there is no anat folder; ruled: contrasts that a rule of the user's names, which nothing contradicts.
    """

    name: str
    subject: str
    scans: Mapping[str, Path]
    session: str = ""
    problems: tuple[str, ...] = ()
    times: Mapping[str, SequenceTimes] = field(default_factory=dict)
    lesions: Path | None = None
    ruled: frozenset[str] = frozenset()
    found: Mapping[str, Path] = field(default_factory=dict)
    empty: bool = False


def read_scan(path: Path) -> tuple[Volume, SequenceTimes]:
    """A scan and the times recorded with it: a NIfTI file, a DICOM folder (or multi-frame file), or 'FOLDER#2'.

    '#2' chooses the second of a folder's series, as a refusal lists them; an echo of a dual-echo series counts as one.
    Times are in ms, from the DICOM header, else from the JSON sidecar; None where unknown, refused where implausible.
    The volume is on RAS+ axes, as `read_nifti` has it.

    Raises:
      UserError: as `read_nifti`; no DICOM images, several series and none chosen, slices that are missing, unevenly spaced,
        of different sizes or orientations, damaged or compressed in a way that needs another package; implausible times.
    """
    from mrdiff_jax.scans import dicom  # not above: training on prepared sets does without pydicom

    path = Path(path)
    source, number = dicom.split_choice(path)
    if not dicom.is_dicom(source):
        return read_nifti(path), read_scan_parameters(path)
    series = dicom.choose(source, number)
    times = _recorded_times(series.times, path)
    return _scan(*dicom.read_series(series, source), path), times


def read_scan_parameters(path: Path) -> SequenceTimes:
    """TR, TE and TI in ms as `read_scan` gives them, without reading the voxels. Raises UserError as it does."""
    from mrdiff_jax.scans import dicom  # not above: training on prepared sets does without pydicom

    path = Path(path)
    source, number = dicom.split_choice(path)
    header = dicom.choose(source, number).times if dicom.is_dicom(source) else SequenceTimes()
    return _recorded_times(header, path)


def _recorded_times(header: SequenceTimes, path: Path) -> SequenceTimes:
    times = header.or_else(read_sidecars(path))
    check(times, path)
    return times


def scan_times(
    path: Path, contrast: str, stated: Mapping[str, SequenceTimes], required: bool = True, flag: str = "--config.data."
) -> SequenceTimes:
    """TR, TE and TI in ms of a scan: those recorded with it, else those stated for the contrast; an unknown TI is 0.

    Raises UserError as `sequence_times.complete` does.
    """
    recorded = read_scan_parameters(path)
    return complete(recorded, stated.get(contrast, SequenceTimes()), path, contrast, required=required, flag=flag)


def refuse_contradiction(path: Path, contrast: str, times: SequenceTimes) -> None:
    """Raises UserError for a scan with times that its contrast cannot have."""
    contradiction = contrasts.contradiction(contrast, times, contrasts.SLACK)
    if contradiction:
        raise UserError(f"{path}: {contradiction}; fix its name, or what sidecar or flags say of its times")


def read_nifti(path: Path) -> Volume:
    """The scan in a NIfTI file, turned to the closest canonical (RAS+) axes, its padding taken for air.

    Raises UserError as `nifti.load` and `air.without_padding` do, and for voxels that are all equal.
    """
    return _scan(*nifti.load(Path(path)), Path(path))


def read_mask(path: Path) -> Volume:
    """The voxels of a NIfTI file as they are, all equal maybe, on the axes of `read_nifti`. Raises UserError as it does."""
    data, affine = nifti.load(path)
    if not np.isfinite(data).all():
        raise UserError(f"{path}: has voxels that are not finite; write the mask again")
    return _turned(data, affine, path)


def _scan(data: np.ndarray, affine: np.ndarray, path: Path) -> Volume:
    """A scan without padding. Raises UserError for voxels that are all equal, and as `air.without_padding` does."""
    data, padding = air.without_padding(data, path)
    if data.min() == data.max():
        raise UserError(f"{path}: all voxels are {data.flat[0]:g}; remove the scan or convert it again")
    return replace(_turned(data, affine, path), padding=padding)


def _turned(data: np.ndarray, affine: np.ndarray, path: Path) -> Volume:
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return Volume(np.asarray(canonical.dataobj), canonical.affine, path)


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


def find_bids(root: Path, contrasts: Sequence[str], lesions: str = "") -> list[ExamFiles]:
    """The exams that `find_exams` finds, those that cannot be used with their problems."""
    exams = []
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir() and path.name != EMPTY_ROOM):
        empty, problem = True, f"{folder}: has no anat folder; remove the subject"
        try:
            sessions = [path for path in [folder, *sorted(folder.glob("ses-*"))] if (path / "anat").is_dir()]
            exams += [_exam_files(folder.name, session, contrasts, lesions) for session in sessions]
        except OSError as error:
            sessions, empty, problem = [], False, f"{folder}: cannot be read ({error.strerror}); mend its permissions"
        if not sessions:
            exams.append(ExamFiles(folder.name, folder.name, {}, problems=(problem,), empty=empty))
    return exams


def _exam_files(subject: str, session: Path, contrasts: Sequence[str], lesions: str) -> ExamFiles:
    name = subject if session.name == subject else f"{subject}_{session.name}"
    found: dict[str, Path] = {}
    problems, foreign = [], []
    for path in sorted((session / "anat").iterdir()):
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        if path.name.startswith(f"{subject}_") and path.name.endswith(OTHER_FORMATS):
            foreign.append(f"{path.name}, which is no NIfTI: convert it")
        if stem == path.name or not stem.startswith(f"{subject}_"):
            continue
        contrast = stem.removeprefix(f"{subject}_").removeprefix(f"{session.name}_")
        if contrast in found and contrast in contrasts:
            problems.append(f"{path}: a second {contrast} beside {found[contrast].name}; keep one of them")
        found.setdefault(contrast, path)
    problems += [
        f"{session / 'anat'}: {name} has no {contrast} (it has {', '.join([*sorted(found), *foreign]) or 'no scans'}); "
        "choose other contrasts, remove the subject, or, to prepare contrasts of several spellings, give --layout=pattern"
        for contrast in contrasts
        if contrast not in found
    ]
    scans = {contrast: found[contrast] for contrast in contrasts if contrast in found}
    of_session = "" if name == subject else session.name
    return ExamFiles(name, subject, scans, of_session, tuple(problems), lesions=found.get(lesions), found=found)


def read_exam(files: ExamFiles, times: Mapping[str, SequenceTimes]) -> Exam:
    """The scans of an exam with the given sequence times. Raises UserError where they lie on different grids."""
    volumes = [read_nifti(path) for path in files.scans.values()]
    for volume in volumes:
        if volume.padding:
            logger.warning("%s: %s", volume.path, volume.padding)
    mask = [read_mask(files.lesions)] if files.lesions else []
    for volume in (*volumes[1:], *mask):
        if not same_grid(volumes[0], volume):
            raise UserError(
                f"{volume.path}: its grid differs from that of {volumes[0].path}; "
                "register them first, with python -m mrdiff_jax.prepare"
            )
    return Exam(
        name=files.name,
        contrasts=tuple(files.scans),
        volumes=np.stack([volume.data for volume in volumes]),
        spacing=tuple(nib.affines.voxel_sizes(volumes[0].affine).tolist()),
        times=np.array([times[contrast] for contrast in files.scans], np.float32),
        lesions=(mask[0].data > 0).astype(np.float32) if mask else None,
    )


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and all corners within GRID_TOLERANCE_MM of each other."""
    if a.data.shape != b.data.shape:
        return False
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(a.data.shape) - 1)
    apart = nib.affines.apply_affine(a.affine, corners) - nib.affines.apply_affine(b.affine, corners)
    return bool(np.linalg.norm(apart, axis=-1).max() <= GRID_TOLERANCE_MM)
