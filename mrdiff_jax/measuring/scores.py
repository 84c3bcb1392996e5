"""What scoring synthesised slices costs, alone and beside the references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.scoring import Scorer
from mrdiff_jax.metrics import conventions


def scoring(count: int, side: int) -> dict[str, Callable[[], Any]]:
    """By name, what scores as an evaluation does: a synthesis of that many slices of discs, and the references with it.

    `parallel.initialize` comes before.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - side // 2
    contrasts = (0.1 + 0.8 * rng.random((count, side, side, 3), np.float32)) * (np.hypot(x, y) < 0.4 * side)[..., None]
    batch = {"sources": contrasts[..., :2], "target": contrasts[..., 2], "valid": np.ones(count, bool)}
    batch |= {"subject": ["sub-01"] * count, "slice": np.arange(count)}
    synthesis = np.clip(batch["target"] + 0.05 * rng.standard_normal((count, side, side), np.float32), 0, 1)
    score, references = Scorer("default"), References(0, np.array([0.3, 0.3, 0.1]))

    def score_all(*images: np.ndarray) -> Any:
        body = batch | {"body": conventions.body_mask(contrasts)}
        return [score(image, body) for image in images]

    return {
        "scores of a synthesis": lambda: score_all(synthesis),
        "and of the references": lambda: score_all(synthesis, *references.predict(batch["sources"]).values()),
    }
