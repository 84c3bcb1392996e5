"""Results of imaginary runs: discs of random texture as subjects, and a method that errs by a given amount."""

from collections.abc import Mapping

import numpy as np

from mrdiff_jax.comparison.runs import Comparison
from mrdiff_jax.comparison.seeds import Seeds
from mrdiff_jax.evaluation.results import Images, Means, Results, Summary
from mrdiff_jax.metrics.conventions import BANDS, CONVENTIONS, METRICS

SIZE, SOURCES, WEIGHTS = 32, ("T2w", "PDw"), (0.5, 0.25, 0.1)


def make_results(error: float, *, subjects: int = 8, slices: int = 3, seed: int = 0, convention: str = "default") -> Results:
    """Results whose errors grow with `error` and differ by subject; the truth is the same whatever the seed."""
    columns = CONVENTIONS[convention].columns()
    keys = [(f"sub-{s:02d}", number) for s in range(subjects) for number in range(slices)]
    truth, noise = np.random.default_rng(0), np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    disc = (np.hypot(x, y) < 12) * truth.uniform(0.3, 0.9, (len(keys), SIZE, SIZE))
    sources = disc[..., None] * truth.uniform(0.5, 1, 2)

    def rows(error: float) -> list[dict]:
        found = []
        for subject, number in keys:
            size = error * (1 + 0.2 * int(subject[-2:])) * noise.uniform(0.9, 1.1)
            scores = {
                "psnr": -20 * np.log10(size),
                "ssim": 1 - size,
                "fsim": 1 - size / 2,
                "gmsd": size / 3,
                "nmse": size**2,
                "mae": size / 2,
            }
            scores |= {f"{name}_body": 0.9 * value for name, value in scores.items()} | dict.fromkeys(BANDS, 4 * size)
            found.append({"subject": subject, "slice": number} | {column: float(scores[column]) for column in columns})
        return found

    scores = {"synthesis": rows(error), "copy": rows(0.3), "linear": rows(0.2)}
    frequency = np.linspace(0, 0.5, SIZE // 2 + 1)
    power = np.exp(-8 * frequency)
    spectra = {"frequency": frequency, "target": power, "copy": power, "linear": power, "synthesis": power * (1 - error)}
    synthesis = np.clip(disc + error * noise.normal(size=disc.shape), 0, 1)

    def means(columns) -> Means:
        of = {name: {c: float(np.mean([row[c] for row in found])) for c in columns} for name, found in scores.items()}
        return Means(of.pop("synthesis"), of)

    whole, used = means(METRICS), CONVENTIONS[convention]
    summary = Summary(
        synthesis=whole.synthesis,
        references=whole.references,
        body=means([f"{name}_body" for name in METRICS]) if used.body else None,
        errors=means(used.errors()),
        bands=means(BANDS),
        convention=used.describe(convention),
        split="test",
        subjects=subjects,
        slices=len(keys),
        left_out={name: {} for name in scores},
        step=10,
        method="imaginary",
        sources=SOURCES,
        target="T1w",
        copied="PDw",
        linear_weights=WEIGHTS,
        seed=0,
        dataset="0123456789abcdef",
    )
    subject, number = map(np.array, zip(*keys, strict=True))
    return Results(summary, scores, spectra, Images(subject, number, disc, synthesis, sources))


def comparison_of(rows: Mapping[str, Results | list[Results]]) -> Comparison:
    """A comparison of single runs, or of several seeds in a list."""
    return Comparison({name: Seeds(found if isinstance(found, list) else [found]) for name, found in rows.items()})
