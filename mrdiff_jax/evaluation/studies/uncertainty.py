"""Whether a method knows where it errs: the spread of k syntheses against the error of their mean, pixel by pixel.

If the truth is one more draw from where the syntheses come from, the mean of k of them errs by sqrt(1 + 1/k) times their
standard deviation. That is the predicted error here; error / prediction then follows Student's t with k - 1 degrees of freedom
where the draws are Gaussian.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy

from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import NO_SAMPLES, Context, rows
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.synthesis.sampling import Sampler

CALIBRATED = "calibrated"  # the method whose rows hold what a perfect one would have
ROUNDING = 1e-5  # of the data range: a smaller deviation is that of equal syntheses in float32
EDGES = 0.001 * 2.0 ** np.arange(0, 9.5, 0.5)  # between bins of predicted error, of the data range


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    return "" if method.samples else NO_SAMPLES


def run(context: Context) -> Iterator[Row]:
    """Measures of calibration inside the body, and under 'reliability' the sums of each bin of predicted error."""
    samples, steps = context.config.evaluate.samples, context.config.sample.steps
    sample = Sampler(context.method, samples)
    setting = f"{samples} syntheses of {steps} step{'s' * (steps > 1)}"
    ideal = {f"within_{width}": coverage(width, samples) for width in (1, 2)}
    for batch in context.batches(f"uncertainty: {setting}"):
        means, deviations = sample(context.variables, batch, context.evaluator.keys(batch))
        for i in scoring.valid(batch):
            of, body = scoring.about(batch, i), batch["body"][i]
            error = np.abs(means[i] - batch["target"][i])[body]
            predicted = np.sqrt(1 + 1 / samples) * np.where(deviations[i] > ROUNDING, deviations[i], 0)[body]
            yield from rows("uncertainty", setting, SYNTHESIS, of, calibration(error, predicted))
            for bin_, sums in reliability(error, predicted).items():
                yield from rows("reliability", bin_, SYNTHESIS, of, sums)
            yield from rows("uncertainty", setting, CALIBRATED, of, ideal)
            ideal = {}  # once is enough: it is the same for all


def coverage(width: float, samples: int) -> float:
    """Share of pixels that err by less than `width` times their predicted error where the prediction is right."""
    return float(1 - 2 * scipy.stats.t.sf(width, samples - 1))


def calibration(error: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Predicted and real error (N,) of the pixels of a slice: root mean squares, coverage, and Spearman's correlation."""
    varied = predicted.std() > 0 and error.std() > 0
    return {
        "predicted": np.sqrt(np.mean(predicted**2)),
        "rmse": np.sqrt(np.mean(error**2)),
        "within_1": np.mean(error <= predicted),
        "within_2": np.mean(error <= 2 * predicted),
        "correlation": scipy.stats.spearmanr(predicted, error).statistic if varied else np.nan,
    }


def reliability(error: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float]]:
    """By bin of predicted error: how many pixels, and the sums of squares of predicted and real error."""
    place, count = np.digitize(predicted, EDGES), len(EDGES) + 1
    pixels, squares, errors = (np.bincount(place, values, count) for values in (np.ones_like(error), predicted**2, error**2))
    names = [f"below {EDGES[0]:.4f}", *(f"from {edge:.4f}" for edge in EDGES)]
    return {
        names[i]: {"pixels": pixels[i], "predicted_squares": squares[i], "error_squares": errors[i]}
        for i in np.flatnonzero(pixels)
    }
