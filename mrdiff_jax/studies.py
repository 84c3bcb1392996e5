"""Beyond the paper: how a trained run does with other sampling, and with sources that are not as they should be."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mrdiff_jax import methods
from mrdiff_jax.config import samplings
from mrdiff_jax.conventions import METRICS
from mrdiff_jax.data.pipeline import Dataset
from mrdiff_jax.evaluate import Evaluation, Evaluator, Spoil
from mrdiff_jax.methods import Params
from mrdiff_jax.results import Row

NOISE = (0.02, 0.05, 0.1)  # standard deviation of each of the two channels, of the data range
BIAS = (0.2, 0.4)  # largest deviation of the field from 1
SHIFTS = (1, 2, 3)  # pixels
UNSPOILED = "as acquired"


def run(config: Any, dataset: Dataset, evaluator: Evaluator, params: Params) -> list[Row]:
    """The studies that `config.evaluate` asks for, on `study_slices` slices evenly spread over the test subjects.

    Returns:
      A row for each study ('sampling', 'robustness'), setting, method (synthesis and references) and slice: the metrics by the
      convention of the config.
    """
    rows: list[Row] = []
    for samples, steps in samplings(config.evaluate.sampling):
        changed = copy.deepcopy(config)
        changed.sample.steps = steps
        sampler = Evaluator(methods.create(changed), dataset, config.evaluate, samples)
        setting = f"{steps} step{'s' * (steps > 1)}" + (f", mean of {samples}" if samples > 1 else "")
        rows += _rows("sampling", setting, sampler(params, "test", config.evaluate.study_slices))
    if config.evaluate.robustness:
        for setting, spoil in damages(dataset.sources, config.evaluate.seed).items():
            rows += _rows("robustness", setting, evaluator(params, "test", config.evaluate.study_slices, spoil))
    return rows


def _rows(study: str, setting: str, evaluation: Evaluation) -> Iterator[Row]:
    for method, rows in evaluation.rows.items():
        for row in rows:
            kept = {name: row[name] for name in ("subject", "slice", *METRICS)}
            yield {"study": study, "setting": setting, "method": method, **kept}


def damages(sources: Sequence[str], seed: int) -> dict[str, Spoil]:
    """What is done to the sources, by name: (sources (B, H, W, K), their index (B,)) -> the sources spoiled.

    Rician noise and a bias field on all sources, the last source shifted along the rows, each source missing (zeros).
    """
    spoiled: dict[str, Spoil] = {UNSPOILED: lambda images, index: images}
    spoiled |= {f"Rician noise {level}": partial(add_noise, level=level, seed=seed) for level in NOISE}
    spoiled |= {f"bias field ±{strength:.0%}": partial(_with_bias, strength=strength) for strength in BIAS}
    for pixels in SHIFTS:
        spoiled[f"{sources[-1]} shifted by {pixels} px"] = partial(_shifted, channel=len(sources) - 1, pixels=pixels)
    if len(sources) > 1:
        spoiled |= {f"{name} missing": partial(_without, channel=channel) for channel, name in enumerate(sources)}
    return spoiled


def add_noise(images: np.ndarray, index: np.ndarray, level: float, seed: int) -> np.ndarray:
    """Magnitude of the images with Gaussian noise of deviation `level` in both channels; a slice's noise is its own."""
    noise = [np.random.default_rng((seed, int(i))).normal(0, level, (2, *images.shape[1:])) for i in index]
    real, imaginary = np.swapaxes(noise, 0, 1)
    return np.clip(np.hypot(images + real, imaginary), 0, 1).astype(np.float32)


def bias_field(height: int, width: int, strength: float) -> np.ndarray:
    """A smooth field (H, W) from 1 - strength to 1 + strength: half a wave along the diagonal."""
    across = np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.5, width))
    return 1 + strength * np.cos(np.pi * across)


def _with_bias(images: np.ndarray, index: np.ndarray, strength: float) -> np.ndarray:
    field = bias_field(*images.shape[1:3], strength)[None, ..., None]
    return np.clip(images * field, 0, 1).astype(np.float32)


def _shifted(images: np.ndarray, index: np.ndarray, channel: int, pixels: int) -> np.ndarray:
    moved = images.copy()
    moved[:, pixels:, :, channel] = images[:, :-pixels, :, channel]
    moved[:, :pixels, :, channel] = images[:, :1, :, channel]
    return moved


def _without(images: np.ndarray, index: np.ndarray, channel: int) -> np.ndarray:
    kept = images.copy()
    kept[..., channel] = 0
    return kept
