import copy
import csv
import itertools
import json
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import default, resolve
from mrdiff_jax.data.batches import evaluation_batches
from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import results
from mrdiff_jax.evaluation.baselines import fit
from mrdiff_jax.evaluation.run import evaluate_only
from mrdiff_jax.fields import Optimizer
from mrdiff_jax.measuring import networks
from mrdiff_jax.methods.mrdiff import method as mrdiff
from mrdiff_jax.methods.mrdiff.settings import PRESETS
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.storage import lock
from mrdiff_jax.storage.checkpoints import Checkpoints, restore_part
from mrdiff_jax.training.loop import Diverged, train_and_evaluate
from mrdiff_jax.training.loop import Run as TypedRun


def Run(config, workdir):
    """A run of the configuration as it is now."""
    return TypedRun(resolve(config), workdir)


def final_state(config, workdir):
    run = Run(config, workdir)
    return run.checkpoints.restore(run.initial(), run.iterator)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def counted_losses(monkeypatch):
    """Counts how often the losses are traced."""
    calls = []
    original = mrdiff.image_loss
    monkeypatch.setattr(mrdiff, "image_loss", lambda *args: calls.append(1) or original(*args))
    return calls


@pytest.fixture
def compiled_in_step(monkeypatch):
    """The numbers of the training steps within which something was compiled."""
    inside, numbers = [None], []
    original = parallel.pmap

    def listen(name, seconds, **kwargs):
        if inside[0] is not None and "backend_compile" in name:
            numbers.append(inside[0])

    def pmap(fn, *args, **kwargs):
        compiled, calls = original(fn, *args, **kwargs), itertools.count()
        if fn.__name__ != "train_step":
            return compiled

        def step(*inputs):
            inside[0] = next(calls)
            outputs = jax.block_until_ready(compiled(*inputs))
            inside[0] = None
            return outputs

        return step

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(parallel, "pmap", pmap)
    return numbers


@pytest.mark.parametrize(("name", "is_lean"), [("mrdiff", True), ("regression", False)])
def test_the_step_of_many_kernels_is_compiled_lean_and_measured_so(name, is_lean, tiny_config, tmp_path, monkeypatch):
    tiny_config.method.name, asked = name, []
    original = parallel.pmap
    monkeypatch.setattr(parallel, "pmap", lambda fn, *args, **kw: asked.append((fn.__name__, kw)) or original(fn, *args, **kw))
    Run(tiny_config, tmp_path)
    monkeypatch.setattr(networks, "compile_and_weigh", lambda fn, *args, **kw: asked.append((fn.__name__, kw)) or (None, {}))
    config = resolve(tiny_config)
    networks.training_step(config, networks.fresh_state(config), jax.local_devices())
    steps = [options for name, options in asked if name == "train_step"]
    assert steps == 2 * [{"donate": (0,), "once": True, "lean": is_lean}]


def test_a_run_leaves_its_results_and_compiles_its_step_once(tiny_config, tmp_path, counted_losses, compiled_in_step, capsys):
    summary = train_and_evaluate(tiny_config, tmp_path)
    assert len(counted_losses) == 2  # L_G and L_D of a single trace, over four steps and two evaluations
    assert set(compiled_in_step) == {0}

    assert results.read(tmp_path).summary == summary
    for scores in (summary.synthesis, summary.references["copy"], summary.references["linear"]):
        assert np.isfinite(scores["psnr"])
        assert 0 <= scores["ssim"] <= 1
        assert set(scores) == {"psnr", "ssim", "fsim", "gmsd"}
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    dataset = open_dataset(tiny_config.data)
    held_out = [dataset.split("test")[i]["subject"] for i in range(len(dataset.split("test")))]
    assert [row["subject"] for row in rows] == held_out
    assert summary.slices == len(rows)
    by_subject = [np.mean([float(r["psnr"]) for r in rows if r["subject"] == s]) for s in sorted(set(held_out))]
    assert summary.synthesis["psnr"] == pytest.approx(np.mean(by_subject))

    assert (tmp_path / "samples.png").stat().st_size > 10_000
    assert list((tmp_path / "panels").iterdir())
    page = tmp_path / "report.html"
    assert f"{summary.synthesis['psnr']:.2f}" in page.read_text()
    page.unlink()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"train/L_G", "train/L_D", "train/L_CCT"} <= set(logged[0])
    printed = capsys.readouterr().out
    assert f"{summary.references['linear']['psnr']:.2f}" in printed
    assert str(tmp_path) in printed

    assert evaluate_only(tiny_config, tmp_path) == summary
    assert page.exists()

    state, evaluator = final_state(tiny_config, tmp_path), Run(tiny_config, tmp_path).evaluator
    averaged, last = (
        evaluator(parallel.replicate(variables), "test").scores.means(["psnr"], "default")["psnr"]
        for variables in (state.evaluated(), state.variables)
    )
    assert averaged == summary.synthesis["psnr"] != last


def test_same_seed_same_numbers_and_another_seed_others(tiny_config, tmp_path):
    first, second = (train_and_evaluate(tiny_config, tmp_path / name) for name in "ab")
    assert first == second
    run = Run(tiny_config, tmp_path / "a")
    tiny_config.train.seed = 1
    other = Run(tiny_config, tmp_path / "c")
    assert not np.array_equal(next(run.iterator)["target"], next(other.iterator)["target"])
    kernels = [r.initial().variables.params["generator"]["encoder"]["conv_in"]["kernel"] for r in (run, other)]
    assert not np.array_equal(*kernels)


def test_stopping_and_starting_again_changes_nothing_under_the_authors_preset(tiny_config, tmp_path):
    tiny_config.mrdiff.update(PRESETS["authors"])
    tiny_config.train.checkpoint_every = 3  # 5 batches are a pass over the data: the shuffle must go on, too
    tiny_config.train.steps = 8
    train_and_evaluate(tiny_config, tmp_path / "whole")
    tiny_config.train.steps = 3
    train_and_evaluate(tiny_config, tmp_path / "parts")
    tiny_config.train.steps = 8
    train_and_evaluate(tiny_config, tmp_path / "parts")
    whole, parts = (final_state(tiny_config, tmp_path / name) for name in ("whole", "parts"))
    assert int(whole.step) == 8
    assert_same(whole, parts)
    lengths = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(whole.variables.state)]
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)  # singular vectors, not averages of them


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tiny_config, tmp_path):
    train_and_evaluate(tiny_config, tmp_path)
    good = final_state(tiny_config, tmp_path)
    nowhere = jax.tree.map(lambda p: np.full_like(p, np.nan), good.variables.params)
    broken = good.replace(variables=good.variables.replace(params=nowhere))
    run = Run(tiny_config, tmp_path)
    run.checkpoints.save(5, broken.replace(step=np.int32(5)), run.iterator)
    run.checkpoints.close()
    tiny_config.train.steps = 9
    with pytest.raises(Diverged, match=r"step 6: .*generator/loss.*newest checkpoint is of step 5"):
        train_and_evaluate(tiny_config, tmp_path)
    assert Checkpoints(tmp_path, keep=3).latest() == 5


def test_progress_goes_by_steps_or_by_the_clock_whichever_is_further(tiny_config, tmp_path):
    run = Run(tiny_config, tmp_path)
    assert [run.progress(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    run.limit = SimpleNamespace(share=lambda: 0.6)
    assert [run.progress(step) for step in (0, 3)] == [0.6, 0.75]


def test_all_hosts_validate_or_none_does(tiny_config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(parallel, "said_by_first", lambda answer: bool(asked.append(answer)))  # the first one has no time left
    Run(tiny_config, tmp_path).train()
    assert asked == [True]
    assert "validation/psnr" not in (tmp_path / "log.jsonl").read_text()


def test_a_time_limit_ends_with_checkpoint_and_evaluation(tiny_config, tmp_path):
    tiny_config.train.max_minutes = 1e-3
    summary = train_and_evaluate(tiny_config, tmp_path)
    assert summary.step == 1
    assert (tmp_path / "metrics.json").exists()
    assert int(final_state(tiny_config, tmp_path).step) == summary.step
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == summary.step  # though the clock ended it between two reports


def test_a_workdir_of_other_settings_is_refused_by_field(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    train_and_evaluate(tiny_config, tmp_path)
    tiny_config.train.steps = 2  # may change
    Run(tiny_config, tmp_path)
    for field, value, message in (
        ("mrdiff.map_channels", 2, r"--config\.mrdiff\.map_channels=4, now 2"),
        ("train.seed", 5, r"--config\.train\.seed=0, now 5"),
        ("data.test_fraction", 0.4, r"--config\.data\.test_fraction=0\.2, now 0\.4"),
    ):
        changed = copy.deepcopy(tiny_config)
        changed.update_from_flattened_dict({field: value})
        with pytest.raises(UserError, match=message):
            Run(changed, tmp_path)


def test_a_workdir_of_other_data_is_refused(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    train_and_evaluate(tiny_config, tmp_path)
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace(open_dataset(tiny_config.data).fingerprint, "0123456789abcdef"))
    with pytest.raises(UserError, match="holds a run with the data set=0123456789abcdef"):
        evaluate_only(tiny_config, tmp_path)


def test_a_mistake_does_not_claim_the_workdir(tiny_config, tmp_path):
    wrong = copy.deepcopy(tiny_config)
    wrong.data.target = "CT"
    with pytest.raises(UserError, match="CT"):
        train_and_evaluate(wrong, tmp_path / "run")
    Run(tiny_config, tmp_path / "run")


def test_a_batch_that_is_no_multiple_of_the_devices_is_refused_by_field(tiny_config, tmp_path):
    tiny_config.data.batch_size = 3
    with pytest.raises(UserError, match=r"--config\.data\.batch_size=3.*2 devices"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.json"))


def test_a_run_can_start_from_the_average_of_another(tiny_config, workdir, tmp_path):
    _, kept = restore_part(workdir, lambda shapes: {"average": shapes["average"]})
    tiny_config.train.init = str(workdir)
    run = Run(tiny_config, tmp_path)
    assert_same(run.initial().variables.params, kept["average"])
    assert_same(run.initial().average, kept["average"])
    assert int(run.initial().step) == 0
    run.checkpoints.close()


def test_a_run_goes_on_without_what_its_method_began_with(tiny_config, workdir, tmp_path):
    origin = tmp_path / "origin"
    shutil.copytree(workdir, origin)
    tiny_config.method.name = "cm"
    tiny_config.model.update(dict(json.loads((workdir / "config.json").read_text())["model"]))
    tiny_config.cm.update(init="diffusion", init_workdir=str(origin), last_levels=2)
    tiny_config.sample.steps = 1
    train_and_evaluate(tiny_config, tmp_path / "run")
    shutil.rmtree(origin)
    tiny_config.train.steps += 1
    train_and_evaluate(tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match=r"--config\.cm\.init_workdir=\S+origin: .*no checkpoint"):
        train_and_evaluate(tiny_config, tmp_path / "other")


def test_a_start_that_is_no_run_is_refused_by_its_flag(tiny_config, tmp_path):
    tiny_config.train.init = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--config\.train\.init=\S+nowhere: no run with a checkpoint there"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.json"))  # nothing claims the folder


def test_weights_of_another_size_are_refused_by_name(tiny_config, workdir, tmp_path):
    tiny_config.train.init = str(workdir)
    tiny_config.mrdiff.map_channels = 8
    with pytest.raises(UserError, match=rf"--config\.train\.init={workdir}: params/generator/\S+ is \(.*\) there, here \("):
        train_and_evaluate(tiny_config, tmp_path)


def test_two_trainings_do_not_share_a_workdir(tiny_config, tmp_path):
    with (
        lock.hold(tmp_path / ".training.lock", "trains"),
        pytest.raises(UserError, match=rf"{tmp_path}: process {os.getpid()} on .* trains here"),
    ):
        train_and_evaluate(tiny_config, tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_jax_settings_that_change_numbers_belong_to_the_run(tiny_config, tmp_path):
    tiny_config.train.steps = 1
    train_and_evaluate(tiny_config, tmp_path)
    path = tmp_path / "run.json"
    for name, other in (("JAX_ENABLE_X64", True), ("JAX_DEFAULT_PRNG_IMPL", "rbg")):
        written = json.loads(path.read_text())
        path.write_text(json.dumps(written | {name: other}))
        with pytest.raises(UserError, match=f"holds a run with {name}={other}, now {written[name]}"):
            Run(tiny_config, tmp_path)
        path.write_text(json.dumps(written))
    path.write_text("")
    with pytest.raises(UserError, match=r"run\.json: not readable as JSON \(is empty\)"):
        Run(tiny_config, tmp_path)


def test_a_picture_that_fails_is_a_warning_and_comes_after_the_checkpoint(tiny_config, tmp_path, monkeypatch, caplog):
    seen = []

    def fail(*args):
        seen.append(Checkpoints(tmp_path, keep=3).latest())
        raise ValueError("no such backend")

    monkeypatch.setattr("mrdiff_jax.evaluation.figures.sample_panel", fail)
    monkeypatch.setattr("mrdiff_jax.log.logger.propagate", True)
    train_and_evaluate(tiny_config, tmp_path)
    assert seen == [2, 4]
    assert caplog.text.count("could not be drawn (no such backend)") == 2
    assert (tmp_path / "metrics.json").exists()


def test_evaluation_does_not_ask_for_the_batch_of_training(tiny_config, tmp_path, monkeypatch):
    tiny_config.train.steps = 1
    summary = train_and_evaluate(tiny_config, tmp_path)
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    monkeypatch.setattr(jax, "device_count", lambda: 8)  # of which a batch of 2 is no multiple
    assert evaluate_only(tiny_config, tmp_path) == summary
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_evaluation_needs_a_checkpoint(tiny_config, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        evaluate_only(tiny_config, tmp_path / "nothing")
    with pytest.raises(UserError, match="no checkpoint; train first"):
        evaluate_only(tiny_config, tmp_path)


def test_an_unknown_method_lists_the_methods(tiny_config):
    tiny_config.method.name = "magic"
    with pytest.raises(UserError, match="magic: no such method; choose one of mrdiff"):
        resolve(tiny_config)
    tiny_config.method.name = "pix2pics"
    with pytest.raises(UserError, match=r"did you mean pix2pix\?"):
        resolve(tiny_config)


def test_linear_reference_solves_least_squares_on_the_training_subjects(tiny_config):
    dataset = open_dataset(tiny_config.data)
    references = fit(evaluation_batches(dataset, "train", 4), 2)
    train = dataset.split("train")
    sources = np.stack([train[i]["sources"] for i in range(len(train))]).reshape(-1, 2)
    target = np.stack([train[i]["target"] for i in range(len(train))]).reshape(-1)
    design = np.c_[sources, np.ones(len(sources))]
    expected = np.linalg.lstsq(design.astype(float), target.astype(float), rcond=None)[0]
    np.testing.assert_allclose(references.weights, expected, atol=1e-5)
    assert references.better_source == int(np.argmin(np.square(sources - target[:, None]).sum(0)))
    predicted = references.predict(sources.reshape(1, -1, 1, 2))
    np.testing.assert_allclose(predicted["linear"].ravel(), np.clip(design @ expected, 0, 1), atol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_synthesis_of_an_example_does_not_depend_on_its_neighbours(tiny_config, batch, sampler):
    tiny_config.sample.sampler = sampler
    method = methods.create(resolve(tiny_config))
    params = method.init(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 2)
    together = jax.jit(method.synthesize)(params, batch, keys)
    alone = jax.jit(method.synthesize)(params, {name: x[1:] for name, x in batch.items() if name != "target"}, keys[1:])
    assert together.shape == (2, 16, 16)
    np.testing.assert_allclose(together[1:], alone, atol=1e-5)


def test_the_authors_optimizer_decays_matrices_gains_and_biases():
    """The first step of AdamW in closed form: - rate (g / (|g| + eps) + decay w), whatever the leaf."""
    recipe = resolve(default("authors")).optimizer
    assert recipe == Optimizer("adamw", 1e-4, weight_decay=0.05, ema_warmup=False)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "scale": (4,), "bias": (4,)}
    params, gradient = ({name: 10 * rng.standard_normal(shape) for name, shape in shapes.items()} for _ in range(2))
    optimizer = make_optimizer(recipe)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params, progress=0.0)
    for name, w in params.items():
        np.testing.assert_allclose(updates[name], -1e-4 * (np.sign(gradient[name]) + 0.05 * w), rtol=1e-4)
