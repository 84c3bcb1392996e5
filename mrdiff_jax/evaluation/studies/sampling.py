"""The same weights with other numbers of reverse steps, and the mean of several syntheses."""

import copy
from collections.abc import Iterator

from mrdiff_jax import methods
from mrdiff_jax.config import samplings
from mrdiff_jax.evaluation.evaluator import Sampler
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.metrics.conventions import METRICS


def run(context: Context) -> Iterator[Row]:
    """The metrics by the convention of the run, for each entry of `config.evaluate.sampling`."""
    evaluate = context.config.evaluate
    for samples, steps in samplings(evaluate.sampling):
        changed = copy.deepcopy(context.config)
        changed.sample.steps = steps
        sample = Sampler(methods.create(changed), evaluate.seed, samples)
        setting = f"{steps} step{'s' * (steps > 1)}" + (f", mean of {samples}" if samples > 1 else "")
        for batch in context.batches(f"sampling: {setting}"):
            for row in context.evaluator.score(sample(context.params, batch)[0], batch).rows:
                yield from rows("sampling", setting, SYNTHESIS, row, {metric: row[metric] for metric in METRICS})
