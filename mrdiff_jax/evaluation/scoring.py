"""Scores of images on all local devices; those of the references are computed once for a data set and a convention."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mrdiff_jax import parallel
from mrdiff_jax.data.batches import evaluation_batches
from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.evaluation import averages, baselines
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.results import REFERENCES, Row
from mrdiff_jax.log import logger
from mrdiff_jax.metrics import radial_power_spectrum
from mrdiff_jax.metrics.conventions import CONVENTIONS, body_mask, scorer

_VERSION = 2  # of the references' scores that are kept: raise it whenever the same images give other scores
_TARGET = "target"
_FITTED_AT_A_TIME = 64


@dataclass(frozen=True)
class SliceScores:
    """What the slices of one method score: a row each (subject, slice, scores), and the radial power spectrum (rings,)."""

    rows: list[Row] = field(default_factory=list)
    spectra: list[np.ndarray] = field(default_factory=list)

    def extend(self, other: "SliceScores") -> None:
        """Adds the slices of another."""
        self.rows.extend(other.rows)
        self.spectra.extend(other.spectra)

    def means(self, columns: Iterable[str], convention: str) -> dict[str, float]:
        """Each column, averaged as the convention says: slices of a subject and then subjects, or all slices."""
        aggregation = CONVENTIONS[convention].aggregation
        return {column: averages.mean_std(averages.units(self.rows, column, aggregation))[0] for column in columns}

    def mean_spectrum(self) -> np.ndarray:
        """The spectra averaged over the slices of a subject and then subjects."""
        subjects = np.array([averages.subject_of(row["subject"]) for row in self.rows])
        return np.mean([np.mean(np.array(self.spectra)[subjects == subject], 0) for subject in np.unique(subjects)], 0)


class Scorer:
    """Scores batches of images by a convention; compiled once for a size."""

    def __init__(self, convention: str):
        self.convention = convention
        score = scorer(CONVENTIONS[convention])
        self._score = parallel.pmap(lambda batch: (score(*batch), radial_power_spectrum(batch[0])))

    def __call__(self, images: np.ndarray, batch: Mapping[str, Any]) -> SliceScores:
        """Of the valid slices of a batch of `batches`, for which there are images (B, H, W)."""
        scores, spectra = parallel.on_batch(self._score, (images, batch["target"], batch["body"]))
        columns, slices = CONVENTIONS[self.convention].columns(), valid(batch)
        rows = [about(batch, i) | {column: float(scores[column][i]) for column in columns} for i in slices]
        return SliceScores(rows, list(spectra[slices]))


def valid(batch: Mapping[str, Any]) -> np.ndarray:
    """Where the slices of a batch stand that do not merely fill it."""
    return np.flatnonzero(batch["valid"])


def about(batch: Mapping[str, Any], i: int) -> Row:
    """Which slice the i-th of a batch is."""
    return {"subject": batch["subject"][i], "slice": int(batch["slice"][i])}


def batches(dataset: Dataset, split: str, batch_size: int, wanted: np.ndarray, text: str) -> Iterator[dict[str, Any]]:
    """The wanted slices of a split as `evaluation_batches`, with the 'body' (B, H, W) of each, behind a progress bar."""
    count = -(-len(wanted) // batch_size)
    found = evaluation_batches(dataset, split, batch_size, wanted)
    for batch in tqdm(found, total=count, desc=text, leave=False, disable=None):
        yield batch | {"body": body_mask(np.concatenate([batch["sources"], batch["target"][..., None]], -1))}


def reference_scores(dataset: Dataset, split: str, score: Scorer, batch_size: int) -> tuple[References, dict[str, SliceScores]]:
    """The fitted references, and what they and the 'target' score on all slices of a split; kept beside the prepared data."""
    contrasts = f"{'+'.join(dataset.sources)}-{dataset.target}"
    path = dataset.folder / "references" / f"{contrasts}-{split}-{score.convention}-{dataset.fingerprint}-{_VERSION}.npz"
    if path.is_file():
        return _read(path)
    training = evaluation_batches(dataset, "train", _FITTED_AT_A_TIME)
    fitted, scores = baselines.fit(training, len(dataset.sources)), {name: SliceScores() for name in (_TARGET, *REFERENCES)}
    every = np.arange(len(dataset.split(split)))
    for batch in batches(dataset, split, batch_size, every, "scoring the references"):
        for name, images in fitted.predict(batch["sources"]).items():
            scores[name].extend(score(images, batch))
        spectra = np.asarray(radial_power_spectrum(batch["target"]))[valid(batch)]
        scores[_TARGET].extend(SliceScores([about(batch, i) for i in valid(batch)], list(spectra)))
    try:
        _write(path, fitted, scores)
    except OSError as error:
        logger.info("the references' scores could not be kept (%s); the next evaluation will compute them again", error)
    return fitted, scores


def _write(path: Path, fitted: References, scores: Mapping[str, SliceScores]) -> None:
    """Writes a file that is there whole or not at all, though several evaluations write it at once."""
    arrays = {"better_source": fitted.better_source, "weights": fitted.weights}
    for name, found in scores.items():
        arrays[f"{name} spectra"] = np.array(found.spectra)
        arrays |= {f"{name} {column}": np.array([row[column] for row in found.rows]) for column in found.rows[0]}
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> tuple[References, dict[str, SliceScores]]:
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    fitted = References(int(arrays.pop("better_source")), arrays.pop("weights"))
    scores = {}
    for name in (_TARGET, *REFERENCES):
        spectra = list(arrays.pop(f"{name} spectra"))
        columns = {key.removeprefix(f"{name} "): arrays[key].tolist() for key in arrays if key.startswith(f"{name} ")}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        scores[name] = SliceScores(rows, spectra)
    return fitted, scores
