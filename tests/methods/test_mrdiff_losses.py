import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from mrdiff_jax.methods.distances import wavelet_l1
from mrdiff_jax.methods.mrdiff import losses


@pytest.fixture
def e_t():
    return jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4, 4, 8)), jnp.float32)


def test_global_content_is_the_mean_over_a_loop_of_draws(e_t):
    total = jnp.zeros_like(e_t[0])
    for draw in e_t:
        total = total + draw
    np.testing.assert_allclose(losses.global_content(e_t), total / 3, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_consistency_loss_is_zero_for_identical_draws_and_positive_otherwise(e_t, normalize):
    identical = jnp.broadcast_to(e_t[:1], e_t.shape)
    np.testing.assert_allclose(losses.consistency_loss(identical, normalize), 0, atol=1e-10)
    assert np.all(losses.consistency_loss(e_t, normalize) > 1e-3)


def test_consistency_loss_against_numpy(e_t):
    e = np.asarray(e_t, np.float64)
    expected = np.square(e - e.mean(0)).mean((1, 2, 3, 4))
    np.testing.assert_allclose(losses.consistency_loss(e_t), expected, rtol=1e-5)
    unit = e / np.linalg.norm(e, axis=-1, keepdims=True)
    content = e.mean(0) / np.linalg.norm(e.mean(0), axis=-1, keepdims=True)
    expected = np.square(unit - content).mean((1, 2, 3, 4))
    np.testing.assert_allclose(losses.consistency_loss(e_t, normalize=True), expected, rtol=1e-5)


def test_stopped_gradient_makes_the_content_a_constant(e_t):
    content = losses.global_content(e_t)
    expected = jax.grad(lambda e: jnp.square(e - content).mean((1, 2, 3, 4)).sum())(e_t)
    stopped = jax.grad(lambda e: losses.consistency_loss(e, stop_gradient=True).sum())(e_t)
    np.testing.assert_allclose(stopped, expected, atol=1e-7)


def test_image_loss_is_the_mean_square_of_each_draw():
    image = jnp.zeros((2, 4, 4, 1))
    estimates = jnp.stack([jnp.full(image.shape, 0.5), jnp.full(image.shape, 2.0)])
    np.testing.assert_allclose(losses.image_loss(image, estimates), [0.25, 4.0])


def test_wavelet_l1_is_the_distance_of_pywavelets_packets():
    rng = np.random.default_rng(0)
    image, estimates = rng.random((2, 32, 48, 1)), rng.random((3, 2, 32, 48, 1))
    packet = [(estimates - image)[..., 0]]
    for _ in range(3):
        packet = [band for part in packet for low, details in [pywt.dwt2(part, "haar")] for band in (low, *details)]
    assert packet[0].shape[2:] == (4, 6)
    expected = np.mean([np.abs(band).mean((1, 2, 3)) for band in packet], axis=0)
    np.testing.assert_allclose(losses.image_loss(image, estimates, "wavelet_l1"), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "block"), [(32, 32, 8), (128, 128, 32), (256, 64, 16), (240, 240, 16), (8, 8, 2), (4, 4, 1), (3, 32, 1)]
)
def test_wavelet_l1_counts_a_shift_of_brightness_once_in_a_block(height, width, block):
    """One coefficient of a block is as large as its side, the others are 0."""
    assert wavelet_l1(np.ones((height, width, 1), np.float32)).mean() == pytest.approx(1 / block)


def test_joint_weights_make_one_mean_over_target_and_sources():
    rng = np.random.default_rng(0)
    x, y = rng.random((1, 2, 4, 4, 1)), rng.random((1, 2, 4, 4, 2))
    share_g, share_d = losses.image_weights(2, joint=True)
    joint = np.square(np.concatenate([x, y], axis=-1)).mean()
    separate = share_g * losses.image_loss(0.0 * x[0], x) + share_d * losses.image_loss(0.0 * y[0], y)
    np.testing.assert_allclose(separate[0], joint, rtol=1e-5)
    assert losses.image_weights(2, joint=False) == (1.0, 1.0)


def test_draws_are_averaged_or_summed():
    assert losses.over_draws(jnp.array([1.0, 2.0, 6.0]), "mean", 3) == 3
    assert losses.over_draws(jnp.array([1.0, 2.0, 6.0]), "sum", 3) == 9
    assert losses.over_draws(jnp.array([2.0]), "sum", 3) == 6


def test_features_of_half_precision_have_the_consistency_loss_of_their_values():
    e_t = (1 + 0.01 * jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 8))).astype(jnp.bfloat16)
    found = losses.consistency_loss(e_t)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, losses.consistency_loss(e_t.astype(jnp.float32)))
