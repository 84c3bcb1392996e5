"""What holds for every method, whatever it is: each name of the registry runs this list."""

import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import forget_programs, make_batch
from helpers.models import TINY_METHODS, tiny

import mrdiff_jax
from mrdiff_jax import diffusion, methods, parallel
from mrdiff_jax.config import default, resolve, small
from mrdiff_jax.fields import Optimizer
from mrdiff_jax.methods import hinet, reading
from mrdiff_jax.storage.checkpoints import Checkpoints
from mrdiff_jax.synthesis import model_files
from mrdiff_jax.training.loop import Run, train_and_evaluate
from mrdiff_jax.training.step import create_train_state, make_train_step

KEYS = jax.random.split(jax.random.key(0), 2)
NAMES = pytest.mark.parametrize("name", methods.NAMES)


DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
OWN_OVERFIT = {"hinet", "resvit", "blochgan", "cm", "cdpm", "m2dn"}  # in the file of each, with settings and bounds of its own


@pytest.fixture(autouse=True)
def forget_each():
    """The programs of one method, which no other one's test can use: a file of all of them would hold too many."""
    yield
    forget_programs()


def configured(name, **changes):
    recipe = {"optimizer.learning_rate": 3e-3, "optimizer.hold": 1.0, "train.evaluate_every": 1000}
    return tiny(**{"method.name": name} | recipe | TINY_METHODS.get(name, {"data.image_size": 32}) | changes)


@pytest.mark.parametrize("name", ["mrdiff", "regression", "cm", "cdpm"])
def test_images_have_single_precision_whatever_the_network_has(name):
    method, batch = methods.create(resolve(configured(name, **{"model.dtype": "bfloat16"}))), make_batch(2, 32)
    assert jax.eval_shape(method.synthesize, method.init(jax.random.key(0), batch), batch, KEYS).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "hold", "own"),
    [
        ("hinet", 0.25, {"lambda_l1": 100, "lambda_reconstruction": 20}),
        ("resvit", 0.5, {"lambda_l1": 100, "stage_2_start": 2 / 3, "stage_2_rate": 1, "norm": "batch"}),
        ("blochgan", 0.5, {"lambda_l1": 100, "lambda_sources": 10}),
    ],
)
def test_the_recipes_of_the_adversarial_methods(name, hold, own):
    config = default("paper")
    config.update_from_flattened_dict({"method.name": name, "data.sources": "T2w,PDw", "data.target": "T1w"})
    found = resolve(config)
    assert found.optimizer == Optimizer(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999, hold=hold, ema_decay=0.0)
    assert {field: getattr(found.own, field) for field in own} == own
    assert hinet.EPSILON == 0.8


@NAMES
def test_the_small_settings_have_the_parameters_that_their_table_says(name):
    flat = {"method.name": name, "data.image_size": 64, "data.sources": "T2w,PDw", "data.target": "T1w"}
    config = small("paper")
    config.update_from_flattened_dict(flat)
    resolved = resolve(config)
    method = methods.create(resolved)
    variables = method.init(jax.random.key(0), make_batch(1, 64))
    read = reading.synthesis_part(method, resolved, variables)
    trained, synthesis = (sum(leaf.size for leaf in jax.tree.leaves(found.params)) for found in (variables, read))
    row = re.search(rf"^\| {name} \|.*\| ([\d,]+) \| ([\d,]+) \|$", DOCS.read_text().partition("## On CPUs")[2], re.MULTILINE)
    assert row.groups() == (f"{trained:,}", f"{synthesis:,}")


def steps_of(name, devices, count, batch):
    """The method, and its state and scalars after the first and after the last step, all on one batch."""
    config = resolve(configured(name))
    method, chosen = methods.create(config), jax.local_devices()[:devices]
    state = parallel.replicate(create_train_state(method, config.optimizer, jax.random.key(0), batch), chosen)
    step = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(1)), chosen)
    shards, taken = parallel.shard(batch, devices), []
    for n in range(count):
        state, metrics = step(state, shards, np.full(devices, n / count, np.float32))
        taken[1:] = [(state, metrics)]
    return method, parallel.unreplicate(taken[0]), parallel.unreplicate(taken[-1])


@NAMES
def test_every_player_moves_by_finite_gradients_and_two_devices_take_the_step_of_one(name):
    batch = make_batch(2, 32)
    method, (one, first), _ = steps_of(name, 1, 1, batch)
    _, (two, second), _ = steps_of(name, 2, 1, batch)
    for player in method.players:
        assert np.isfinite(first[f"{player}/loss"])
        assert 0 < first[f"{player}/gradient_norm"] < np.inf
    for scalar, value in first.items():
        assert second[scalar] == pytest.approx(value, rel=1e-2, abs=1e-5), scalar
    moved = jax.tree.map(lambda a, b: np.abs(a - b).mean(), one.variables, two.variables)
    learning_rate = resolve(configured(name)).optimizer.learning_rate  # the length of Adam's first step
    assert np.median(jax.tree.leaves(moved)) < 0.01 * learning_rate  # rounding alone moves a bias before a norm


@NAMES
def test_images_are_in_range_and_depend_on_the_sources_and_not_on_the_target(name):
    method, batch = methods.create(resolve(configured(name))), make_batch(2, 32)
    rng = np.random.default_rng(0)
    fresh = method.init(jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: leaf + 0.02 * rng.standard_normal(np.shape(leaf), np.float32), fresh.params)
    variables = fresh.replace(params=params)  # away from layers that start at zero
    synthesize = jax.jit(method.synthesize)
    without_target = {key: value for key, value in batch.items() if key != "target"}
    image = synthesize(variables, without_target, KEYS)
    assert image.shape == (2, 32, 32)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    other = synthesize(variables, without_target | {"sources": batch["sources"][:, ::-1]}, KEYS)
    assert np.abs(image - other).max() > 1e-6
    with_another = {key: np.stack([value[0] / 2, value[1]]) for key, value in without_target.items()}
    neighbour = synthesize(variables, with_another, KEYS)
    np.testing.assert_allclose(neighbour[1], image[1], atol=1e-4)  # nor on its neighbours
    assert np.abs(neighbour[0] - image[0]).max() > 1e-6


@pytest.mark.parametrize("name", ["mrdiff", "cdpm", "m2dn"])
def test_the_first_estimate_of_the_chain_is_synthesis_in_one_step(name):
    method, batch = methods.create(resolve(configured(name, **{"sample.steps": 1}))), make_batch(2, 32)
    variables = method.init(jax.random.key(0), batch)
    variables = variables.replace(params=jax.tree.map(lambda leaf: leaf + 0.02, variables.params))
    together = 3 if name == "m2dn" else 1  # the contrasts that share the noise of an example
    x_T = diffusion.start(np.zeros((2, 32, 32, together), np.float32), KEYS)[..., -1]
    last = np.full(2, len(method.schedule.alpha_bar) - 1)
    estimate = np.clip(jax.jit(method.denoise)(variables, batch, x_T, last), -1, 1)
    np.testing.assert_allclose(jax.jit(method.synthesize)(variables, batch, KEYS), (estimate + 1) / 2, atol=1e-4)


@NAMES
def test_a_stopped_run_goes_on_exactly_and_its_export_synthesises_as_it_does(name, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    summary = train_and_evaluate(configured(name), whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "4")  # as if it had been killed after step 2
    Run(resolve(configured(name)), parts).train()
    assert summary.method == name
    assert (summary.sample is not None) == methods.create(resolve(configured(name))).samples
    run = Run(resolve(configured(name)), whole)
    states = [Checkpoints(folder, keep=1).restore(run.initial(), run.iterator) for folder in (whole, parts)]
    jax.tree.map(np.testing.assert_array_equal, *states)

    model_files.export(model_files.load(whole), tmp_path / "model.safetensors")
    sources = np.random.default_rng(0).random((2, 32, 32, 2), np.float32)
    images = [
        mrdiff_jax.Synthesizer.load(path)(sources, (4000, 2000), (100, 10), rng=jax.random.key(0))
        for path in (whole, tmp_path / "model.safetensors")
    ]
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("name", [name for name in methods.NAMES if name not in OWN_OVERFIT])
def test_two_slices_can_be_learnt_by_heart(name):
    """Smooth slices whose target is another mixture of the sources in each half: much of the error must go."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j].astype(np.float32)
    waves = np.stack([np.sin(3 * x + phase) * np.cos(2 * y) for phase in (0.0, 1.0)]) / 2 + 0.5
    batch = make_batch(2, 32) | {"sources": np.stack([waves, 1 - waves[::-1]], -1).astype(np.float32)}
    batch["target"] = np.where(x > 0, batch["sources"][..., 0], 1 - batch["sources"][..., 1]).astype(np.float32)
    method, first, last = steps_of(name, 1, 150, batch)
    synthesize = jax.jit(method.synthesize)
    before, after = (np.abs(synthesize(state.variables, batch, KEYS) - batch["target"]).mean() for state, _ in (first, last))
    assert after < 0.5 * before
