"""Evaluation: every held-out slice synthesised and scored, beside the references."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrdiff_jax import parallel
from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import averages, results, scoring
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.results import REFERENCES, SYNTHESIS, Images, Means, Results, Summary
from mrdiff_jax.evaluation.scoring import Scorer, SliceScores
from mrdiff_jax.log import logger
from mrdiff_jax.methods.contract import Method, Variables
from mrdiff_jax.metrics.conventions import BANDS, CONVENTIONS, METRICS
from mrdiff_jax.synthesis.sampling import Sampler, on_devices
from mrdiff_jax.workdir import SAMPLES

_PIXELS = ("target", "synthesis", "sources")


class Evaluation:
    """Scores of the synthesis of one split, and some of its images.

    Attributes:
      scores: of every slice.
      kept: the slices kept as images: subject, slice, target, synthesis and sources of each.
      panels: named images (H, W) of a few slices, for a picture.
      titles: of the panels.
    """

    def __init__(self):
        self.scores = SliceScores()
        self.kept: dict[str, list] = {name: [] for name in ("subject", "slice", *_PIXELS)}
        self.panels: list[dict[str, np.ndarray]] = []
        self.titles: list[str] = []


class Evaluator:
    """Synthesises and scores slices; compiled once, used as often as wanted."""

    def __init__(self, method: Method, dataset: Dataset, config: Any):
        """Of `config.evaluate`. Raises UserError where nobody is in the split that is to be scored."""
        self._dataset, self._config, self.split = dataset, config, config.split
        if not len(dataset.split(self.split)):
            fix = f"raise --config.data.{self.split}_fraction, or name some in the splits"
            raise UserError(f"--config.evaluate.split={self.split}: no subject is left for it; {fix}")
        self.sample, self._describe = Sampler(method), on_devices(method.describe)
        self.method = method
        self.score = Scorer(config.convention)

    def keys(self, batch: Mapping[str, Any]) -> jax.Array:
        """The keys of a batch's slices: the noise of a slice depends on its place in the split alone."""
        return parallel.keys_at(jax.random.key(self._config.seed), batch["index"])

    @cached_property
    def _references(self) -> tuple[References, dict[str, SliceScores]]:
        """When they are first needed, not before the first step of training."""
        return scoring.reference_scores(self._dataset, self.split, self.score, self._config.batch_size)

    @property
    def references(self) -> References:
        """Fitted to the training subjects."""
        return self._references[0]

    @property
    def reference_scores(self) -> dict[str, SliceScores]:
        """Of all slices of the split that is scored: by reference, and the spectra of the 'target'."""
        return self._references[1]

    def __call__(self, variables: Variables, split: str, slices: int = 0) -> Evaluation:
        """Evaluates a split, or that many slices (0: all), evenly spread; variables are replicated over the local devices."""
        result = Evaluation()
        wanted = self.slices(split, slices)
        shown, kept = set(evenly(wanted, self._config.panels)), set(evenly(wanted, self._config.images))
        for batch in self.batches(split, wanted, f"evaluating {split}"):
            synthesis, _ = self.sample(variables, batch, self.keys(batch))
            result.scores.extend(self.score(synthesis, batch))
            _add_images(result, batch | {"synthesis": synthesis}, kept)
            if shown & set(batch["index"][batch["valid"]]):
                described = self._describe(variables, batch, self.keys(batch)) if self.method.described else ()
                self._add_panels(result, batch, synthesis, dict(zip(self.method.described, described, strict=True)), shown)
        return result

    def seconds(self, variables: Variables) -> float:
        """Time that scoring the split will take, from one batch; what must be compiled and fitted first is, on the way."""
        self(variables, self.split, self._config.batch_size)
        _ = self._references
        start = time.perf_counter()
        self(variables, self.split, self._config.batch_size)
        return (time.perf_counter() - start) * -(-len(self._dataset.split(self.split)) // self._config.batch_size)

    def slices(self, split: str, count: int = 0) -> np.ndarray:
        """Places in the split of that many slices, evenly spread; 0 is all."""
        return evenly(np.arange(len(self._dataset.split(split))), count)

    def batches(self, split: str, wanted: np.ndarray, text: str) -> Iterator[dict[str, Any]]:
        """Batches of the wanted slices of a split, behind a progress bar."""
        return scoring.batches(self._dataset, split, self._config.batch_size, wanted, text)

    def _add_panels(self, result: Evaluation, batch: dict, synthesis: np.ndarray, features: dict, shown: set) -> None:
        for i in scoring.valid(batch):
            if batch["index"][i] not in shown:
                continue
            panel = {name: batch["sources"][i, ..., k] for k, name in enumerate(self._dataset.sources)}
            panel[f"{self._dataset.target}, true"] = batch["target"][i]
            panel[f"{self._dataset.target}, synthetic"] = synthesis[i]
            panel["absolute error"] = np.abs(synthesis[i] - batch["target"][i])
            panel |= {name: image[i] for name, image in features.items()}
            result.panels.append(panel)
            result.titles.append(f"{batch['subject'][i]} / {batch['slice'][i]}")


def evenly(indices: np.ndarray, count: int) -> np.ndarray:
    """That many of the indices, evenly spread; 0, or more than there are, is all."""
    return np.unique(indices[np.linspace(0, len(indices) - 1, min(count or len(indices), len(indices))).round().astype(int)])


def _add_images(result: Evaluation, batch: dict, kept: set) -> None:
    for i in scoring.valid(batch):
        if batch["index"][i] in kept:
            for name, values in result.kept.items():
                values.append(batch[name][i])


def summarise(scores: dict[str, SliceScores], convention: str, about: dict[str, Any]) -> Summary:
    """Means of the synthesis and the references, the convention, and what is said `about` the run: other fields of Summary."""

    def means(columns: Sequence[str]) -> Means:
        of = {name: scores[name].means(columns, convention) for name in (SYNTHESIS, *REFERENCES)}
        return Means(of.pop(SYNTHESIS), of)

    rows, used, whole = scores[SYNTHESIS].rows, CONVENTIONS[convention], means(list(METRICS))
    inside = [f"{name}_body" for name in METRICS]
    return Summary(
        synthesis=whole.synthesis,
        references=whole.references,
        body=means(inside) if used.body else None,
        errors=means(used.errors()),
        bands=means(BANDS),
        convention=used.describe(convention),
        subjects=len({averages.subject_of(row["subject"]) for row in rows}),
        slices=len(rows),
        left_out={name: averages.left_out(scores[name].rows, used.columns()) for name in (SYNTHESIS, *REFERENCES)},
        **about,
    )


def write(evaluation: Evaluation, scores: dict[str, SliceScores], summary: Summary, workdir: Path) -> list[str]:
    """Writes the files of `results.write`, and samples.png; returns their names, but for a picture that could not be drawn."""
    kept = {name: np.array(values) for name, values in evaluation.kept.items()}
    rows = {name: scores[name].rows for name in (SYNTHESIS, *REFERENCES)}
    spectra = {name: found.mean_spectrum() for name, found in scores.items()}
    frequency = np.linspace(0, 0.5, len(spectra["target"]))
    results.write(Results(summary, rows, {"frequency": frequency, **spectra}, Images(**kept)), workdir)
    picture = draw(evaluation, workdir / SAMPLES)
    return [results.SUMMARY, results.SCORES, *([] if picture is None else [SAMPLES])]


def draw(evaluation: Evaluation, path: Path) -> np.ndarray | None:
    """Draws the panels as a PNG, and returns the picture, (height, width, 3) uint8; None, with a warning, where that fails."""
    try:
        from mrdiff_jax.evaluation import figures  # not above: matplotlib takes a second, for which the first step would wait

        return figures.sample_panel(evaluation.panels, evaluation.titles, path)
    except Exception as error:  # numbers and checkpoints are worth more than a picture
        logger.warning("%s: could not be drawn (%s)", path, " ".join(str(error).split())[:120])
        return None


def table(summary: Summary) -> str:
    """The summary as text, a line for the synthesis and one for each reference."""
    labels = {
        "synthesis": "synthesis",
        "copy": f"copy of {summary.copied}",
        "linear": f"linear fit of {', '.join(summary.sources)}",
    }
    scores = {"synthesis": summary.synthesis, **summary.references}
    width = max(map(len, labels.values()))
    lines = [" " * width + "".join(f"{metric.upper():>9}" for metric in METRICS)]
    for name, values in scores.items():
        cells = "".join(f"{values[metric]:9.2f}" if metric == "psnr" else f"{values[metric]:9.4f}" for metric in METRICS)
        lines.append(f"{labels[name]:{width}}{cells}")
    unit = {"subject": f"{summary.subjects} {summary.split} subjects", "slice": f"all {summary.split} slices"}
    lines.append(
        f"mean over {unit[summary.convention.aggregation]}, {summary.slices} slices; convention '{summary.convention.name}'"
    )
    if summary.left_out[SYNTHESIS]:
        counts = ", ".join(f"{column} ({count})" for column, count in summary.left_out[SYNTHESIS].items())
        lines.append(f"infinite, and left out of the means (slices): {counts}")
    return "\n".join(lines)
