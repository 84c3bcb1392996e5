"""What the authors' network and OpenAI's ADM computed from weights and inputs that `fidelity_recipe` makes.

Their outputs were recorded once, in float32 on a CPU with torch 2.13: those of the authors' published code (class
UNetModifiedModel, its diffusion and the loss of its training loop, in training mode for losses and gradients) and those of
openai/guided-diffusion (MIT) at commit 22e0df8.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from helpers import fidelity_recipe as recipe
from safetensors.numpy import save_file

import mrdiff_jax
from mrdiff_jax import diffusion, methods, parallel
from mrdiff_jax.config import Config, default, resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.mrdiff import authors_weights
from mrdiff_jax.methods.mrdiff import method as mrdiff
from mrdiff_jax.methods.mrdiff.method import build_network
from mrdiff_jax.methods.mrdiff.network import Network, ScanParameters
from mrdiff_jax.methods.packing import pack, unpack
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.unet import Backbone, Decoder, Encoder, StepEmbedding
from mrdiff_jax.synthesis import model_files as trained
from mrdiff_jax.training.loop import Run
from mrdiff_jax.training.step import TrainState, make_train_step

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((Path(__file__).with_name("fidelity.json")).read_text())
TOOL = ROOT / "tools" / "import_authors_weights.py"
_spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
importer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(importer)


def assert_probes(x, recorded, tolerance=1e-4):
    np.testing.assert_allclose(recipe.probe(x), recorded, rtol=0, atol=tolerance * recorded[0])


def structure(network, side):
    """Parameters of a network, for their names and shapes."""
    y = jnp.zeros((1, side, side, len(network.signals)))
    variables = init_on_host(
        network, jax.random.key(0), y[..., :1], y, jnp.zeros(1), ScanParameters(*jnp.ones((3, 1, y.shape[-1])))
    )
    return variables


def state_dict(like, size, seed=0):
    """Weights for a network, as the authors' code would save them."""
    return recipe.weights(dict(authors_weights.entries(like, size).values()), seed) | authors_weights.haar_filters(size)


def flat(tree):
    """Arrays of a tree by path, in double precision."""
    return {path: np.asarray(x, np.float64) for path, x in flatten_dict(tree, sep="/").items()}


class Parity(NamedTuple):
    """A network of the authors' preset, the smallest that has all its parts, with the weights of the recipe."""

    config: Config
    method: methods.Method
    network: Network
    theirs: dict
    variables: dict
    batch: dict


@pytest.fixture(scope="module")
def parity():
    config = default("authors")
    config.data.update(sources="T2w,PDw", target="T1w", image_size=16)
    config.model.update(base_channels=32, channel_mult=(1, 4), attention_levels=(1,), head_channels=32)
    config = resolve(config)
    network = build_network(config)
    like = structure(network, 16)
    theirs = state_dict(like, network.backbone)
    variables = authors_weights.to_variables(theirs, like, network.backbone)
    return Parity(config, methods.create(config), network, theirs, variables, recipe.batch(2, 16))


def test_features_maps_and_images_are_those_of_the_authors_network(parity):
    network, variables, batch = parity.network, parity.variables, parity.batch
    x_t, y, t = batch["noise"][0], 2 * batch["sources"] - 1, jnp.array([37, 901])
    scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])

    @jax.jit
    def run(variables):
        features, x0_hat, y_hat = network.apply(variables, x_t, y, t, scan)
        return features, x0_hat, y_hat, network.apply(variables, features, method=Network.content_maps)

    features, x0_hat, y_hat, maps = run(variables)
    recorded = RECORDED["authors"]
    bands = np.split(features.e_t, 4, axis=-1)  # ours are cA, cH, cV, cD; theirs cA, -cV, -cH, cD
    e_t = np.concatenate([bands[0], -bands[2], -bands[1], bands[3]], axis=-1)
    for x, numbers in zip((*features.skips[:-1], e_t), recorded["features"], strict=True):
        assert_probes(x, numbers)
    for x, numbers in zip(maps, recorded["maps"], strict=True):
        assert_probes(x, numbers)
    assert_probes(x0_hat, recorded["x0_hat"])
    assert_probes(y_hat, recorded["y_hat"])


def test_a_training_step_is_that_of_the_authors(parity, monkeypatch):
    """The losses, the gradient by every parameter, the singular vectors, AdamW and the moving average."""
    config, method, network, theirs, variables, batch = parity
    noise, recorded = jnp.asarray(batch["noise"]), RECORDED["authors"]
    monkeypatch.setattr(mrdiff, "stream", lambda rng, name, index=0: index)
    monkeypatch.setattr(mrdiff, "normal_like", lambda x, draw: noise[draw])
    monkeypatch.setattr(mrdiff, "steps_like", lambda rng, steps: jnp.full(2, 412))
    step = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(0)), jax.local_devices()[:1])
    average = authors_weights.to_variables(state_dict(variables, network.backbone, seed=5), variables, network.backbone)[
        "params"
    ]
    opt_state = jax.device_get({"generator": method.players["generator"].optimizer.init(pack(variables["params"]))})
    of_players = Variables({"generator": variables["params"]}, {"generator": {"spectral": variables["spectral"]}})
    state = TrainState(np.int32(0), of_players, {"generator": average}, opt_state)
    inputs = {name: x for name, x in batch.items() if name != "noise"}
    arguments = parallel.replicate(state, jax.local_devices()[:1]), parallel.shard(inputs, 1), np.zeros(1, np.float32)
    # the tests compile without optimisation, whose plain sums round more than 1e-3 of a gradient away on some processors
    optimised = step.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": "3"})
    new, metrics = parallel.unreplicate(optimised(*arguments))

    for name, value in recorded["losses"].items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name

    # their entries and ours differ in order and sign: products with signs that are mapped as weights are stay what they are
    entries = authors_weights.entries(variables, network.backbone)
    signs = flat(authors_weights.to_variables(theirs | recipe.signs(dict(entries.values())), variables, network.backbone))
    before, after = flat(variables), flat(new.variables.of("generator"))
    moments = unpack(optax.tree.get(new.opt_state, "mu"), variables["params"])
    gradients = {path: 10 * moment for path, moment in flat({"params": moments}).items()}
    trained = sorted(gradients, key=lambda path: entries[path][0])
    negligible = 1e-6 * max(np.linalg.norm(g) for g in gradients.values())  # zero, but for rounding: biases before a norm
    assert sum(np.linalg.norm(g) < negligible for g in gradients.values()) == 11
    for path, (projection, descent) in zip(trained, recorded["gradients"], strict=True):
        g, length = gradients[path], np.linalg.norm(gradients[path])
        assert np.vdot(signs[path], g) == pytest.approx(projection, rel=0, abs=max(1e-3 * length, negligible)), path
        if length > negligible:  # AdamW divides by the gradient's size; its product with the gradient is sound all the same
            assert np.vdot(after[path] - before[path], g) == pytest.approx(descent, rel=2e-3), path

    change = flat({"params": jax.tree.map(np.subtract, new.average["generator"], average)})
    length, projection = recorded["average"]
    assert np.sqrt(sum(np.vdot(change[path], change[path]) for path in trained)) == pytest.approx(length, rel=1e-4)
    assert sum(np.vdot(signs[path], change[path]) for path in trained) == pytest.approx(projection, rel=0, abs=5e-3 * length)

    moved = sorted(after.keys() - gradients, key=lambda path: entries[path][0])
    for path, projection in zip(moved, recorded["singular_vectors"], strict=True):
        assert np.vdot(signs[path], after[path]) == pytest.approx(projection, abs=1e-4), path


class ADM(nn.Module):
    """The plain UNet of our parts."""

    size: Backbone

    def setup(self):
        self.step_embedding, self.encoder = StepEmbedding(self.size), Encoder(self.size)
        self.generator = Decoder(self.size, 4)

    def __call__(self, x, t):
        embedding = self.step_embedding(t)
        features = self.encoder(x, embedding)
        return features, self.generator(features[-1], embedding, features)


def test_adm_network_is_that_of_openai():
    """Residual blocks with FiLM, up and down, attention in their order of heads, and the embedding of the step."""
    size = Backbone(base_channels=32, channel_mult=(1, 2), blocks_per_level=2, attention_levels=(1,), head_channels=16)
    x, t = recipe.normal(np.random.default_rng(3), 2, 8, 8, 3), jnp.array([37, 901])
    like = {"params": init_on_host(ADM(size), jax.random.key(0), x, t)["params"]}
    params = authors_weights.arrange(recipe.weights(dict(authors_weights.entries(like, size).values())), like, size)
    features, output = jax.jit(ADM(size).apply)(params, x, t)
    recorded = RECORDED["guided_diffusion"]
    for feature, numbers in zip(features, recorded["features"], strict=True):
        assert_probes(feature, numbers)
    assert_probes(output, recorded["output"])


def test_schedules_are_those_of_openai():
    recorded = RECORDED["guided_diffusion"]
    for name, values in recorded["alpha_bar"].items():
        alpha_bar = diffusion.SCHEDULES[name](1000).alpha_bar
        np.testing.assert_allclose(alpha_bar[[0, 1, 2, 250, 500, 750, 998, 999]], values, rtol=1e-9)
    schedule = diffusion.cosine_schedule(1000)
    for name, steps in recorded["respaced"].items():
        spacing = "stride" if name.startswith("ddim") else "fractional"
        assert diffusion.respace(schedule, len(steps), spacing).timesteps.tolist() == steps


def test_noising_and_samplers_are_those_of_openai(monkeypatch):
    """A chain of four steps with a stand-in for the network, whose estimates leave [-1, 1]."""
    recorded, rng = RECORDED["guided_diffusion"], np.random.default_rng(4)
    x_T, noise = recipe.normal(rng, 2, 8, 8, 1), recipe.normal(rng, 4, 2, 8, 8, 1)
    schedule = diffusion.cosine_schedule(1000)
    x_t = diffusion.q_sample(schedule, jnp.asarray(x_T), jnp.array([37, 901]), noise[0])
    assert_probes(x_t, recorded["q_sample"], 1e-5)

    chain, keys = diffusion.respace(schedule, 4), jax.random.split(jax.random.key(0), 2)
    monkeypatch.setattr(diffusion.samplers, "stream", lambda rng, name, t: t)
    monkeypatch.setattr(
        diffusion.samplers, "normal_like", lambda x, t: jnp.asarray(noise)[jnp.searchsorted(chain.timesteps, t)]
    )

    def denoise(x, t):
        return 1.2 * jnp.sin(3 * x + 0.01 * t[:, None, None, None])

    samples = {
        "ddim, eta 1": diffusion.ddim(denoise, chain, jnp.asarray(x_T), keys, 1.0),
        "ddim, eta 0.3": diffusion.ddim(denoise, chain, jnp.asarray(x_T), keys, 0.3),
        "ddpm": diffusion.ddpm(denoise, chain, jnp.asarray(x_T), keys),
    }
    for name, x in samples.items():
        assert_probes(x, recorded["samples"][name], 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_blocks.1.0.in_layers.0.bias": None}, r"lacks input_blocks\.1\.0\.in_layers\.0\.bias;"),
        ({"label_emb.weight": np.zeros((9, 32))}, r"has the surplus label_emb\.weight;"),
        ({"out.2.weight": np.zeros((4, 32, 1, 1))}, r"ill-shaped out\.2\.weight \(4, 32, 1, 1\) in place of \(4, 32, 3, 3\);"),
        ({"wt.LH.weight": np.ones((4, 1, 2, 2))}, r"wt\.LH\.weight that is not the filter"),
        ({"out.2.bias": np.full(4, np.nan)}, r"^out\.2\.bias has values that are not finite"),
        ({f"layer{i}": np.zeros(1) for i in range(9)}, "surplus layer0, layer1, layer2 and 6 more;"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_by_name(parity, change, message):
    theirs = {name: x for name, x in (parity.theirs | change).items() if x is not None}
    with pytest.raises(ValueError, match=message):
        authors_weights.to_variables(theirs, parity.variables, parity.network.backbone)


def test_an_imported_checkpoint_is_trained_on_evaluated_synthesised_with_and_exported(tiny_config, tmp_path):
    tiny_config.model.channel_mult = (1, 2)
    tiny_config.mrdiff.update(wavelet_of="features", spectral_norm=True)
    network = build_network(resolve(tiny_config))
    size, like = network.backbone, structure(network, 16)
    theirs = state_dict(like, size)
    weights, ema, workdir = tmp_path / "model000003.safetensors", tmp_path / "ema.safetensors", tmp_path / "run"
    save_file(theirs, weights)
    save_file(theirs | {"time_embed.0.bias": np.zeros(32, np.float32)}, ema)
    assert importer.write_checkpoint(tiny_config, weights, ema, workdir) == 3

    run = Run(resolve(tiny_config), workdir)
    first = next(run.iterator)["target"]
    state = run.checkpoints.restore(run.initial(), run.iterator)
    np.testing.assert_array_equal(next(run.iterator)["target"], first)  # the data from their start
    assert int(state.step) == 3
    imported = state.variables.of("generator")
    jax.tree.map(np.testing.assert_array_equal, imported, authors_weights.to_variables(theirs, like, size))
    assert np.all(state.average["generator"]["step_embedding"]["in"]["bias"] == 0)

    evaluate_only(tiny_config, workdir)
    synthesizer = mrdiff_jax.Synthesizer.load(workdir)
    images = synthesizer(np.full((2, 16, 16, 2), 0.5), (4000, 2000), (100, 10), rng=jax.random.key(0))
    assert images.shape == (2, 16, 16)
    assert np.isfinite(images).all()
    trained.export(synthesizer.trained, tmp_path / "exported.safetensors")
    assert mrdiff_jax.Synthesizer.load(tmp_path / "exported.safetensors").trained.sha256 == synthesizer.trained.sha256

    with pytest.raises(UserError, match="holds checkpoints already"):
        importer.write_checkpoint(tiny_config, weights, None, workdir)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("weights.npz", b"", r"weights\.npz: give a \.pt or a \.safetensors file"),
        ("none.pt", None, r"none\.pt: no such file"),
        ("torn.safetensors", b"torn", r"torn\.safetensors: cannot be read"),
        ("model.pt", b"", r"model\.pt: reading it needs torch; pip install torch"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(file, content, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        importer.read(tmp_path / file)


def test_a_state_dict_saved_by_torch_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"out.2.bias": torch.arange(4.0)}, tmp_path / "model.pt")
    np.testing.assert_array_equal(importer.read(tmp_path / "model.pt")["out.2.bias"], [0, 1, 2, 3])
    torch.save({"state": {"step": 3}}, tmp_path / "opt.pt")
    with pytest.raises(UserError, match=r"opt\.pt: cannot be read as a state dict"):
        importer.read(tmp_path / "opt.pt")


def test_a_config_of_another_structure_is_one_line_and_status_2(tmp_path):
    flags = ["--config=configs/demo.py", "--weights=none.pt", f"--workdir={tmp_path / 'run'}"]
    run = subprocess.run([sys.executable, TOOL, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: --config.mrdiff.wavelet_of=images: the authors' network has features; take :authors")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
