"""cDPM: sizes, losses, and what each frame may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from helpers.players import count, differentiable, error_learnt, stirred

from mrdiff_jax import config as configuration
from mrdiff_jax import diffusion, methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.cdpm.attention import Frames, RelativePosition
from mrdiff_jax.methods.cdpm.method import contrasts
from mrdiff_jax.methods.cdpm.network import Network
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.unet import Backbone

KEYS = jax.random.split(jax.random.key(0), 2)
SMALL = {"base_channels": 8, "channel_mult": (1, 2), "norm_groups": 4, "attention_levels": (), "wavelet_levels": 0}
SIZE = Backbone(8, (1, 2), 1, (1,), norm_groups=4)


def resolved(sources="T2w,PDw", size=16, sample=None, model=None, optimizer=None, **own):
    config = configuration.default()
    config.method.name = "cdpm"
    config.data.update(sources=sources, target="T1w", image_size=size)
    config.model.update(SMALL | (model or {}))
    config.sample.update(sample or {})
    config.optimizer.update(optimizer or {})
    config.cdpm.update({"attention_levels": (1,)} | own)
    return configuration.resolve(config)


def cdpm(*args, **kwargs):
    return methods.create(resolved(*args, **kwargs))


@pytest.fixture(scope="module")
def network():
    """Noise of frames, of a small network away from its zero start."""
    net = Network(SIZE, heads=2)
    x, t = np.zeros((1, 3, 8, 8), np.float32), np.zeros(1)
    params = jax.eval_shape(net.init, jax.random.key(0), x, x, t, contrasts(1, 3))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape, np.float32), params)
    return jax.jit(lambda *inputs: net.apply({"params": params}, *inputs))


@pytest.fixture
def inputs():
    """x_t, x_0, t and frames: two observed, one latent, one in no mask, at uneven places."""
    x_t, x_0 = np.random.default_rng(1).standard_normal((2, 1, 4, 8, 8), np.float32)
    observed, latent = np.array([[1.0, 0, 1, 0]]), np.array([[0.0, 1, 0, 0]])
    return x_t, x_0, np.array([300.0]), Frames(observed, latent, np.array([[0, 5, 2, 3]]))


def test_the_place_of_a_frame_is_encoded_by_logarithms_of_its_distance():
    module, rng = RelativePosition(6, 2), np.random.default_rng(0)
    distance, embedding = np.array([[[0.0, -3], [3, 0]]], np.float32), rng.normal(size=(1, 5)).astype(np.float32)
    fresh = init_on_host(module, jax.random.key(0), distance, embedding)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), fresh)

    def linear(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    sides = np.stack([np.log1p(np.maximum(distance, 0)), np.log1p(np.maximum(-distance, 0)), distance == 0], -1)
    h = linear("distance", sides) + linear("step", embedding)[:, None, None]
    expected = linear("out", h / (1 + np.exp(-h))).reshape(1, 2, 2, 2, 3)
    np.testing.assert_allclose(module.apply({"params": params}, distance, embedding), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "mult", "levels", "expected"),
    [(128, (1, 1, 2, 3, 4), (3, 4), 118_952_833), (256, (1, 1, 2, 2, 4, 4), (4, 5), 153_020_801)],
)
def test_the_published_sizes(side, mult, levels, expected):
    model = {"base_channels": 128, "channel_mult": mult, "blocks_per_level": 2, "norm_groups": 32}
    method = cdpm(size=side, model=model, attention_levels=levels)
    x = np.zeros((1, 3, side, side), np.float32)
    shapes = jax.eval_shape(method.network.init, jax.random.key(0), x, x, np.zeros(1), contrasts(1, 3))
    assert count(shapes["params"]) == expected


def test_the_published_recipe():
    config = resolved()
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.ema_decay) == ("adam", 1e-4, 0.9999)
    assert (config.own.schedule, config.own.chain, config.own.heads) == ("linear", 1000, 4)
    assert [256 // 2 // 2**level for level in configuration.default().cdpm.attention_levels] == [16, 8]  # one wavelet level
    assert config.sample.steps == 50


def test_the_last_layers_of_all_branches_start_at_zero():
    variables = cdpm().init(jax.random.key(0), make_batch(1))
    attention = variables.params["generator"]["encoder"]["attention_1_0"]
    zero = [attention["pixels"]["out"], attention["frames"]["out"]]
    zero += [attention["frames"][f"position_{name}"]["out"] for name in "qkv"]
    for layer in [*zero, variables.params["generator"]["generator"]["conv_out"]]:
        assert not layer["kernel"].any()
        assert not layer["bias"].any()


def test_permuting_frames_with_their_places_and_masks_permutes_the_noise(network, inputs):
    x_t, x_0, t, frames = inputs
    order = np.array([2, 0, 3, 1])
    moved = network(x_t[:, order], x_0[:, order], t, Frames(*(value[:, order] for value in frames)))
    np.testing.assert_allclose(moved, network(*inputs)[:, order], atol=2e-4)


def test_the_places_of_frames_matter_by_their_differences_alone(network, inputs):
    x_t, x_0, t, frames = inputs
    there = network(x_t, x_0, t, frames._replace(index=frames.index + 7))
    np.testing.assert_allclose(there, network(*inputs), atol=2e-4)
    other = network(x_t, x_0, t, frames._replace(index=np.array([[2, 5, 0, 3]])))
    assert np.abs(other - network(*inputs))[:, 1].max() > 1e-3


def test_a_frame_in_no_mask_influences_no_other(network, inputs):
    x_t, x_0, t, frames = inputs
    changed_t, changed_0 = x_t.copy(), x_0.copy()
    changed_t[:, 3], changed_0[:, 3] = 9, -9
    moved = frames._replace(index=np.array([[0, 5, 2, 40]]))
    before, after = network(*inputs), network(changed_t, changed_0, t, moved)
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-5)
    assert np.abs(after[:, 3] - before[:, 3]).max() > 1e-3
    changed_0[:, 0] += 1  # an observed one does
    assert np.abs(network(x_t, changed_0, t, frames) - before)[:, 1].max() > 1e-3


def test_of_observed_frames_the_clean_image_is_seen_and_of_others_the_noisy_one(network, inputs):
    x_t, x_0, t, frames = inputs
    changed_t, changed_0 = x_t.copy(), x_0.copy()
    changed_t[:, [0, 2]] += 5
    changed_0[:, [1, 3]] -= 5
    before = network(*inputs)
    np.testing.assert_array_equal(network(changed_t, changed_0, t, frames), before)
    changed_t[:, 1] += 1
    assert np.abs(network(changed_t, x_0, t, frames) - before)[:, 1].max() > 1e-3
    swapped = frames._replace(observed=frames.latent, latent=frames.observed)  # the mask itself is seen, too
    assert np.abs(network(x_t, x_t, t, swapped) - network(x_t, x_t, t, frames)).max() > 1e-3


@pytest.mark.parametrize(("sources", "wavelet_levels"), [("T2w", 0), ("T2w,PDw,FLAIR", 2)])
def test_shapes_and_gradients_for_any_number_of_sources(sources, wavelet_levels):
    method = cdpm(sources, sample={"steps": 2}, model={"wavelet_levels": wavelet_levels})
    batch = make_batch(2, 16, len(sources.split(",")))
    variables = stirred(method.init(jax.random.key(0), batch))
    loss, _, gradient = differentiable(method, "generator")(variables, batch, 0.5)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    dead = {jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not leaf.any()}
    assert all(path.endswith("['position_k']['out']['bias']") for path in dead), (
        dead
    )  # the same for all keys: softmax is blind to it
    image = jax.jit(method.synthesize)(variables, {k: v for k, v in batch.items() if k != "target"}, KEYS)
    assert image.shape == (2, 16, 16)
    assert 0 <= image.min() < image.max() <= 1


def test_the_loss_is_the_noise_of_the_latent_frame_over_all_elements():
    """A fresh network answers 0: the squared noise, of which one frame of three counts."""
    method, batch = cdpm(), make_batch(2)
    loss, outcome = jax.jit(method.loss)(method.init(jax.random.key(0), batch), batch, KEYS, jnp.float32(0))
    assert loss == pytest.approx(outcome.metrics["L_eps"] / 3)
    assert outcome.metrics["L_eps"] == pytest.approx(1, abs=0.2)


def test_the_noise_gives_back_the_image():
    schedule, rng = diffusion.linear_schedule(1000), np.random.default_rng(0)
    x_0, noise = rng.uniform(-1, 1, (3, 8, 8)).astype(np.float32), rng.standard_normal((3, 8, 8), np.float32)
    t = jnp.array([0, 400, 900])
    x_t = diffusion.q_sample(schedule, x_0, t, noise)
    np.testing.assert_allclose(diffusion.x_0_of_noise(schedule, x_t, t, noise), x_0, atol=2e-4)


def test_synthesis_depends_on_the_sources_and_the_keys():
    method, batch = cdpm(sample={"steps": 3}), make_batch(2)
    variables = stirred(method.init(jax.random.key(0), batch), 0.3)
    run = jax.jit(method.synthesize)
    image = run(variables, batch, KEYS)
    np.testing.assert_array_equal(image, run(variables, batch | {"target": 1 - batch["target"]}, KEYS))
    np.testing.assert_allclose(run(variables, {k: v[:1] for k, v in batch.items()}, KEYS[:1]), image[:1], atol=1e-4)
    assert np.abs(run(variables, batch, KEYS[::-1]) - image).max() > 1e-3
    assert np.abs(run(variables, batch | {"sources": 1 - batch["sources"]}, KEYS) - image).max() > 1e-3


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"--config.cdpm.heads=3: level 1 has 16 channels, not a multiple of it"):
        cdpm(heads=3)


def test_two_slices_are_learnt():
    config = resolved(
        sample={"steps": 10},
        model={"base_channels": 16, "channel_mult": (1,), "wavelet_levels": 1},
        optimizer={"learning_rate": 3e-3, "ema_decay": 0.95, "hold": 0.3},
        heads=2,
        attention_levels=(0,),
    )
    assert error_learnt(config, copies=5, steps=300) < 0.4
