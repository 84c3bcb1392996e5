"""From exams to examples: intensity scaling, slices, in-plane resampling, and splits by subject."""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.visits import patients
from mrdiff_jax.scans.volumes import Exam
from mrdiff_jax.storage.files import replacing

SPLITS = ("train", "validation", "test")
PLANES = ("sagittal", "coronal", "axial")  # by the axis that they cut
FOREGROUND_LEVEL = 0.1  # of the scaled range; what is closer to the level of the corners counts as air
FOREGROUND_SHARE = 0.1  # a slice with less foreground than this is left out
BLANK_SHARE = 0.05  # of the foreground that another contrast has in a slice: with less, a contrast is blank there
ROUNDING = 1e-6  # of weights that sum up to 1
_UINT16_MAX = 65535
logger = logging.getLogger("mrdiff_jax")


def percentile_scale(volume: np.ndarray, percentiles: Sequence[float]) -> tuple[float, float]:
    """(offset, factor) of the affine map that takes the two percentiles of a volume to 0 and 1.

    Scanner value = offset + factor * scaled value. A factor of 0 tells that the percentiles coincide.
    """
    low, high = np.percentile(volume, percentiles)
    return float(low), float(high - low)


def quantise(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint16; the rounding error is at most 7.7e-6."""
    return np.round(values * _UINT16_MAX).astype(np.uint16)


def dequantise(values: np.ndarray) -> np.ndarray:
    """The float32 values in [0, 1] behind `quantise`."""
    return values.astype(np.float32) / np.float32(_UINT16_MAX)


def slice_image(plane: np.ndarray) -> np.ndarray:
    """A slice (..., A, B), axes two of right, front and top in this order, -> (..., rows, columns) as radiologists look at it.

    Axial: the front of the head is the top row, the patient's right on the left side. Coronal: top of the head, right on the
    left. Sagittal: top of the head, the front on the left.
    """
    return np.flip(np.swapaxes(plane, -1, -2), (-2, -1))


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
    wanted = _wanted_slices(shares, slices)
    empty = blank(shares)
    numbers = wanted[~empty[:, wanted].any(axis=0)]
    left_out = {contrast: int(of[wanted].sum()) for contrast, of in zip(exam.contrasts, empty, strict=True) if of[wanted].any()}
    if not numbers.size:
        why = f" in which {' and '.join(left_out)} is not blank" if left_out else ""
        raise UserError(f"{exam.name}: no slice to keep{why}; name a range of slices, such as 40:120")
    return Selection(scaled, scale, numbers, left_out)


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
    share = (np.abs(scaled - air) > FOREGROUND_LEVEL).mean(axis=(1, 2))
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


def resize_in_plane(
    images: np.ndarray,
    spacing: Sequence[float],
    size: int,
    field: float = 0.0,
    centre: Sequence[float] = (0.0, 0.0),
    air: np.ndarray | float = 0.0,
) -> np.ndarray:
    """(..., H, W) with pixels of `spacing` mm, cut or padded with `air` (...) to a square, resampled to (..., size, size).

    The square is `field` mm wide (0: the longer side of the images) around `centre`, mm down and right of the images' own.
    Pixels that grow are averages over their area, pixels that shrink are interpolated linearly.
    """
    sides, pixel = images.shape[-2:], pixel_size(images.shape[-2:], spacing, size, field)
    rows, columns = (resampling(n, mm, size, pixel, middle) for n, mm, middle in zip(sides, spacing, centre, strict=True))
    return resampled(images, rows, columns, air)


def resampled(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, air: np.ndarray | float) -> np.ndarray:
    """Images (..., H, W) by the weights of their rows and columns, as `resampling` gives them; `air` (...) lies around them."""
    outside = 1 - np.outer(rows.sum(1), columns.sum(1))
    outside[outside < ROUNDING] = 0
    filled = np.asarray(air, np.float32)[..., None, None] * outside.astype(np.float32)
    return rows @ np.ascontiguousarray(images, np.float32) @ columns.T + filled


def pixel_size(shape: Sequence[int], spacing: Sequence[float], size: int, field: float = 0.0) -> float:
    """Side, in mm, of the pixels of `resize_in_plane`."""
    return (field or float(max(n * mm for n, mm in zip(shape, spacing, strict=True)))) / size


def resampling(n: int, spacing: float, size: int, pixel: float, middle: float = 0.0) -> np.ndarray:
    """(size, n): the weight of each of n pixels of `spacing` mm in each of `size` pixels of `pixel` mm around `middle` mm."""
    position = (np.arange(n) - (n - 1) / 2) * spacing - middle
    distance = np.abs((np.arange(size)[:, None] - (size - 1) / 2) * pixel - position)
    if pixel < spacing:
        weights = np.clip(1 - distance / spacing, 0, 1)
    else:
        weights = np.clip((pixel + spacing) / 2 - distance, 0, spacing) / pixel
    return weights.astype(np.float32)


def exam_examples(
    exam: Exam,
    image_size: int,
    percentiles: Sequence[float],
    slices: str = "",
    plane: str = "axial",
    field: float = 0.0,
    centre: Sequence[float] = (0.0, 0.0, 0.0),
) -> Iterator[dict]:
    """The examples of an exam, one a slice of the plane: the features of `builder.MRSlices`.

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
) -> Iterator[dict]:
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
        example = {
            "image": quantise(np.clip(resized(scaled[..., i], air), 0, 1)),
            "scale": selection.scale,
            "tr": tr,
            "te": te,
            "ti": ti,
            "subject": exam.name,
            "slice": int(i),
            "spacing": pixel,
        }
        if exam.maps is not None:
            example["maps"] = resized(np.moveaxis(exam.maps.take(i, axis), -1, 0))
        if exam.lesions is not None:
            example["lesions"] = (resized(exam.lesions.take(i, axis)[None])[..., 0] >= 0.5).astype(np.uint8)
        yield example


def assign_splits(
    subjects: Sequence[str],
    *,
    test_subjects: str = "",
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> dict[str, str]:
    """Subject -> split. Test subjects are those that match a glob pattern of `test_subjects`, else a seeded fraction.

    Subjects that look like visits of one patient (`visits.patients`) come into one split, but where a pattern parts them.
    A fraction above 0 means at least one patient, as long as one is left to train. Raises UserError where a pattern matches
    nobody, or train or test would be empty.
    """
    groups = list(patients(subjects).values())
    shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    if test_subjects.strip():
        chosen = matching(test_subjects, subjects)
        test = [[subject for subject in group if subject in chosen] for group in shuffled]
        shuffled = [[subject for subject in group if subject not in chosen] for group in shuffled]
        rest = [group for group in shuffled if group]
    else:
        count = _share(test_fraction, len(groups))
        test, rest = shuffled[:count], shuffled[count:]
    validation = rest[: min(_share(validation_fraction, len(groups)), max(len(rest) - 1, 0))]
    splits = dict.fromkeys(sorted(subjects), "train")
    splits |= dict.fromkeys(chain(*validation), "validation") | dict.fromkeys(chain(*test), "test")
    return require_train_and_test(splits, "the choice of test subjects")


def matching(patterns: str, subjects: Sequence[str]) -> set[str]:
    """The subjects that match one of the glob patterns 'a,b'. Raises UserError where a pattern matches nobody."""
    chosen: set[str] = set()
    for pattern in filter(None, map(str.strip, patterns.split(","))):
        found = {subject for subject in subjects if fnmatchcase(subject, pattern)}
        if not found:
            raise UserError(f"test subjects: {pattern!r} matches none of the {len(subjects)} subjects")
        chosen |= found
    return chosen


def _share(fraction: float, count: int) -> int:
    return max(round(fraction * count), 1) if fraction > 0 else 0


def require_train_and_test(splits: Mapping[str, str], field: str) -> dict[str, str]:
    """The same splits. Raises UserError, naming the field that decides them, where nobody is in train or in test."""
    for split in ("train", "test"):
        if split not in splits.values():
            raise UserError(f"{field}: leaves no subject for {split}, of {len(splits)}; train and test need one each")
    return dict(splits)


def read_splits(path: Path, subjects: Sequence[str]) -> dict[str, str]:
    """Subject -> split from a CSV file with the columns subject, split.

    Raises UserError, naming the file and the row, for an unknown split or a subject given twice or not at all.
    """
    splits = read_rows(path)
    for subject in sorted(subjects):
        if subject not in splits:
            raise UserError(f"{path}: no row for {subject}; add '{subject},train' (or {', '.join(SPLITS[1:])})")
    return require_train_and_test({subject: splits[subject] for subject in sorted(subjects)}, str(path))


def read_rows(path: Path) -> dict[str, str]:
    """Subject -> split of all rows of such a file, whoever its subjects are. Raises UserError as `read_splits` does."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"config.data.splits_file: cannot read {path} ({error})") from None
    splits: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        subject, split = ((row.get(key) or "").strip() for key in ("subject", "split"))
        if split not in SPLITS:
            raise UserError(f"{path}, row {line}: split {split!r} of {subject!r} is not one of {', '.join(SPLITS)}")
        if subject in splits:
            raise UserError(f"{path}, row {line}: {subject!r} stands there a second time; keep one row")
        splits[subject] = split
    return splits


def write_splits(path: Path, splits: Mapping[str, str]) -> None:
    """Write subject -> split as the CSV file that `read_splits` reads."""
    with replacing(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("subject", "split"), *sorted(splits.items())])
