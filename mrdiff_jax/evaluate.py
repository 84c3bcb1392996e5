"""Evaluation: every held-out slice synthesised and scored, beside the references."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mrdiff_jax import figures, parallel, references, results, stats
from mrdiff_jax.conventions import BANDS, CONVENTIONS, METRICS, body_mask, scorer
from mrdiff_jax.data.pipeline import Dataset, evaluation_batches
from mrdiff_jax.methods import Method, Params
from mrdiff_jax.metrics import radial_power_spectrum
from mrdiff_jax.references import References
from mrdiff_jax.results import REFERENCES, SYNTHESIS, Images, Results, Row

_ARRAYS = ("sources", "tr", "te", "ti")
_PIXELS = ("target", "synthesis", "sources")

Spoil = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Evaluation:
    """Scores of one split, and some of its images.

    Attributes:
      convention: name of that by which the scores are.
      rows: by name ('synthesis', 'copy', 'linear'), a row a slice: subject, slice and the scores.
      spectra: by name, and 'target', the radial power spectrum (rings,) of each slice.
      kept: the slices kept as images: subject, slice, target, synthesis and sources of each.
      panels: named images (H, W) of a few slices, for a picture.
      titles: of the panels.
    """

    def __init__(self, convention: str):
        self.convention = convention
        self.rows: dict[str, list[Row]] = {name: [] for name in (SYNTHESIS, *REFERENCES)}
        self.spectra: dict[str, list[np.ndarray]] = {name: [] for name in ("target", *self.rows)}
        self.kept: dict[str, list] = {name: [] for name in ("subject", "slice", *_PIXELS)}
        self.panels: list[dict[str, np.ndarray]] = []
        self.titles: list[str] = []

    def means(self, name: str, columns: Iterable[str] = METRICS) -> dict[str, float]:
        """Each column, averaged as the convention says: slices of a subject and then subjects, or all slices."""
        rows, aggregation = self.rows[name], CONVENTIONS[self.convention].aggregation
        return {column: stats.mean_std(stats.units(rows, column, aggregation))[0] for column in columns}

    def mean_spectra(self) -> dict[str, np.ndarray]:
        """The spectra averaged over slices and then subjects, and their 'frequency' in cycles per pixel."""
        subjects = np.array([row["subject"] for row in self.rows[SYNTHESIS]])
        means = {}
        for name, spectra in self.spectra.items():
            of_subjects = [np.mean(np.array(spectra)[subjects == subject], 0) for subject in np.unique(subjects)]
            means[name] = np.mean(of_subjects, 0)
        rings = len(means["target"])
        return {"frequency": np.linspace(0, 0.5, rings), **means}


class Evaluator:
    """Synthesises and scores slices on all local devices; compiled once, used as often as wanted."""

    def __init__(self, method: Method, dataset: Dataset, config: Any, samples: int = 1):
        """Of `config.evaluate`; `samples` syntheses of each slice are averaged."""
        devices = jax.local_device_count()
        self._dataset, self._config = dataset, config
        self._batch_size = -(-config.batch_size // devices) * devices
        key = jax.random.key(config.seed)

        def synthesize(params: Params, batch: dict) -> jax.Array:
            keys = parallel.keys_at(key, batch["index"])
            if samples == 1:
                return jnp.clip(method.synthesize(params, batch, keys), 0, 1)
            draws = jax.lax.map(lambda n: method.synthesize(params, batch, _folded(keys, n)), jnp.arange(samples))
            return jnp.clip(draws.mean(0), 0, 1)

        def describe(params: Params, batch: dict) -> tuple[jax.Array, ...]:
            return method.describe(params, batch, parallel.keys_at(key, batch["index"]))

        self._described = method.described
        self._synthesize, self._describe = parallel.pmap(synthesize), parallel.pmap(describe)
        self._score = parallel.pmap(scorer(CONVENTIONS[config.convention]))

    @cached_property
    def references(self) -> References:
        """Fitted when they are first needed, not before the first step of training."""
        return references.fit(self._dataset)

    def __call__(self, params: Params, split: str, slices: int = 0, spoil: Spoil | None = None) -> Evaluation:
        """Evaluates a split.

        Args:
          params: replicated over the local devices.
          split: of the data set.
          slices: so many, evenly spread over the split; 0 is all.
          spoil: what to do to the sources, (B, H, W, K) with their index (B,), before they are used.
        """
        result = Evaluation(self._config.convention)
        wanted = _evenly(np.arange(len(self._dataset.split(split))), slices)
        shown, kept = set(_evenly(wanted, self._config.panels)), set(_evenly(wanted, self._config.images))
        batches = self._batches(split, wanted)
        for batch in tqdm(batches, total=-(-len(wanted) // self._batch_size), desc=f"evaluating {split}", leave=False):
            sources = spoil(batch["sources"], batch["index"]) if spoil else batch["sources"]
            arrays = parallel.shard({name: batch[name] for name in (*_ARRAYS, "index")} | {"sources": sources})
            images = {"synthesis": parallel.gather(self._synthesize(params, arrays))}
            images |= self.references.predict(sources)
            self._add_scores(result, batch, images)
            _add_images(result, batch | {"synthesis": images["synthesis"]}, kept)
            if shown & set(batch["index"][batch["valid"]]):
                described = parallel.gather(self._describe(params, arrays))
                features = dict(zip(self._described, described, strict=True))
                self._add_panels(result, batch, images["synthesis"], features, shown)
        return result

    def seconds(self, params: Params, split: str) -> float:
        """Time that evaluating a split will take, from one batch; what must be compiled and fitted first is, on the way."""
        self(params, split, self._batch_size)
        start = time.perf_counter()
        self(params, split, self._batch_size)
        return (time.perf_counter() - start) * -(-len(self._dataset.split(split)) // self._batch_size)

    def _batches(self, split: str, wanted: np.ndarray) -> Iterator[dict[str, Any]]:
        """Batches of the wanted slices, each with its 'index' in the split, on which its noise depends."""
        return evaluation_batches(self._dataset, split, self._batch_size, wanted)

    def _add_scores(self, result: Evaluation, batch: dict, images: dict[str, np.ndarray]) -> None:
        target, valid = batch["target"], np.flatnonzero(batch["valid"])
        body = body_mask(np.concatenate([batch["sources"], target[..., None]], -1))
        columns = CONVENTIONS[self._config.convention].columns()
        for name, image in images.items():
            scores = parallel.gather(self._score(*parallel.shard((image, target, body))))
            result.rows[name] += [
                {"subject": batch["subject"][i], "slice": int(batch["slice"][i])}
                | {column: float(scores[column][i]) for column in columns}
                for i in valid
            ]
        for name, image in (images | {"target": target}).items():
            result.spectra[name] += list(np.asarray(radial_power_spectrum(image))[valid])

    def _add_panels(self, result: Evaluation, batch: dict, synthesis: np.ndarray, features: dict, shown: set) -> None:
        for i in np.flatnonzero(batch["valid"]):
            if batch["index"][i] not in shown:
                continue
            panel = {name: batch["sources"][i, ..., k] for k, name in enumerate(self._dataset.sources)}
            panel[f"{self._dataset.target}, true"] = batch["target"][i]
            panel[f"{self._dataset.target}, synthetic"] = synthesis[i]
            panel["absolute error"] = np.abs(synthesis[i] - batch["target"][i])
            panel |= {name: image[i] for name, image in features.items()}
            result.panels.append(panel)
            result.titles.append(f"{batch['subject'][i]} / {batch['slice'][i]}")


def _folded(keys: jax.Array, number: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _evenly(indices: np.ndarray, count: int) -> np.ndarray:
    """So many of the indices, evenly spread; 0, or more than there are, is all."""
    return np.unique(indices[np.linspace(0, len(indices) - 1, min(count or len(indices), len(indices))).round().astype(int)])


def _add_images(result: Evaluation, batch: dict, kept: set) -> None:
    for i in np.flatnonzero(batch["valid"]):
        if batch["index"][i] in kept:
            for name, values in result.kept.items():
                values.append(batch[name][i])


def summarise(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json holds: means, the convention behind them, and what is said `about` the run."""
    rows, convention = evaluation.rows[SYNTHESIS], CONVENTIONS[evaluation.convention]

    def means(columns: Sequence[str]) -> dict[str, Any]:
        return {
            SYNTHESIS: evaluation.means(SYNTHESIS, columns),
            "references": {reference: evaluation.means(reference, columns) for reference in REFERENCES},
        }

    inside = [column for column in convention.columns() if column.endswith("_body")]
    return {
        **means(list(METRICS)),
        **({"body": means(inside)} if inside else {}),
        "bands": means(BANDS),
        "convention": convention.describe(evaluation.convention),
        "subjects": len({row["subject"] for row in rows}),
        "slices": len(rows),
        **about,
    }


def write(evaluation: Evaluation, summary: dict[str, Any], workdir: Path) -> None:
    """Writes the files of `results.write`, and samples.png."""
    kept = {name: np.array(values) for name, values in evaluation.kept.items()}
    results.write(Results(summary, evaluation.rows, evaluation.mean_spectra(), Images(**kept)), workdir)
    figures.sample_panel(evaluation.panels, evaluation.titles, workdir / "samples.png")


def table(summary: dict[str, Any], sources: Sequence[str]) -> str:
    """The summary as text, a line for the synthesis and one for each reference."""
    labels = {
        "synthesis": "synthesis",
        "copy": f"copy of {summary['copied']}",
        "linear": f"linear fit of {', '.join(sources)}",
    }
    scores = {"synthesis": summary["synthesis"], **summary["references"]}
    width = max(map(len, labels.values()))
    lines = [" " * width + "".join(f"{metric.upper():>9}" for metric in METRICS)]
    for name, values in scores.items():
        cells = "".join(f"{values[metric]:9.2f}" if metric == "psnr" else f"{values[metric]:9.4f}" for metric in METRICS)
        lines.append(f"{labels[name]:{width}}{cells}")
    unit = {"subject": f"{summary['subjects']} held-out subjects", "slice": "all held-out slices"}
    lines.append(
        f"mean over {unit[summary['convention']['aggregation']]}, {summary['slices']} slices;"
        f" convention '{summary['convention']['name']}'"
    )
    return "\n".join(lines)
