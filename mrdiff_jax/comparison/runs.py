"""Several runs on the same slices, side by side: who is better, by how much, and whether that is chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mrdiff_jax.comparison import significance
from mrdiff_jax.comparison.comparable import check_comparable
from mrdiff_jax.comparison.seeds import POOLED, Seeds
from mrdiff_jax.comparison.significance import PairedComparison
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import averages
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.results import REFERENCES, SYNTHESIS, Row, Summary
from mrdiff_jax.metrics.conventions import BANDS, CONVENTIONS, HIGHER_IS_BETTER, METRICS

_SEED = 0  # of the bootstrap


@dataclass(frozen=True)
class Cell:
    """A score in a table.

    Attributes:
      mean, deviation: over subjects or slices; sample standard deviation.
      stars: of its difference to the first row.
      best: whether no other mean is better.
      seed_deviation: sample standard deviation of the seeds' means; NaN without two seeds.
    """

    mean: float
    deviation: float
    stars: str
    best: bool
    seed_deviation: float = np.nan


@dataclass(frozen=True)
class Test:
    """The first run against another method, by one score: the paired comparison, and both tests' p by Holm."""

    method: str
    column: str
    paired: PairedComparison
    p_t_holm: float
    p_wilcoxon_holm: float


@dataclass(frozen=True)
class Pictures:
    """Images (H, W) of one slice: the sources, the truth, and what each row's first seed and the linear regression make of
    them, with the scores of what they make."""

    sources: dict[str, np.ndarray]
    truth: np.ndarray
    methods: dict[str, np.ndarray]
    scores: dict[str, Row]


class Reliability(NamedTuple):
    """By bin of predicted error, rising: its root mean square, that of the real error, the share of pixels; (bins,) each."""

    predicted: np.ndarray
    error: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    Attributes:
      runs: one or more seeds by the name their row is given; the first is the row that the others are tested against.

    Raises:
      UserError: a row has the name of a reference, or two rows differ in convention, contrasts, subjects, slices, data or the
        slices of a study; the message names both.
    """

    runs: Mapping[str, Seeds]

    def __post_init__(self):
        (first, reference), *others = self.runs.items()
        taken = {*map(self.label, ("copy", "linear", "calibrated")), "truth"}
        for name in taken & self.runs.keys():
            raise UserError(f"--names: {name!r} is what something else is called in the tables; choose another name")
        for name, seeds in others:
            check_comparable(first, reference.results[0], name, seeds.results[0])

    @property
    def first(self) -> str:
        """Name of the row that the others are tested against."""
        return next(iter(self.runs))

    @property
    def summary(self) -> Summary:
        """The first run's; all share what is scored and how."""
        return self.runs[self.first].summary

    @property
    def several(self) -> dict[str, int]:
        """How many seeds the rows of more than one have, by name."""
        return {name: len(run.results) for name, run in self.runs.items() if len(run.results) > 1}

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """The scores of each method: the runs, then the references, the better one first."""
        references = self.runs[self.first].rows
        return {name: seeds.rows[SYNTHESIS] for name, seeds in self.runs.items()} | {
            self.label(name): references[name] for name in reversed(REFERENCES)
        }

    def label(self, reference: str) -> str:
        """What a reference, or what else stands beside the runs in a study, is called in tables."""
        names = {"copy": f"copy of {self.summary.copied}", "linear": "linear regression", "calibrated": "if calibrated"}
        return names[reference]

    @property
    def regions(self) -> dict[str, list[str]]:
        """The score columns, table by table: the whole slice, the body if the convention has it, and the errors of pixels."""
        convention = CONVENTIONS[self.summary.convention.name]
        inside = {"body": [f"{name}_body" for name in METRICS]} if convention.body else {}
        return {"whole slice": list(METRICS)} | inside | {"errors": convention.errors()}

    def values(self, method: str, column: str) -> list[float]:
        """What means and deviations are of: subject means, or slices, as the convention has it."""
        return averages.units(self.rows[method], column, self.summary.convention.aggregation)

    def by_subject(self, method: str, column: str) -> averages.Scores:
        """Subject means of a score."""
        return averages.subject_means(self.rows[method], column)

    @cached_property
    def tests(self) -> dict[str, list[Test]]:
        """By region: the first run against every other method by every metric, over subjects; each test one family for Holm."""
        return {region: self._family(columns) for region, columns in self.regions.items()}

    def _family(self, columns: list[str]) -> list[Test]:
        pairs = [(method, column) for method in self.rows if method != self.first for column in columns]
        paired = [
            significance.paired_comparison(self.by_subject(self.first, column), self.by_subject(method, column), seed=_SEED)
            for method, column in pairs
        ]
        p_t, p_wilcoxon = (
            significance.holm([getattr(result, name) for result in paired]).tolist() for name in ("p_t", "p_wilcoxon")
        )
        return [Test(*pair, *found) for pair, *found in zip(pairs, paired, p_t, p_wilcoxon, strict=True)]

    def table(self, region: str) -> dict[str, dict[str, Cell]]:
        """Table 1 of a region: by method and column."""
        stars = {(test.method, test.column): significance.stars(test.p_t_holm) for test in self.tests[region]}
        cells: dict[str, dict[str, Cell]] = {method: {} for method in self.rows}
        for column in self.regions[region]:
            summaries = {method: averages.mean_std(self.values(method, column)) for method in self.rows}
            means = [mean for mean, _ in summaries.values()]
            best = max(means) if HIGHER_IS_BETTER[column.removesuffix("_body")] else min(means)
            for method, (mean, deviation) in summaries.items():
                spread = averages.mean_std(self.runs[method].means(column))[1] if method in self.runs else np.nan
                cells[method][column] = Cell(mean, deviation, stars.get((method, column), ""), mean == best, spread)
        return cells

    def bands(self, method: str) -> dict[str, float]:
        """Mean error by wavelet band."""
        return {band: averages.mean_std(self.values(method, band))[0] for band in BANDS}

    def study(self, name: str) -> dict[str, dict[str, dict[str, tuple[float, float]]]]:
        """Mean and deviation by setting, method and measure, of the runs that have a study and of what stands beside them."""
        aggregation, found = self.summary.convention.aggregation, {}
        for label, rows in self._studied(name).items():
            for setting, measure in dict.fromkeys((row["setting"], row["measure"]) for row in rows):
                of_cell = [row for row in rows if (row["setting"], row["measure"]) == (setting, measure)]
                of_cell = [{"subject": row["subject"], measure: row["value"]} for row in of_cell]
                summary = averages.mean_std(averages.units(of_cell, measure, aggregation))
                found.setdefault(setting, {}).setdefault(label, {})[measure] = summary
        return found

    def _studied(self, name: str) -> dict[str, list[Row]]:
        """Rows of a study by method: the runs that have it, then what the first of them has beside its synthesis."""
        rows = {run: [row for row in seeds.studies if row["study"] == name] for run, seeds in self.runs.items()}
        rows = {run: found for run, found in rows.items() if found}
        beside = next(iter(rows.values()), [])
        methods = dict.fromkeys(row["method"] for row in beside if row["method"] != SYNTHESIS)
        return {run: [row for row in found if row["method"] == SYNTHESIS] for run, found in rows.items()} | {
            self.label(method): [row for row in beside if row["method"] == method] for method in methods
        }

    def reliability(self) -> dict[str, Reliability]:
        """Predicted against real error, of the runs that have the study 'uncertainty' and predict any error."""
        found = {}
        for run, rows in self._studied(POOLED).items():
            sums: dict[str, dict[str, float]] = {}
            for row in rows:
                of_bin = sums.setdefault(row["setting"], {})
                of_bin[row["measure"]] = of_bin.get(row["measure"], 0) + row["value"]
            bins = [[of_bin[name] for name in ("pixels", "predicted_squares", "error_squares")] for of_bin in sums.values()]
            pixels, predicted, error = np.array(sorted(bins, key=lambda of_bin: of_bin[1] / of_bin[0])).T
            found[run] = Reliability(np.sqrt(predicted / pixels), np.sqrt(error / pixels), pixels / pixels.sum())
        return {run: curve for run, curve in found.items() if curve.predicted.any()}

    @cached_property
    def ranked_subjects(self) -> list[str]:
        """Subjects from the first run's lowest PSNR to its highest."""
        scores = self.by_subject(self.first, "psnr")
        return sorted(scores, key=scores.get)

    @cached_property
    def common_slices(self) -> list[tuple[str, int]]:
        """(subject, slice) of the slices of which every run keeps images."""
        kept = [seeds.images.places for seeds in self.runs.values()]
        return [key for key in kept[0] if all(key in places for places in kept)]

    def pictures(self, subject: str, number: int) -> Pictures:
        """The images of a slice of which every run keeps images."""
        images, summary, linear = self.runs[self.first].images, self.summary, self.label("linear")
        place = images.places[subject, number]
        methods = {name: run.images.synthesis[run.images.places[subject, number]] for name, run in self.runs.items()}
        references = References(summary.sources.index(summary.copied), np.array(summary.linear_weights))
        methods[linear] = references.predict(images.sources[place][None])["linear"][0]
        return Pictures(
            sources=dict(zip(summary.sources, np.moveaxis(images.sources[place], -1, 0), strict=True)),
            truth=images.target[place],
            methods=methods,
            scores={method: self._pictured[method][subject, number] for method in methods},
        )

    @cached_property
    def _pictured(self) -> dict[str, dict[tuple[str, int], Row]]:
        """Scores of the images by method, subject and slice: those of each row's first seed."""
        rows = self.rows | {name: run.results[0].rows[SYNTHESIS] for name, run in self.runs.items()}
        return {method: {(row["subject"], row["slice"]): row for row in found} for method, found in rows.items()}
