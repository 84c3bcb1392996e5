"""Consistency models as a method: size, losses, target network, sampling, and what they may start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from helpers.models import tiny, write_run
from helpers.players import count, differentiable, error_learnt, stirred

from mrdiff_jax import config as configuration
from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.cm import Network
from mrdiff_jax.methods.transfer import fitting, trained_params
from mrdiff_jax.networks.unet import Backbone

KEYS = jax.random.split(jax.random.key(0), 2)
SMALL = {"base_channels": 8, "channel_mult": (1, 2), "attention_levels": (1,), "head_channels": 8, "norm_groups": 4}


def resolved(sources="T2w,PDw", size=16, sample=None, model=None, optimizer=None, **own):
    config = configuration.default()
    config.method.name = "cm"
    config.data.update(sources=sources, target="T1w", image_size=size)
    config.model.update(SMALL | {"wavelet_levels": 0} | (model or {}))
    config.sample.update(sample or {})
    config.optimizer.update(optimizer or {})
    config.cm.update(own)
    return configuration.resolve(config)


def cm(*args, **kwargs):
    return methods.create(resolved(*args, **kwargs))


def test_the_published_size_with_film():
    """LSUN's at 256 x 256 with base 128: two sources and the noisy target in, one image out."""
    network = Network(Backbone(128, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)))
    image = np.zeros((1, 256, 256, 1), np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, np.zeros((1, 256, 256, 2)), np.zeros(1)))
    assert count(shapes["params"]) == 138_284_161


def test_the_published_recipe():
    recipe, own = resolved().optimizer, resolved().own
    assert (recipe.name, recipe.learning_rate, recipe.ema_decay, recipe.hold) == ("radam", 5e-5, 0.9999, 1.0)
    assert (own.sigma_min, own.sigma_max, own.rho, own.sigma_data) == (0.002, 80, 7, 0.5)
    assert resolved().sample.steps == 2


@pytest.mark.parametrize(("sources", "wavelet_levels"), [("T2w", 0), ("T2w,PDw,FLAIR", 2)])
def test_shapes_and_gradients_for_any_number_of_sources(sources, wavelet_levels):
    method = cm(sources, model={"wavelet_levels": wavelet_levels})
    batch = make_batch(2, 16, len(sources.split(",")))
    variables = stirred(method.init(jax.random.key(0), batch))
    loss, outcome, gradient = differentiable(method, "generator")(variables, batch, 0.5)
    assert np.isfinite(loss)
    assert outcome.metrics["noise_levels"] == 107  # at half of the training
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))
    image = jax.jit(method.synthesize)(variables, {k: v for k, v in batch.items() if k != "target"}, KEYS)
    assert image.shape == (2, 16, 16)
    assert 0 <= image.min() < image.max() <= 1


def test_the_network_sees_the_sources_unscaled():
    method, batch = cm(), make_batch(2)
    variables = stirred(method.init(jax.random.key(0), batch))
    y, seen = 2 * batch["sources"] - 1, []

    class Spy:
        def apply(self, variables, x, y, c_noise):
            seen.append((x, y, c_noise))
            return x

    method.network = Spy()
    sigma, x = jnp.array([0.5, 80.0]), jnp.ones((2, 16, 16, 1))
    method._consistency(variables.params["generator"], y)(x, sigma)
    (scaled, sources, c_noise), *_ = seen
    np.testing.assert_array_equal(sources, y)
    np.testing.assert_allclose(scaled[:, 0, 0, 0], 1 / np.sqrt(sigma**2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(c_noise, 250 * np.log(sigma), rtol=1e-6)


def test_at_sigma_min_the_method_is_the_identity():
    method, batch = cm(), make_batch(2)
    variables = stirred(method.init(jax.random.key(0), batch))
    x = 2 * batch["target"][..., None] - 1
    f = jax.jit(method._consistency(variables.params["generator"], 2 * batch["sources"] - 1))
    np.testing.assert_array_equal(f(x, method.levels.at(jnp.full(2, 9), 10)), x)
    assert np.abs(f(x, jnp.full(2, 1.0)) - x).max() > 0.01


def test_the_target_network_follows_at_the_rate_of_the_progress():
    method, batch = cm(), make_batch(1)
    variables = method.init(jax.random.key(0), batch)
    moved = stirred(variables, 1.0)
    for progress, share in ((0.0, 1 - 0.9025), (1.0, 1 - 0.95 ** (2 / 150))):
        after = method.after_step(moved, jnp.float32(progress))
        for old, new, now in zip(*map(jax.tree.leaves, (variables.params, moved.params, after.targets)), strict=True):
            np.testing.assert_allclose(now, old + share * (new - old), atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, after.params, moved.params)


def test_the_loss_compares_with_the_target_network():
    method, batch = cm(), make_batch(2)
    variables = stirred(method.init(jax.random.key(0), batch))
    other = variables.replace(targets=variables.params)
    loss = jax.jit(method.loss)
    losses = [loss(v, batch, KEYS, jnp.float32(0.5))[0] for v in (variables, other)]
    assert losses[0] != losses[1]


def test_synthesis_takes_the_steps_of_the_settings_and_nothing_else_of_them():
    batch = make_batch(2)
    variables = stirred(cm().init(jax.random.key(0), batch))
    one, two, again = (jax.jit(cm(sample={"steps": steps}).synthesize)(variables, batch, KEYS) for steps in (1, 2, 2))
    np.testing.assert_array_equal(two, again)
    assert not np.allclose(one, two)
    for name, value in (("sampler", "ddpm"), ("eta", 0.5), ("spacing", "stride")):
        with pytest.raises(UserError, match=rf"--config.sample.{name}={value}: cm has its own sampler"):
            cm(sample={name: value})
    with pytest.raises(UserError, match=r"--config.sample.steps=151: a grid of 151 noise levels allows 1 to 150"):
        cm(sample={"steps": 151})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"sigma_min": 90.0}, "sigma_min=90: must be below sigma_max, 80"),
        ({"first_levels": 200}, "first_levels=200: must not exceed last_levels, 150"),
        ({"init": "diffusion"}, "init=diffusion.*init_workdir"),
        ({"init_workdir": "runs/mrdiff"}, "init=random.*init_workdir"),
        ({"distance": "lpips"}, "distance=lpips: choose one of pseudo_huber, l1, l2"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(own, message):
    with pytest.raises(UserError, match=message):
        cm(**own)


def test_all_of_mrdiffs_encoder_and_generator_fit_a_consistency_model(tmp_path):
    config = configuration.default()
    config.data.update(sources="T2w,PDw", target="T1w", image_size=16)
    config.model.update(SMALL)
    config.mrdiff.map_channels = 4
    batch = make_batch(1)
    mrdiff = methods.create(configuration.resolve(config)).init(jax.random.key(0), batch).params["generator"]
    fresh = cm(model={"wavelet_levels": 1}).init(jax.random.key(1), batch).params["generator"]
    found = fitting(fresh, mrdiff, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, found, {name: mrdiff[name] for name in fresh})
    with pytest.raises(UserError, match=r"none of its weights fits"):
        fitting(fresh, {"stem": {"kernel": np.zeros((3, 3))}}, tmp_path)
    partly = fitting(fresh, {"encoder": {"conv_in": {"bias": np.full(8, 7.0)}}, "generator": {"conv_out": 0}}, tmp_path)
    assert (partly["encoder"]["conv_in"]["bias"] == 7).all()
    np.testing.assert_array_equal(partly["encoder"]["conv_in"]["kernel"], fresh["encoder"]["conv_in"]["kernel"])


def test_a_run_of_mrdiff_is_what_training_starts_from(tmp_path):
    config = tiny()
    config.model.update(SMALL)
    workdir = write_run(tmp_path / "mrdiff", config)
    method = cm(model={"wavelet_levels": 1}, init="diffusion", init_workdir=str(workdir))
    variables = method.begin(method.init(jax.random.key(1), make_batch(1)))
    average = trained_params(workdir)
    for tree in (variables.params["generator"], variables.targets["generator"]):
        jax.tree.map(np.testing.assert_array_equal, tree, {name: average[name] for name in tree})
    spectral = write_run(tmp_path / "authors", tiny(**{"mrdiff.spectral_norm": True}))
    with pytest.raises(UserError, match=r"divides weights by their singular values.*spectral_norm=False"):
        trained_params(spectral)
    with pytest.raises(UserError, match=r"--config\.cm\.init_workdir=.*other: .*no checkpoint"):
        cm(init="diffusion", init_workdir=str(tmp_path / "other")).begin(variables)


def test_of_cdpm_the_step_and_the_blocks_of_the_levels_fit(tmp_path):
    config = configuration.default()
    config.method.name, config.cdpm.attention_levels = "cdpm", (1,)
    config.data.update(sources="T2w,PDw", target="T1w", image_size=16)
    config.model.update(SMALL)
    batch = make_batch(1)
    cdpm = methods.create(configuration.resolve(config)).init(jax.random.key(0), batch).params["generator"]
    fresh = cm(model={"wavelet_levels": 1}).init(jax.random.key(1), batch).params["generator"]
    found = fitting(fresh, cdpm, tmp_path)
    for half in ("encoder", "generator"):
        blocks = [name for name in fresh[half] if name.startswith("block_")]
        assert len(blocks) >= 2
        for name in blocks:
            jax.tree.map(np.testing.assert_array_equal, found[half][name], cdpm[half][name])
    jax.tree.map(np.testing.assert_array_equal, found["step_embedding"], cdpm["step_embedding"])
    jax.tree.map(np.testing.assert_array_equal, found["encoder"]["conv_in"]["kernel"], fresh["encoder"]["conv_in"]["kernel"])


def test_two_slices_are_learnt():
    """RAdam's first few hundred steps run at a reduced rate, hence the large one."""
    config = resolved(
        sample={"steps": 1},
        model={"base_channels": 16, "channel_mult": (1,), "attention_levels": (), "wavelet_levels": 1},
        optimizer={"learning_rate": 1e-2, "ema_decay": 0.95, "hold": 0.3},
        last_levels=4,
    )
    assert error_learnt(config, copies=4, steps=300) < 0.4
