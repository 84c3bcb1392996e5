"""What the network makes of the true target under known noise: where on its chain an estimate is good, and where it is not.

Synthesis starts at the last step, where the target shows nothing; an estimate that is worse there than a direct one says that
the chain starts wrongly, one that hardly grows better towards the first steps that the chain has little to add.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax import diffusion, parallel
from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.methods.contract import Batch, Method, Variables
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.streams import normal_like, stream
from mrdiff_jax.synthesis.sampling import READ

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)  # of the way from the first step to the last


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    return "" if method.denoise else "this method has no chain of noise"


def run(context: Context) -> Iterator[Row]:
    """The metrics of x0_hat, by the convention of the run, for steps all along the chain."""
    method, last = context.method, len(context.method.schedule.alpha_bar) - 1

    def estimate(variables: Variables, inputs: tuple[Batch, Array, Array, Array]) -> Array:
        batch, target, t, keys = inputs
        x_0 = 2 * target - 1
        x_t = diffusion.q_sample(method.schedule, x_0, t, normal_like(x_0, stream(keys, "denoising")))
        return jnp.clip((method.denoise(variables, batch, x_t, t) + 1) / 2, 0, 1)

    compiled = parallel.pmap(estimate)
    for t in dict.fromkeys(round(share * last) for share in SHARES):
        for batch in context.batches(f"denoising: t = {t}"):
            seen = {name: batch[name] for name in READ if name in batch}
            inputs = (seen, batch["target"], np.full(len(batch["target"]), t), context.evaluator.keys(batch))
            images = parallel.on_batch(compiled, inputs, context.variables)
            for row in context.evaluator.score(images, batch).rows:
                yield from rows("denoising", f"t = {t}", SYNTHESIS, row, {metric: row[metric] for metric in METRICS})
