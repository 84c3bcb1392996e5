"""Scans on disk: volumes in NIfTI or DICOM files, with their sequence times."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.scans import air, contrasts, itk_files, nifti
from mrdiff_jax.scans.exam import Exam
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.header_evidence import sidecar_header
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes, check, complete, read_sidecars, sidecar_fields

GRID_TOLERANCE_MM = 1e-2
MOST_LABELS = 5  # different values of a mask


@dataclass(frozen=True)
class Volume:
    """A scan: data (X, Y, Z) float32 on axes that run to the patient's right, front and top; affine (4, 4) to mm.

    padding: which padding was taken for air; '' where there was none.
    """

    data: np.ndarray
    affine: np.ndarray
    path: ScanPath
    padding: str = ""


def read_scan(written: ScanPath | str | os.PathLike) -> tuple[Volume, SequenceTimes]:
    """A scan and the times recorded with it: a NIfTI, MetaImage, NRRD or DICOM file, a DICOM folder, or 'FOLDER#2'.

    '#2' chooses the second of a folder's series, as a refusal lists them; an echo of a dual-echo series counts as one.
    Times are in ms, from the DICOM header, else from the JSON sidecar; None where unknown, refused where implausible.
    The volume is on RAS+ axes, as `read_nifti` has it.

    Raises:
      UserError: as `read_nifti`; no DICOM images, several series and none chosen, slices that are missing, unevenly spaced,
        of different sizes or orientations, damaged or compressed in a way that needs another package; implausible times.
    """
    from mrdiff_jax.scans import dicom  # not above: training on prepared sets does without pydicom

    scan = ScanPath.of(written)
    if itk_files.is_itk(scan.path):
        return _volume(*itk_files.load(scan.path), scan), read_scan_parameters(scan)
    if not dicom.is_dicom(scan.path):
        return read_nifti(scan), read_scan_parameters(scan)
    series = dicom.choose(scan.path, scan.series)
    times = _recorded_times(series.times, scan)
    data, affine, padding = dicom.read_series(series, scan.path)
    volume = _volume(data, affine, scan)
    return replace(volume, padding="; ".join(filter(None, (padding, volume.padding)))), times


def read_scan_parameters(written: ScanPath | str | os.PathLike) -> SequenceTimes:
    """TR, TE and TI in ms as `read_scan` gives them, without reading the voxels. Raises UserError as it does."""
    from mrdiff_jax.scans import dicom  # not above: training on prepared sets does without pydicom

    scan = ScanPath.of(written)
    header = dicom.choose(scan.path, scan.series).times if dicom.is_dicom(scan.path) else SequenceTimes()
    return _recorded_times(header, scan)


def _recorded_times(header: SequenceTimes, scan: ScanPath) -> SequenceTimes:
    times = header.or_else(read_sidecars(scan.written))
    check(times, scan)
    return times


def scan_times(
    scan: ScanPath, contrast: str, stated: Mapping[str, SequenceTimes], required: bool = True, flag: str = "--config.data."
) -> SequenceTimes:
    """TR, TE and TI in ms of a scan: those recorded with it, else those stated for the contrast; an unknown TI is 0.

    Raises UserError as `sequence_times.complete` does.
    """
    recorded = read_scan_parameters(scan)
    return complete(recorded, stated.get(contrast, SequenceTimes()), scan, contrast, required=required, flag=flag)


def refuse_contradiction(scan: ScanPath, contrast: str, times: SequenceTimes) -> None:
    """Raises UserError for a scan with times, or a sidecar, that its contrast cannot have."""
    contradiction = contrasts.contradiction(contrast, times, contrasts.SLACK)
    if contradiction:
        raise UserError(f"{scan}: {contradiction}; fix its name, or what sidecar or flags say of its times")
    contradiction = contrasts.header_contradiction(contrast, sidecar_header(sidecar_fields(scan.written)))
    if contradiction:
        raise UserError(f"{scan}: {contradiction.replace('header', 'sidecar')}; fix its name, or what its sidecar says")


def warn_of_odd_times(scans: Iterable[tuple[ScanPath, str, SequenceTimes]]) -> None:
    """Warns of scans (path, contrast, times) whose times their contrast hardly has, in a line for each contrast."""
    odd: dict[str, list[str]] = {}
    for scan, contrast, times in scans:
        if oddity := contrasts.oddity(contrast, times):
            odd.setdefault(contrast, []).append(f"{scan}: {oddity}")
    for contrast, lines in odd.items():
        more = f" (and {len(lines) - 1} more such scans)" if len(lines) > 1 else ""
        logger.warning("%s%s; is it the %s? If so, fix its times in the sidecar or by flags", lines[0], more, contrast)


def read_nifti(written: ScanPath | str | os.PathLike) -> Volume:
    """The scan in a NIfTI file, turned to the closest canonical (RAS+) axes, its padding taken for air.

    Raises UserError as `nifti.load` and `air.without_padding` do, and for voxels that are all equal
    or a mask's.
    """
    scan = ScanPath.of(written)
    return _volume(*nifti.load(scan.written), scan)


def read_mask(path: Path) -> Volume:
    """The voxels of a NIfTI file as they are, all equal maybe, on the axes of `read_nifti`. Raises UserError as it does."""
    data, affine = nifti.load(path)
    if not np.isfinite(data).all():
        raise UserError(f"{path}: has voxels that are not finite; write the mask again")
    return _turned(data, affine, ScanPath(path))


def _volume(data: np.ndarray, affine: np.ndarray, scan: ScanPath) -> Volume:
    """A scan without padding. Raises UserError for equal voxels, for a mask, and as `air.without_padding` does."""
    data, padding = air.without_padding(data, scan)
    if data.min() == data.max():
        raise UserError(f"{scan}: all voxels are {data.flat[0]:g}; remove the scan or convert it again")
    if values := _few_values(data):
        raise UserError(f"{scan}: holds {values} different values alone, as a mask does, no scan; name the scan, or remove it")
    return replace(_turned(data, affine, scan), padding=padding)


def _few_values(data: np.ndarray) -> int:
    """How many whole numbers a volume is made of, where they are as few as in a mask of labels; 0 where it is a scan."""
    if np.unique(data[::4]).size > MOST_LABELS:
        return 0
    values = np.unique(data)
    return values.size if values.size <= MOST_LABELS and (values == np.rint(values)).all() else 0


def _turned(data: np.ndarray, affine: np.ndarray, scan: ScanPath) -> Volume:
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return Volume(np.asarray(canonical.dataobj), canonical.affine, scan)


def read_exam(files: ExamFiles, times: Mapping[str, SequenceTimes]) -> Exam:
    """The scans of an exam with the given sequence times. Raises UserError where they lie on different grids."""
    volumes = [read_nifti(path) for path in files.scans.values()]
    mask = [read_mask(files.lesions)] if files.lesions else []
    for volume in (*volumes[1:], *mask):
        if not same_grid(volumes[0], volume):
            raise UserError(
                f"{volume.path}: its grid differs from that of {volumes[0].path}; register them first, with mrdiff prepare"
            )
    return Exam(
        name=files.name,
        contrasts=tuple(files.scans),
        volumes=np.stack([volume.data for volume in volumes]),
        spacing=tuple(nib.affines.voxel_sizes(volumes[0].affine).tolist()),
        times=np.array([times[contrast] for contrast in files.scans], np.float32),
        lesions=(mask[0].data > 0).astype(np.float32) if mask else None,
        padding=tuple(f"{volume.path}: {volume.padding}" for volume in volumes if volume.padding),
    )


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and all corners within GRID_TOLERANCE_MM of each other."""
    if a.data.shape != b.data.shape:
        return False
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(a.data.shape) - 1)
    apart = nib.affines.apply_affine(a.affine, corners) - nib.affines.apply_affine(b.affine, corners)
    return bool(np.linalg.norm(apart, axis=-1).max() <= GRID_TOLERANCE_MM)
