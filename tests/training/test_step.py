"""The training step: devices, parts of a batch, the moving average."""

import re
from functools import partial

import jax
import numpy as np
import optax
import pytest

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import resolve
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Method, Outcome, Player, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.methods.packing import pack
from mrdiff_jax.networks import kernel_gradients
from mrdiff_jax.training.step import averaged, create_train_state, make_train_step


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_two_devices_take_the_step_of_one_and_the_average_warms_up(tiny_config, batch):
    tiny_config.mrdiff.optimizer.update(ema_decay=0.9, hold=0.5)
    config = resolve(tiny_config)
    method = methods.create(config)
    initial = create_train_state(method, config.optimizer, jax.random.key(0), batch)
    step = make_train_step(method, config.optimizer, jax.random.key(1))
    states, losses, histories = [], [], []
    for count in (1, 2):
        devices, history = jax.local_devices()[:count], [initial]
        state, pmapped = parallel.replicate(initial, devices), parallel.pmap(step, devices)
        progress = np.zeros(count, np.float32)
        for _ in range(2):
            state, metrics = pmapped(state, parallel.shard(batch, count), progress)
            history.append(parallel.unreplicate(state))
        states.append(history[-1])
        histories.append(history)
        losses.append(parallel.unreplicate(metrics))
    for name, value in losses[0].items():
        assert losses[1][name] == pytest.approx(value, rel=1e-3), name
    firsts = [history[1] for history in histories]
    gradients = [optax.tree.get(state.opt_state, "mu") for state in firsts]  # their moving averages, packed
    sizes = jax.tree.map(np.abs, gradients[0])
    largest = max(size.max() for size in jax.tree.leaves(sizes))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest), *gradients)
    # Adam divides by the gradient's size, so where that is all but zero rounding decides: compare with the step's length
    rate, packed = config.optimizer.learning_rate, [pack(state.variables.params) for state in firsts]
    moved = jax.tree.map(lambda a, b, size: np.abs(a - b)[size > 1e-5 * largest], *packed, sizes)
    assert max(move.max() for move in jax.tree.leaves(moved)) < 0.2 * rate
    moved = jax.tree.map(lambda a, b: np.abs(a - b).mean(), states[0].variables.params, states[1].variables.params)
    assert max(jax.tree.leaves(moved)) < 0.2 * rate
    assert np.mean(jax.tree.leaves(moved)) < 0.01 * rate

    state, _ = pmapped(state, parallel.shard(batch, count), progress + 1)  # at the end the rate is 0
    assert_same(parallel.unreplicate(state).variables.params, states[1].variables.params)

    # the moving average forgets the start first: decays 1/10 and 2/11 before the one that is set
    zeroth, first, second = histories[0]
    expected = jax.tree.map(lambda a, p: 0.1 * a + 0.9 * p, zeroth.variables.params, first.variables.params)
    expected = jax.tree.map(lambda a, p: 2 / 11 * a + 9 / 11 * p, expected, second.variables.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), second.average, expected)


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tiny_config, batch):
    config = resolve(tiny_config)
    method = methods.create(config)
    state = create_train_state(method, config.optimizer, jax.random.key(0), batch)
    seen = []
    for parts in (1, 2):
        tiny_config.optimizer.accumulate = parts
        recipe = resolve(tiny_config).optimizer
        held = jax.local_devices()[:1]
        step = parallel.pmap(make_train_step(method, recipe, jax.random.key(1)), held)
        state_after, metrics = step(parallel.replicate(state, held), parallel.shard(batch, 1), np.zeros(1, np.float32))
        after = parallel.unreplicate(state_after)
        seen.append((parallel.unreplicate(metrics), after.variables.state, optax.tree.get(after.opt_state, "mu")))
    (whole, vectors, gradient), (in_parts, vectors_of_parts, gradient_of_parts) = seen
    for name, value in whole.items():
        assert in_parts[name] == pytest.approx(value, rel=1e-4), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), vectors, vectors_of_parts)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), gradient, gradient_of_parts)


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_of_kernels_in_blocks_are_those_of_xla(remat, tiny_config, batch, monkeypatch):
    """Inside of a whole step: on two devices, in parts of a batch, with features computed again."""
    tiny_config.model.remat = remat
    tiny_config.optimizer.accumulate = 2
    config = resolve(tiny_config)
    method, batch = methods.create(config), jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), batch)
    state, blocks, gradients = create_train_state(method, config.optimizer, jax.random.key(0), batch), [], []
    in_blocks = kernel_gradients._of_kernel_in_blocks
    monkeypatch.setattr(kernel_gradients, "_of_kernel_in_blocks", lambda *a, **k: blocks.append(1) or in_blocks(*a, **k))
    monkeypatch.setattr(kernel_gradients, "_BLOCK", 16)
    monkeypatch.setattr(kernel_gradients, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(parallel, "few_cores", lambda: True)
    for large in (2**30, 0):
        assert not blocks
        monkeypatch.setattr(kernel_gradients, "_LARGE", large)
        step = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(1)))
        after, _ = step(parallel.replicate(state), parallel.shard(batch), np.zeros(jax.local_device_count(), np.float32))
        gradients.append(optax.tree.get(parallel.unreplicate(after).opt_state, "mu"))
    assert len(blocks) > 10
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), *gradients)


def test_a_step_takes_the_parts_that_the_recipe_says(tiny_config, batch, monkeypatch):
    tiny_config.optimizer.accumulate = 2
    config, seen = resolve(tiny_config), []
    method = methods.create(config)
    state = create_train_state(method, config.optimizer, jax.random.key(0), batch)
    whole = method.players["generator"]

    def loss(variables, batch, rng, progress):
        seen.append(len(batch["target"]))
        return whole.loss(variables, batch, rng, progress)

    monkeypatch.setitem(method.players, "generator", whole._replace(loss=loss))
    step = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(1)), jax.local_devices()[:1])
    step.lower(*jax.tree.map(lambda leaf: np.asarray(leaf)[None], (state, batch, np.float32(0))))
    assert set(seen) == {1}


class Pair(Method):
    """Two numbers: the first falls by 1 in a step, the second by what it sees of the first."""

    averaged = ()

    def __init__(self, simultaneous):
        self.simultaneous = simultaneous
        losses = {"first": lambda params: params["first"], "second": lambda params: params["first"] * params["second"]}
        optimizer = optax.with_extra_args_support(optax.sgd(1.0))
        self.players = {name: Player(partial(self.loss, of), optimizer) for name, of in losses.items()}

    def loss(self, of, variables, batch, rng, progress):
        return of(variables.params), Outcome({})

    def init(self, key, batch):
        return Variables({"first": np.float32(5), "second": np.float32(0)})

    def synthesize(self, variables, batch, rng):
        return batch["sources"][..., 0]


@pytest.mark.parametrize(("simultaneous", "seen"), [(True, 5), (False, 4)])
def test_a_player_sees_the_others_before_the_step_or_as_they_are_now(tiny_config, batch, simultaneous, seen):
    method, recipe, one = Pair(simultaneous), resolve(tiny_config).optimizer, jax.local_devices()[:1]
    state = create_train_state(method, recipe, jax.random.key(0), batch)
    step = parallel.pmap(make_train_step(method, recipe, jax.random.key(1)), one)
    state, _ = step(parallel.replicate(state, one), parallel.shard(batch, 1), np.zeros(1, np.float32))
    assert parallel.unreplicate(state).variables.params == {"first": 4, "second": -seen}


class Many(Method):
    """Fifty small arrays and a large one under Adam, with a moving average."""

    averaged = ("generator",)

    def __init__(self, recipe):
        self.players = {"generator": Player(self.loss, make_optimizer(recipe))}

    def loss(self, variables, batch, rng, progress):
        return sum((batch["target"].mean() * p).sum() ** 2 for p in variables.of("generator")["params"]), Outcome({})

    def init(self, key, batch):
        return Variables({"generator": [np.linspace(0, 1, size, dtype=np.float32) for size in [*range(5, 55), 300**2]]})

    def synthesize(self, variables, batch, rng):
        return batch["sources"][..., 0]


def test_what_moves_is_computed_once_and_in_its_own_memory(tiny_config, batch):
    """XLA would compute Adam's step anew for each array, and copy moments before they are overwritten."""
    recipe, one = resolve(tiny_config).optimizer, jax.local_devices()[:1]
    method = Many(recipe)
    state = create_train_state(method, recipe, jax.random.key(0), batch)
    step = parallel.pmap(make_train_step(method, recipe, jax.random.key(1)), one, donate=(0,))
    arguments = parallel.replicate(state, one), parallel.shard(batch, 1), np.zeros(1, np.float32)
    program = step.lower(*arguments).compile().as_text()
    assert 0 < program.count(" subtract(") < 10  # the loss has none, the moving average one
    assert not re.search(r" = f32\[\S* copy\(", program[program.index("\nENTRY") :])


def test_averages_over_parts_are_those_over_all():
    x, y = np.arange(6.0), np.arange(12.0).reshape(6, 2)

    def mean(x, y):
        return {"x": x.mean(), "y": y.mean(0)}

    for parts in (1, 2, 3, 6):
        jax.tree.map(np.testing.assert_allclose, averaged(mean, parts, x, y), mean(x, y))
    with pytest.raises(UserError, match=r"optimizer\.accumulate=4: a device has 6 examples"):
        averaged(mean, 4, x, y)
