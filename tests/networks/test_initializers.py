import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax.networks.initializers import constant, init_on_host, normal, ones, uniform, zeros


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        a = self.param("a", normal(0.02, 1.0), (200, 50))
        b = self.param("b", uniform(0.5), (200, 50))
        c = self.param("c", constant(7.0), (3,))
        mean = self.variable("kept", "mean", zeros, None, (3,))
        deviation = self.variable("kept", "deviation", ones, None, (3,))
        return x + a.sum() + b.sum() + c.sum() + mean.value.sum() + deviation.value.sum()


@pytest.mark.parametrize("init", [init_on_host, lambda network, key, x: nn.meta.unbox(network.init(key, x))])
def test_each_array_is_drawn_as_it_says(init):
    variables = init(Layer(), jax.random.key(0), jnp.zeros(()))
    params = variables["params"]
    assert np.mean(params["a"]) == pytest.approx(1, abs=1e-3)
    assert np.std(params["a"]) == pytest.approx(0.02, rel=0.05)
    assert np.std(params["b"]) == pytest.approx(1 / np.sqrt(12), rel=0.05)
    assert np.abs(params["b"]).max() <= 0.5
    np.testing.assert_array_equal(params["c"], 7)
    np.testing.assert_array_equal(variables["kept"]["mean"], 0)
    np.testing.assert_array_equal(variables["kept"]["deviation"], 1)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))


def test_an_array_that_does_not_say_how_it_is_drawn_is_refused_by_name():
    with pytest.raises(TypeError, match=r"'layers_0'.*'bias'.*networks\.initializers"):
        init_on_host(nn.Sequential([nn.Dense(3)]), jax.random.key(0), jnp.zeros((1, 2)))
