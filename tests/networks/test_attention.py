"""Attention is the same, in values and gradients, in one piece and in blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax import parallel
from mrdiff_jax.networks import attention
from mrdiff_jax.networks.attention import attend


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(parallel, "few_cores", lambda: True)
    monkeypatch.setattr(attention, "_LARGE", 0)
    monkeypatch.setattr(attention, "_BLOCK", 8)
    monkeypatch.setattr(attention, "_SMALLEST", 1)


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def three(*shape, dtype=jnp.float32):
    return tuple(random(*shape, seed=seed, dtype=dtype) for seed in range(3))


@pytest.mark.parametrize("shape", [(2, 16, 3, 4), (1, 12, 1, 8), (2, 7, 2, 4), (1, 17, 1, 2), (1, 1, 1, 4)])
def test_blocks_have_the_values_and_gradients_of_one_piece(shape):
    inputs, gradient = three(*shape), random(*shape, seed=3)
    ours, pull = jax.vjp(attend, *inputs)
    theirs, pull_whole = jax.vjp(attention._in_one_piece, *inputs)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for one, other in zip(pull(gradient), pull_whole(gradient), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_every_query_gets_the_mean_of_the_values_by_how_much_it_is_like_their_keys():
    q = k = 40 * jnp.eye(4)[None, :, None]
    v = random(1, 4, 1, 4)
    np.testing.assert_allclose(attend(q, k, v), v, atol=1e-6)
    np.testing.assert_allclose(attend(0 * q, k, v), jnp.broadcast_to(v.mean(1, keepdims=True), v.shape), atol=1e-6)


def test_weights_are_of_float32_in_bfloat16():
    inputs = three(1, 16, 2, 8, dtype=jnp.bfloat16)
    ours = attend(*inputs)
    assert ours.dtype == jnp.bfloat16
    exact = attend(*(x.astype(jnp.float32) for x in inputs))
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, atol=0.03)


def scratch_of_gradients():
    def pull(gradient, *inputs):
        return jax.vjp(attend, *inputs)[1](gradient)

    shapes = [jax.ShapeDtypeStruct((2, 64, 2, 4), jnp.float32)] * 4
    return jax.jit(pull).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_blocks_are_taken_where_a_device_has_few_cores_and_only_there(monkeypatch):
    weights = 4 * 2 * 2 * 64 * 64
    assert scratch_of_gradients() < weights
    for module, name, value in (
        (parallel, "few_cores", lambda: False),
        (attention, "_LARGE", 2 * 2 * 64 * 64 + 1),
        (attention, "_SMALLEST", 9),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert scratch_of_gradients() >= weights


def test_gradients_are_summed_in_float32():
    """In bfloat16 the sum over many blocks would lose what a block adds."""
    inputs, gradient = three(1, 512, 1, 8, dtype=jnp.bfloat16), random(1, 512, 1, 8, seed=3, dtype=jnp.bfloat16)
    exact = jax.vjp(attention._in_one_piece, *(x.astype(jnp.float32) for x in inputs))[1](gradient.astype(jnp.float32))
    whole, ours = (jax.vjp(f, *inputs)[1](gradient) for f in (attention._in_one_piece, attend))
    for one, other, right in zip(ours, whole, exact, strict=True):
        assert one.dtype == jnp.bfloat16
        error, usual = (float(jnp.abs(x.astype(jnp.float32) - right).mean()) for x in (one, other))
        assert error < 1.2 * usual
