import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax.networks import layers
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.normalization import GroupAffine, activate, rescale


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def perturbed(params, seed=1):
    """Parameters away from their special start (zero layers, unit gains)."""
    leaves, structure = jax.tree.flatten(nn.meta.unbox(params))
    return jax.tree.unflatten(structure, [x + 0.1 * random(*x.shape, seed=seed + i) for i, x in enumerate(leaves)])


def test_group_norm_agrees_with_flax_and_applies_film():
    x, scale, shift = random(2, 4, 6, 64), random(2, 64, seed=2), random(2, 64, seed=3)
    params = perturbed(GroupAffine().init(jax.random.key(0), x))
    normalised = nn.GroupNorm(num_groups=32, epsilon=1e-5).apply(params, x)
    np.testing.assert_allclose(rescale(x, GroupAffine().apply(params, x)), normalised, atol=2e-5)
    modulated = normalised * (1 + scale[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(rescale(x, GroupAffine().apply(params, x, (scale, shift))), modulated, atol=5e-5)


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_gradients_of_group_norm_agree_with_flax(mean):
    """Of deviation 1 around that mean: moments in one pass lose digits where the mean is large."""
    x, weights = mean + random(2, 4, 6, 64), random(2, 4, 6, 64, seed=2)
    params = perturbed(GroupAffine().init(jax.random.key(0), x))

    def gradients(activated):
        return jax.grad(lambda params, x: jnp.sum(weights * activated(params, x)), (0, 1))(params, x)

    flax = nn.GroupNorm(num_groups=32, epsilon=1e-5, use_fast_variance=False)
    ours = gradients(lambda params, x: activate(x, GroupAffine().apply(params, x)))
    theirs = gradients(lambda params, x: nn.silu(flax.apply(params, x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()), ours, theirs)


def test_conv_agrees_with_flax():
    x = random(2, 5, 7, 3)
    params = perturbed(Convolution(4).init(jax.random.key(0), x))
    np.testing.assert_allclose(Convolution(4).apply(params, x), nn.Conv(4, (3, 3)).apply(params, x), atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"stride": 2}, {"border": "reflect"}])
def test_a_convolution_of_activations_is_that_of_what_they_are(how):
    x, affine, layer = random(2, 6, 8, 3), (random(2, 3, seed=2), random(2, 3, seed=3)), Convolution(4, **how)
    params = perturbed(layer.init(jax.random.key(0), x))
    np.testing.assert_allclose(layer.apply(params, x, affine), layer.apply(params, activate(x, affine)), rtol=1e-5, atol=1e-5)


def test_each_part_of_a_batch_may_have_singular_vectors_of_its_own():
    x, layer = random(6, 3), layers.Linear(4, spectral_norm=True)
    params = perturbed(layer.init(jax.random.key(0), x)["params"])
    vectors = {"u": random(2, 4, seed=1), "v": random(2, 3, seed=2)}
    parts = [
        layer.apply({"params": params, "spectral": {name: both[i] for name, both in vectors.items()}}, x[3 * i : 3 * i + 3])
        for i in range(2)
    ]
    np.testing.assert_allclose(layer.apply({"params": params, "spectral": vectors}, x), np.concatenate(parts), rtol=1e-5)


def test_attention_agrees_with_jax():
    x = random(2, 4, 4, 32)
    block = layers.Attention(head_channels=8)
    params = perturbed(block.init(jax.random.key(0), x))
    h = rescale(x, GroupAffine().apply({"params": params["params"]["norm"]}, x))
    qkv = h @ params["params"]["qkv"]["kernel"] + params["params"]["qkv"]["bias"]
    q, k, v = jnp.split(qkv.reshape(2, 16, 96), 3, axis=-1)
    heads = [part.reshape(2, 16, 4, 8) for part in (q, k, v)]
    mixed = jax.nn.dot_product_attention(*heads).reshape(2, 4, 4, 32)
    expected = x + mixed @ params["params"]["out"]["kernel"] + params["params"]["out"]["bias"]
    np.testing.assert_allclose(block.apply(params, x), expected, atol=1e-5)


@pytest.mark.parametrize(("resample", "side"), [(None, 8), ("up", 16), ("down", 4)])
def test_a_fresh_residual_block_is_its_shortcut(resample, side):
    x, embedding = random(2, 8, 8, 16), random(2, 32)
    block = layers.ResBlock(16, resample=resample)
    y = block.apply(block.init(jax.random.key(0), x, embedding), x, embedding)
    shortcut = {"up": layers.upsample, "down": layers.downsample, None: lambda a: a}[resample](x)
    assert y.shape == (2, side, side, 16)
    np.testing.assert_allclose(y, shortcut, atol=1e-6)


def test_resampling_repeats_and_averages():
    x = random(1, 3, 5, 2)
    np.testing.assert_array_equal(layers.upsample(x), np.repeat(np.repeat(x, 2, 1), 2, 2))
    np.testing.assert_allclose(layers.downsample(layers.upsample(x)), x, atol=1e-6)


def test_timestep_embedding_has_cosines_first():
    embedding = layers.timestep_embedding(jnp.array([0, 7]), 8)
    np.testing.assert_allclose(embedding[0], [1, 1, 1, 1, 0, 0, 0, 0])
    frequencies = 10_000 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(embedding[1], np.r_[np.cos(7 * frequencies), np.sin(7 * frequencies)], atol=1e-6)


def test_spectral_norm_divides_by_the_largest_singular_value():
    x = random(1, 6)
    layer = layers.Linear(9, spectral_norm=True)
    variables = init_on_host(layer, jax.random.key(0), x)
    variables["params"]["kernel"][0] *= 4  # sets the largest singular value apart, for the iteration to converge
    spectral = variables["spectral"]
    for _ in range(50):
        spectral = layers.power_iteration(variables["params"], spectral)
    assert all(type(vector) is np.ndarray for vector in spectral.values())  # on the host, nothing was compiled
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = x @ kernel / np.linalg.norm(kernel, 2) + bias
    np.testing.assert_allclose(layer.apply({"params": variables["params"], "spectral": spectral}, x), expected, atol=1e-4)


def test_drawing_on_the_host_keeps_shapes_zeros_and_spread():
    block, x, embedding = layers.ResBlock(64), random(2, 8, 8, 64), random(2, 256)
    drawn = init_on_host(block, jax.random.key(0), x, embedding)
    usual = nn.meta.unbox(block.init(jax.random.key(0), x, embedding))
    assert jax.tree.structure(drawn) == jax.tree.structure(usual)
    for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(usual), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.std(a), np.std(b), rtol=0.3, atol=1e-6)
        np.testing.assert_allclose(np.mean(a), np.mean(b), atol=0.02)


def test_same_key_draws_the_same_parameters():
    block, x, embedding = layers.ResBlock(8), random(1, 4, 4, 8), random(1, 8)
    first, same, other = (init_on_host(block, jax.random.key(k), x, embedding) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    assert not np.array_equal(first["params"]["conv_in"]["kernel"], other["params"]["conv_in"]["kernel"])
