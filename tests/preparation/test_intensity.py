"""Intensities as they are stored."""

import numpy as np

from mrdiff_jax.preparation import intensity


def test_quantisation_loses_no_more_than_half_a_step():
    values = np.random.default_rng(0).random(1000, np.float32)
    restored = intensity.dequantise(intensity.quantise(values))
    assert np.abs(restored - values).max() < 7.7e-6
    assert intensity.dequantise(intensity.quantise(np.array([0.0, 1.0]))).tolist() == [0, 1]
