"""The error where it matters most: inside lesions, against the rest of the body."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.evaluator import evenly
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.methods.contract import Method


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    if "lesions" not in examples[0]:
        return "this data set has no masks of lesions; a run is given them by --config.data.lesions"
    return "" if len(_with_lesions(examples)) else "none of the slices that are scored shows a lesion"


def run(context: Context) -> Iterator[Row]:
    """Errors of the synthesis and the references on slices that show a lesion."""
    split = context.evaluator.split
    wanted = evenly(_with_lesions(context.dataset.split(split)), context.config.evaluate.study_slices)
    for batch in context.evaluator.batches(split, wanted, "lesions"):
        images = {SYNTHESIS: context.synthesis(batch)}
        images |= context.evaluator.references.predict(batch["sources"])
        for i in scoring.valid(batch):
            for method, image in images.items():
                found = errors(image[i], batch["target"][i], batch["body"][i], batch["lesions"][i] > 0)
                for region, values in found.items():
                    yield from rows("lesions", region, method, scoring.about(batch, i), values)


def errors(synthesis: np.ndarray, target: np.ndarray, body: np.ndarray, lesions: np.ndarray) -> dict[str, dict[str, float]]:
    """Root mean squared and mean error by region, of (H, W) images with a lesion; NaN where the region is empty."""
    difference = synthesis - target
    regions = {"lesions": difference[lesions], "rest of the body": difference[body & ~lesions]}
    return {
        name: {"rmse": np.sqrt(np.mean(e**2)), "bias": np.mean(e)} if e.size else {"rmse": np.nan, "bias": np.nan}
        for name, e in regions.items()
    }


def _with_lesions(examples: Examples) -> np.ndarray:
    """Places of the slices that show a lesion."""
    return np.flatnonzero([examples[i]["lesions"].any() for i in range(len(examples))])
