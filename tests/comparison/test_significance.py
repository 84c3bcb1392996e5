"""Paired tests against hand-computed values, scipy and GNU Octave's paired t-test."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mrdiff_jax.comparison import significance

FOLDER = Path(os.environ.get("MRDIFF_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
X = [28.163087, 28.930367, 32.171089, 30.450401, 28.454469]
Y = [27.07366, 27.805426, 30.51403, 29.378808, 27.345573]
GOLDEN = [
    {"x": X, "y": Y, "t": 10.80414204, "p_two_sided": 0.000416279477943,
     "ci95_mean_diff": [0.89933929678, 1.52142710322]},
    {"x": [0.097052, 0.085585, 0.092054], "y": [0.107052, 0.097585, 0.096054], "t": -3.60555127546,
     "p_two_sided": 0.0690506637487, "ci95_mean_diff": [-0.0190089566918, 0.00167562335842]},
]  # fmt: skip


def by_subject(values):
    return {f"s{i}": value for i, value in enumerate(values)}


def compare(x, y, seed=0):
    return significance.paired_comparison(by_subject(x), by_subject(y), seed=seed)


def check_golden(case):
    result = compare(case["x"], case["y"])
    np.testing.assert_allclose(result.t, case["t"], rtol=1e-8)
    np.testing.assert_allclose(result.p_t, case["p_two_sided"], rtol=1e-8)
    np.testing.assert_allclose(result.interval, case["ci95_mean_diff"], rtol=1e-7)


@pytest.mark.parametrize("case", GOLDEN, ids=["gain", "loss"])
def test_golden_t_tests(case):
    check_golden(case)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden folder; MRDIFF_GOLDEN names it")
def test_all_golden_t_tests_of_the_folder():
    for case in json.loads((FOLDER / "golden.json").read_text())["paired_t"]:
        check_golden(case)


class TestPairedComparison:
    def test_pairs_by_subject_not_by_order(self):
        first = by_subject(X)
        shuffled = dict(reversed(list(by_subject(Y).items())))
        assert significance.paired_comparison(first, shuffled, seed=0) == compare(X, Y)

    def test_equals_scipy(self):
        result, difference = compare(X, Y), np.subtract(X, Y)
        assert result.subjects == 5
        np.testing.assert_allclose(result.difference, difference.mean())
        np.testing.assert_allclose(result.t, scipy_stats.ttest_rel(X, Y).statistic)
        np.testing.assert_allclose(result.p_wilcoxon, scipy_stats.wilcoxon(X, Y).pvalue)
        assert result.p_wilcoxon == 2 / 2**5  # all five subjects gain
        np.testing.assert_allclose(result.effect_size, result.t / np.sqrt(5))

    def test_bootstrap_follows_its_seed_and_covers_the_effect(self):
        rng = np.random.default_rng(5)
        x, y = rng.normal(1, 1, 60), np.zeros(60)
        result = compare(x, y)
        low, high = result.effect_size_interval
        assert low < result.effect_size < high
        assert low < 1 < high  # the true effect
        assert 0.4 < high - low < 0.8  # about 2 * 1.96 * sqrt(1 / n + d^2 / 2n)
        assert result == compare(x, y)
        assert result.effect_size_interval != compare(x, y, seed=1).effect_size_interval

    def test_the_interval_of_few_subjects_covers_the_effect(self):
        rng = np.random.default_rng(8)
        intervals = [compare(rng.normal(1, 1, 8), np.zeros(8)).effect_size_interval for _ in range(150)]
        assert 0.9 < np.mean([low <= 1 <= high for low, high in intervals]) < 0.99

    def test_of_three_subjects_is_wide_and_finite(self):
        low, high = compare([1, 2, 3], [0, 0, 0]).effect_size_interval
        assert -1 < low < 2 < high < 10

    def test_of_equal_scores(self):
        result = compare(X, X)
        assert (result.t, result.p_t, result.p_wilcoxon) == (0, 1, 1)
        assert (result.effect_size, result.effect_size_interval, result.interval) == (0, (0, 0), (0, 0))

    def test_of_a_constant_difference(self):
        result = compare(np.arange(5) + 0.1, np.arange(5))
        assert (result.t, result.p_t, result.effect_size) == (np.inf, 0, np.inf)
        np.testing.assert_allclose(result.interval, 0.1)

    def test_of_differences_that_cancel(self):
        result = compare([1, -1, 2, -2], [0, 0, 0, 0])
        assert (result.t, result.p_t, result.effect_size) == (0, 1, 0)
        assert result.interval[0] < -1 < 1 < result.interval[1]

    @pytest.mark.parametrize("x", [[], [1], [1, np.inf], [1, np.nan]])
    def test_is_nan_where_no_test_is_possible(self, x):
        result = compare(x, x)
        assert result.subjects == len(x)
        assert np.isnan([result.t, result.p_t, result.p_wilcoxon, *result.interval]).all()

    def test_refuses_unpaired_subjects_by_name(self):
        with pytest.raises(ValueError, match=r"two methods: s3, s4$"):
            compare(X, X[:3])


class TestHolm:
    def test_by_hand(self):
        # 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 raised to its predecessor's 0.06
        np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])

    def test_stops_at_one_and_leaves_a_single_test_alone(self):
        np.testing.assert_allclose(significance.holm([0.6, 0.9]), [1, 1])
        np.testing.assert_allclose(significance.holm([0.2]), [0.2])

    def test_does_not_count_nan(self):
        np.testing.assert_allclose(significance.holm([np.nan, 0.02, 0.03]), [np.nan, 0.04, 0.04])


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0009, "***"),
        (0.001, "**"),
        (0.0099, "**"),
        (0.01, "*"),
        (0.049, "*"),
        (0.05, ""),
        (1, ""),
        (np.nan, ""),
    ],
)
def test_stars(p, expected):
    assert significance.stars(p) == expected
