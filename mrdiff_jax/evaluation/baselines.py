"""What any synthesis has to beat: the better source as it is, and a pixelwise linear regression on the sources.

Both are fitted on the training subjects.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class References:
    """The fitted references.

    Attributes:
      better_source: index of the source with the smaller squared error.
      weights: (K + 1,) of the linear regression, the intercept last.
    """

    better_source: int
    weights: np.ndarray

    def predict(self, sources: np.ndarray) -> dict[str, np.ndarray]:
        """Images (B, H, W) in [0, 1] of each reference, from sources (B, H, W, K)."""
        linear = sources @ self.weights[:-1] + self.weights[-1]
        return {"copy": sources[..., self.better_source], "linear": np.clip(linear, 0, 1).astype(np.float32)}


def fit(batches: Iterable[Mapping[str, Any]], k: int) -> References:
    """Fits the references to every pixel of batches of the training split, as of `evaluation_batches`, with k sources."""
    gram, moment, squared_error = np.zeros((k + 1, k + 1)), np.zeros(k + 1), np.zeros(k)
    for batch in batches:
        valid = batch["valid"]
        sources = batch["sources"][valid].reshape(-1, k).astype(np.float64)
        target = batch["target"][valid].reshape(-1).astype(np.float64)
        design = np.concatenate([sources, np.ones((len(sources), 1))], axis=1)
        gram += design.T @ design
        moment += design.T @ target
        squared_error += np.square(sources - target[:, None]).sum(0)
    return References(int(np.argmin(squared_error)), np.linalg.lstsq(gram, moment, rcond=None)[0])
