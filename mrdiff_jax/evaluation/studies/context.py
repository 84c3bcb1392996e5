"""What a study is given, and the rows it yields."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.evaluation.evaluator import Evaluator
from mrdiff_jax.evaluation.results import Row
from mrdiff_jax.methods.contract import Method, Variables

NO_SAMPLES = "this method does not sample: it has one image for the same sources"


@dataclass(frozen=True)
class Context:
    """A trained run.

    Attributes:
      config: the whole configuration.
      dataset, method: of the run.
      evaluator: synthesises and scores by `config.evaluate`.
      variables: replicated over the local devices.
    """

    config: Any
    dataset: Dataset
    method: Method
    evaluator: Evaluator
    variables: Variables

    def batches(self, text: str) -> Iterator[dict[str, Any]]:
        """The slices of a study, evenly spread over the subjects that are scored, behind a progress bar with this text."""
        wanted = self.evaluator.slices(self.evaluator.split, self.config.evaluate.study_slices)
        return self.evaluator.batches(self.evaluator.split, wanted, text)

    def synthesis(self, batch: dict[str, Any]) -> np.ndarray:
        """The images (B, H, W) that evaluation scores, of these sources."""
        return self.evaluator.sample(self.variables, batch, self.evaluator.keys(batch))[0]


def rows(study: str, setting: str, method: str, of: Row, values: Mapping[str, float]) -> Iterator[Row]:
    """A row for each measure of a slice; those that are NaN, for there is nothing to measure, are left out."""
    for measure, value in values.items():
        if not math.isnan(value):
            name = {"study": study, "setting": setting, "measure": measure, "method": method}
            yield name | {"subject": of["subject"], "slice": of["slice"], "value": float(value)}
