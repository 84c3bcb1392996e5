"""Whether a segmenter finds in a synthetic volume what it finds in the true one: Dice by label, of a command of the user's."""

import math
import shlex
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.results import REFERENCES, SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.preparation.options import PLANES
from mrdiff_jax.preparation.slicing import slice_plane

MEAN = "mean of the labels"
_TRUTH, _LAST_WORDS = "truth", 300


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''. Raises UserError where there is a command that cannot be run."""
    command = config.evaluate.segmenter.strip()
    if not command:
        return "no segmenter is named; give one, as --config.evaluate.segmenter='COMMAND {input} {output}'"
    try:
        program, *arguments = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--config.evaluate.segmenter={command}: cannot be read ({error})") from error
    if not all(any(place in argument for argument in arguments) for place in ("{input}", "{output}")):
        raise UserError(f"--config.evaluate.segmenter={command}: say where {{input}} and {{output}} stand")
    if not shutil.which(program):
        raise UserError(f"--config.evaluate.segmenter={command}: there is no program {program!r}")
    return ""


def run(context: Context) -> Iterator[Row]:
    """Dice of the synthesis and the references against the truth, by exam and label; all slices of the split take part."""
    axis = PLANES.index(context.dataset.preparation.plane)
    for name, slices in groupby(_slices(context), key=lambda of_slice: of_slice["subject"]):
        exam = list(slices)
        segmented = {
            kind: segment(context.config.evaluate.segmenter, *volume(exam, kind, axis), f"{name}, {kind}")
            for kind in (_TRUTH, SYNTHESIS, *REFERENCES)
        }
        for kind in (SYNTHESIS, *REFERENCES):
            for label, value in dice(segmented[kind], segmented[_TRUTH], f"{name}, {kind}").items():
                yield from rows("segmentation", label, kind, exam[0], {"dice": value})


def _slices(context: Context) -> Iterator[dict[str, Any]]:
    """Every slice of the split: the true image, the synthesis and the references, in scanner units, and where it lies."""
    split = context.evaluator.split
    for batch in context.evaluator.batches(split, context.evaluator.slices(split), "segmentation"):
        images = {_TRUTH: batch["target"], SYNTHESIS: context.synthesis(batch)}
        images |= context.evaluator.references.predict(batch["sources"])
        for i in scoring.valid(batch):
            offset, factor = batch["scale"][i]
            place = {name: batch[name][i] for name in ("spacing", "slice_spacing")}
            yield scoring.about(batch, i) | place | {kind: offset + factor * image[i] for kind, image in images.items()}


def volume(exam: Sequence[Mapping[str, Any]], kind: str, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The images (H, W) of one kind as a volume (X, Y, Z) on RAS+ axes, slices that were left out as zeros, and its affine."""
    numbers = np.array([of_slice["slice"] for of_slice in exam])
    planes = slice_plane(np.stack([of_slice[kind] for of_slice in exam]))
    stack = np.zeros((numbers.max() - numbers.min() + 1, *planes.shape[1:]), np.float32)
    stack[numbers - numbers.min()] = planes
    side, distance = float(exam[0]["spacing"]), float(exam[0]["slice_spacing"])
    return np.moveaxis(stack, 0, axis), np.diag([*np.insert([side, side], axis, distance), 1.0])


def segment(command: str, data: np.ndarray, affine: np.ndarray, what: str) -> np.ndarray:
    """The labels, integers, that a command writes of a volume.

    Args:
      command: with {input} and {output} for the NIfTI files that it reads and writes; no shell sees it.
      data: (X, Y, Z).
      affine: (4, 4), mm.
      what: the volume's name, for messages.

    Raises:
      UserError: the command fails, or writes no labels.
    """
    import nibabel as nib  # which nothing else of an evaluation needs

    about = f"--config.evaluate.segmenter: {what}"
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "volume.nii.gz"), Path(folder, "labels.nii.gz")
        nib.save(nib.Nifti1Image(data, affine), source)
        places = {"{input}": str(source), "{output}": str(result)}
        words = [_filled(word, places) for word in shlex.split(command)]
        try:
            ended = subprocess.run(
                words, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
            )
        except OSError as error:
            raise UserError(f"{about}: {words[0]} cannot be run ({error})") from error
        if ended.returncode:
            said = " ".join((ended.stderr.strip() or ended.stdout.strip()).split())[-_LAST_WORDS:]
            raise UserError(f"{about}: {words[0]} ended with status {ended.returncode}: {said}")
        try:
            labels = np.asarray(nib.load(result).dataobj)
        except (OSError, EOFError, zlib.error, nib.filebasedimages.ImageFileError) as error:
            raise UserError(f"{about}: {words[0]} left no NIfTI file at {{output}} ({error})") from error
    if not np.array_equal(labels, np.round(labels)):
        raise UserError(f"{about}: {words[0]} wrote values between the integers; labels are asked for")
    return labels.astype(np.int64)


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, path in places.items():
        word = word.replace(place, path)
    return word


def dice(found: np.ndarray, truth: np.ndarray, what: str) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of every label that either has, 0 being background, and their mean.

    Raises:
      UserError: the two, integers, have different shapes.
    """
    if found.shape != truth.shape:
        raise UserError(f"--config.evaluate.segmenter: {what}: labels of shape {found.shape}, but of the truth {truth.shape}")
    labels = np.setdiff1d(np.union1d(found, truth), [0])
    scores = {}
    for label in labels:
        a, b = found == label, truth == label
        scores[f"label {label}"] = float(2 * (a & b).sum() / (a.sum() + b.sum()))
    return scores | {MEAN: float(np.mean(list(scores.values()))) if scores else math.nan}
