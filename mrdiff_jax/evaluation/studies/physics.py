"""Whether the signal equations are at work: how D's y_hat changes when TR and TE change, against what the phantom would show.

The true T1, T2 and S0 of the phantom say how bright its sources would be at other times. A method whose maps mean something
moves y_hat the same way when it is told these times; one that gets its contrast past the physics hardly moves it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mrdiff_jax.data import phantom
from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.scoring import about, valid
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.evaluation.studies.maps import correlation
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.synthesis.sampling import on_devices

AS_SCANNED = "as scanned"
CHANGES = {f"{name.upper()} x {factor:g}": {name: factor} for name in ("tr", "te") for factor in (0.5, 2.0)}
_FEWEST = 50  # pixels of brain in a slice, for a slope to mean something


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    if "maps" not in examples[0]:
        return "the true T1, T2 and S0 of this data set are not known; the phantom's are"
    return "" if method.reconstruct else "this method does not explain its sources by signal equations"


def run(context: Context) -> Iterator[Row]:
    """By source: the error of y_hat as scanned; by change of the times: how y_hat follows the true change in the brain."""
    explain = on_devices(lambda *args: (context.method.reconstruct(*args),))
    for batch in context.batches("physics"):
        keys = context.evaluator.keys(batch)
        (y_hat,) = explain(context.variables, batch, keys)
        for k, source in enumerate(context.dataset.sources):
            for i in valid(batch):
                error = np.sqrt(np.mean(np.square(y_hat[i, ..., k] - batch["sources"][i, ..., k])))
                yield from rows("physics", f"{source}, {AS_SCANNED}", SYNTHESIS, about(batch, i), {"rmse": error})
        for change, factors in CHANGES.items():
            other = batch | {name: factor * batch[name] for name, factor in factors.items()}
            (moved,) = explain(context.variables, other, keys)
            for k, source in enumerate(context.dataset.sources):
                for i in valid(batch):
                    truth, seen = true_change(batch, other, i, k)
                    found = agreement((moved - y_hat)[i, ..., k][seen], truth[seen])
                    yield from rows("physics", f"{source}, {change}", SYNTHESIS, about(batch, i), found)


def true_change(batch: Mapping[str, Any], other: Mapping[str, Any], i: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """How the k-th source of the i-th slice would change (H, W) with the times of the other batch, and where that is known.

    The scale of the image is fitted to the signal of the true maps; coil and noise are left to the residual. It is known in the
    brain, but for the pixels that the percentiles clip.
    """
    image, maps = batch["sources"][i, ..., k], np.moveaxis(batch["maps"][i], -1, 0)
    seen = (maps[2] > 0) & (image < 1)
    if seen.sum() < _FEWEST:
        return np.zeros_like(image), np.zeros_like(seen)
    now, then = (
        phantom.signal(*maps, np.array([times[name][i, k] for name in ("tr", "te", "ti")])) for times in (batch, other)
    )
    slope, _ = np.polyfit(now[seen].astype(np.float64), image[seen], 1)
    return slope * (then - now), seen


def agreement(moved: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of two changes (N,): Pearson's correlation, and size and projection as shares of the true one; NaN where that is none."""
    if not truth.any():
        return dict.fromkeys(("follows", "size", "share"), np.nan)
    square = float(truth @ truth)
    size, share = float(np.sqrt(moved @ moved / square)), float(moved @ truth) / square
    return {"follows": correlation(moved, truth), "size": size, "share": share}
