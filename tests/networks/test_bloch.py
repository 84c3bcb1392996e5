import numpy as np
import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.networks.bloch import (
    T1_UNIT,
    T2_UNIT,
    ContentMaps,
    ScanParameters,
    content_maps,
    inverted,
    modulate,
    signals_of,
)

MAPS = ContentMaps(*np.random.default_rng(0).uniform(0.1, 2, (3, 2, 3, 4, 5)).astype(np.float32))
BOTH = ("spin_echo", "inversion_recovery")


def scan(tr, te, ti=0.0):
    return ScanParameters(*(np.full((2, 2), time, np.float32) for time in (tr, te, ti)))


def test_without_echo_time_and_with_endless_repetition_the_signal_is_s0():
    found = modulate(MAPS, scan(np.inf, 0), ("spin_echo",) * 2)
    np.testing.assert_array_equal(found, np.concatenate([MAPS.s0, MAPS.s0], axis=-1))


def test_each_source_has_its_own_equation_and_times():
    times = ScanParameters(*np.random.default_rng(1).uniform(100, 3000, (3, 2, 2)).astype(np.float32))
    found = modulate(MAPS, times, BOTH)
    tr, te, ti = (np.asarray(time, np.float64)[:, :, None, None, None] for time in times)
    t1, t2, s0 = ((np.asarray(m, np.float64) + tiny) for m, tiny in zip(MAPS, (1e-5, 1e-5, 0), strict=True))
    e1, e2 = np.exp(-tr / T1_UNIT / t1[:, None]), np.exp(-te / T2_UNIT / t2[:, None])
    spin = s0 * (1 - e1[:, 0]) * e2[:, 0]
    inversion = s0 * np.abs(1 - 2 * np.exp(-ti[:, 1] / T1_UNIT / t1) + e1[:, 1]) * e2[:, 1]
    np.testing.assert_allclose(found[..., :5], spin, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[..., 5:], inversion, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positivity", ["relu", "softplus"])
def test_maps_are_non_negative_float32_in_their_order(positivity):
    features = np.random.default_rng(0).standard_normal((1, 2, 2, 6)).astype(np.float16)
    maps = content_maps(features, positivity)
    assert all(leaf.dtype == np.float32 and leaf.shape == (1, 2, 2, 2) and leaf.min() >= 0 for leaf in maps)
    positive = {"relu": lambda x: np.maximum(x, 0), "softplus": lambda x: np.log1p(np.exp(x))}[positivity]
    np.testing.assert_allclose(np.concatenate(maps, axis=-1), positive(features.astype(np.float32)), rtol=1e-5)


def test_signals_are_one_for_all_or_one_each():
    assert signals_of("spin_echo", "T1w,T2w", "--x") == ("spin_echo",) * 2
    assert signals_of("spin_echo, inversion_recovery", "T1w, FLAIR,", "--x") == BOTH
    assert inverted(BOTH, "T1w, FLAIR,") == ("FLAIR",)
    for text in ("spin_echo,spin_echo,spin_echo", "spinecho", ""):
        with pytest.raises(UserError, match=r"--x=.*give spin_echo or inversion_recovery once"):
            signals_of(text, "T1w,T2w", "--x")
