"""The same weights with other numbers of reverse steps, and the mean of several syntheses."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mrdiff_jax import methods
from mrdiff_jax.config import samplings
from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import NO_SAMPLES, Context, rows
from mrdiff_jax.log import logger
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.metrics.conventions import METRICS
from mrdiff_jax.synthesis.sampling import Sampler


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    return "" if method.samples else NO_SAMPLES


def run(context: Context) -> Iterator[Row]:
    """The metrics by the convention of the run, for each entry of `config.evaluate.sampling` that the method can do."""
    for samples, steps in samplings(context.config.evaluate.sampling):
        changed = dataclasses.replace(context.config, sample=dataclasses.replace(context.config.sample, steps=steps))
        try:
            sample = Sampler(methods.create(changed), samples)
        except UserError as error:  # cm has as many steps as noise levels
            logger.warning("study 'sampling' leaves %d steps out: %s", steps, error)
            continue
        setting = f"{steps} step{'s' * (steps > 1)}" + (f", mean of {samples}" if samples > 1 else "")
        for batch in context.batches(f"sampling: {setting}"):
            images, _ = sample(context.variables, batch, context.evaluator.keys(batch))
            for row in context.evaluator.score(images, batch).rows:
                yield from rows("sampling", setting, SYNTHESIS, row, {metric: row[metric] for metric in METRICS})
