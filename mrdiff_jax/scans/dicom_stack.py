"""Slices in space: frames of DICOM series, and the volumes that they make."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.contrasts import Header
from mrdiff_jax.scans.image_types import part_of
from mrdiff_jax.scans.sequence_times import SequenceTimes

GRID_TOLERANCE = 0.1  # of the slice spacing; headers round positions
ORIENTATION_TOLERANCE = 1e-3
SAME_PLACE_MM = 1e-3
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SEPARATE = "put them in folders of their own"


class DicomSlice(NamedTuple):
    """One slice, not yet decoded: `index` in its file; directions and position as DICOM has them (LPS, mm)."""

    path: Path
    index: int
    shape: tuple[int, int]  # rows, columns
    directions: np.ndarray  # (2, 3): in which the column index grows, and the row index
    spacing: tuple[float, float]  # between rows, between columns
    position: np.ndarray  # (3,): of the first pixel
    times: SequenceTimes
    scale: tuple[float, float]  # slope and intercept
    dark_is_high: bool  # MONOCHROME1
    header: Header  # without times
    patient: bytes  # as `same_patient.mark` has it


@dataclass(frozen=True)
class Series:
    """A series, or one echo of it: its frames, not sorted yet, and what its header says.

    beside: frames of other echoes, or of phase, which lie in the same places.
    """

    uid: str
    number: int | None
    description: str
    frames: tuple[DicomSlice, ...]
    header: Header
    beside: tuple[DicomSlice, ...] = ()

    @property
    def times(self) -> SequenceTimes:
        """In ms, from the header."""
        return self.header.times

    def label(self) -> str:
        """What sets it apart from others: description, number, echo time, kind of image and how many slices it has."""
        number = "" if self.number is None else f"series {self.number}, "
        echo = "" if self.times.te is None else f"TE {self.times.te:g} ms, "
        part = part_of(self.header.image_type)
        kind = f"{part}, " if part else ""
        description = shortened(self.description) or "no description"
        return f"{description} ({number}{echo}{kind}{count(len(self.frames), 'slice')})"


def stack(series: Series, source: Path) -> tuple[list[DicomSlice], np.ndarray]:
    """The frames of a series sorted along their normal, and the affine to RAS+ mm of an array (columns, rows, slices).

    Raises:
      UserError: frames of several sizes, spacings or orientations, a single one, two in one place, one missing,
        or uneven spacing.
    """
    name = f"{source}: {series.label()}"
    first = series.frames[0]
    for frame in series.frames:
        if frame.shape != first.shape or not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise UserError(f"{name} mixes slices of several sizes, as {_named(first)} and {_named(frame)}; {_SEPARATE}")
        if not np.allclose(frame.directions, first.directions, atol=ORIENTATION_TOLERANCE):
            raise UserError(f"{name} mixes slices of several orientations, as {_named(first)} and {_named(frame)}; {_SEPARATE}")
    normal = np.cross(*first.directions)
    frames = sorted(series.frames, key=lambda frame: float(frame.position @ normal))
    positions = np.stack([frame.position for frame in frames])
    if len(frames) == 1:
        raise UserError(f"{name} is a single slice, not a volume; name the folder that holds all slices")
    _check_gaps(name, frames, positions @ normal, series.beside)
    _check_echoes(name, frames, positions @ normal, series.beside)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(frames))[:, None] * step, axis=1)
    if off.max() > GRID_TOLERANCE * np.linalg.norm(step):
        raise UserError(
            f"{name} is unevenly spaced or shifted: {_named(frames[off.argmax()])} lies {off.max():.2f} mm off the even "
            f"spacing of {np.linalg.norm(step):.2f} mm; export the series again or resample it"
        )
    (row_spacing, column_spacing), (along_row, along_column) = first.spacing, first.directions
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.stack([along_row * column_spacing, along_column * row_spacing, step], axis=1)
    affine[:3, 3] = LPS_TO_RAS @ positions[0]
    return frames, affine


def _check_gaps(name: str, frames: Sequence[DicomSlice], along: np.ndarray, others: Sequence[DicomSlice]) -> None:
    """Refuses two slices in one place, and a gap for want of a slice; `along` (S,): rising positions on the normal, mm."""
    normal = np.cross(*frames[0].directions)
    gaps = np.diff(along)
    usual = np.sort(gaps)[(len(gaps) - 1) // 2]
    for before, after, gap, place in zip(frames[:-1], frames[1:], gaps, along[:-1], strict=True):
        if gap < max(GRID_TOLERANCE * usual, SAME_PLACE_MM):
            fix = "put its volumes in folders of their own" if before.path != after.path else "export its volumes one by one"
            raise UserError(
                f"{name} has two images in one place, {_named(before)} and {_named(after)}: it holds several volumes; {fix}"
            )
        if gap > 1.5 * usual:
            missing = count(round(gap / usual) - 1, "slice")
            for other in others:
                if place + 0.5 * usual < other.position @ normal < place + gap - 0.5 * usual:
                    kind = part_of(other.header.image_type) or "of another echo"
                    raise UserError(
                        f"{name} lacks {missing} at {place + usual:.1f} mm along the normal, where {_named(other)} is {kind}; "
                        "export all slices of one kind"
                    )
            raise UserError(
                f"{name} lacks {missing} at {place + usual:.1f} mm along the normal, between "
                f"{_named(before)} ({place:.1f} mm) and {_named(after)} ({place + gap:.1f} mm); export the series again"
            )


def _check_echoes(name: str, frames: Sequence[DicomSlice], along: np.ndarray, others: Sequence[DicomSlice]) -> None:
    """Refuses an echo that lacks a slice which another, or its phase, has: at the ends there is no gap to see."""
    first = frames[0]
    for frame in others:
        place = frame.position @ np.cross(*first.directions)
        parallel = np.allclose(frame.directions, first.directions, atol=ORIENTATION_TOLERANCE)
        if parallel and np.abs(along - place).min() > 0.5 * np.diff(along).mean():
            raise UserError(
                f"{name} lacks the slice at {place:.1f} mm along the normal, which {_named(frame)} shows at another echo time "
                "or as phase; export the series again"
            )


def _named(frame: DicomSlice) -> str:
    return frame.path.name + (f" frame {frame.index + 1}" if frame.index else "")


def same_place(frame: DicomSlice) -> tuple[float, ...]:
    """A key that frames share which lie in one place, in one direction."""
    return tuple(np.concatenate([frame.position.round(2), frame.directions.ravel().round(2)]).tolist())


def shortened(text: str, length: int = 40) -> str:
    """A text of a header in one line of bounded length."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


def bounded(texts: Sequence[str], length: int) -> str:
    """As many of the texts as fit in that many characters, one at least, and how many more there are."""
    shown = list(texts[:1])
    for text in texts[1:]:
        if len(", ".join([*shown, text])) > length:
            break
        shown.append(text)
    more = len(texts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
