import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch
from flax.traverse_util import flatten_dict
from helpers.players import count, differentiable, error, keys, largest, settings, stirred, train, two_slices

from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.resvit import ResViTGenerator
from mrdiff_jax.networks.initializers import init_on_host

TINY = {
    "base_channels": 4,
    "discriminator_channels": 4,
    "patch_layers": 1,
    "blocks": 2,
    "vit_layers": 1,
    "vit_width": 16,
    "vit_heads": 2,
}
INSERTED = ("transformer", "aggregations_0", "aggregations_1")


def resvit(size=32, **own):
    return methods.create(settings("resvit", size, **TINY | own))


def at_stage(variables, transformers):
    generator = variables.state["generator"] | {"stage": {"transformers": np.float32(transformers)}}
    return variables.replace(state={"generator": generator})


def outside(params):
    return {name: part for name, part in params.items() if name not in INSERTED}


def test_the_published_sizes():
    y = np.zeros((1, 256, 256, 2), np.float32)
    params = jax.eval_shape(lambda: ResViTGenerator().init(jax.random.key(0), y, train=False))["params"]
    assert count(params) == 123_444_673
    assert count(params["transformer"]) == 85_056_000
    assert count(params["aggregations_0"]) == 13_507_328
    assert count(outside(params)) == 11_374_017
    method = methods.create(settings("resvit", 256))
    assert method.generator == ResViTGenerator()
    pair = np.zeros((1, 256, 256, 3), np.float32)
    assert count(jax.eval_shape(lambda: method.discriminator.init(jax.random.key(0), pair))) == 2_765_633


def test_the_generator_starts_as_its_framework_does():
    """PyTorch's default, uniform in ± 1 / sqrt(fan in), and gains of exactly 1; not the N(0, 0.02) of pix2pix."""
    method = resvit()
    params = flatten_dict(outside(method.init(jax.random.key(0), make_batch(1, 32)).params["generator"]), sep="/")
    kernels = [
        leaf for path, leaf in params.items() if path.startswith("blocks") and path.endswith("kernel") and leaf.size > 500
    ]
    assert kernels
    for kernel in kernels:
        bound = np.prod(kernel.shape[:-1]) ** -0.5
        assert np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / np.sqrt(3), rel=0.1)
    assert all((leaf == 1).all() for path, leaf in params.items() if path.endswith("scale"))


def test_the_transformers_are_in_the_first_and_the_sixth_of_nine_blocks():
    assert ResViTGenerator().places == (0, 5)
    assert ResViTGenerator(count=2).places == (0, 1)


def test_every_weight_that_a_stage_has_gets_a_finite_gradient():
    method, batch = resvit(), make_batch(2, 32)
    variables = stirred(method.init(jax.random.key(0), batch))
    run = differentiable(method, "generator")
    for progress, stage in ((0.1, 0), (0.9, 1)):
        value, outcome, gradient = run(variables, batch, progress)
        assert value == pytest.approx(outcome.metrics["L_adv"] + 100 * outcome.metrics["L_1"], rel=1e-5)
        assert outcome.state["generator"]["stage"]["transformers"] == stage
        for path, leaf in flatten_dict(gradient, sep="/").items():
            assert np.all(np.isfinite(leaf)), path
            if path.endswith("key/bias"):  # attention does not depend on it
                continue
            assert (np.abs(leaf).max() > 0) == (stage == 1 or not path.startswith(INSERTED)), path
    _, outcome, gradient = differentiable(method, "discriminator")(variables, batch, 0.9)
    assert all(np.all(np.isfinite(leaf)) and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    assert not outcome.state


def test_stage_1_sees_less_than_87_pixels_around():
    """With kernels of one sign, so that nothing cancels, and frozen statistics.

    87 = 3 + 1 + 2 + 9 * 2 * 4 + 4 + 2 + 3 is what kernels and strides allow; a transposed convolution of stride 2 has an input
    at two of its three places at most, which leaves 84.
    """
    method = resvit(192, base_channels=1, blocks=9)
    variables = method.init(jax.random.key(0), make_batch(1, 192))
    params = outside(variables.params["generator"])
    params = jax.tree.map(lambda p: np.full(p.shape, 1 / np.prod(p.shape[:-1]), np.float32) if p.ndim == 4 else p, params)
    variables = variables.with_params("generator", variables.params["generator"] | params)

    @jax.jit
    @jax.grad
    def seen(y, row):
        return method.synthesize(variables, {"sources": y}, keys(count=1))[0, row, row]

    radii = []
    for row in range(96, 100):
        rows = np.flatnonzero(np.abs(seen(jnp.full((1, 192, 192, 2), 0.5005), row)).sum((0, 2, 3)))
        radii += [row - rows.min(), rows.max() - row]
    assert max(radii) == 84


def test_a_change_96_pixels_away_shows_in_stage_2_alone():
    method, batch = resvit(128, blocks=9), make_batch(1, 128)
    variables = stirred(method.init(jax.random.key(0), batch))
    synthesize = jax.jit(method.synthesize)
    changed = batch["sources"].copy()
    changed[:, 0, 0] = 1 - changed[:, 0, 0]
    for stage in (0, 1):
        seen = at_stage(variables, stage)
        image = synthesize(seen, batch, keys(count=1))
        other = synthesize(seen, batch | {"sources": changed}, keys(count=1))
        assert largest(image - other) > 0
        assert (largest((image - other)[:, 96:]) > 0) == bool(stage)


def test_stage_2_goes_on_with_the_weights_of_stage_1_and_fresh_moments():
    config, batch = settings("resvit", 32, rate=1e-3, stage_2_start=0.5, **TINY), make_batch(2, 32)
    _, fresh, first = train(config, batch, [0.1, 0.2])
    before, after = fresh.params["generator"], first.params["generator"]
    for name in INSERTED:
        jax.tree.map(np.testing.assert_array_equal, before[name], after[name])
    moved = jax.tree.map(lambda a, b: largest(a - b), outside(before), outside(after))
    assert all(value > 0 for value in jax.tree.leaves(moved))
    _, _, second = train(config, batch, [0.1, 0.2, 0.5])
    steps = jax.tree.map(lambda a, b: largest(a - b), after, second.params["generator"])
    assert all(0 < value <= 1.01e-3 for value in jax.tree.leaves({n: steps[n] for n in INSERTED[1:]}))  # Adam's first step
    assert all(value <= 1.01e-3 for value in jax.tree.leaves(steps))
    assert second.state["generator"]["stage"]["transformers"] == 1
    _, _, ended = train(config, batch, [1.0])
    assert largest(jax.tree.map(lambda a, b: a - b, before, ended.params["generator"])) == 0  # the rate ends at 0


def test_chance_and_batch_matter_in_training_alone():
    method, batch = resvit(), make_batch(2, 32)
    variables = at_stage(stirred(method.init(jax.random.key(0), batch)), 1)
    synthesize = jax.jit(method.synthesize)
    image = synthesize(variables, batch, keys(1))
    np.testing.assert_array_equal(image, synthesize(variables, batch, keys(2)))
    swapped = jax.tree.map(lambda leaf: leaf[::-1], batch)
    np.testing.assert_allclose(synthesize(variables, swapped, keys(1))[::-1], image, atol=1e-6)
    own, y = variables.of("generator"), batch["sources"]
    dropped = [method.generator.apply(own, y, train=False, keys=keys(seed)) for seed in (1, 2)]
    assert largest(dropped[0] - dropped[1]) > 1e-5


def test_instance_normalisation_keeps_no_statistics():
    method, batch = resvit(norm="instance"), make_batch(2, 32)
    variables = method.init(jax.random.key(0), batch)
    assert set(variables.state["generator"]) == {"stage"}
    _, outcome, _ = differentiable(method, "generator")(variables, batch, 0.9)
    assert set(outcome.state["generator"]) == {"stage"}
    assert count(variables.params) == count(resvit().init(jax.random.key(0), batch).params)
    assert methods.create(settings("resvit", norm="instance")).discriminator.norm == "instance"


@pytest.mark.parametrize(("height", "width", "sources"), [(32, 32, 1), (48, 64, 3)])
def test_other_sizes_than_that_of_training_and_other_numbers_of_sources(height, width, sources):
    method, batch = resvit(), make_batch(1, 32, sources)
    variables = at_stage(method.init(jax.random.key(0), batch), 1)
    assert variables.params["generator"]["aggregations_0"]["positions"].shape == (2, 2, 16)
    y = np.zeros((1, height, width, sources), np.float32)
    assert method.synthesize(variables, {"sources": y}, keys(count=1)).shape == (1, height, width)


@pytest.mark.parametrize(
    ("size", "own", "message"),
    [
        (40, {}, r"image_size=40: resvit needs a multiple of 16"),
        (16, {}, r"image_size=16: resvit needs"),
        (32, {"vit_heads": 3}, r"vit_heads=3: vit_width has 16 channels, not a multiple of it"),
        (32, {"patch_layers": 4}, r"resvit\.patch_layers=4: its patches do not fit images of 32"),
    ],
)
def test_settings_that_do_not_fit_are_refused(size, own, message):
    with pytest.raises(UserError, match=message):
        resvit(size, **own)


def test_it_overfits_two_slices():
    config, batch = settings("resvit", 32, rate=2e-3, stage_2_start=0.5, **TINY), two_slices()
    method, _, variables = train(config, batch, np.arange(150) / 150)
    assert variables.state["generator"]["stage"]["transformers"] == 1
    assert error(method, variables, batch) < float(batch["target"].std()) / 4


def test_there_is_no_way_back_from_the_transformers():
    sizes = {"base": 4, "count": 2, "layers": 1, "width": 16, "heads": 2, "side": 2, "rate": 0.0, "norm": "instance"}
    generator, y = ResViTGenerator(**sizes), make_batch(1, 32)["sources"]
    variables = init_on_host(generator, jax.random.key(0), y, train=False)
    stages = []
    for transformers in (0, 1, 0):
        moved = {"train": True, "transformers": jnp.asarray(transformers), "mutable": ["stage"]}
        _, state = generator.apply(variables, y, **moved)
        variables = variables | state
        stages.append(float(variables["stage"]["transformers"]))
    assert stages == [0, 1, 1]
