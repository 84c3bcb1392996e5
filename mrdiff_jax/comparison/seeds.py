"""A row of a comparison: one run, or several of one method that differ in their training seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mrdiff_jax import config
from mrdiff_jax.comparison.comparable import check_comparable
from mrdiff_jax.config import STUDIES
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import averages, results
from mrdiff_jax.evaluation.results import SYNTHESIS, Images, Results, Row, Summary
from mrdiff_jax.storage import json_files

POOLED = "reliability"  # of the studies, the one whose rows are sums over pixels: those of all seeds are added up
_SEED = "--config.train.seed"
_SPLITS_FILE = "--config.data.splits_file"  # where the splits were read: the fingerprint of the data says which they are
_FIX = "runs of one row need it; name the workdirs as training left them"


@dataclass(frozen=True)
class Seeds:
    """Results of a method with one or more training seeds, of the same slices; scores are averaged over seeds."""

    results: Sequence[Results]

    @property
    def summary(self) -> Summary:
        """The first seed's; all share what is scored and how."""
        return self.results[0].summary

    @property
    def images(self) -> Images:
        """The first seed's."""
        return self.results[0].images

    @cached_property
    def rows(self) -> dict[str, list[Row]]:
        """As `Results.rows`: each score of a slice averaged over the seeds."""
        names = self.results[0].rows
        return {name: _mean_rows([seed.rows[name] for seed in self.results], ("subject", "slice")) for name in names}

    @cached_property
    def spectra(self) -> dict[str, np.ndarray]:
        """As `Results.spectra`, averaged over the seeds."""
        return {name: np.mean([seed.spectra[name] for seed in self.results], axis=0) for name in self.results[0].spectra}

    @cached_property
    def studies(self) -> list[Row]:
        """As `Results.studies`: each value averaged over the seeds; of the study POOLED, the rows of all seeds."""
        every = list(chain.from_iterable(seed.studies for seed in self.results))
        averaged = [row for row in every if row["study"] != POOLED]
        keys = ("study", "setting", "measure", "method", "subject", "slice")
        return [*_mean_rows([averaged], keys), *(row for row in every if row["study"] == POOLED)]

    def means(self, column: str) -> list[float]:
        """The mean score of each seed."""
        aggregation = self.summary.convention.aggregation
        return [averages.mean_std(averages.units(seed.rows[SYNTHESIS], column, aggregation))[0] for seed in self.results]


def _mean_rows(tables: Sequence[Sequence[Row]], keys: Sequence[str]) -> list[Row]:
    """A row for each that agree in the keys, its other columns averaged; in the order in which they are first met."""
    alike: dict[tuple, list[Row]] = {}
    for row in chain.from_iterable(tables):
        alike.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {name: value if name in keys else fmean(row[name] for row in rows) for name, value in rows[0].items()}
        for rows in alike.values()
    ]


def read(workdirs: Sequence[Path]) -> Seeds:
    """The results in the workdirs of one row.

    Raises:
      UserError: a workdir has no results; or two are not of one method, its settings and its evaluation with two seeds, and the
        message names both and the first difference.
    """
    found = [results.read(workdir) for workdir in workdirs]
    if len(found) > 1:
        _check_one_method(dict(zip(workdirs, found, strict=True)))
    return Seeds(found)


def _check_one_method(runs: Mapping[Path, Results]) -> None:
    """Raises UserError where a run is not of the first's method, settings and evaluation, or has a seed that another has."""
    settings = {workdir: _settings(workdir, run) for workdir, run in runs.items()}
    first, shared = next(iter(settings.items()))
    seeds: dict[Any, Path] = {}
    for workdir, own in settings.items():
        differing = [name for name in shared | own if name != _SEED and shared.get(name) != own.get(name)]
        if differing:
            its, ours = (values.get(differing[0], "unknown") for values in (own, shared))
            raise UserError(
                f"{workdir}: {differing[0]} is {its}, but {ours} in {first}; runs of one row may differ in {_SEED} alone"
            )
        if own[_SEED] in seeds:
            alike = seeds[own[_SEED]]
            raise UserError(f"{workdir}: {_SEED} is {own[_SEED]}, as in {alike}; runs of one row need different seeds")
        seeds[own[_SEED]] = workdir
        check_comparable(str(first), runs[first], str(workdir), runs[workdir])
        _check_studies(str(first), runs[first], str(workdir), runs[workdir])


def _settings(workdir: Path, run: Results) -> dict[str, Any]:
    """By flag: what makes a run itself, how long it may train, how far it had come, and how it sampled then."""
    identity, path = json_files.read(workdir / "run.json", _FIX), workdir / "config.json"
    try:
        train = config.from_json(json_files.read(path, _FIX)).train
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    sample = {f"--config.sample.{name}": value for name, value in (run.summary.sample or {}).items()}
    limits = {"--config.train.max_minutes": train.max_minutes, "--config.train.steps": train.steps}
    reached = {} if train.max_minutes else {"the last step": run.summary.trained or run.summary.step}
    return {_SEED: None} | {name: value for name, value in identity.items() if name != _SPLITS_FILE} | limits | sample | reached


def _check_studies(first: str, reference: Results, name: str, other: Results) -> None:
    for study in STUDIES:
        ours, its = ({row["setting"] for row in run.studies if row["study"] == study} for run in (reference, other))
        found = study == "segmentation" and ours and its  # its settings are labels, and a seed may invent one
        if ours != its and not found:
            raise UserError(
                f"{name}: its study '{study}' is of {_listed(its)}, that of {first} of {_listed(ours)}; evaluate both with the"
                " same --config.evaluate.studies"
            )


def _listed(settings: set[str]) -> str:
    return ", ".join(sorted(settings)) or "nothing"
