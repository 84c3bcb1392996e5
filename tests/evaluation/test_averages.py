"""Means over slices and subjects, against hand-computed values."""

import numpy as np
import pytest

from mrdiff_jax.evaluation import averages


class TestSubjectMeans:
    def test_average_slices_and_then_subjects(self):
        rows = [("b", 1.0), ("a", 2.0), ("a", "4.0"), ("b", 2.0), ("a", 6.0)]  # read from CSV, or not
        means = averages.subject_means([{"subject": s, "psnr": value} for s, value in rows], "psnr")
        assert means == {"a": 4.0, "b": 1.5}
        assert list(means) == ["a", "b"]

    def test_sessions_are_of_one_subject(self):
        rows = [{"subject": s, "psnr": value} for s, value in (("sub-1_ses-a", 1), ("sub-1_ses-b", 3), ("sub-2", 5))]
        assert averages.subject_means(rows, "psnr") == {"sub-1": 2, "sub-2": 5}

    def test_leave_out_infinite_slices(self):
        rows = [{"subject": s, "psnr": value} for s, value in (("a", 30), ("a", np.inf), ("b", np.inf))]
        assert averages.subject_means(rows, "psnr") == {"a": 30, "b": np.inf}

    def test_leave_out_and_count_the_error_of_an_empty_band(self):
        rows = [{"subject": "a", "HH1": value, "LL3": 0.1} for value in (0.5, np.inf)]
        assert averages.subject_means(rows, "HH1") == {"a": 0.5}
        assert averages.mean_std(averages.units(rows, "HH1", "slice"))[0] == 0.5
        assert averages.left_out(rows, ["HH1", "LL3"]) == {"HH1": 1}

    def test_keep_nan(self):
        assert np.isnan(averages.subject_means([{"subject": "a", "psnr": v} for v in (1, np.nan)], "psnr")["a"])


def test_mean_and_sample_deviation():
    assert averages.mean_std([1, 2, 3]) == (2, 1)
    for values in ([7], [7, np.inf]):
        mean, deviation = averages.mean_std(values)
        assert mean == values[-1]
        assert np.isnan(deviation)


@pytest.mark.parametrize("aggregation", ["slice", "subject"])
def test_units_leave_out_an_infinite_psnr(aggregation):
    rows = [{"subject": s, "psnr_body": value} for s, value in (("a", 30), ("b", 20), ("c", np.inf))]
    assert averages.units(rows, "psnr_body", aggregation) == [30, 20]
    assert averages.units(rows[2:], "psnr_body", aggregation) == [np.inf]
