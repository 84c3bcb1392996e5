"""Whether the maps h_t = {T1, T2, S0} are what their names say: their correlation with the true maps of the phantom.

A method has many channels for each map. The one that correlates best, and a linear fit of all of them, are found on training
slices and measured on test slices. The same fit of the sources stands beside them: what can be read off the images anyway.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mrdiff_jax.data.datasets import Examples
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.evaluation.results import SYNTHESIS, Row
from mrdiff_jax.evaluation.studies.context import Context, rows
from mrdiff_jax.methods.contract import Method
from mrdiff_jax.synthesis.sampling import Compiled, on_devices

NAMES = ("T1", "T2", "S0")
_FEWEST = 10  # blocks of brain in a slice, for a correlation to mean something


class Blocks(NamedTuple):
    """The blocks of brain of one slice, each a pixel of h_t: features (N, C) and truth (N,) by map, sources (N, K)."""

    of: Row
    features: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]
    sources: np.ndarray


def obstacle(config: Any, examples: Examples, method: Method) -> str:
    """Why the study cannot be done, or ''."""
    if "maps" not in examples[0]:
        return "the true T1, T2 and S0 of this data set are not known; the phantom's are"
    return "" if method.feature_maps else "this method has no maps of T1, T2 and S0"


def run(context: Context) -> Iterator[Row]:
    """Pearson's correlation inside each slice, by map: best channel, linear fit of all, linear fit of the sources."""

    def in_order(*args: Any) -> tuple[jax.Array, ...]:
        maps = context.method.feature_maps(*args)
        return tuple(maps[name] for name in NAMES)

    see = on_devices(in_order)
    train = list(blocks(context, "train", see))
    sources = np.concatenate([slice_.sources for slice_ in train])
    fits = {}
    for name in NAMES:
        features = np.concatenate([slice_.features[name] for slice_ in train])
        truth = np.concatenate([slice_.truth[name] for slice_ in train])
        fits[name] = best_channel(features, truth), linear(features, truth), linear(sources, truth)
    for test in blocks(context, context.evaluator.split, see):
        for name, (channel, of_features, of_sources) in fits.items():
            features, truth = test.features[name], test.truth[name]
            of_method = {
                "best_channel": correlation(features @ channel, truth),
                "linear_fit": correlation(features @ of_features, truth),
            }
            yield from rows("maps", name, SYNTHESIS, test.of, of_method)
            beside = {"linear_fit": correlation(test.sources @ of_sources, truth)}
            yield from rows("maps", name, "linear", test.of, beside)


def blocks(context: Context, split: str, see: Compiled) -> Iterator[Blocks]:
    """The slices of a split, as many as a study has, that show enough of the brain; `see` is the compiled function of maps."""
    wanted = context.evaluator.slices(split, context.config.evaluate.study_slices)
    for batch in context.evaluator.batches(split, wanted, f"maps: {split}"):
        found = see(context.variables, batch, context.evaluator.keys(batch))
        features = dict(zip(NAMES, found, strict=True))
        for i in scoring.valid(batch):
            factor = batch["target"].shape[1] // features["T1"].shape[1]
            truth, brain = block_means(batch["maps"][i], factor)
            if brain.sum() >= _FEWEST:
                yield Blocks(
                    scoring.about(batch, i),
                    {name: features[name][i][brain] for name in NAMES},
                    {name: truth[brain][:, k] for k, name in enumerate(NAMES)},
                    _blocked(batch["sources"][i], factor).mean((1, 3))[brain],
                )


def block_means(maps: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """True maps (H, W, 3) as means over the brain in blocks of factor x factor pixels, and which are mostly brain (h, w)."""
    present = _blocked((maps[..., 2:] > 0).astype(np.float64), factor)
    sums = (_blocked(maps, factor) * present).sum((1, 3))
    share = present.mean((1, 3))
    return sums / np.maximum(present.sum((1, 3)), 1), share[..., 0] > 0.5


def _blocked(images: np.ndarray, factor: int) -> np.ndarray:
    """(H, W, C) -> (h, factor, w, factor, C)."""
    h, w, c = images.shape
    return images.reshape(h // factor, factor, w // factor, factor, c)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; NaN where one of the two does not vary."""
    a, b = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (a, b))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def best_channel(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (C,) that pick the channel of features (N, C) with the strongest correlation, with its sign."""
    found = np.nan_to_num([correlation(channel, truth) for channel in features.T.astype(np.float64)])
    best = int(np.argmax(np.abs(found)))
    return np.eye(len(found))[best] * np.sign(found[best])


def linear(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Weights (C,) of the least-squares fit with an intercept, which a correlation does not see."""
    design = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    return np.linalg.lstsq(design, truth.astype(np.float64), rcond=None)[0][:-1]
