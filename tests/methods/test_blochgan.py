import jax
import numpy as np
import pytest
from conftest import make_batch
from helpers.players import count, differentiable, error, keys, largest, settings, stirred, train, two_slices

from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.blochgan import Network
from mrdiff_jax.methods.reading import read_by
from mrdiff_jax.networks.bloch import ScanParameters
from mrdiff_jax.networks.image_to_image import ResNet

TINY = {
    "base_channels": 4,
    "discriminator_channels": 4,
    "patch_layers": 1,
    "map_channels": 4,
    "encoder_blocks": 1,
    "generator_blocks": 1,
    "decoder_blocks": 1,
}
ENCODER, GENERATOR = {"contraction", "encoder_0"}, {"generator_0", "expansion"}
DECODER = {"to_maps", "from_signals", "signal_norm", "decoder_0", "decoder_expansion"}


def blochgan(sources="T2w,PDw", **own):
    return methods.create(settings("blochgan", 16, sources, **TINY | own))


@pytest.fixture(scope="module")
def made():
    """The method, a batch, and variables away from their start."""
    method, batch = blochgan(), make_batch(2, 16)
    return method, batch, stirred(method.init(jax.random.key(0), batch))


def test_the_sizes_of_our_design():
    """E and G are the ResNet of pix2pix; what training adds are maps and decoder."""
    network, y = methods.create(settings("blochgan", 256)).generator, np.zeros((1, 64, 64, 2), np.float32)
    scan, whole = ScanParameters(*np.ones((3, 1, 2), np.float32)), Network.with_reconstruction
    init, key = network.init, jax.random.key(0)
    assert count(jax.eval_shape(lambda: init(key, y, scan, train=False, method=whole))["params"]) == 17_209_987
    synthesis = count(jax.eval_shape(lambda: init(key, y, train=False))["params"])
    assert synthesis == 11_374_017
    assert synthesis == count(jax.eval_shape(lambda: ResNet().init(key, y, train=False))["params"])


def test_every_weight_of_every_player_has_a_finite_gradient(made):
    method, batch, variables = made
    assert list(method.players) == ["discriminator", "generator"]
    for name in method.players:
        value, outcome, gradient = differentiable(method, name)(variables, batch)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.all(np.isfinite(leaf)), path
            assert np.abs(leaf).max() > 0, path
        assert set(outcome.state) == ({"generator"} if name == "generator" else set())
    terms = outcome.metrics
    assert value == pytest.approx(terms["L_adv"] + 100 * terms["L_1"] + 10 * terms["L_sources"], rel=1e-5)


def test_the_loss_of_the_decoder_moves_the_encoder_and_not_the_generator(made):
    method, batch, variables = made
    scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])

    @jax.jit
    @jax.grad
    def gradient(params):
        seen = {"params": params} | variables.state["generator"]
        _, y_hat = method.generator.apply(seen, batch["sources"], scan, train=False, method=Network.with_reconstruction)
        return abs(y_hat - batch["sources"]).mean()

    sizes = {name: largest(part) for name, part in gradient(variables.params["generator"]).items()}
    assert all(sizes[name] > 0 for name in ENCODER | DECODER)
    assert all(sizes[name] == 0 for name in GENERATOR)
    assert set(sizes) == ENCODER | GENERATOR | DECODER


def test_synthesis_reads_no_times_and_neither_decoder_nor_discriminator(made):
    method, batch, variables = made
    synthesize = jax.jit(method.synthesize)
    image = synthesize(variables, batch, keys())
    others = {"tr": 2 * batch["tr"], "te": 0 * batch["te"], "ti": 3 * batch["ti"], "target": 1 - batch["target"]}
    np.testing.assert_array_equal(image, synthesize(variables, batch | others, keys(5)))
    swapped = jax.tree.map(lambda leaf: leaf[::-1], batch)
    np.testing.assert_allclose(synthesize(variables, swapped, keys())[::-1], image, atol=1e-6)
    read = read_by(method.synthesize, variables, batch, keys())
    assert set(read.params) == {"generator"}
    assert set(read.params["generator"]) == ENCODER | GENERATOR


def test_the_decoder_sees_the_times(made):
    method, batch, variables = made

    @jax.jit
    def rebuilt(te):
        scan = ScanParameters(batch["tr"], te, batch["ti"])
        own, whole = variables.of("generator"), Network.with_reconstruction
        return method.generator.apply(own, batch["sources"], scan, train=False, method=whole)[1]

    assert largest(rebuilt(batch["te"]) - rebuilt(20 * batch["te"])) > 1e-5


def test_maps_are_non_negative_at_a_quarter_of_the_resolution(made):
    method, batch, variables = made
    maps = method.feature_maps(variables, batch, keys())
    assert list(maps) == ["T1", "T2", "S0"]
    assert all(leaf.shape == (2, 4, 4, 4) and leaf.min() >= 0 and leaf.max() > 0 for leaf in maps.values())
    shown = method.describe(variables, batch, keys())
    assert len(shown) == len(method.described)
    np.testing.assert_allclose(shown[1], maps["T2"].mean(-1))


@pytest.mark.parametrize("sources", ["T2w", "T2w,PDw,FLAIR"])
def test_one_source_and_three(sources):
    method, number = blochgan(sources), len(sources.split(","))
    batch = make_batch(1, 16, number)
    variables = method.init(jax.random.key(0), batch)
    assert method.synthesize(variables, batch, keys(count=1)).shape == (1, 16, 16)
    assert variables.params["generator"]["decoder_expansion"]["head"]["kernel"].shape[-1] == number


def test_signals_go_by_source():
    assert blochgan("T1w,FLAIR", signals="spin_echo,inversion_recovery").inverted == ("FLAIR",)
    with pytest.raises(UserError, match=r"config\.blochgan\.signals=spin_echo,spin_echo: .*once for each of T1w,FLAIR,PDw"):
        blochgan("T1w,FLAIR,PDw", signals="spin_echo,spin_echo")


def test_it_overfits_two_slices():
    config, batch = settings("blochgan", 16, rate=2e-3, **TINY), two_slices(16)
    method, _, variables = train(config, batch, np.arange(100) / 100)
    assert error(method, variables, batch) < float(batch["target"].std()) / 4
