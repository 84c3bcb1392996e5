import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax.fields import Optimizer
from mrdiff_jax.methods.optimizers import in_two_stages, make_optimizer, rate_factor

RECIPE = Optimizer(learning_rate=0.1, b1=0.5, hold=0.5)


def walk(optimizer, gradients, progress):
    """The updates of a weight pair, from its gradients at each progress."""
    params, update = jnp.zeros(2), jax.jit(optimizer.update)
    state, moves = optimizer.init(params), []
    for gradient, share in zip(gradients, progress, strict=True):
        move, state = update(jnp.asarray(gradient, jnp.float32), state, params, progress=jnp.float32(share))
        moves.append(np.asarray(move))
    return np.array(moves)


@pytest.mark.parametrize(("progress", "factor"), [(0, 1), (0.5, 1), (0.75, 0.5), (1, 0)])
def test_the_rate_holds_and_falls(progress, factor):
    assert rate_factor(jnp.float32(progress), 0.5) == pytest.approx(factor)


def test_two_stages_are_two_trainings():
    """One after the other, each with its own curve and moments; the second at its own rate."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 2))
    within = np.linspace(0, 0.95, 5)
    start, rate = 2 / 3, 5.0
    progress = [*(start * within), *(start + 1e-6 + (1 - start) * within)]
    found = walk(in_two_stages(make_optimizer(RECIPE), start, rate), [*first, *second], progress)
    one = make_optimizer(RECIPE)
    np.testing.assert_allclose(found[:5], walk(one, first, within), rtol=1e-4)
    np.testing.assert_allclose(found[5:], rate * walk(one, second, within), rtol=1e-4)


def test_a_weight_that_stage_1_does_not_have_takes_an_ordinary_first_step():
    gradients = [[1.0, 0.0]] * 50 + [[1.0, 1.0]]
    progress = [*np.linspace(0, 0.4, 50), 0.5]
    staged = walk(in_two_stages(make_optimizer(RECIPE), 0.5), gradients, progress)
    assert not staged[:50, 1].any()
    assert staged[50, 1] == pytest.approx(-0.1, rel=1e-4)
    kept = walk(make_optimizer(RECIPE), gradients, progress)
    assert kept[50, 1] < -0.3  # what moments of stage 1 would have made of it


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_single_stage_is_the_optimiser_itself(start):
    gradients, progress = np.random.default_rng(0).standard_normal((5, 2)), np.linspace(0, 1, 5)
    found = walk(in_two_stages(make_optimizer(RECIPE), start, 3.0 if start else 1.0), gradients, progress)
    np.testing.assert_allclose(found, walk(make_optimizer(RECIPE), gradients, progress), rtol=1e-5)


def test_a_run_that_goes_on_stays_in_the_second_stage():
    optimizer, params = in_two_stages(make_optimizer(RECIPE), 0.5), {"w": jnp.ones(3)}
    _, state = optimizer.update(params, optimizer.init(params), params, progress=jnp.float32(0.7))
    _, again = optimizer.update(params, state, params, progress=jnp.float32(0.0))
    assert int(again.stage) == 1
    counts = [int(leaf) for leaf in jax.tree.leaves(again.inner) if jnp.shape(leaf) == ()]
    assert counts
    assert set(counts) == {2}  # its moments are those of the second stage
