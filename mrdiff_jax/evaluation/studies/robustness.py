"""The same weights on sources that are not as they should be: noise, a bias field, misregistration, a missing contrast."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy

from mrdiff_jax import parallel
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.streams import normal_like, stream

NOISE = (0.02, 0.05, 0.1)  # standard deviation of each of the two channels, of the data range
BIAS = (0.2, 0.4)  # largest deviation of the field from 1
SHIFTS = (1, 2, 3)  # mm
UNSPOILED = "as acquired"

Spoil = Callable[[Mapping[str, Any]], np.ndarray]  # a batch -> its sources (B, H, W, K), spoiled


def run(context: Context) -> Iterator[Row]:
    """The metrics of synthesis and linear regression by the convention of the run, for each kind of damage."""
    score, references = context.evaluator.score, context.evaluator.references
    sources = context.dataset.sources
    for setting, spoil in damages(sources, context.config.evaluate.seed).items():
        for batch in context.batches(f"robustness: {setting}"):
            spoiled = batch | {"sources": spoil(batch)}
            if context.method.any_sources:
                there = [f"{name} missing" != setting for name in sources]
                spoiled["available"] = np.tile(np.float32(there), (len(batch["index"]), 1))
            images = {
                SYNTHESIS: context.synthesis(spoiled),
                "linear": references.predict(spoiled["sources"])["linear"],
            }
            for method, image in images.items():
                for row in score(image, batch).rows:
                    yield from rows("robustness", setting, method, row, {metric: row[metric] for metric in METRICS})


def damages(sources: Sequence[str], seed: int) -> dict[str, Spoil]:
    """What is done to the sources, by name.

    Rician noise and a bias field on all sources, the last source shifted along the rows, each source missing: zeros, of which
    a method that does without some of the sources is told.
    """
    spoiled: dict[str, Spoil] = {UNSPOILED: lambda batch: batch["sources"]}
    spoiled |= {f"Rician noise {level}": partial(_with_noise, level=level, seed=seed) for level in NOISE}
    spoiled |= {f"bias field ±{strength:.0%}": partial(_with_bias, strength=strength) for strength in BIAS}
    spoiled |= {f"{sources[-1]} shifted by {mm} mm": partial(_shifted, channel=len(sources) - 1, mm=mm) for mm in SHIFTS}
    if len(sources) > 1:
        spoiled |= {f"{name} missing": partial(_without, channel=channel) for channel, name in enumerate(sources)}
    return spoiled


def add_noise(images: np.ndarray, index: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Magnitude of the images with Gaussian noise of deviation `level` in both channels; a slice's noise is its own."""
    keys = stream(parallel.keys_at(jax.random.key(seed), index), "Rician noise")
    noise = normal_like(np.zeros((len(images), 2, *images.shape[1:]), np.float32), keys)
    real, imaginary = level * np.swapaxes(noise, 0, 1)
    return np.clip(np.hypot(images + real, imaginary), 0, 1).astype(np.float32)


def bias_field(height: int, width: int, strength: float) -> np.ndarray:
    """A smooth field (H, W) from 1 - strength to 1 + strength: half a wave along the diagonal."""
    across = np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.5, width))
    return 1 + strength * np.cos(np.pi * across)


def shift(image: np.ndarray, pixels: float) -> np.ndarray:
    """An image (H, W) moved along the rows by a number of pixels that need not be whole: by cubic splines, edges repeated."""
    moved = scipy.ndimage.shift(image, (0, pixels), order=3, mode="nearest")
    return np.clip(moved, 0, 1).astype(np.float32)


def _with_noise(batch: Mapping[str, Any], level: float, seed: int) -> np.ndarray:
    return add_noise(batch["sources"], batch["index"], level, seed)


def _with_bias(batch: Mapping[str, Any], strength: float) -> np.ndarray:
    field = bias_field(*batch["sources"].shape[1:3], strength)[None, ..., None]
    return np.clip(batch["sources"] * field, 0, 1).astype(np.float32)


def _shifted(batch: Mapping[str, Any], channel: int, mm: float) -> np.ndarray:
    moved = batch["sources"].copy()
    for image, spacing in zip(moved, batch["spacing"], strict=True):
        image[..., channel] = shift(image[..., channel], mm / spacing)
    return moved


def _without(batch: Mapping[str, Any], channel: int) -> np.ndarray:
    kept = batch["sources"].copy()
    kept[..., channel] = 0
    return kept
