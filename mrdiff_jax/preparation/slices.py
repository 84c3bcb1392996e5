"""From an exam to examples: which of its slices are kept, and what is written of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.preparation.intensity import percentile_scale, quantise
from mrdiff_jax.preparation.options import PLANES
from mrdiff_jax.preparation.slicing import pixel_size, resize_in_plane, slice_image
from mrdiff_jax.scans.air import air_level, is_foreground
from mrdiff_jax.scans.exam import Exam

FOREGROUND_SHARE = 0.1  # a slice with less foreground than this is left out
BLANK_SHARE = 0.05  # of the foreground that another contrast has in a slice: with less, a contrast is blank there


class Selection(NamedTuple):
    """The slices of an exam that are kept.

    scaled: (C, A, B, S) in [0, 1], slices last; scale: (C, 2) offset and factor to scanner units; numbers: of the slices kept;
    blank: how many were left out because a contrast is blank in them, by contrast.
    """

    scaled: np.ndarray
    scale: np.ndarray
    numbers: np.ndarray
    blank: dict[str, int]


def select_slices(exam: Exam, percentiles: Sequence[float], slices: str = "", plane: str = "axial") -> Selection:
    """The volumes of an exam in [0, 1], and which slices of the plane to keep: those of `choose_slices`.

    Raises UserError where a volume has no range between the percentiles or the exam has no slice to keep.
    """
    scale = np.array([percentile_scale(volume, percentiles) for volume in exam.volumes], np.float32)
    for contrast, (_, factor) in zip(exam.contrasts, scale, strict=True):
        if factor <= 0:
            raise UserError(f"{exam.name} {contrast}: no range between its percentiles; widen the percentiles")
    offset, factor = scale.T[..., None, None, None]
    scaled = np.moveaxis(np.clip((exam.volumes - offset) / factor, 0, 1), 1 + PLANES.index(plane), -1)
    shares = foreground(scaled)
    wanted, empty = _wanted_slices(shares, slices), blank(shares)
    numbers = wanted[~empty[:, wanted].any(axis=0)]
    counts = {contrast: int(of[wanted].sum()) for contrast, of in zip(exam.contrasts, empty, strict=True) if of[wanted].any()}
    if not numbers.size:
        why = f" in which {' and '.join(counts)} is not blank" if counts else ""
        raise UserError(f"{exam.name}: no slice to keep{why}; name a range of slices, such as 40:120")
    return Selection(scaled, scale, numbers, counts)


def choose_slices(scaled: np.ndarray, slices: str = "") -> np.ndarray:
    """Indices of the slices, along the last axis, of scaled volumes (C, A, B, S) to keep.

    `slices` is a range 'a:b', or '' for every slice of which at least FOREGROUND_SHARE is foreground in some contrast; slices
    in which a contrast is blank are never kept. Raises UserError where it is neither.
    """
    shares = foreground(scaled)
    wanted = _wanted_slices(shares, slices)
    return wanted[~blank(shares)[:, wanted].any(axis=0)]


def foreground(scaled: np.ndarray) -> np.ndarray:
    """(C, S): the share of each slice of scaled volumes (C, A, B, S) that differs from air; none of a slice of one value."""
    air = np.reshape([air_level(volume) for volume in scaled], (-1, 1, 1, 1))
    share = is_foreground(scaled, air).mean(axis=(1, 2))
    return np.where(scaled.max(axis=(1, 2)) > scaled.min(axis=(1, 2)), share, 0)


def blank(shares: np.ndarray) -> np.ndarray:
    """(C, S) bool: where a contrast shows next to nothing of what another shows in that slice; `shares` as `foreground`."""
    return (shares < BLANK_SHARE * shares.max(axis=0)) & (shares.max(axis=0) >= FOREGROUND_SHARE)


def _wanted_slices(shares: np.ndarray, slices: str) -> np.ndarray:
    if not slices:
        return np.flatnonzero(shares.max(axis=0) >= FOREGROUND_SHARE)
    try:
        first, last = map(int, slices.split(":"))
    except ValueError:
        raise UserError(f"slices {slices!r}: give a range such as 40:120, or nothing") from None
    return np.arange(shares.shape[-1])[max(first, 0) : max(last, 0)]


@dataclass(frozen=True)
class SliceExample:
    """One slice of an exam in all contrasts: the features of `example_files.features`, of the truths those that are known."""

    image: np.ndarray
    scale: np.ndarray
    tr: np.ndarray
    te: np.ndarray
    ti: np.ndarray
    subject: str
    slice: int
    spacing: float
    slice_spacing: float
    maps: np.ndarray | None = None
    lesions: np.ndarray | None = None

    def features(self) -> dict[str, Any]:
        """By name, as TFDS takes them."""
        return {name: value for name, value in vars(self).items() if value is not None}


def exam_examples(
    exam: Exam,
    image_size: int,
    percentiles: Sequence[float],
    slices: str = "",
    plane: str = "axial",
    field: float = 0.0,
    centre: Sequence[float] = (0.0, 0.0, 0.0),
) -> Iterator[SliceExample]:
    """The examples of an exam, one a slice of the plane.

    Slices show a square `field` mm wide (0: all of the slice) around `centre`, mm from the middle of the volume.

    Raises UserError where a volume has no range between the percentiles or the exam has no slice to keep.
    """
    selection = select_slices(exam, percentiles, slices, plane)
    if selection.blank:
        logger.warning("%s: %s", exam.name, left_out(selection.blank))
    yield from selected_examples(exam, selection, image_size, plane, field, centre)


def left_out(blank_slices: Mapping[str, int]) -> str:
    """How many slices were left out because a contrast is blank in them, for a reader."""
    return "left out, " + ", ".join(f"{contrast} being blank in them: {n} slices" for contrast, n in blank_slices.items())


def selected_examples(
    exam: Exam, selection: Selection, image_size: int, plane: str, field: float, centre: Sequence[float]
) -> Iterator[SliceExample]:
    """The examples of the slices that were selected, as `exam_examples` says."""
    axis, scaled = PLANES.index(plane), selection.scaled
    spacing = np.delete(exam.spacing, axis)[::-1]
    middle = -np.delete(centre, axis)[::-1]  # rows and columns run against the axes
    air = np.array([air_level(volume) for volume in scaled], np.float32)

    def resized(channels: np.ndarray, air: np.ndarray | float = 0.0) -> np.ndarray:
        images = resize_in_plane(slice_image(channels), spacing, image_size, field, middle, air)
        return np.ascontiguousarray(np.moveaxis(images, 0, -1))

    tr, te, ti = exam.times.T
    pixel = pixel_size(np.delete(exam.volumes.shape[1:], axis)[::-1], spacing, image_size, field)
    for i in selection.numbers:
        image = quantise(np.clip(resized(scaled[..., i], air), 0, 1))
        maps = lesions = None
        if exam.maps is not None:
            maps = resized(np.moveaxis(exam.maps.take(i, axis), -1, 0))
        if exam.lesions is not None:
            lesions = (resized(exam.lesions.take(i, axis)[None])[..., 0] >= 0.5).astype(np.uint8)
        yield SliceExample(image, selection.scale, tr, te, ti, exam.name, int(i), pixel, exam.spacing[axis], maps, lesions)
