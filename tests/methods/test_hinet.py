import jax
import numpy as np
import pytest
from conftest import make_batch
from helpers.players import count, differentiable, error, keys, largest, settings, stirred, train, two_slices

from mrdiff_jax import methods, parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.hinet import Discriminator, FusionBlock, HiNetGenerator, most_layers
from mrdiff_jax.networks.initializers import init_on_host

TINY = {"base_channels": 4, "discriminator_channels": 4}


@pytest.fixture(scope="module")
def hinet():
    """The method, a batch, and variables away from their start."""
    method, batch = methods.create(settings("hinet", 16, **TINY)), make_batch(2, 16)
    return method, batch, stirred(method.init(jax.random.key(0), batch))


def shapes(network, x, **kwargs):
    return jax.eval_shape(lambda: network.init(jax.random.key(0), x, **kwargs))["params"]


def test_the_published_sizes():
    y = np.zeros((1, 256, 256, 2), np.float32)
    whole = shapes(HiNetGenerator(32, 2), y, train=False, method=HiNetGenerator.with_reconstructions)
    assert count(whole) == 3_872_259
    assert count(whole["encoders_0"]) == 287_328
    assert count(whole["decoders_0"]) == 434_785
    assert count(shapes(HiNetGenerator(32, 2), y, train=False)) == 3_002_689
    assert count(shapes(Discriminator(), y[..., :1])) == 391_041


@pytest.mark.parametrize(("size", "scores"), [(128, 6), (256, 14), (32, 2), (16, 2)])
def test_scores_of_patches(size, scores):
    """As published at 128 and 256 pixels; small images have as many layers as they allow."""
    network = Discriminator(4, min(4, most_layers(size)))
    found, _ = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), np.zeros((1, size, size, 1), np.float32)))
    assert found.shape == (1, scores, scores, 1)


def test_weights_start_as_published(hinet):
    method = methods.create(settings("hinet"))
    params = method.init(jax.random.key(0), make_batch(1, 32)).params["generator"]["encoders_0"]["unit_2_out"]
    assert np.std(params["conv"]["kernel"]) == pytest.approx(0.02, rel=0.02)
    assert np.mean(params["norm"]["scale"]) == pytest.approx(1, abs=0.01)
    assert np.std(params["norm"]["scale"]) == pytest.approx(0.02, rel=0.3)
    assert largest([params["conv"]["bias"], params["norm"]["bias"]]) == 0


def test_the_discriminator_normalises_with_an_epsilon_of_four_fifths():
    network, x = Discriminator(4, 2), make_batch(2, 16)["sources"][..., :1]
    variables = init_on_host(network, jax.random.key(0), x)

    def judge(x):
        return network.apply(variables, x, capture_intermediates=True)[1]["intermediates"]

    seen = jax.vmap(judge, axis_name=parallel.AXIS)(x[None])
    before, after = (seen[name]["__call__"][0][0] for name in ("conv_1", "norm_1"))
    norm = variables["params"]["norm_1"]
    expected = (before - before.mean((0, 1, 2))) / np.sqrt(before.var((0, 1, 2)) + 0.8) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("third", "like"),
    [
        (0, lambda a, b: (a + 0.5, b - 0.5)),  # as large a sum
        (1, lambda a, b: (-a, -b)),  # as large a product
        (2, lambda a, b: (np.maximum(a, b), np.minimum(a, b) - 1)),  # as large a maximum
    ],
)
def test_a_fusion_block_sees_sum_product_and_maximum_in_this_order(third, like):
    a, b = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 4)).astype(np.float32)
    block = FusionBlock(4)
    variables = init_on_host(block, jax.random.key(0), [a, b], None, train=False)
    kernel = np.array(variables["params"]["unit_in"]["conv"]["kernel"])

    def fused(images, seen):
        kernel_ = np.where(np.arange(12)[:, None] // 4 == seen, kernel, 0)
        params = variables["params"] | {
            "unit_in": variables["params"]["unit_in"] | {"conv": {"kernel": kernel_, "bias": np.zeros(4)}}
        }
        return block.apply(variables | {"params": params}, list(images), None, train=False)

    for seen in range(3):
        same = np.allclose(fused((a, b), seen), fused(like(a, b), seen), atol=1e-6)
        assert same == (seen == third)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_every_weight_of_every_player_has_a_finite_gradient(hinet, name):
    method, batch, variables = hinet
    value, outcome, gradient = differentiable(method, name)(variables, batch)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert path[-1].key == "bias" or np.abs(leaf).max() > 0, path  # a normalisation undoes the bias before it
    assert set(outcome.state) == ({"generator"} if name == "generator" else set())
    terms = outcome.metrics
    if name == "generator":
        assert value == pytest.approx(terms["L_adv"] + 100 * terms["L_1"] + 20 * terms["L_rec"], rel=1e-5)


def test_both_players_move_from_the_weights_before_the_step(hinet):
    method, _, _ = hinet
    assert method.simultaneous
    assert list(method.players) == ["generator", "discriminator"]


def test_sources_swapped_with_their_encoders_give_the_same_image(hinet):
    method, batch, variables = hinet
    image = method.synthesize(variables, batch, keys())

    def swapped(tree):
        return tree | {"encoders_0": tree["encoders_1"], "encoders_1": tree["encoders_0"]}

    other = variables.with_params("generator", swapped(variables.params["generator"]))
    statistics = {"batch_stats": swapped(variables.state["generator"]["batch_stats"])}
    turned = batch | {"sources": batch["sources"][..., ::-1]}
    np.testing.assert_array_equal(image, method.synthesize(other.replace(state={"generator": statistics}), turned, keys()))
    assert largest(image - method.synthesize(variables, turned, keys())) > 1e-4


def test_the_reconstruction_of_a_source_moves_its_own_encoder_alone(hinet):
    method, batch, variables = hinet

    @jax.jit
    @jax.grad
    def gradient(params):
        seen = {"params": params} | variables.state["generator"]
        whole = HiNetGenerator.with_reconstructions
        return method.generator.apply(seen, batch["sources"], train=False, method=whole)[1][..., 0].mean()

    gradient = gradient(variables.params["generator"])
    assert largest(gradient["encoders_0"]) > 0
    assert largest(gradient["decoders_0"]) > 0
    assert all(largest(part) == 0 for name, part in gradient.items() if name not in ("encoders_0", "decoders_0"))


def test_synthesis_reads_neither_the_decoders_of_the_sources_nor_the_batch(hinet):
    method, batch, variables = hinet
    image = method.synthesize(variables, batch, keys())
    one = {name: values[:1] for name, values in batch.items()}
    np.testing.assert_allclose(method.synthesize(variables, one, keys(7, 1)), image[:1], atol=1e-5)
    pruned = {name: part for name, part in variables.params["generator"].items() if not name.startswith("decoders")}
    np.testing.assert_array_equal(image, method.synthesize(variables.with_params("generator", pruned), batch, keys()))


@pytest.mark.parametrize("sources", ["T2w", "T2w,PDw,FLAIR"])
def test_one_source_and_three(sources):
    method, batch = methods.create(settings("hinet", sources=sources, **TINY)), make_batch(1, 24, len(sources.split(",")))
    image = method.synthesize(method.init(jax.random.key(0), batch), batch, keys(count=1))
    assert image.shape == (1, 24, 24)


def test_sides_that_do_not_halve_three_times_are_refused():
    with pytest.raises(UserError, match=r"image_size=36: hinet needs a multiple of 8"):
        methods.create(settings("hinet", size=36))


def test_it_overfits_two_slices():
    config, batch = settings("hinet", 16, rate=2e-3, **TINY), two_slices(16)
    method, _, variables = train(config, batch, np.linspace(0, 1, 100))
    spread = float(batch["target"].std())
    assert error(method, variables, batch) < spread / 3
