import flax.linen as nn
import jax
import numpy as np
import pytest

from mrdiff_jax import parallel
from mrdiff_jax.networks import patchgan
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.patchgan import PatchGAN, discriminator_loss, generator_loss, smallest_side


def test_the_published_size():
    """2,765,633 parameters for two sources and a target."""
    shapes = jax.eval_shape(lambda: PatchGAN().init(jax.random.key(0), np.zeros((1, 256, 256, 3), np.float32)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 2_765_633


class Unnormalised(nn.Module):
    """In the place of batch normalisation, whose statistics see the whole batch."""

    gain_deviation: float = 0.0
    running: bool = False

    def __call__(self, x, train):
        return x


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_its_patch_and_nothing_else(monkeypatch, layers, patch):
    monkeypatch.setattr(patchgan, "BatchNorm", Unnormalised)
    network = PatchGAN(4, layers)
    x = np.random.default_rng(0).random((1, 2 * patch + 16, 2 * patch + 16, 1), np.float32)
    variables = jax.tree.map(abs, init_on_host(network, jax.random.key(0), x))  # of one sign: nothing cancels

    def middle(x):
        scores = network.apply(variables, x)
        return scores[0, scores.shape[1] // 2, scores.shape[2] // 2, 0]

    seen = np.asarray(jax.grad(middle)(x))[0, ..., 0] != 0
    for axis in (0, 1):
        assert seen.any(axis).sum() == patch
    assert seen.sum() == patch**2


def test_the_smallest_image_gives_a_score():
    for layers in (1, 2, 3):
        side = smallest_side(layers)
        network, x = PatchGAN(4, layers), np.zeros((1, side, side, 3), np.float32)
        scores, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
        assert min(scores.shape) >= 1


def test_losses_of_scores_that_are_right_and_wrong():
    right, wrong = np.ones((2, 3, 3, 1)), np.zeros((2, 3, 3, 1))
    assert discriminator_loss(right, wrong) == 0
    assert discriminator_loss(wrong, right) == 1
    assert generator_loss(right) == 0
    assert generator_loss(wrong) == 1


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_scores_depend_on_other_images_by_batch_normalisation_alone(norm):
    x, network = np.random.default_rng(0).random((2, 32, 32, 3), np.float32), PatchGAN(4, 2, norm)
    variables = init_on_host(network, jax.random.key(0), x)

    def score(x):
        return parallel.pmap(lambda x: network.apply(variables, x), jax.local_devices()[:1])(x[None])[0]

    assert np.allclose(score(x)[:1], score(x[:1]), atol=1e-5) == (norm == "instance")
