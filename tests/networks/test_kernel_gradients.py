"""The gradients of a convolution are those that XLA derives, on every path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax import parallel
from mrdiff_jax.networks import kernel_gradients
from mrdiff_jax.networks.kernel_gradients import LAYOUT, convolve
from mrdiff_jax.networks.normalization import activate

SHAPES = [  # side, channels in and out, kernel, padding
    ((16, 16), 32, 4, 3, 1),
    ((24, 40), 32, 8, 3, 1),
    ((17, 23), 33, 5, 3, 0),
    ((2, 600), 32, 3, 3, 1),  # a row is more than a block
    ((16, 16), 40, 6, 1, 0),
    ((20, 20), 32, 1, 4, 1),
    ((16, 18), 32, 2, 7, 3),
    ((16, 16), 32, 3, 1, 1),  # a border of zeros around all that the kernel sees
    ((8, 8), 3, 4, 3, 1),  # small: left to XLA
]


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def plain(x, kernel, padding):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((padding, padding),) * 2, dimension_numbers=LAYOUT)


@pytest.fixture(params=["few cores", "many cores"], autouse=True)
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel, "few_cores", lambda: request.param == "few cores")
    monkeypatch.setattr(kernel_gradients, "_LARGE", 2**10)


@pytest.mark.parametrize(("side", "c", "d", "size", "padding"), SHAPES)
def test_values_and_gradients_are_those_of_the_plain_convolution(side, c, d, size, padding):
    x, kernel = random(3, *side, c), random(size, size, c, d, seed=1)
    y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, padding), x, kernel)
    expected, pull_plain = jax.vjp(lambda x, kernel: plain(x, kernel, padding), x, kernel)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    gradient = random(*y.shape, seed=2)
    for ours, theirs in zip(pull(gradient), pull_plain(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max() * np.sqrt(x.size))


@pytest.mark.parametrize(("side", "c", "d", "size", "padding"), SHAPES)
def test_activations_before_it_have_the_plain_gradients(side, c, d, size, padding):
    x, kernel, affine = random(3, *side, c), random(size, size, c, d, seed=1), (random(3, c, seed=2), random(3, c, seed=3))

    def one_by_one(x, kernel, affine):
        return plain(jax.nn.silu(x * affine[0][:, None, None] + affine[1][:, None, None]), kernel, padding)

    y, pull = jax.vjp(lambda x, kernel, affine: convolve(x, kernel, padding, affine), x, kernel, affine)
    expected, pull_plain = jax.vjp(one_by_one, x, kernel, affine)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    gradient = random(*y.shape, seed=4)
    for ours, theirs in zip(*(jax.tree.leaves(f(gradient)) for f in (pull, pull_plain)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * np.abs(theirs).max() * np.sqrt(x.size))


@pytest.mark.parametrize("cores", ["few cores"], indirect=True)
def test_activations_are_not_kept_where_blocks_are_summed():
    x, kernel, affine = random(1, 64, 64, 64), random(3, 3, 64, 64), (random(1, 64), random(1, 64))

    def scratch(convolution):
        def layers(kernel):
            return functools.reduce(lambda h, _: convolution(h, kernel), range(16), x).sum()

        return jax.jit(jax.grad(layers)).lower(kernel).compile().memory_analysis().temp_size_in_bytes

    kept = scratch(lambda h, kernel: convolve(activate(h, affine), kernel, 1))
    assert scratch(lambda h, kernel: convolve(h, kernel, 1, affine)) < 0.75 * kept


def test_blocks_are_summed_where_a_device_has_few_cores_and_only_there(cores, monkeypatch):
    taken = []
    monkeypatch.setattr(
        kernel_gradients, "_of_kernel_in_blocks", lambda *args, **kwargs: taken.append(1) or jnp.zeros((3, 3, 32, 4))
    )
    jax.grad(lambda kernel: convolve(random(1, 16, 16, 32), kernel, 1).sum())(random(3, 3, 32, 4))
    assert bool(taken) == parallel.few_cores()


def test_the_sum_over_blocks_loses_no_precision_in_bfloat16():
    """Where all products are positive, a sum in bfloat16 would stand still after 256 of them."""
    x, kernel = jnp.abs(random(64, 32, 64, 32)).astype(jnp.bfloat16), random(1, 1, 32, 4, seed=1).astype(jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda kernel: convolve(x, kernel, 0).astype(jnp.float32).sum()))(kernel)
    assert gradient.dtype == jnp.bfloat16
    expected = np.asarray(x, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(np.asarray(gradient, np.float64)[0, 0], np.tile(expected[:, None], 4), rtol=0.01)


@pytest.mark.parametrize("activated", [False, True])
def test_it_can_be_differentiated_twice(activated):
    """As a penalty on gradients is."""
    x, kernel = random(1, 16, 16, 32), 0.1 * random(3, 3, 32, 2, seed=1)
    affine = (random(1, 32, seed=2), random(1, 32, seed=3)) if activated else None

    def penalty(kernel, convolution):
        return jnp.square(jax.grad(lambda x: jnp.tanh(convolution(x, kernel)).sum())(x)).sum()

    def one_by_one(x, kernel):
        return plain(activate(x, affine) if activated else x, kernel, 1)

    ours = jax.grad(penalty)(kernel, functools.partial(convolve, padding=1, affine=affine))
    theirs = jax.grad(penalty)(kernel, one_by_one)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_activations_and_gradients_are_of_the_images_type():
    affine = random(1, 32, seed=2), random(1, 32, seed=3)
    x, kernel = random(1, 16, 16, 32).astype(jnp.bfloat16), random(3, 3, 32, 4, seed=1).astype(jnp.bfloat16)
    gradients = jax.jit(jax.grad(lambda *given: convolve(*given[:2], 1, given[2]).sum().astype(jnp.float32), (0, 1, 2)))
    assert [leaf.dtype for leaf in jax.tree.leaves(gradients(x, kernel, affine))] == ["bfloat16"] * 2 + ["float32"] * 2
