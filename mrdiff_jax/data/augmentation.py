"""Random changes of training slices: what differs between patients and scanners and should not matter."""

from functools import partial
from typing import Any

import grain
import numpy as np


def augment(slices: grain.MapDataset, *, mirror: bool, intensity: float) -> grain.MapDataset:
    """Slices (sources (H, W, K), target (H, W), in [0, 1]), mirrored by chance and with sources of varied intensity.

    `intensity` is 0 for sources as they are, else the largest change that `vary_intensity` makes.
    """
    if mirror:
        slices = slices.random_map(mirror_by_chance)
    if intensity:
        slices = slices.random_map(partial(vary_intensity, strength=intensity))
    return slices


def mirror_by_chance(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Every other example mirrored left to right, sources and target alike."""
    step = rng.choice((1, -1))
    return example | {key: example[key][:, ::step] for key in ("sources", "target")}


def vary_intensity(example: dict[str, Any], rng: np.random.Generator, *, strength: float) -> dict[str, Any]:
    """Each source of its own gamma and, every other one, of its own level of black; the target stays as it is.

    Stands for scanners, coils and reconstructions that were not trained on: x -> b + (1 - b) x^g with log g uniform in
    +-strength and b uniform in [0, strength], in [0, 1] again.
    """
    sources = example["sources"]
    k = sources.shape[-1]
    gamma = np.exp(rng.uniform(-strength, strength, k))
    black = rng.uniform(0, strength, k) * rng.integers(0, 2, k)
    varied = black + (1 - black) * sources**gamma
    return example | {"sources": varied.astype(np.float32)}
