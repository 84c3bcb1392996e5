import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax import parallel
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.normalization import BatchNorm, InstanceNorm

X = 3 + 2 * np.random.default_rng(0).standard_normal((4, 5, 6, 7)).astype(np.float32)


def trained(devices, x=X, **kwargs):
    """The output for a batch in training, the gradient of a loss by it, and the statistics after it."""
    layer = BatchNorm(**kwargs)
    variables = init_on_host(layer, jax.random.key(0), x, train=False)

    def loss(x, variables, weights):
        y, state = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y * weights).sum(), (y, state)

    step = parallel.pmap(jax.value_and_grad(loss, has_aux=True), jax.local_devices()[:devices])
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    copies = parallel.replicate(variables, jax.local_devices()[:devices])
    (_, (y, state)), gradient = step(parallel.shard(x, devices), copies, parallel.shard(weights, devices))
    return parallel.gather(y), parallel.gather(gradient), parallel.unreplicate(state)


def test_a_batch_gets_mean_0_and_variance_1_and_moves_the_statistics():
    y, _, state = trained(1, momentum=0.25)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.25 * X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.75 + 0.25 * X.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_two_devices_normalise_by_the_whole_batch():
    one, two = trained(1), trained(2)
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)
    np.testing.assert_allclose(one[1], two[1], atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), one[2], two[2])


def test_outside_of_training_the_running_statistics_count():
    layer = BatchNorm()
    variables = {"params": {"scale": jnp.full(7, 2.0), "bias": jnp.ones(7)}}
    variables["batch_stats"] = {"mean": jnp.full(7, 3.0), "var": jnp.full(7, 4.0)}
    np.testing.assert_allclose(layer.apply(variables, X, train=False), X - 3 + 1, rtol=1e-4, atol=1e-4)


def test_without_running_statistics_there_is_no_state():
    layer = BatchNorm(running=False, gain_deviation=0.02)
    variables = init_on_host(layer, jax.random.key(0), X, train=True)
    assert set(variables) == {"params"}
    assert np.std(variables["params"]["scale"]) == pytest.approx(0.02, rel=0.8)


@pytest.mark.parametrize("train", [False, True])
def test_instances_are_normalised_as_batches_of_one_are(train):
    layer = InstanceNorm()
    variables = init_on_host(layer, jax.random.key(0), X, train=train)
    assert jax.tree.map(np.shape, variables) == {"params": {"scale": (7,), "bias": (7,)}}
    y = layer.apply(variables, X, train=train)
    for i in range(len(X)):
        np.testing.assert_allclose(y[i, None], trained(1, X[i, None])[0], atol=1e-4)
