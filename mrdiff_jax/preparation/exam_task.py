"""From the scans of one exam, as found, to its training slices: one function, for local processes and for clusters.

An exam leaves a folder with `slices.npy` (S, H, W, C) uint16, a picture of each contrast, and `record.json`, which says what
was done and what the checks gave. The folder appears whole or not at all, and stands until the scans or the options change.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import registration, slicing
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.placement import correct, place
from mrdiff_jax.preparation.registration import Grid
from mrdiff_jax.preparation.slices import select_slices, selected_examples
from mrdiff_jax.scans import dicom, sequence_times, volumes
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import Exam, ExamFiles, Volume
from mrdiff_jax.storage.files import require_file, sha256, walk_files, write_text

VERSION = 4  # raise it whenever the same scans give other bytes
COVERED = 0.98  # a slice of whose body a contrast shows less than this share is left out
PICTURE_SIDE = 160
_RECORD = "record.json"


class Task(NamedTuple):
    """All that preparing one exam needs; `stated` are the times by contrast for what header and sidecar leave open."""

    files: ExamFiles
    stated: Mapping[str, SequenceTimes]
    options: Options
    root: Path
    output: Path


def prepare(task: Task) -> dict[str, Any]:
    """The record of an exam, prepared unless that has been done; what fails is told in its `reason`, never raised."""
    files = task.files
    record = {"exam": files.name, "subject": files.subject, "session": files.session}
    try:
        if files.problems:
            raise UserError("; ".join(files.problems))
        folder = exam_folder(task.output, files.name)
        done = read_record(folder)
        record |= _scans_key(task, done) | {"times_key": _times_key(task)}
        if done.get("key") == record["key"]:
            return done if done.items() >= record.items() else _with_new_times(folder, done | record, task)
        with threadpool_limits(1):
            _write(folder, record, *_prepared(task))
        return read_record(folder)
    except (UserError, OSError) as error:
        reason = str(error)
    except Exception as error:  # the other exams go on whatever this one holds
        reason = f"{files.name}: {type(error).__name__}: {error}"
    scans = [{"contrast": contrast, "path": _relative(path, task.root)} for contrast, path in files.scans.items()]
    return record | {"scans": scans, "reason": " ".join(reason.split())}


def exam_folder(output: Path, exam: str) -> Path:
    """Where a prepared exam lies."""
    return output / "subjects" / exam


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a prepared exam; empty where there is none."""
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_examples(folder: Path) -> Iterator[dict[str, Any]]:
    """The examples of a prepared exam: the features of `builder.MRSlices`."""
    record = read_record(folder)
    scale, (tr, te, ti) = np.array(record["scale"], np.float32), np.array(record["times"], np.float32).T
    for image, index in zip(np.load(folder / "slices.npy", mmap_mode="r"), record["slices"], strict=True):
        yield {
            "image": np.ascontiguousarray(image),
            "scale": scale,
            "tr": tr,
            "te": te,
            "ti": ti,
            "subject": record["exam"],
            "slice": index,
            "spacing": record["pixel"],
        }


def _scans_key(task: Task, done: Mapping[str, Any]) -> dict[str, Any]:
    """A 'key' that changes whenever options or scans do; scans are known by their content, read again if `state` changed."""
    scans = task.files.scans
    state = [_state(path) for path in scans.values()]
    same = done.get("state") == state and "contents" in done
    contents = done["contents"] if same else [sha256(dicom.split_choice(path)[0]) for path in scans.values()]
    sources = [
        [contrast, _relative(path, task.root), one] for (contrast, path), one in zip(scans.items(), contents, strict=True)
    ]
    key = hashlib.sha256(json.dumps([VERSION, asdict(task.options), sources]).encode()).hexdigest()
    return {"key": key, "contents": contents, "state": state}


def _times_key(task: Task) -> str:
    """Changes whenever what is stated of times does, in sidecars or otherwise: no reason to make the slices again."""
    sidecars = [sidecar for path in task.files.scans.values() for sidecar in sequence_times.sidecars(path)]
    texts = [[sidecar.name, sidecar.read_text(encoding="utf-8", errors="replace")] for sidecar in sidecars]
    stated = [task.stated.get(contrast, SequenceTimes()) for contrast in task.files.scans]
    return hashlib.sha256(json.dumps([texts, stated]).encode()).hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _state(path: Path) -> list:
    """Size and time of change of a scan's files."""
    source, _ = dicom.split_choice(path)
    files = list(walk_files(source))
    for file in files:
        require_file(file)
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _times(task: Task) -> list[list[float]]:
    """TR, TE and TI (ms) of each contrast, 0 where unknown. Raises UserError for those that a contrast cannot have."""
    found = []
    for contrast in task.options.contrasts:
        path = task.files.scans[contrast]
        times = volumes.scan_times(path, contrast, task.stated, required=False, flag="--")
        if contrast not in task.files.ruled:
            volumes.refuse_contradiction(path, contrast, times)
        found.append([round(float(time), 4) for time in times])
    return found


def _with_new_times(folder: Path, record: dict[str, Any], task: Task) -> dict[str, Any]:
    record |= {"times": _times(task)}
    write_text(folder / _RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _prepared(task: Task) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """What the record says, the slices (S, H, W, C) uint16, and the picture of each contrast."""
    options = task.options
    times = _times(task)
    scans = {contrast: volumes.read_scan(task.files.scans[contrast])[0] for contrast in options.contrasts}
    fixed = scans[options.reference]
    grid = registration.grid_of(fixed)
    placed = {
        contrast: (fixed.data, {"action": "reference"}) if contrast == options.reference else place(fixed, scan, options)
        for contrast, scan in scans.items()
    }
    data = {contrast: data for contrast, (data, _) in placed.items()}
    data, mask, corrections = correct(data, grid, options)
    exam = Exam(
        name=task.files.name,
        contrasts=options.contrasts,
        volumes=np.stack(list(data.values())),
        spacing=grid.spacing,
        times=np.array(times, np.float32),
    )
    centre = _centre(mask, grid.spacing)
    covered = _covered_slices(scans, placed, mask, grid, options.plane)
    selection = select_slices(exam, options.percentiles, options.slices, options.plane)
    middle = centre if options.field_mm else (0.0, 0.0, 0.0)
    examples = list(selected_examples(exam, selection, options.image_size, options.plane, options.field_mm, middle))
    examples = [example for example in examples if covered[example["slice"]]]
    if not examples:
        raise UserError(f"{exam.name}: no slice shows the body in all of {', '.join(options.contrasts)}; fields of view differ")
    scale = examples[0]["scale"]
    record = {
        "scans": [
            {
                "contrast": contrast,
                "path": _relative(task.files.scans[contrast], task.root),
                "sha256": hashlib.sha256(np.ascontiguousarray(scan.data)).hexdigest(),
                "shape": scan.data.shape,
                "spacing": [round(mm, 4) for mm in registration.grid_of(scan).spacing],
                **placed[contrast][1],
                "bias_correction": corrections[contrast],
                "padding": scan.padding,
                "blank_slices": selection.blank.get(contrast, 0),
            }
            for contrast, scan in scans.items()
        ],
        "times": times,
        "scale": scale.tolist(),
        "slices": [example["slice"] for example in examples],
        "pixel": float(examples[0]["spacing"]),
        "spacing": grid.spacing,
    }
    pictures = {
        contrast: _picture((volume - offset) / factor, centre, grid.spacing)
        for contrast, volume, (offset, factor) in zip(options.contrasts, exam.volumes, scale, strict=True)
    }
    return record, np.stack([example["image"] for example in examples]), pictures


def _covered_slices(
    scans: Mapping[str, Volume],
    placed: Mapping[str, tuple[np.ndarray, dict[str, Any]]],
    mask: np.ndarray,
    grid: Grid,
    plane: str,
) -> np.ndarray:
    """(S,) bool: the slices of which every scan's field of view holds the body."""
    others = tuple(axis for axis in range(3) if axis != slicing.PLANES.index(plane))
    body = mask.sum(others)
    covered = np.ones(body.shape, bool)
    for contrast, (_, placement) in placed.items():
        if placement["action"] == "registered":
            transform = np.reshape(placement["transform"], (4, 4))
            seen = registration.field_of_view(scans[contrast], grid, transform)
            covered &= (seen & mask).sum(others) >= COVERED * body
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


def _write(
    folder: Path, exam: Mapping[str, Any], record: Mapping[str, Any], slices: np.ndarray, pictures: Mapping[str, np.ndarray]
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    temporary.mkdir()  # with the permissions of any new folder, which those of the tempfile module lack
    try:
        np.save(temporary / "slices.npy", slices)
        for contrast, picture in pictures.items():
            Image.fromarray(picture).save(temporary / f"{contrast}.webp", quality=80, method=6)
        (temporary / _RECORD).write_text(json.dumps({**exam, **record}, indent=1) + "\n", encoding="utf-8")
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Puts a whole new folder in the place of another, which may not be there."""
    if old.exists():
        outdated = old.with_name(f".{old.name}-{uuid.uuid4().hex}")
        old.rename(outdated)
        new.rename(old)
        shutil.rmtree(outdated)
    else:
        new.rename(old)
