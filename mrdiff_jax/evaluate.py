"""Evaluation: every held-out slice synthesised and scored, beside the references."""

import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mrdiff_jax import figures, metrics, parallel, references, stats
from mrdiff_jax.data.pipeline import Dataset, evaluation_batches
from mrdiff_jax.methods import Method, Params
from mrdiff_jax.references import References

METRICS = {"psnr": metrics.psnr, "ssim": metrics.ssim, "fsim": metrics.fsim, "gmsd": metrics.gmsd}
CONVENTION = "one affine map per volume, clipped to [0, 1]; data range 1; whole slice; slices averaged per subject"
_ARRAYS = ("sources", "tr", "te", "ti")

Row = dict[str, Any]


@dataclass
class Evaluation:
    """Scores of one split.

    Attributes:
      rows: by name ('synthesis', 'copy', 'linear'), a row a slice: subject, slice and the metrics.
      panels: named images (H, W) of a few slices, for a picture.
      titles: of the panels.
    """

    rows: dict[str, list[Row]]
    panels: list[dict[str, np.ndarray]]
    titles: list[str]

    def subject_means(self, name: str) -> dict[str, float]:
        """Each metric, averaged over the slices of a subject and then over subjects."""
        return {metric: stats.mean_std(list(stats.subject_means(self.rows[name], metric).values()))[0] for metric in METRICS}


class Evaluator:
    """Synthesises and scores slices on all local devices; compiled once, used as often as wanted."""

    def __init__(self, method: Method, dataset: Dataset, config: Any):
        devices = jax.local_device_count()
        self._dataset, self._config = dataset, config
        self._batch_size = -(-config.batch_size // devices) * devices
        key = jax.random.key(config.seed)

        def synthesize(params: Params, batch: dict) -> jax.Array:
            return jnp.clip(method.synthesize(params, batch, parallel.keys_at(key, batch["index"])), 0, 1)

        def describe(params: Params, batch: dict) -> tuple[jax.Array, ...]:
            return method.describe(params, batch, parallel.keys_at(key, batch["index"]))

        self._described = method.described
        self._synthesize, self._describe = parallel.pmap(synthesize), parallel.pmap(describe)
        self._score = jax.jit(lambda image, target: {name: fn(image, target) for name, fn in METRICS.items()})

    @cached_property
    def references(self) -> References:
        """Fitted when they are first needed, not before the first step of training."""
        return references.fit(self._dataset)

    def __call__(self, params: Params, split: str, slices: int = 0) -> Evaluation:
        """Evaluates a split.

        Args:
          params: replicated over the local devices.
          split: of the data set.
          slices: so many, evenly spread over the split; 0 is all.
        """
        result = Evaluation({name: [] for name in ("synthesis", "copy", "linear")}, [], [])
        total = len(self._dataset.split(split))
        wanted = np.unique(np.linspace(0, total - 1, min(slices or total, total)).round().astype(int))
        shown = set(wanted[np.linspace(0, len(wanted) - 1, self._config.panels).round().astype(int)])
        batches = self._batches(split, wanted)
        for batch in tqdm(batches, total=-(-len(wanted) // self._batch_size), desc=f"evaluating {split}", leave=False):
            arrays = parallel.shard({name: batch[name] for name in (*_ARRAYS, "index")})
            images = {"synthesis": parallel.gather(self._synthesize(params, arrays))}
            images |= self.references.predict(batch["sources"])
            for name, image in images.items():
                scores = jax.device_get(self._score(image, batch["target"]))
                result.rows[name] += _rows(batch, scores)
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


def _rows(batch: dict, scores: dict[str, np.ndarray]) -> list[Row]:
    return [
        {"subject": batch["subject"][i], "slice": int(batch["slice"][i])}
        | {name: float(values[i]) for name, values in scores.items()}
        for i in np.flatnonzero(batch["valid"])
    ]


def summarise(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json holds: means over subjects, the convention behind them, and what is said `about` the run."""
    rows = evaluation.rows["synthesis"]
    return {
        "synthesis": evaluation.subject_means("synthesis"),
        "references": {name: evaluation.subject_means(name) for name in ("copy", "linear")},
        "convention": CONVENTION,
        "subjects": len({row["subject"] for row in rows}),
        "slices": len(rows),
        **about,
    }


def write(evaluation: Evaluation, summary: dict[str, Any], workdir: Path) -> None:
    """Writes metrics.json, metrics.csv and samples.png."""
    (workdir / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    rows = evaluation.rows["synthesis"]
    with (workdir / "metrics.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
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
    lines.append(f"mean over {summary['subjects']} held-out subjects, {summary['slices']} slices")
    return "\n".join(lines)
