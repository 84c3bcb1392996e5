"""M2DN: masks, what its output may depend on, and its sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from helpers.players import count, differentiable, error_learnt, stirred

from mrdiff_jax import config as configuration
from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Variables

KEYS = jax.random.split(jax.random.key(0), 2)


def resolved(sources="T2w,PDw", size=16, sample=None, optimizer=None, **own):
    config = configuration.default()
    config.method.name = "m2dn"
    config.data.update(sources=sources, target="T1w", image_size=size)
    config.sample.update({"steps": 3} | (sample or {}))
    config.optimizer.update(optimizer or {})
    config.m2dn.update({"widths": (8, 8), "norm_groups": 4} | own)
    return configuration.resolve(config)


def m2dn(*args, **kwargs):
    return methods.create(resolved(*args, **kwargs))


@pytest.fixture(scope="module")
def trained():
    """A small method for two sources, with weights away from their start, and its synthesis."""
    method = m2dn()
    return method, stirred(method.init(jax.random.key(0), make_batch(2)), 0.2), jax.jit(method.synthesize)


def test_the_size_of_the_default_and_its_bottleneck():
    """Of our own reading of the paper: 7.8 million parameters for two sources, a bottleneck of a sixteenth of the side."""
    config = configuration.default()
    config.method.name = "m2dn"
    method = methods.create(configuration.resolve(config))
    assert method.stride == 16
    shapes = jax.eval_shape(
        lambda: method.network.init(jax.random.key(0), jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 3)), jnp.zeros(1))
    )["params"]
    assert count(shapes) == 7_790_417
    parts = {name.rstrip("_012") for name in shapes}
    assert parts == {"step_embedding", "encoder", "fusion", "decoder"}
    assert shapes["fusion"]["bottom_0"]["conv_in"]["kernel"].value.shape == (3, 3, 128 + 3, 128)


def test_the_recipe():
    config = configuration.default()
    config.method.name = "m2dn"
    config = configuration.resolve(config)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.ema_decay) == ("adam", 1e-4, 0.9999)
    assert (config.sample.sampler, config.sample.steps, config.sample.eta) == ("ddim", 50, 1.0)
    assert config.own.masks == "all"


@pytest.mark.parametrize(("sources", "patterns"), [("T2w", 2), ("T2w,PDw", 6), ("T2w,PDw,FLAIR", 14)])
def test_every_mask_that_leaves_and_lacks_something_is_equally_probable(sources, patterns):
    contrasts = len(sources.split(",")) + 1
    masks = np.asarray(m2dn(sources).draw_masks(jax.random.split(jax.random.key(0), 4000), contrasts))
    assert set(np.unique(masks)) == {0, 1}
    found, times = np.unique(masks, axis=0, return_counts=True)
    assert len(found) == patterns
    assert set(masks.sum(1)) <= set(range(1, contrasts))
    np.testing.assert_allclose(times / 4000, 1 / patterns, atol=0.04)


def test_training_may_lack_the_target_alone():
    masks = m2dn(masks="target").draw_masks(jax.random.split(jax.random.key(0), 9), 3)
    np.testing.assert_array_equal(masks, np.tile([0, 0, 1], (9, 1)))


@pytest.mark.parametrize("sources", ["T2w", "T2w,PDw,FLAIR"])
def test_shapes_and_gradients_for_any_number_of_sources(sources):
    method, batch = m2dn(sources), make_batch(2, 16, len(sources.split(",")))
    variables = stirred(method.init(jax.random.key(0), batch))
    loss, outcome, gradient = differentiable(method, "generator")(variables, batch, 0.5)
    assert np.isfinite(loss)
    assert set(outcome.metrics) == {"L_missing", "L_target"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
    for part in gradient:
        assert any(leaf.any() for leaf in jax.tree.leaves(gradient[part])), part
    image = jax.jit(method.synthesize)(variables, {k: v for k, v in batch.items() if k != "target"}, KEYS)
    assert image.shape == (2, 16, 16)
    assert 0 <= image.min() < image.max() <= 1


def test_the_loss_is_over_all_contrasts():
    """A fresh network answers 0: the mean square of all images in [-1, 1], available or not."""
    method, batch = m2dn(), make_batch(2)
    variables = method.init(jax.random.key(0), batch)
    loss, _ = jax.jit(method.loss)(variables, batch, KEYS, jnp.float32(0))
    images = np.concatenate([batch["sources"], batch["target"][..., None]], -1)
    assert loss == pytest.approx(np.square(2 * images - 1).mean(), rel=1e-5)


def test_the_image_does_not_depend_on_missing_contrasts(trained):
    _, variables, synthesize = trained
    batch = make_batch(2)
    image = synthesize(variables, batch, KEYS)
    np.testing.assert_array_equal(image, synthesize(variables, batch | {"target": 1 - batch["target"]}, KEYS))
    lacking = batch | {"available": np.array([[1.0, 0], [0, 1]], np.float32)}
    image = synthesize(variables, lacking, KEYS)
    other = batch["sources"].copy()
    other[0, ..., 1], other[1, ..., 0] = 0.3, np.nan
    np.testing.assert_array_equal(image, synthesize(variables, lacking | {"sources": other}, KEYS))
    other[0, ..., 0] = 0.3
    assert np.abs(synthesize(variables, lacking | {"sources": other}, KEYS) - image)[0].max() > 1e-4
    assert np.abs(synthesize(variables, batch, KEYS) - image).max() > 1e-4  # one that is there helps


def test_in_training_the_network_sees_missing_contrasts_with_noise_and_others_clean():
    method, batch, seen = m2dn(masks="target"), make_batch(2), []

    class Spy:
        def apply(self, variables, x, missing, t):
            seen.append((x, missing))
            return x

    method.network = Spy()
    method.loss(Variables({"generator": {}}), batch, KEYS, jnp.float32(0))
    (x, missing), *_ = seen
    np.testing.assert_array_equal(x[..., :2], 2 * batch["sources"] - 1)
    np.testing.assert_array_equal(missing, [[0, 0, 1]] * 2)
    noisy = np.asarray(x[..., 2])
    assert np.abs(noisy - (2 * batch["target"] - 1)).mean((1, 2)).min() > 0.01


@pytest.mark.parametrize("available", [[1, 1], [0, 1]])
def test_available_contrasts_are_the_same_to_the_bit_at_every_step(available):
    """The network is shown them unchanged at each of the steps that the sampler takes, whatever it answers of them."""
    method, batch, seen = m2dn(sample={"steps": 5}), make_batch(1), []

    class Spy:
        def apply(self, variables, x, missing, t):
            seen.append(np.asarray(x))
            return 0.5 * jnp.ones_like(x)

    method.network = Spy()
    batch["available"] = np.array([available], np.float32)
    with jax.disable_jit():  # so that each step is run, and can be looked at
        image = method.synthesize(Variables({"generator": {}}), batch, KEYS[:1])
    np.testing.assert_allclose(image, 0.75)  # what the network says, not what it was given
    assert len(seen) == 5
    for k, there in enumerate(available):
        same = [np.array_equal(x[..., k], 2 * batch["sources"][..., k] - 1) for x in seen]
        assert all(same) if there else not any(same)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"image_size=18: the 2 levels of --config.m2dn.widths need a multiple of 4"):
        m2dn(size=18)
    with pytest.raises(UserError, match=r"widths=\(\): give a number"):
        m2dn(widths=())


def test_two_slices_are_learnt():
    config = resolved(sample={"steps": 10}, optimizer={"learning_rate": 3e-3, "ema_decay": 0.95, "hold": 0.3}, widths=(16, 16))
    assert error_learnt(config, copies=4, steps=150) < 0.3
