"""Weights and inputs made by numpy alone, and what is kept of an output: all that a recording in another framework needs."""

from collections.abc import Mapping

import numpy as np


def weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """A state dict of these shapes, drawn in the order of the names, no layer left at zero.

    Matrices and convolutions keep the variance of what they read, gains are near 1 and biases near 0. `weight_u` and `weight_v`
    are near the first singular vectors of `weight_orig`, but have some way to go.
    """
    rng, drawn = np.random.default_rng(seed), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith(("weight_u", "weight_v")):
            continue
        x = rng.uniform(-1, 1, shape)
        drawn[name] = x * np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.3 * x + name.endswith("weight")
    for name in filter(lambda name: name.endswith("weight_orig"), list(drawn)):
        u, layer = rng.uniform(-1, 1, len(drawn[name])), name.removesuffix("orig")
        for _ in range(5):
            v = _unit(u @ drawn[name])
            u = _unit(drawn[name] @ v)
        drawn |= {f"{layer}u": u, f"{layer}v": v}
    return {name: x.astype(np.float32) for name, x in drawn.items()}


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def signs(shapes: Mapping[str, tuple[int, ...]], seed: int = 2) -> dict[str, np.ndarray]:
    """Random signs for every entry, by which a gradient is projected to one number."""
    rng = np.random.default_rng(seed)
    return {name: (2 * rng.integers(0, 2, shapes[name]) - 1).astype(np.float32) for name in sorted(shapes)}


def batch(examples: int, side: int, seed: int = 1) -> dict[str, np.ndarray]:
    """A batch for training, and 'noise' (3, B, H, W, 1): what its target is noised with in each of three draws."""
    rng = np.random.default_rng(seed)
    arrays = {
        "target": rng.random((examples, side, side)),
        "sources": rng.random((examples, side, side, 2)),
        "tr": rng.uniform(300, 5000, (examples, 2)),
        "te": rng.uniform(8, 120, (examples, 2)),
        "ti": np.zeros((examples, 2)),
        "noise": normal(rng, 3, examples, side, side, 1),
    }
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Noise of mean 0 and variance 1, by the sum of twelve uniform numbers: their stream does not change with numpy."""
    return (rng.random((12, *shape)).sum(0) - 6).astype(np.float32)


def probe(x: np.ndarray) -> list[float]:
    """What is kept of an array: its root mean square, and its products with four random vectors of signs, as large."""
    x = np.asarray(x, np.float64).ravel()
    signs = np.random.default_rng(2).integers(0, 2, (4, x.size)) * 2 - 1
    return [float(f"{value:.7g}") for value in (np.sqrt(np.square(x).mean()), *(signs @ x / np.sqrt(x.size)))]
