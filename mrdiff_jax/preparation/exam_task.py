"""From the scans of one exam, as found, to its training slices: one function, for local processes and for clusters.

An exam leaves a folder with `slices.npy` (S, H, W, C) uint16, a picture of each contrast, and `record.json`, which says what
was done and what the checks gave. The folder appears whole or not at all, and stands until the scans or the options change.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import registration, slicing
from mrdiff_jax.preparation.common_grid import OneGrid, on_one_grid
from mrdiff_jax.preparation.options import PLANES, Options
from mrdiff_jax.preparation.records import ExamRecord, ScanRecord
from mrdiff_jax.preparation.slices import Selection, SliceExample, select_slices, selected_examples
from mrdiff_jax.scans import sequence_times, volumes
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.exam import Exam
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import Volume
from mrdiff_jax.storage.files import replace_folder, require_file, sha256, walk_files, write_text

VERSION = 5  # raise it whenever the same scans give other bytes
COVERED = 0.98  # a slice of whose body a contrast shows less than this share is left out
PICTURE_SIDE = 160
REASON_LENGTH = 200  # characters of a line that joins several problems, or of the first problem where that has more
_RECORD = "record.json"


class Task(NamedTuple):
    """All that preparing one exam needs; `stated` are the times by contrast for what header and sidecar leave open."""

    files: ExamFiles
    stated: Mapping[str, SequenceTimes]
    options: Options
    root: Path
    output: Path


def prepare(task: Task) -> ExamRecord:
    """The record of an exam, prepared unless that has been done; what fails is said in its `reason`, never raised."""
    files = task.files
    record = ExamRecord(files.name, files.subject, files.session)
    try:
        if files.problems:
            raise UserError(_joined(files.problems))
        folder = exam_folder(task.output, files.name)
        done = read_record(folder)
        record = replace(_known_by_scans(record, task, done), times_key=_times_key(task))
        if done and done.key == record.key:
            return _with_times(folder, done, record, task)
        with threadpool_limits(1):
            record = _write(folder, _prepared(task, record))
        return record
    except (UserError, OSError) as error:
        reason = str(error)
    except Exception as error:  # the other exams go on whatever this one holds
        reason = f"{files.name}: {type(error).__name__}: {error}"
    scans = tuple(ScanRecord(contrast, _relative(scan, task.root)) for contrast, scan in files.scans.items())
    return replace(record, scans=scans, reason=" ".join(reason.split()))


def _joined(problems: Sequence[str]) -> str:
    """The first problem, and the others where the line has room for them."""
    line = problems[0]
    for count, problem in enumerate(problems[1:], 1):
        if len(f"{line}; {problem}") > REASON_LENGTH:
            return f"{line} (and {len(problems) - count} more)"
        line = f"{line}; {problem}"
    return line


def exam_folder(output: Path, exam: str) -> Path:
    """Where a prepared exam lies."""
    return output / "subjects" / exam


def read_record(folder: Path) -> ExamRecord | None:
    """The record of a prepared exam; None where there is none, or none that can be read."""
    try:
        return ExamRecord.from_json(json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_examples(folder: Path, record: ExamRecord) -> Iterator[SliceExample]:
    """The examples of a prepared exam."""
    scale, (tr, te, ti) = np.array(record.scale, np.float32), np.array(record.times, np.float32).T
    for image, index in zip(np.load(folder / "slices.npy", mmap_mode="r"), record.slices, strict=True):
        place = record.exam, index, record.pixel, record.slice_spacing
        yield SliceExample(np.ascontiguousarray(image), scale, tr, te, ti, *place)


def _known_by_scans(record: ExamRecord, task: Task, done: ExamRecord | None) -> ExamRecord:
    """With a key that changes whenever options or scans do; scans are known by their content, read again if `state` changed."""
    scans = task.files.scans
    state = tuple(_state(scan.path) for scan in scans.values())
    same = done is not None and done.state == state
    contents = done.contents if same else tuple(sha256(scan.path) for scan in scans.values())
    sources = [
        [contrast, _relative(scan, task.root), one] for (contrast, scan), one in zip(scans.items(), contents, strict=True)
    ]
    key = hashlib.sha256(json.dumps([VERSION, asdict(task.options), sources]).encode()).hexdigest()
    return replace(record, key=key, contents=contents, state=state)


def _times_key(task: Task) -> str:
    """Changes whenever what is stated of times, or what may contradict them, does: no reason to make the slices again."""
    sidecars = [sidecar for scan in task.files.scans.values() for sidecar in sequence_times.sidecars(scan.written)]
    texts = [[sidecar.name, sidecar.read_text(encoding="utf-8", errors="replace")] for sidecar in sidecars]
    stated = [task.stated.get(contrast, SequenceTimes()) for contrast in task.files.scans]
    return hashlib.sha256(json.dumps([texts, stated, sorted(task.files.ruled)]).encode()).hexdigest()


def _relative(scan: ScanPath, root: Path) -> str:
    return scan.written.relative_to(root).as_posix() if scan.path.is_relative_to(root) else scan.name


def _state(source: Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """What changes whenever a scan's files do: their places (as checksums, for a set tells no folder), inodes, sizes, times."""
    found = []
    for file in walk_files(source):
        require_file(file)
        status, place = file.stat(), hashlib.sha256(os.fsencode(file.resolve())).hexdigest()
        found.append((place, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def _times(task: Task) -> tuple[SequenceTimes, ...]:
    """TR, TE and TI (ms) of each contrast, 0 where unknown. Raises UserError for those that a contrast cannot have."""
    found = []
    for contrast in task.options.contrasts:
        scan = task.files.scans[contrast]
        times = volumes.scan_times(scan, contrast, task.stated, required=False, flag="--")
        if contrast not in task.files.ruled:
            volumes.refuse_contradiction(scan, contrast, times)
        found.append(SequenceTimes(*(round(float(time), 4) for time in times)))
    return tuple(found)


def _with_times(folder: Path, done: ExamRecord, record: ExamRecord, task: Task) -> ExamRecord:
    """The record of a finished exam, with its times read again where what is stated of them has changed."""
    now = {name: getattr(record, name) for name in ("exam", "subject", "session", "contents", "state", "times_key")}
    if replace(done, **now) == done:
        return done
    done = replace(done, **now, times=_times(task))
    write_text(folder / _RECORD, _text(done))
    return done


class _Prepared(NamedTuple):
    """record: of the exam; slices: (S, H, W, C) uint16; pictures: of each contrast, by name."""

    record: ExamRecord
    slices: np.ndarray
    pictures: dict[str, np.ndarray]


def _prepared(task: Task, record: ExamRecord) -> _Prepared:
    """An exam's slices, with its record made whole. Raises UserError where a scan or the exam cannot be used."""
    options, times = task.options, _times(task)
    scans = {contrast: volumes.read_scan(task.files.scans[contrast])[0] for contrast in options.contrasts}
    aligned = on_one_grid(scans, scans[options.reference], options)
    data = np.stack(list(aligned.volumes.values()))
    exam = Exam(record.exam, options.contrasts, data, aligned.grid.spacing, np.array(times, np.float32))
    centre = _centre(aligned.mask, exam.spacing)
    selection = select_slices(exam, options.percentiles, options.slices, options.plane)
    examples = _examples(exam, selection, _covered_slices(scans, aligned, options.plane), centre, options)
    whole = replace(
        record,
        scans=tuple(_scan_record(task, contrast, scan, aligned, selection) for contrast, scan in scans.items()),
        times=times,
        scale=tuple(map(tuple, selection.scale.tolist())),
        slices=tuple(example.slice for example in examples),
        pixel=float(examples[0].spacing),
        slice_spacing=float(examples[0].slice_spacing),
        spacing=exam.spacing,
    )
    pictures = {
        contrast: _picture((volume - offset) / factor, centre, exam.spacing)
        for contrast, volume, (offset, factor) in zip(exam.contrasts, exam.volumes, selection.scale, strict=True)
    }
    return _Prepared(whole, np.stack([example.image for example in examples]), pictures)


def _examples(
    exam: Exam, selection: Selection, covered: np.ndarray, centre: np.ndarray, options: Options
) -> list[SliceExample]:
    """The examples of the slices that were selected and lie in the field of view of all scans."""
    middle = centre if options.field_mm else (0.0, 0.0, 0.0)
    examples = selected_examples(exam, selection, options.image_size, options.plane, options.field_mm, middle)
    kept = [example for example in examples if covered[example.slice]]
    if not kept:
        raise UserError(f"{exam.name}: no slice shows the body in all of {', '.join(exam.contrasts)}; fields of view differ")
    return kept


def _scan_record(task: Task, contrast: str, scan: Volume, aligned: OneGrid, selection: Selection) -> ScanRecord:
    return ScanRecord(
        contrast=contrast,
        path=_relative(task.files.scans[contrast], task.root),
        sha256=hashlib.sha256(np.ascontiguousarray(scan.data)).hexdigest(),
        shape=scan.data.shape,
        spacing=tuple(round(mm, 4) for mm in registration.grid_of(scan).spacing),
        placement=aligned.placements[contrast],
        bias_correction=aligned.corrections[contrast],
        padding=scan.padding,
        blank_slices=selection.blank.get(contrast, 0),
    )


def _covered_slices(scans: Mapping[str, Volume], aligned: OneGrid, plane: str) -> np.ndarray:
    """(S,) bool: the slices of which every scan's field of view holds the body."""
    others = tuple(axis for axis in range(3) if axis != PLANES.index(plane))
    body = aligned.mask.sum(others)
    covered = np.ones(body.shape, bool)
    for contrast, placement in aligned.placements.items():
        if placement.action == "registered":
            transform = np.reshape(placement.transform, (4, 4))
            seen = registration.field_of_view(scans[contrast], aligned.grid, transform)
            covered &= (seen & aligned.mask).sum(others) >= COVERED * body
    return covered


def _centre(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """(3,): the middle of the box around the body, mm from that of the volume."""
    boxes = [np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))[[0, -1]] for axis in range(3)]
    return (np.mean(boxes, axis=1) - (np.array(mask.shape) - 1) / 2) * spacing


def _picture(scaled: np.ndarray, centre: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """(PICTURE_SIDE, 3 PICTURE_SIDE) uint8: the axial, coronal and sagittal slices through the middle of the body."""
    field = max(n * mm for n, mm in zip(scaled.shape, spacing, strict=True))
    middle = np.round(centre / spacing + (np.array(scaled.shape) - 1) / 2).astype(int)
    tiles, air = [], float(np.clip(air_level(scaled), 0, 1))
    for axis in (2, 1, 0):
        plane = slicing.slice_image(np.clip(scaled.take(middle[axis], axis), 0, 1))
        mm = np.delete(spacing, axis)[::-1]
        tiles.append(slicing.resize_in_plane(plane, mm, PICTURE_SIDE, field, air=air))
    return np.round(np.hstack(tiles).clip(0, 1) * 255).astype(np.uint8)


def _text(record: ExamRecord) -> str:
    return json.dumps(record.to_json(), indent=1) + "\n"


def _write(folder: Path, prepared: _Prepared) -> ExamRecord:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    temporary.mkdir()  # with the permissions of any new folder, which those of the tempfile module lack
    try:
        np.save(temporary / "slices.npy", prepared.slices)
        for contrast, picture in prepared.pictures.items():
            Image.fromarray(picture).save(temporary / f"{contrast}.webp", quality=80, method=6)
        (temporary / _RECORD).write_text(_text(prepared.record), encoding="utf-8")
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return prepared.record
