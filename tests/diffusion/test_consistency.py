"""Consistency training on its own: noise levels, curriculum, preconditioning, loss and sampling, by known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mrdiff_jax.diffusion import consistency
from mrdiff_jax.diffusion.consistency import Curriculum, Levels
from mrdiff_jax.diffusion.preconditioning import Preconditioning

LEVELS = Levels()


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_the_grid_falls_from_sigma_max_to_sigma_min_as_karras_has_it():
    sigma = np.asarray(LEVELS.at(jnp.arange(18), 18))
    rho, low, high = 7, 0.002, 80
    expected = [(high ** (1 / rho) + i / 17 * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(18)]
    np.testing.assert_allclose(sigma, expected, rtol=2e-5)
    assert sigma[-1] == np.float32(0.002)
    assert (np.diff(sigma) < 0).all()


def test_the_number_of_levels_grows_from_2_to_151():
    progress = jnp.linspace(0, 1, 1001)
    count = np.asarray(Curriculum().levels(progress))
    assert (count[0], count[-1]) == (2, 151)
    assert (np.diff(count) >= 0).all()
    expected = np.ceil(np.sqrt(0.5 * (151**2 - 4) + 4) - 1) + 1
    assert count[500] == expected == 107


@pytest.mark.parametrize(
    ("formula", "first", "last"), [("code", 0.9025, 0.95 ** (2 / 150)), ("paper", 0.95, 0.95 ** (2 / 151))]
)
def test_both_formulas_of_the_target_decay(formula, first, last):
    curriculum = Curriculum(formula=formula)
    assert curriculum.target_decay(jnp.float32(0)) == pytest.approx(first, rel=1e-6)
    assert curriculum.target_decay(jnp.float32(1)) == pytest.approx(last, rel=1e-6)


@pytest.mark.parametrize("sigma_min", [0.002, 0.0137])
def test_at_sigma_min_the_function_is_the_identity(sigma_min):
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    levels = Levels(sigma_min)
    sigma = levels.at(jnp.full(3, 9), 10)
    f = Preconditioning(sigma_min).apply(lambda u, c_noise: 1e3 * jnp.sin(u) + 7, x, sigma)
    np.testing.assert_array_equal(f, x)


def test_the_scalings_keep_the_network_at_unit_variance():
    sigma = jnp.array([0.002, 0.1, 0.5, 3, 80])
    skip, out, scale, noise = Preconditioning(0.002, 0.5).scalings(sigma)
    np.testing.assert_allclose(scale**2 * (sigma**2 + 0.25), 1, rtol=1e-6)
    np.testing.assert_allclose(skip, 0.25 / ((sigma - 0.002) ** 2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(out, (sigma - 0.002) * 0.5 / np.sqrt(sigma**2 + 0.25), rtol=1e-6)
    np.testing.assert_allclose(noise, 250 * np.log(sigma), rtol=1e-6)


def test_pairs_are_neighbours_and_reach_every_level():
    larger, smaller = consistency.draw_pair(LEVELS, jnp.int32(5), keys(400))
    grid = np.asarray(LEVELS.at(jnp.arange(5), 5))
    index = np.abs(np.asarray(larger)[:, None] - grid).argmin(1)
    np.testing.assert_allclose(larger, grid[index])
    np.testing.assert_allclose(smaller, grid[index + 1])
    assert set(index) == {0, 1, 2, 3}


def test_distances():
    a, b = jnp.zeros((1, 2, 2, 1)), jnp.array([1.0, -2, 0, 2]).reshape(1, 2, 2, 1)
    assert consistency.between(a, b, "l1")[0] == pytest.approx(1.25)
    assert consistency.between(a, b, "l2")[0] == pytest.approx(2.25)
    c = 0.00054 * 2
    assert consistency.between(a, b, "pseudo_huber")[0] == pytest.approx(np.sqrt(9 + c**2) - c)
    at_zero = jax.grad(lambda x: consistency.between(x, a, "pseudo_huber").sum())(a)
    assert np.isfinite(at_zero).all()


def test_the_target_gets_no_gradient_and_the_same_noise_at_the_smaller_level():
    x_0, noise = jnp.ones((2, 4)), jax.random.normal(jax.random.key(0), (2, 4))
    pair = jnp.array([2.0, 5.0]), jnp.array([1.0, 3.0])
    seen = {}

    def f(name, gain):
        def function(x, sigma):
            seen[name] = x, sigma
            return gain * x

        return function

    def loss(student, target):
        return consistency.training_loss(f("student", student), f("target", target), x_0, noise, pair, "l2")

    loss(1.0, 1.0)
    for name, sigma in zip(("student", "target"), pair, strict=True):
        np.testing.assert_array_equal(seen[name][1], sigma)
        np.testing.assert_allclose(seen[name][0], x_0 + sigma[:, None] * noise, rtol=1e-6)
    by_student, by_target = jax.grad(loss, argnums=(0, 1))(1.0, 1.0)
    assert by_student != 0
    assert by_target == 0


def test_a_linear_network_finds_the_exact_solution_for_gaussian_data():
    """Of data N(0, s^2): f(x, sigma) = x sqrt((s^2 + sigma_min^2) / (s^2 + sigma^2)); F has a gain at each level.

    A grid of N levels falls short of it by a share of order 1 / N: E[f(x_r) | x_s] in place of f(x_r), known exactly, too.
    """
    s, count, batch = 0.5, 80, 128
    levels, net = Levels(0.002, 20.0), Preconditioning(0.002, 0.5)
    grid = levels.at(jnp.arange(count), count)
    recipe = optax.radam(optax.exponential_decay(3e-2, 1000, 0.3))

    def function(gains):
        def network(u, c_noise):
            return jnp.interp(c_noise / 250, jnp.log(grid[::-1]), gains[::-1])[:, None] * u

        return lambda x, sigma: net.apply(network, x, sigma)

    def step(state, key):
        gains, target, moments = state
        rng = jax.random.split(key, batch)
        x_0, noise = s * jax.random.normal(jax.random.fold_in(key, 1), (batch, 1)), jax.random.normal(key, (batch, 1))
        pair = consistency.draw_pair(levels, count, rng)

        def loss(gains):
            return consistency.training_loss(function(gains), function(target), x_0, noise, pair, "l2")

        updates, moments = recipe.update(jax.grad(loss)(gains), moments, gains)
        gains = optax.apply_updates(gains, updates)
        return (gains, optax.incremental_update(gains, target, 0.1), moments), None

    start = jnp.zeros(count)
    steps = jax.random.split(jax.random.key(0), 4000)
    (gains, _, _), _ = jax.jit(lambda: jax.lax.scan(step, (start, start, recipe.init(start)), steps))()
    found = np.asarray(function(gains)(jnp.ones((count, 1)), grid)[:, 0])
    up = np.asarray(grid)[::-1]
    of_grid = np.cumprod([1, *((s**2 + up[:-1] * up[1:]) / (s**2 + up[1:] ** 2))])[::-1]
    exact = np.sqrt((s**2 + 0.002**2) / (s**2 + np.asarray(grid) ** 2))
    np.testing.assert_allclose(found, of_grid, rtol=0.03)
    np.testing.assert_allclose(found, exact, rtol=0.05)


def test_one_step_is_the_estimate_from_pure_noise():
    like = jnp.zeros((2, 4, 4, 1))
    seen = []

    def f(x, sigma):
        seen.append((x, sigma))
        return 0.01 * x

    sigmas = consistency.sampling_levels(LEVELS, 151, 1)
    image = consistency.sample(f, LEVELS, sigmas, like, keys(2))
    np.testing.assert_allclose(sigmas, [80])
    (x, sigma), *_ = seen
    np.testing.assert_allclose(sigma, [80, 80])
    assert np.asarray(x).std() == pytest.approx(80, rel=0.3)
    np.testing.assert_allclose(image, np.clip(0.01 * x, -1, 1))


def test_two_steps_are_the_published_ones_and_more_lie_evenly():
    grid = np.asarray(LEVELS.at(jnp.arange(151), 151))
    np.testing.assert_allclose(consistency.sampling_levels(LEVELS, 151, 2), grid[[0, 67]], rtol=1e-4)
    np.testing.assert_allclose(consistency.sampling_levels(LEVELS, 151, 5), grid[[0, 30, 60, 90, 120]], rtol=1e-4)
    for steps in (0, 151):
        with pytest.raises(ValueError, match=r"1 to 150 steps"):
            consistency.sampling_levels(LEVELS, 151, steps)


def test_between_steps_noise_is_added_up_to_the_next_level():
    """With an estimate of 0, what f sees at the second level is noise of deviation sqrt(sigma^2 - sigma_min^2)."""
    levels = Levels(0.3, 10.0)
    sigmas = np.array([10.0, 0.5])
    like = jnp.zeros((2, 200, 200))
    seen = consistency.sample(lambda x, sigma: jnp.where(sigma[:, None, None] > 1, 0, x), levels, sigmas, like, keys(2))
    inside = np.asarray(seen)[np.abs(np.asarray(seen)) < 1]
    assert np.mean(np.abs(np.asarray(seen)) < 0.4) == pytest.approx(0.6827, abs=0.01)  # within one deviation, 0.4
    assert inside.mean() == pytest.approx(0, abs=0.01)


def test_samples_depend_on_their_own_key_alone():
    rng, like = keys(3), jnp.zeros((3, 4, 4, 1))
    sigmas = consistency.sampling_levels(LEVELS, 151, 3)

    def run(rng, like):
        return consistency.sample(lambda x, sigma: 0.02 * x, LEVELS, sigmas, like, rng)

    np.testing.assert_allclose(run(rng, like)[1:2], run(rng[1:2], like[1:2]), atol=1e-6)
