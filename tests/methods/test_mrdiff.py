import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_batch

from mrdiff_jax import diffusion, methods
from mrdiff_jax.config import default, resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.distances import DISTANCES
from mrdiff_jax.methods.mrdiff.method import build_network
from mrdiff_jax.methods.mrdiff.network import Network, ScanParameters
from mrdiff_jax.methods.reading import read_by
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.layers import power_iteration
from mrdiff_jax.networks.unet import Backbone
from mrdiff_jax.streams import normal_like, steps_like, stream

SIZE = Backbone(base_channels=8, channel_mult=(1, 2), attention_levels=(1,), head_channels=8)


def make(sources=2, size=16, signals="spin_echo", **kwargs):
    """A small network, its inputs, and parameters away from their zero start."""
    network = Network(SIZE, (signals,) * sources, map_channels=4, **kwargs)
    batch = make_batch(1, size, sources)
    inputs = (batch["target"][..., None], batch["sources"], jnp.array([500]))
    scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])
    variables = init_on_host(network, jax.random.key(0), *inputs, scan)
    rng = np.random.default_rng(1)
    variables["params"] = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), variables["params"])
    return network, variables, inputs, scan


def disturbed(variables):
    """Parameters away from their zero start."""
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), variables.params["generator"])
    return variables.with_params("generator", params)


def assert_close(tree, expected):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * largest), tree, expected)


def changes(a, b):
    return float(jnp.abs(a - b).max()) > 1e-4


def parameters(preset):
    network = build_network(resolve(default(preset)))
    images = jnp.zeros((1, 256, 256, 1)), jnp.zeros((1, 256, 256, 2)), jnp.zeros(1)
    shapes = nn.meta.unbox(jax.eval_shape(network.init, jax.random.key(0), *images, ScanParameters(*jnp.zeros((3, 1, 2)))))
    params = shapes.pop("params")
    variables = Variables({"generator": params}, {"generator": shapes})

    def denoise(variables, *images):
        return network.apply(variables.of("generator"), *images, method=Network.denoise)

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    read = read_by(denoise, variables, *images).params["generator"]
    return count(params), count(read), {name: count(tree) for name, tree in params.items()}


def test_authors_preset_has_the_published_size():
    total, synthesis, parts = parameters("authors")
    assert total / 1e6 == pytest.approx(301, abs=0.5)
    assert synthesis / 1e6 == pytest.approx(168, abs=0.5)
    assert parts["encoder"] / 1e6 == pytest.approx(38, abs=0.5)
    assert parts["generator"] / 1e6 == pytest.approx(26 + 103, abs=0.5)
    assert parts["decoder"] / 1e6 == pytest.approx(26 + 103, abs=0.5)
    assert (parts["map_block"] + parts["signal_block"]) / 1e6 == pytest.approx(3.8, abs=0.05)


def test_paper_preset_differs_in_the_stems_alone():
    total, synthesis, _ = parameters("paper")
    assert total / 1e6 == pytest.approx(300.7, abs=0.1)
    assert synthesis / 1e6 == pytest.approx(167.8, abs=0.1)


@pytest.mark.parametrize("sources", [1, 3])
@pytest.mark.parametrize("kwargs", [{}, {"stem_channels": 2}, {"wavelet_levels": 0}, {"wavelet_levels": 2}])
def test_any_number_of_sources_and_any_front_end(sources, kwargs):
    network, variables, inputs, scan = make(sources, **kwargs)
    features, x0_hat, y_hat = jax.jit(network.apply)(variables, *inputs, scan)
    assert x0_hat.shape == (1, 16, 16, 1)
    assert y_hat.shape == (1, 16, 16, sources)
    side = 8 // 2 ** kwargs.get("wavelet_levels", 1)
    assert features.e_t.shape == (1, side, side, 16)
    assert np.all(np.isfinite(x0_hat))


def test_non_square_images_and_sides_that_do_not_fit():
    network, variables, (_, _, t), _ = make()
    x0_hat = network.apply(variables, jnp.zeros((1, 8, 24, 1)), jnp.zeros((1, 8, 24, 2)), t, method=Network.denoise)
    assert x0_hat.shape == (1, 8, 24, 1)
    with pytest.raises(ValueError, match=r"18 x 16.*multiples of 4"):
        network.apply(variables, jnp.zeros((1, 18, 16, 1)), jnp.zeros((1, 18, 16, 2)), t, method=Network.denoise)


def test_generator_does_not_depend_on_scan_parameters_and_decoder_does():
    network, variables, inputs, scan = make()
    run = jax.jit(network.apply)
    _, x0_hat, y_hat = run(variables, *inputs, scan)
    _, x0_other, y_other = run(variables, *inputs, ScanParameters(scan.tr / 3, scan.te * 2, scan.ti))
    np.testing.assert_array_equal(x0_hat, x0_other)
    assert changes(y_hat, y_other)


def test_without_modulation_the_decoder_sees_the_maps_whatever_the_scan_parameters():
    network, variables, (x_t, y, t), scan = make(modulation=False, decoder_skips=False)
    run = jax.jit(network.apply)
    *_, y_hat = run(variables, x_t, y, t, scan)
    np.testing.assert_array_equal(y_hat, run(variables, x_t, y, t, ScanParameters(scan.tr / 3, scan.te * 2, scan.ti))[-1])
    assert changes(y_hat, run(variables, x_t, 1 - y, t, scan)[-1])


@pytest.mark.parametrize("skips", [False, True])
def test_without_skips_the_decoder_sees_the_sources_through_the_maps_alone(skips):
    """The same maps with features of other images: without skips nothing of those images may show."""
    network, variables, (x_t, y, t), scan = make(decoder_skips=skips)

    @jax.jit
    def reconstruct(y_maps, y_features):
        maps_from = network.apply(variables, x_t, y_maps, t, method=Network.encode)
        features = network.apply(variables, x_t, y_features, t, method=Network.encode)
        mixed = features._replace(e_t=maps_from.e_t)
        return network.apply(variables, mixed, scan, method=Network.reconstruct)

    y_hat = reconstruct(y, y)
    assert changes(y_hat, reconstruct(1 - y, y))  # through the maps
    assert changes(y_hat, reconstruct(y, 1 - y)) == skips  # past them


def test_without_skips_constant_maps_hide_the_sources():
    network, variables, (x_t, y, t), scan = make(decoder_skips=False)
    run = jax.jit(network.apply)
    *_, seen = run(variables, x_t, y, t, scan)
    *_, other = run(variables, x_t, 1 - y, t, scan)
    assert changes(seen, other)
    constant = variables["params"] | {"map_block": jax.tree.map(jnp.zeros_like, variables["params"]["map_block"])}
    *_, seen = run({"params": constant}, x_t, y, t, scan)
    *_, other = run({"params": constant}, x_t, 1 - y, t, scan)
    np.testing.assert_array_equal(seen, other)


def test_a_decoder_per_source_tells_the_sources_apart_by_their_times_alone():
    network, variables, (x_t, y, t), scan = make(decoder_skips=False, decoder_per_source=True)
    run = jax.jit(lambda scan: network.apply(variables, x_t, y, t, scan)[-1])
    y_hat, other = run(scan), run(scan._replace(te=scan.te * jnp.array([1, 2])))
    assert y_hat.shape == y.shape
    np.testing.assert_array_equal(y_hat[..., 0], other[..., 0])
    assert changes(y_hat[..., 1], other[..., 1])
    same = run(ScanParameters(*(jnp.full_like(time, time[0, 0]) for time in scan)))
    np.testing.assert_allclose(same[..., 0], same[..., 1], atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"decoder_skips": False, "modulation": False}])
def test_a_decoder_per_source_that_knows_them_otherwise_is_refused(fields):
    config = default("paper")
    config.mrdiff.update(decoder_per_source=True, **fields)
    with pytest.raises(
        UserError, match=r"decoder_per_source: .* give --config\.mrdiff\.decoder_skips=False --config\.mrdiff\.mod"
    ):
        methods.create(resolve(config))


@pytest.mark.parametrize(("loss_draws", "spectral_norm", "distance"), [("all", False, "l2"), ("first", True, "wavelet_l1")])
def test_draws_in_one_batch_equal_a_loop(loss_draws, spectral_norm, distance):
    """Eq. 9 and the losses around it, draw by draw, with the same keys."""
    config = default("paper")
    config.model.update(base_channels=8, channel_mult=(1,), attention_levels=(), head_channels=8)
    config.mrdiff.map_channels = 4
    config.data.update(image_size=16)
    config.mrdiff.update(loss_draws=loss_draws, spectral_norm=spectral_norm, distance=distance)
    config = resolve(config)
    method, network, batch = methods.create(config), build_network(config), make_batch(2)
    keys = jax.random.split(jax.random.key(2), 2)
    variables = disturbed(method.init(jax.random.key(0), batch))

    schedule = diffusion.cosine_schedule(1000)
    x_0, y = 2 * batch["target"][..., None] - 1, 2 * batch["sources"] - 1
    scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])
    t = steps_like(stream(keys, "t"), 1000)

    def loss(params):
        return method.loss(variables.with_params("generator", params), batch, keys, 0.0)

    far = DISTANCES[distance]

    def draw_by_draw(params):
        outputs, vectors = [], variables.state["generator"]["spectral"]
        for draw in range(3):
            x_t = diffusion.q_sample(schedule, x_0, t, normal_like(x_0, stream(keys, "noise", draw)))
            vectors = power_iteration(params, vectors)
            outputs.append(network.apply({"params": params, "spectral": vectors}, x_t, y, t, scan))
        content = sum(features.e_t for features, _, _ in outputs) / 3
        used = outputs if loss_draws == "all" else outputs[:1]
        losses = {
            "L_G": sum(far(x0_hat - x_0).mean() for _, x0_hat, _ in used) / len(used),
            "L_D": sum(far(y_hat - y).mean() for _, _, y_hat in used) / len(used),
            "L_CCT": sum(jnp.square(features.e_t - content).mean() for features, _, _ in outputs) / 3,
        }
        return losses["L_G"] + losses["L_D"] + 0.01 * losses["L_CCT"], losses

    params = variables.params["generator"]
    (total, outcome), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    (expected_total, losses), expected = jax.jit(jax.value_and_grad(draw_by_draw, has_aux=True))(params)
    assert total == pytest.approx(float(expected_total), rel=1e-4)
    for name, value in losses.items():
        assert outcome.metrics[name] == pytest.approx(float(value), rel=1e-3), name
    assert_close(gradient, expected)


def test_the_sources_of_inversion_recovery_are_named():
    config = default("paper")
    config.model.update(base_channels=8, channel_mult=(1,), attention_levels=(), head_channels=8)
    config.mrdiff.map_channels = 4
    config.mrdiff.signals = "spin_echo, inversion_recovery"
    config.data.update(image_size=16, sources="T1w, FLAIR,")
    assert methods.create(resolve(config)).inverted == ("FLAIR",)
    config.mrdiff.signals = "spin_echo"
    assert methods.create(resolve(config)).inverted == ()
    config.mrdiff.update(signals="spin_echo,inversion_recovery", lambda_d=0.0)  # nothing reads the time
    assert methods.create(resolve(config)).inverted == ()


@pytest.mark.parametrize("positivity", ["relu", "softplus"])
def test_content_maps_are_non_negative_float32_at_twice_the_resolution(positivity):
    network, variables, inputs, _ = make(positivity=positivity)
    features = network.apply(variables, *inputs, method=Network.encode)
    maps = network.apply(variables, features, method=Network.content_maps)
    for leaf in maps:
        assert leaf.shape == (1, 8, 8, 4)
        assert leaf.dtype == jnp.float32
        assert float(leaf.min()) >= 0
        assert float(leaf.max()) > 0


def test_physics_stays_float32_in_bfloat16():
    network = Network(SIZE._replace(dtype=jnp.bfloat16), ("spin_echo",) * 2, map_channels=4)
    _, variables, inputs, scan = make()
    features = network.apply(variables, *inputs, method=Network.encode)
    assert features.e_t.dtype == jnp.bfloat16
    assert network.apply(variables, features, method=Network.content_maps).t1.dtype == jnp.float32
    assert np.all(np.isfinite(network.apply(variables, features, scan, method=Network.reconstruct)))

    maps = network.apply(variables, features, method=Network.content_maps)

    def modulate(*inputs):
        return network.apply(variables, *inputs, method=Network.modulate)

    traced = str(jax.make_jaxpr(modulate)(maps, scan))
    signals = re.findall(r":(\w+)\[[\d,]*\] = exp ", traced)
    assert set(signals) == {"f32"}


def test_inversion_time_matters_for_inversion_recovery_alone():
    for signals, matters in (("spin_echo", False), ("inversion_recovery", True)):
        network, variables, inputs, scan = make(signals=signals)
        *_, y_hat = network.apply(variables, *inputs, scan)
        *_, y_other = network.apply(variables, *inputs, scan._replace(ti=scan.ti / 2))
        assert changes(y_hat, y_other) == matters


def test_every_nth_example_has_all_losses_and_the_others_that_of_the_generator():
    config = default("paper")
    config.model.update(base_channels=8, channel_mult=(1,), attention_levels=(), head_channels=8)
    config.mrdiff.map_channels = 4
    config.data.image_size = 16
    batch, keys = make_batch(4), jax.random.split(jax.random.key(2), 4)
    variables = disturbed(methods.create(resolve(config)).init(jax.random.key(0), batch))

    def loss_and_gradient(examples, **settings):
        config.mrdiff.update(settings)
        method, picked = methods.create(resolve(config)), jax.tree.map(lambda leaf: leaf[np.array(examples)], (batch, keys))
        (_, outcome), gradient = jax.jit(
            jax.value_and_grad(lambda p: method.loss(variables.with_params("generator", p), *picked, 0.0), has_aux=True)
        )(variables.params["generator"])
        return jax.device_get(outcome.metrics), gradient

    whole, gradient = loss_and_gradient([0, 1, 2, 3], physics_every=2)
    chosen, of_chosen = loss_and_gradient([0, 2], physics_every=1, lambda_g=0.5)
    others, of_others = loss_and_gradient([1, 3], draws=1, lambda_d=0.0, lambda_cct=0.0)
    assert whole["L_D"] == pytest.approx(chosen["L_D"], rel=1e-5)
    assert whole["L_CCT"] == pytest.approx(chosen["L_CCT"], rel=1e-4)
    assert whole["L_G"] == pytest.approx((chosen["L_G"] + others["L_G"]) / 2, rel=1e-5)
    assert_close(gradient, jax.tree.map(jnp.add, of_chosen, of_others))


def test_examples_with_physics_are_a_share_of_a_devices_batch():
    config = default("paper")
    config.mrdiff.physics_every = 4
    batch = make_batch(2, 64)
    method = methods.create(resolve(config))
    with pytest.raises(UserError, match=r"mrdiff\.physics_every=4: a device has 2 examples"):
        method.loss(
            Variables({"generator": {}}, {"generator": {"spectral": {}}}), batch, jax.random.split(jax.random.key(0), 2), 0.0
        )


@pytest.fixture(scope="module")
def loss_gradients():
    """Gradients of the total loss by player part, with one loss switched on at a time."""
    gradients = {}
    for term in ("g", "d", "cct"):
        config = default("paper")
        config.model.update(base_channels=8, channel_mult=(1,), attention_levels=(), head_channels=8)
        config.mrdiff.map_channels = 4
        config.data.update(image_size=16)
        config.mrdiff.update({f"lambda_{name}": float(name == term) for name in ("g", "d", "cct")})
        method, batch = methods.create(resolve(config)), make_batch(2)
        variables = disturbed(method.init(jax.random.key(0), batch))

        def loss(own, variables=variables, method=method, batch=batch):
            keys = jax.random.split(jax.random.key(2), 2)
            return method.loss(variables.with_params("generator", own), batch, keys, 0.0)

        gradient, outcome = jax.jit(jax.grad(loss, has_aux=True))(variables.params["generator"])
        gradients[term] = {name: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(part)) for name, part in gradient.items()}
        assert all(np.isfinite(value) for value in gradients[term].values())
        assert all(float(value) > 0 for value in outcome.metrics.values())
        assert ("L_D" in outcome.metrics) == (term == "d")  # what is not trained is not run
    return gradients


@pytest.mark.parametrize(
    ("term", "moved", "still"),
    [
        ("g", {"encoder", "generator"}, {"decoder", "map_block", "signal_block"}),
        ("d", {"encoder", "decoder", "map_block", "signal_block"}, {"generator"}),
        ("cct", {"encoder"}, {"generator", "decoder", "map_block", "signal_block"}),
    ],
)
def test_each_loss_moves_its_parts_alone(loss_gradients, term, moved, still):
    assert all(loss_gradients[term][part] > 0 for part in moved)
    assert all(loss_gradients[term][part] == 0 for part in still)


def test_image_size_and_signals_that_do_not_fit_name_the_field():
    config = default("paper")
    config.data.image_size = 100
    with pytest.raises(UserError, match=r"data\.image_size=100: 5 levels.*multiple of 32; the nearest is 96"):
        build_network(resolve(config))
    config.data.image_size = 96
    config.model.head_channels = 80
    with pytest.raises(UserError, match=r"model\.head_channels=80: level 2 has 384 channels, not a multiple of it"):
        build_network(resolve(config))
    config.model.head_channels = 64
    config.mrdiff.signals = "spin_echo,spin_echo,spin_echo"
    with pytest.raises(UserError, match=r"mrdiff\.signals"):
        build_network(resolve(config))
