"""False structures: what a synthesis shows where the truth shows nothing, and the edges of the truth that it does not show.

Edges are where the gradient of the image smoothed by a Gaussian (Canny 1986) is at least as strong as the truth's strongest
quarter inside the body. A slice falls into the truth's edges, flat regions (in the body, away from edges) and background
(outside the body, away from edges); an edge of the synthesis in the latter two is invented, an edge of the truth without at
least half such a gradient nearby in the synthesis is lost. Nearby is within the reach, so that an edge a little out of place is
neither.
"""

from collections.abc import Iterator

import numpy as np
import scipy

from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows

SMOOTHING = 1.0  # pixels
STRONGEST = 0.25  # share of the body that is edges
REACH = 1  # pixels


def run(context: Context) -> Iterator[Row]:
    """Errors by region, and shares of invented and lost edges, of the synthesis and the references."""
    for batch in context.batches("hallucination"):
        images = {SYNTHESIS: context.synthesis(batch)}
        images |= context.evaluator.references.predict(batch["sources"])
        for i in scoring.valid(batch):
            for method, image in images.items():
                for region, found in structures(image[i], batch["target"][i], batch["body"][i]).items():
                    yield from rows("hallucination", region, method, scoring.about(batch, i), found)


def structures(synthesis: np.ndarray, target: np.ndarray, body: np.ndarray) -> dict[str, dict[str, float]]:
    """By region of the truth: root mean squared error, and share of invented or lost edges; all (H, W). NaN where empty."""
    true, synthetic = (scipy.ndimage.gaussian_gradient_magnitude(image, SMOOTHING) for image in (target, synthesis))
    level = np.quantile(true[body], 1 - STRONGEST)
    if level == 0:  # a constant image has no edges
        level = np.inf
    edges = true >= level
    away = ~_near(edges)
    regions = {"background": away & ~body, "flat regions": away & body, "edges": edges & body}
    invented, found = synthetic >= level, _near(synthetic >= level / 2)
    squared = np.square(synthesis - target)
    return {
        name: {"rmse": np.sqrt(_mean(squared, region))}
        | ({"lost": _mean(~found, region)} if name == "edges" else {"invented": _mean(invented, region)})
        for name, region in regions.items()
    }


def _near(mask: np.ndarray) -> np.ndarray:
    return scipy.ndimage.binary_dilation(mask, iterations=REACH)


def _mean(values: np.ndarray, region: np.ndarray) -> float:
    return float(values[region].mean()) if region.any() else np.nan
