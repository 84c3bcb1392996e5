"""Beyond the paper: studies of a trained run, each a file with `run(context)` that yields the rows of studies.csv.

A study that cannot always be done has `obstacle(config, examples, method)` too: why it cannot with these slices, or ''.
"""

from collections.abc import Iterator
from typing import Any

from mrdiff_jax import config as configuration
from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.results import Row
from mrdiff_jax.evaluation.studies import (
    denoising,
    hallucination,
    lesions,
    maps,
    physics,
    robustness,
    sampling,
    segmentation,
    uncertainty,
)
from mrdiff_jax.evaluation.studies.context import Context
from mrdiff_jax.log import logger
from mrdiff_jax.methods.contract import Method

_STUDIES = {
    "sampling": sampling,
    "denoising": denoising,
    "robustness": robustness,
    "uncertainty": uncertainty,
    "maps": maps,
    "physics": physics,
    "hallucination": hallucination,
    "lesions": lesions,
    "segmentation": segmentation,
}


def chosen(config: Any, dataset: Dataset, method: Method) -> list[str]:
    """The studies that `config.evaluate.studies` asks for; 'all' leaves out those that cannot be done.

    Raises:
      UserError: one that is named cannot be done, and why.
    """
    names, examples = configuration.studies(config.evaluate.studies), dataset.split(config.evaluate.split)
    obstacles = {
        name: _STUDIES[name].obstacle(config, examples, method) for name in names if hasattr(_STUDIES[name], "obstacle")
    }
    for name, obstacle in obstacles.items():
        if obstacle and config.evaluate.studies.strip() != "all":
            raise UserError(f"--config.evaluate.studies={config.evaluate.studies}: {name!r} cannot be done: {obstacle}")
        if obstacle:
            logger.info("study '%s' is left out: %s", name, obstacle)
    return [name for name in names if not obstacles.get(name)]


def run(name: str, context: Context) -> Iterator[Row]:
    """Rows of a study: study, setting, measure, method, subject, slice and the value."""
    return _STUDIES[name].run(context)
