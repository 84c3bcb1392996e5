"""Whether a difference between two methods is more than chance: paired tests, effect sizes, stars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from mrdiff_jax.evaluation.averages import Scores

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class PairedComparison:
    """Two methods on the same subjects; differences first minus second, tests two-sided, intervals 95 %.

    Attributes:
      subjects: how many.
      difference, interval: mean difference, and its interval from the t distribution.
      t, p_t: paired t-test.
      p_wilcoxon: Wilcoxon signed-rank test.
      effect_size, effect_size_interval: Cohen's d_z (mean / standard deviation of the differences), and its
        bootstrap-t interval.
    """

    subjects: int
    difference: float = np.nan
    interval: tuple[float, float] = (np.nan, np.nan)
    t: float = np.nan
    p_t: float = np.nan
    p_wilcoxon: float = np.nan
    effect_size: float = np.nan
    effect_size_interval: tuple[float, float] = (np.nan, np.nan)


def paired_comparison(first: Scores, second: Scores, *, seed: int) -> PairedComparison:
    """Compares two methods by their subject means; `seed` is that of the bootstrap.

    Differences that are all equal give t = d_z = +-inf and p_t = 0, or, if they are 0, t = 0 and p = 1.
    With fewer than two subjects or a difference that is not finite there is no test: all numbers are NaN.
    Raises ValueError naming the subjects that only one of the two methods has.
    """
    if unpaired := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"subjects scored by only one of the two methods: {', '.join(map(str, unpaired))}")
    differences = np.array([first[subject] - second[subject] for subject in sorted(first)])
    if len(differences) < 2 or not np.isfinite(differences).all():
        return PairedComparison(len(differences))
    mean, effect_size = float(differences.mean()), float(_effect_size(differences))
    if differences.any() and np.isfinite(effect_size):
        test = scipy.stats.ttest_1samp(differences, 0)
        t, p_t, interval = float(test.statistic), float(test.pvalue), test.confidence_interval(CONFIDENCE)
    else:
        t, p_t, interval = effect_size, float(mean == 0), (mean, mean)
    return PairedComparison(
        subjects=len(differences),
        difference=mean,
        interval=(float(interval[0]), float(interval[1])),
        t=t,
        p_t=p_t,
        p_wilcoxon=float(scipy.stats.wilcoxon(differences).pvalue) if differences.any() else 1.0,
        effect_size=effect_size,
        effect_size_interval=_effect_size_interval(differences, seed),
    )


def _effect_size(differences: np.ndarray, axis: int = -1) -> np.ndarray:
    """Cohen's d_z; +-inf for differences that are equal up to rounding, 0 if they are 0."""
    mean, spread = differences.mean(axis), differences.std(axis, ddof=1)
    equal = spread <= 1e-12 * np.abs(mean)
    infinite = np.where(mean == 0, 0, np.copysign(np.inf, mean))
    return np.where(equal, infinite, mean / np.where(equal, 1, spread))


def _effect_size_interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """The bootstrap-t interval of d_z (Efron and Tibshirani 1993, chapter 12).

    With 8 to 12 normal differences of effect 1 it holds the truth in 94 to 96 of 100 cases, the percentile bootstrap in 76
    to 87: resamples repeat subjects, vary too little, and so exaggerate the effect.
    """
    n, effect = len(differences), float(_effect_size(differences))
    if not np.isfinite(effect) or not differences.any():
        return effect, effect

    def error(effect: np.ndarray) -> np.ndarray:
        return np.sqrt(1 / n + effect**2 / (2 * (n - 1)))

    def in_errors(resample: np.ndarray, axis: int = -1) -> np.ndarray:
        found = np.clip(_effect_size(resample, axis), -1e9, 1e9)  # infinite where one subject fills the resample
        return (found - effect) / error(found)

    resampled = scipy.stats.bootstrap(
        (differences,), in_errors, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    ).bootstrap_distribution
    tail = (1 - CONFIDENCE) / 2
    below, above = np.quantile(resampled, [1 - tail, tail])
    return effect - float(below * error(effect)), effect - float(above * error(effect))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values of one family, in the order given, by Holm's step-down correction; NaN stays, uncounted."""
    p = np.asarray(p_values, float)
    corrected = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


def stars(p: float) -> str:
    """The stars of the paper's Table 1: '***' for p < 0.001, '**' for p < 0.01, '*' for p < 0.05, else ''."""
    return "*" * sum(p < level for level in (0.05, 0.01, 0.001))
