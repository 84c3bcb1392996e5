import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax.networks.convolutions import Convolution, Upconvolution, dropout
from mrdiff_jax.networks.initializers import init_on_host


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (3, 1)])
def test_a_transposed_convolution_is_the_adjoint_of_one_of_stride_2(kernel, padding):
    """<conv(x), y> = <x, conv^T(y)> with the same kernel, flipped and with its channels swapped."""
    x, y = random(1, 8, 8, 3), random(1, 4, 4, 5, seed=1)
    weights = random(kernel, kernel, 3, 5, seed=2)
    down = Convolution(5, kernel, 2, padding, bias=False).apply({"params": {"kernel": weights}}, x)
    flipped = np.ascontiguousarray(weights[::-1, ::-1].swapaxes(2, 3))
    up = Upconvolution(3, kernel, bias=False).apply({"params": {"kernel": flipped}}, y)
    assert up.shape == x.shape
    np.testing.assert_allclose((down * y).sum(), (x * up).sum(), rtol=1e-4)


def test_reflected_borders_keep_a_constant_image_constant():
    layer = Convolution(2, 7, padding=3, border="reflect")
    x = jnp.ones((1, 8, 8, 1))
    y = layer.apply(init_on_host(layer, jax.random.key(0), x), x)
    np.testing.assert_allclose(y, np.broadcast_to(y[:, :1, :1], y.shape), atol=1e-6)


def test_dropout_keeps_the_mean_and_goes_by_example():
    keys = jax.random.split(jax.random.key(0), 2)
    x = jnp.ones((2, 100, 100, 1))
    y = np.asarray(dropout(x, 0.25, keys))
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert y.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(y[1:], dropout(x[1:], 0.25, keys[1:]))
    np.testing.assert_array_equal(dropout(x, 0.25, None), x)


@pytest.mark.parametrize(("layer", "fan_in"), [(Convolution(8, 3), 9 * 16), (Upconvolution(8, 3), 9 * 8)])
def test_without_a_start_kernel_and_bias_are_drawn_by_fan_in(layer, fan_in):
    """As torch does: uniform, and for a transposed convolution by its outputs."""
    params = init_on_host(layer.clone(start=None), jax.random.key(0), np.zeros((1, 4, 4, 16), np.float32))["params"]
    assert np.abs(params["kernel"]).max() == pytest.approx(fan_in**-0.5, rel=0.02)
    assert 0 < np.abs(params["bias"]).max() <= fan_in**-0.5
    assert not init_on_host(layer, jax.random.key(0), np.zeros((1, 4, 4, 16), np.float32))["params"]["bias"].any()
