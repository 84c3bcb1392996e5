"""Raw scans: DICOM files grouped to series and stacked to volumes. Of a header only what is named here is ever read."""

import logging
import os
import struct
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from mrdiff_jax.data.sequence_times import SequenceTimes
from mrdiff_jax.data.stacks import ORIENTATION_TOLERANCE, Frame, Series, count, stack
from mrdiff_jax.errors import UserError

ECHOES_APART_MS = 1.0  # echo times of one series that differ by more are echoes of their own
_GROUPS = {  # where multi-frame files have what classic ones have at the top: sequence and name in it
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
}
_TAGS = [
    *("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows", "Columns", "SamplesPerPixel"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *_GROUPS,
]
_MR_STORAGE = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_MALFORMED = (  # what a damaged file makes pydicom raise
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)


def split_choice(path: Path) -> tuple[Path, int | None]:
    """A path, and the number of the series that 'FOLDER#2' chooses in it."""
    base, hash_sign, number = path.name.rpartition("#")
    if hash_sign and number.isdecimal() and not path.exists():
        return path.with_name(base) if base else path.parent, int(number)
    return path, None


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder or a DICOM file."""
    if not path.is_file():
        return path.is_dir()
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps pydicom's warnings back: they quote what a header says."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


@_quiet()
def find_series(source: Path) -> list[Series]:
    """The MR series in a folder, its subfolders included, or in a file, ordered by number, UID and echo time.

    A series with several echo times is split into one for each. Files that are not DICOM, hold no image with a place in
    space, or are of another modality are passed over.

    Raises:
      UserError: no MR image at all, or a damaged header.
    """
    groups: dict[tuple[bool, int, str, str], list[Frame]] = defaultdict(list)
    passed_over = 0
    for path in sorted(_files(source)):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except InvalidDicomError:
            continue
        except _MALFORMED:
            raise UserError(f"{path}: a damaged DICOM file; copy it again or remove it") from None
        try:
            if _has_slices(header, path):
                groups[_series_key(header)] += _frames(header, path)
            else:
                passed_over += 1
        except _MALFORMED:
            raise UserError(f"{path}: its header lacks or garbles geometry or times; export it again") from None
    if not groups:
        kinds = f" ({count(passed_over, 'DICOM file')} of other kinds)" if passed_over else ""
        raise UserError(f"{source}: has no DICOM images of MR{kinds}; name the folder that holds them")
    found = []
    for (unnumbered, number, uid, description), frames in sorted(groups.items()):
        number = None if unnumbered else number
        echoes = _echoes(frames)
        for index, echo in enumerate(echoes, 1):
            other_echoes = tuple(frame for other in echoes if other is not echo for frame in other)
            found.append(Series(uid, number, description, tuple(echo), echo[0].times, index, len(echoes), other_echoes))
    return found


def choose(source: Path, number: int | None) -> Series:
    """The only series in a folder or file, or the one of that number in the order of `find_series`, from 1.

    Raises:
      UserError: several and none chosen, listing them, or no such number; as `find_series`.
    """
    found = find_series(source)
    if number is None and len(found) == 1:
        return found[0]
    if number is not None and 1 <= number <= len(found):
        return found[number - 1]
    fault = "several series" if number is None else f"no series #{number}"
    raise UserError(f"{source}: {fault}; choose one by its sign at the path's end: {listing(found)}")


def listing(found: Sequence[Series]) -> str:
    """The series by the signs that choose them, in one line."""
    return ", ".join(f"#{index} {series.label()}" for index, series in enumerate(found, 1))


def read_series(series: Series, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a series, (columns, rows, slices) float32 in scanner units, and the affine (4, 4) to RAS+ mm.

    Raises:
      UserError: slices that do not make a stack, as `stack` says, or pixels that cannot be decoded.
    """
    frames, affine = stack(series, source)
    data = np.empty((*frames[0].shape[::-1], len(frames)), np.float32)
    places = sorted(range(len(frames)), key=lambda place: frames[place].path)
    for path, of_file in groupby(places, key=lambda place: frames[place].path):
        pixels = _pixels(path).reshape(-1, *frames[0].shape)
        for place in of_file:
            index, (slope, intercept) = frames[place].index, frames[place].scale
            if index >= len(pixels):
                raise UserError(f"{path}: has fewer frames than its header says; copy it again")
            data[..., place] = pixels[index].T * np.float32(slope) + np.float32(intercept)
    return data, affine


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, _, names in os.walk(source, onerror=refuse_unreadable):
        yield from (Path(folder, name) for name in names)


def refuse_unreadable(error: OSError) -> None:
    """Raises UserError for a folder that the system does not let us list."""
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); mend its permissions") from None


def _has_slices(header: pydicom.Dataset, path: Path) -> bool:
    """Whether a file holds slices of MR: not other modalities, reports, screenshots or colours.

    Raises:
      UserError: it should, but its header is cut off.
    """
    placed = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    whole = placed and "SeriesInstanceUID" in header and "Rows" in header and "Columns" in header
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    if kind is None or (kind in _MR_STORAGE and not whole):
        raise UserError(f"{path}: its DICOM header is cut off or lacks the place of the image; copy it again or remove it")
    return whole and header.get("Modality") == "MR" and header.get("SamplesPerPixel", 1) == 1


def _series_key(header: pydicom.Dataset) -> tuple[bool, int, str, str]:
    """What tells a series from others, in an order to sort by: without a number last."""
    number = header.get("SeriesNumber")
    return number is None, int(number or 0), str(header.SeriesInstanceUID), str(header.get("SeriesDescription") or "")


def _frames(header: pydicom.Dataset, path: Path) -> Iterator[Frame]:
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    for index, own in enumerate(header.get("PerFrameFunctionalGroupsSequence") or [None]):
        yield _frame(header, [own, shared[0]], path, index)


def _frame(header: pydicom.Dataset, groups: Sequence[pydicom.Dataset | None], path: Path, index: int) -> Frame:
    def value(keyword: str):
        """A header's value: of the frame, of all frames of the file, or of the file; None where there is none."""
        sequence, name = _GROUPS[keyword]
        for group in filter(None, groups):
            if group.get(sequence) and group[sequence][0].get(name) not in (None, ""):
                return group[sequence][0].get(name)
        top = header.get(keyword)
        return None if top == "" else top

    def number(keyword: str, default: float | None) -> float | None:
        found = value(keyword)
        if found is not None and not np.isscalar(found):
            found = found[0] if len(found) else None
        return default if found is None else float(found)

    directions = np.array(value("ImageOrientationPatient"), float).reshape(2, 3)
    position = np.array(value("ImagePositionPatient"), float).reshape(3)
    spacing = np.array(value("PixelSpacing"), float).reshape(2)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=10 * ORIENTATION_TOLERANCE):
        raise ValueError("directions that are not perpendicular")
    if not (np.isfinite(position).all() and (spacing > 0).all() and np.isfinite(spacing).all()):
        raise ValueError("a place that is not finite")
    return Frame(
        path=path,
        index=index,
        shape=(int(header.Rows), int(header.Columns)),
        directions=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        spacing=(float(spacing[0]), float(spacing[1])),
        position=position,
        times=SequenceTimes(number("RepetitionTime", None), number("EchoTime", None), number("InversionTime", None)),
        scale=(number("RescaleSlope", 1.0), number("RescaleIntercept", 0.0)),
    )


def _echoes(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The frames of each echo, the shortest echo time first."""
    echoes: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda frame: frame.times.te or 0.0):  # stable
        if echoes and (frame.times.te or 0.0) - (echoes[-1][0].times.te or 0.0) <= ECHOES_APART_MS:
            echoes[-1].append(frame)
        else:
            echoes.append([frame])
    return echoes


@_quiet()
def _pixels(path: Path) -> np.ndarray:
    try:
        return pixel_array(path)
    except (RuntimeError, *_MALFORMED):
        raise UserError(f"{path}: {_why_undecodable(path)}") from None


def _why_undecodable(path: Path) -> str:
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        available = not syntax.is_compressed or get_decoder(syntax).is_available
    except _MALFORMED:
        return "its pixels cannot be decoded; export it again, uncompressed"
    if available:
        return "its pixels are truncated or damaged; copy it again"
    package = "pylibjpeg-openjpeg" if "2000" in syntax.name else "pylibjpeg-libjpeg"
    return f"its pixels are compressed ({syntax.name}); pip install pylibjpeg {package}, or export it uncompressed"
