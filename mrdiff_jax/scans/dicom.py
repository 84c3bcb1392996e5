"""Raw scans: DICOM files grouped to series, and the volumes that these make."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydicom.errors import InvalidDicomError

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import dicom_headers, dicom_pixels
from mrdiff_jax.scans.dicom_headers import MALFORMED
from mrdiff_jax.scans.dicom_stack import DicomSlice, Series, bounded, count, same_place, stack
from mrdiff_jax.scans.image_types import part_of, what_matters
from mrdiff_jax.storage.files import walk_files

ECHOES_APART_MS = 1.0  # echo times of one series that differ by more are echoes of their own
INVERSIONS_ALIKE = 1.5  # inversion times of one series lie within this factor
LISTING_LENGTH = 130  # characters
_DICOM_EXTENSIONS = (".dcm", ".ima", ".dic", ".dicom")


class _Key(NamedTuple):
    """What sets a series apart from others, in an order to sort by: without a number last."""

    unnumbered: bool
    number: int
    uid: str
    description: str
    image_type: tuple[str, ...]
    dark_is_high: bool


def is_dicom(path: Path) -> bool:
    """Whether a path is a folder or a DICOM file."""
    return dicom_headers.is_dicom_file(path) if path.is_file() else path.is_dir()


def find_series(source: Path) -> list[Series]:
    """The MR series in a folder, its subfolders included, or in a file, ordered by number, UID and echo time.

    A series is one kind of image, as its ImageType says: phase is apart from magnitude. One with several echo times is split
    into one for each. Slices of one number and description that have a series UID each are one series. Files that are not
    DICOM, hold no image with a place in space, or are of another modality are passed over.

    Raises:
      UserError: no MR image at all, a damaged header, or a file whose content is lost.
    """
    return list(_series_of(source, tuple(_files(source))))


class _File(NamedTuple):
    """A file, with what changes whenever its content does."""

    path: Path
    size: int = 0
    changed: int = 0
    identity: tuple[int, int] = (0, 0)


def _files(source: Path) -> Iterator[_File]:
    """The files in a folder, each once, whatever links lead to it."""
    seen = set()
    for path in walk_files(source):
        if not path.exists():
            yield _File(path)  # a link to nothing, which is refused when it is read
            continue
        status = path.stat()
        identity = status.st_dev, status.st_ino
        if identity not in seen:
            seen.add(identity)
            yield _File(path, status.st_size, status.st_mtime_ns, identity)


@lru_cache(maxsize=4)  # an exam asks for its folders again for each contrast, for its times and for its voxels
@dicom_headers.quiet()
def _series_of(source: Path, files: tuple[_File, ...]) -> tuple[Series, ...]:
    groups: dict[_Key, list[DicomSlice]] = defaultdict(list)
    passed_over, others = 0, []
    for path, *_ in files:
        try:
            header = dicom_headers.read_header(path)
        except InvalidDicomError:
            others.append(path)
            continue
        try:
            if not dicom_headers.has_slices(header, path):
                passed_over += 1
                continue
            number = header.get("SeriesNumber")
            series = number is None, int(number or 0), str(header.SeriesInstanceUID), str(header.get("SeriesDescription") or "")
            for frame in dicom_headers.frames(header, path):
                groups[_Key(*series, frame.header.image_type, frame.dark_is_high)].append(frame)
        except MALFORMED:
            raise UserError(f"{path}: its header lacks or garbles geometry or times; export it again") from None
    if not groups:
        kinds = f" ({count(passed_over, 'DICOM file')} of other kinds)" if passed_over else ""
        raise UserError(f"{source}: has no DICOM images of MR{kinds}; name the folder that holds them")
    _refuse_lost(others, {_extension(frame.path) for frames in groups.values() for frame in frames})
    groups = _joined(_filtered_alike(groups))
    return tuple(series for key in sorted(groups) for series in _echoes(key, groups))


def _extension(path: Path) -> str:
    """Of a file, in small letters; '' where it is a number, as that of a UID or of GE's i1234.MRDC.5."""
    extension = path.suffix.lower()
    return "" if extension[1:].isdecimal() else extension


def _refuse_lost(others: Sequence[Path], extensions: set[str]) -> None:
    """Raises UserError for a file that is not DICOM, but is empty or named as those that are: a slice whose content is lost."""
    for path in others:
        if _extension(path) not in extensions:
            continue
        if not _has_content(path):
            raise UserError(f"{path}: empty, or nothing but zeros, among DICOM files; copy it again or remove it")
        if _extension(path) in _DICOM_EXTENSIONS:
            raise UserError(f"{path}: not DICOM, though it is named so; copy it again or remove it")


def _has_content(path: Path) -> bool:
    """Whether a file holds anything but zeros."""
    with path.open("rb") as file:
        return any(block.strip(b"\0") for block in iter(lambda: file.read(2**16), b""))


def _filtered_alike(groups: dict[_Key, list[DicomSlice]]) -> dict[_Key, list[DicomSlice]]:
    """The groups, with those joined whose ImageTypes differ in nothing that matters, where no place is in both."""
    joined: dict[_Key, list[DicomSlice]] = {}
    for key, frames in groups.items():
        places = set(map(same_place, frames))
        for other, own in joined.items():
            alike = other._replace(image_type=()) == key._replace(image_type=())
            if (
                alike
                and what_matters(other.image_type) == what_matters(key.image_type)
                and places.isdisjoint(map(same_place, own))
            ):
                own.extend(frames)
                break
        else:
            joined[key] = list(frames)
    return joined


def _joined(groups: dict[_Key, list[DicomSlice]]) -> dict[_Key, list[DicomSlice]]:
    """The groups, with slices joined that have a series UID each but one number or description, shape and direction."""
    singles: dict[tuple, list[_Key]] = defaultdict(list)
    for key, (first, *others) in groups.items():
        if not others and (key.description or not key.unnumbered):
            alike = first.shape, first.spacing, tuple(first.directions.ravel().round(2))
            singles[(*key._replace(uid=""), *alike)].append(key)
    joined = dict(groups)
    for keys in singles.values():
        joined[min(keys)] = [frame for key in sorted(keys) for frame in joined.pop(key)]
    return joined


def _echoes(key: _Key, groups: dict[_Key, list[DicomSlice]]) -> list[Series]:
    """A series for each echo, the shortest echo time first."""
    echoes: list[list[DicomSlice]] = []
    for frame in sorted(groups[key], key=lambda frame: frame.times.te or 0.0):  # stable
        if echoes and (frame.times.te or 0.0) - (echoes[-1][0].times.te or 0.0) <= ECHOES_APART_MS:
            echoes[-1].append(frame)
        else:
            echoes.append([frame])
    # phase, real and imaginary images are of the slices of which the magnitude is
    parts = [
        frame
        for other in groups
        if other != key and other[:4] == key[:4] and part_of(other.image_type)
        for frame in groups[other]
    ]
    found = []
    for index, echo in enumerate(echoes, 1):
        beside = tuple(frame for other in [*echoes, parts] if other is not echo for frame in other)
        header = echo[0].header._replace(times=echo[0].times, echo=index, echoes=len(echoes), mixed=_mixed(echo))
        number = None if key.unnumbered else key.number
        found.append(Series(key.uid, number, key.description, tuple(echo), header, beside))
    return found


_SAID = {  # fields of headers that hold for all slices of a series, and what they say
    "agent": "contrast agent",
    "sequence": "gradient echo or inversion",
    "fat_saturated": "fat-saturated",
    "echo_planar": "echo planar",
    "diffusion": "diffusion",
    "acquired": "another contrast",
}


def _mixed(frames: Sequence[DicomSlice]) -> str:
    """What some slices of a series say of its contrast, and others do not; '' where they agree."""
    for field, what in _SAID.items():
        if len({getattr(frame.header, field) or None for frame in frames}) > 1:
            return what
    inversions = {frame.times.ti or 0.0 for frame in frames}
    return "another inversion time" if max(inversions) > INVERSIONS_ALIKE * min(inversions) else ""


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
    """The series by the signs that choose them, as many as fit in a line, and how many more."""
    return bounded([f"#{index} {series.label()}" for index, series in enumerate(found, 1)], LISTING_LENGTH)


def read_series(series: Series, source: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """The voxels of a series, (columns, rows, slices) float32 in scanner units, the affine (4, 4) to RAS+ mm, its padding.

    Raises:
      UserError: slices that do not make a stack, as `stack` says, or pixels that cannot be decoded.
    """
    frames, affine = stack(replace(series, frames=_without_copies(series.frames)), source)
    data, padding = dicom_pixels.volume(frames)
    return data, affine, padding


def _without_copies(frames: Sequence[DicomSlice]) -> tuple[DicomSlice, ...]:
    """The frames, each slice once that is there in several files with the same pixels."""
    first: dict[tuple, DicomSlice] = {}
    others = []
    for frame in frames:
        kept = first.setdefault(same_place(frame), frame)
        if kept is not frame and (kept.path == frame.path or not dicom_pixels.same(kept, frame)):
            others.append(frame)
    return (*first.values(), *others)
