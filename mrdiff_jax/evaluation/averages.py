"""From scores per slice to means over subjects."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Scores = Mapping[str, float]  # by subject


def subject_of(exam: str) -> str:
    """The subject of an exam: 'sub-01' of 'sub-01_ses-2' (`exam_files.exam_name`). Sessions are no independent sample."""
    return exam.partition("_ses-")[0]


def subject_means(rows: Iterable[Mapping[str, Any]], metric: str) -> Scores:
    """The metric averaged over each subject's slices, those of all sessions, by subject.

    Infinite scores (PSNR of equal images, the error of a wavelet band that is empty in the truth) are left out, unless the
    subject has no other; NaN stays.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(subject_of(row["subject"]), []).append(float(row[metric]))
    return {subject: float(np.mean(_counted(values[subject]))) for subject in sorted(values)}


def units(rows: Iterable[Mapping[str, Any]], metric: str, aggregation: str) -> list[float]:
    """The values that a mean is taken over: subject means, or for the aggregation 'slice' each slice; infinite as there."""
    by_slice = aggregation == "slice"
    return _counted([float(row[metric]) for row in rows] if by_slice else list(subject_means(rows, metric).values()))


def left_out(rows: Iterable[Mapping[str, Any]], metrics: Iterable[str]) -> dict[str, int]:
    """How many slices have an infinite score, by metric, where there are any: the means leave them out."""
    rows = list(rows)
    counts = {metric: int(np.isinf([float(row[metric]) for row in rows]).sum()) for metric in metrics}
    return {metric: count for metric, count in counts.items() if count}


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; NaN for a single value, or if one is infinite)."""
    values = np.asarray(list(values), float)
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else np.nan


def _counted(values: list[float]) -> list[float]:
    """Without infinite values, unless there is no other: one slice would hide all the rest."""
    return [value for value in values if not np.isinf(value)] or values[:1]
