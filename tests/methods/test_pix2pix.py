import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from helpers.players import count, differentiable, keys, settings, stirred

from mrdiff_jax import methods, parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Optimizer

TINY = {"base_channels": 4, "discriminator_channels": 4, "patch_layers": 1}


@pytest.fixture(scope="module")
def pix2pix():
    """The method, a batch, and variables away from their start."""
    method, batch = methods.create(settings("pix2pix", 16, **TINY)), make_batch(2, 16)
    return method, batch, stirred(method.init(jax.random.key(0), batch))


def on_a_device(function, *trees):
    """The function's value inside `pmap`, where batch statistics are averages over devices."""
    run = parallel.pmap(function, jax.local_devices()[:1])
    return parallel.unreplicate(run(*jax.tree.map(lambda leaf: leaf[None], trees)))


@pytest.mark.parametrize(("generator", "parameters"), [("unet", 54_408_833), ("resnet", 11_374_017)])
def test_the_published_sizes(generator, parameters):
    method = methods.create(settings("pix2pix", 256, generator=generator))
    y = np.zeros((1, 256, 256, 2), np.float32)
    params = jax.eval_shape(lambda: method.generator.init(jax.random.key(0), y, train=False))["params"]
    assert count(params) == parameters
    pair = np.zeros((1, 256, 256, 3), np.float32)
    scores, found = jax.eval_shape(lambda: method.discriminator.init_with_output(jax.random.key(0), pair))
    assert scores.shape == (1, 30, 30, 1)
    assert count(found["params"]) == 2_765_633


def test_the_published_recipe():
    recipe = settings("pix2pix").optimizer
    assert recipe == Optimizer(learning_rate=2e-4, b1=0.5, b2=0.999, hold=0.5, ema_decay=0.0)


@pytest.mark.parametrize(("size", "stride"), [(256, 256), (64, 64), (96, 32), (70, 2)])
def test_the_unet_goes_down_as_far_as_the_sides_allow(size, stride):
    assert methods.create(settings("pix2pix", size, **TINY)).stride == stride


@pytest.mark.parametrize(("size", "generator"), [(71, "unet"), (70, "resnet")])
def test_sides_that_cannot_be_halved_are_refused(size, generator):
    with pytest.raises(UserError, match=f"image_size={size}: the generator needs a multiple of"):
        methods.create(settings("pix2pix", size, generator=generator, **TINY))


def test_the_losses_are_those_of_the_publication(pix2pix):
    """LSGAN of D on [sources, image], and 100 L1 for the generator."""
    method, batch, variables = pix2pix
    y, x_0 = 2 * batch["sources"] - 1, 2 * batch["target"][..., None] - 1

    def judged(variables, rng):
        image = method.generate(variables, batch, rng, 0.0)[0][..., None]
        pairs = (jnp.concatenate([y, seen], -1) for seen in (image, x_0))
        return image, *(method.discriminator.apply(variables.of("discriminator"), pair) for pair in pairs)

    image, fake, real = on_a_device(judged, variables, keys())
    l_g, outcome, _ = differentiable(method, "generator")(variables, batch)
    l_d, _, _ = differentiable(method, "discriminator")(variables, batch)
    assert outcome.metrics["L_1"] == pytest.approx(np.abs(image - x_0).mean(), rel=1e-4)
    assert l_g == pytest.approx(np.square(fake - 1).mean() + 100 * np.abs(image - x_0).mean(), rel=1e-4)
    assert l_d == pytest.approx((np.square(real - 1).mean() + np.square(fake).mean()) / 2, rel=1e-4)


@pytest.mark.parametrize("generator", ["unet", "resnet"])
def test_every_weight_of_every_player_has_a_finite_gradient(generator):
    method, batch = methods.create(settings("pix2pix", 16, generator=generator, **TINY)), make_batch(2, 16)
    variables = stirred(method.init(jax.random.key(0), batch))
    for player in method.players:
        _, _, gradient = differentiable(method, player)(variables, batch)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.all(np.isfinite(leaf)), path
            assert path[-1].key == "bias" or np.abs(leaf).max() > 0, path  # a normalisation undoes the bias before it


def test_dropout_is_for_training_alone():
    method, batch = methods.create(settings("pix2pix", 64, **TINY)), make_batch(2, 64)  # the least that has dropout
    variables = stirred(method.init(jax.random.key(0), batch))
    synthesize = jax.jit(method.synthesize)
    np.testing.assert_array_equal(synthesize(variables, batch, keys(0)), synthesize(variables, batch, keys(1)))
    first, second = (
        on_a_device(lambda v, rng: method.generate(v, batch, rng, 0.0)[0], variables, keys(seed)) for seed in (0, 1)
    )
    assert np.abs(first - second).max() > 1e-3
