import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax import diffusion
from mrdiff_jax.fields import Sampling

DETERMINISTIC = functools.partial(diffusion.ddim, eta=0.0)


@pytest.fixture
def schedule():
    return diffusion.cosine_schedule(1000)


def test_cosine_schedule_follows_its_formula(schedule):
    t = np.arange(1, 1001) / 1000
    expected = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:900], expected[:900], rtol=1e-10)
    assert schedule.alpha_bar[-1] == pytest.approx(schedule.alpha_bar[-2] * 0.001)  # the clipped beta


@pytest.mark.parametrize("steps", [2, 10, 20])
def test_short_linear_schedules_fall_and_stay_positive(steps):
    levels = diffusion.linear_schedule(steps).alpha_bar
    assert (np.diff(levels, prepend=1) < 0).all()
    assert levels.min() > 0


def test_linear_schedule_follows_its_formula():
    linear = diffusion.linear_schedule(1000)
    assert linear.alpha_bar[0] == pytest.approx(1 - 1e-4)
    assert linear.alpha_bar[-1] / linear.alpha_bar[-2] == pytest.approx(1 - 0.02)


def test_respacing_keeps_the_named_steps(schedule):
    fractional = diffusion.respace(schedule, 50)
    assert fractional.timesteps[[0, 1, -1]].tolist() == [0, 20, 999]
    assert len(set(fractional.timesteps)) == 50
    stride = diffusion.respace(schedule, 50, "stride")
    assert stride.timesteps.tolist() == list(range(0, 1000, 20))
    np.testing.assert_array_equal(stride.alpha_bar, schedule.alpha_bar[::20])
    assert diffusion.respace(schedule, 1).timesteps.tolist() == [999]
    np.testing.assert_array_equal(diffusion.respace(schedule, 1000).timesteps, schedule.timesteps)


@pytest.mark.parametrize(("steps", "spacing"), [(0, "fractional"), (1001, "fractional"), (600, "stride")])
def test_impossible_respacing_is_refused(schedule, steps, spacing):
    with pytest.raises(ValueError, match=str(steps)):
        diffusion.respace(schedule, steps, spacing)


def test_q_sample_has_the_mean_and_variance_of_eq_2(schedule):
    x_0 = jnp.full((3, 200, 200, 1), 0.7)
    t = jnp.array([10, 400, 900])
    x_t = diffusion.q_sample(schedule, x_0, t, jax.random.normal(jax.random.key(0), x_0.shape))
    alpha_bar = schedule.alpha_bar[np.asarray(t)]
    np.testing.assert_allclose(x_t.mean((1, 2, 3)), 0.7 * np.sqrt(alpha_bar), atol=0.02)
    np.testing.assert_allclose(x_t.var((1, 2, 3)), 1 - alpha_bar, rtol=0.03)


def test_posterior_is_bayes_rule(schedule):
    """q(x_{t-1} | x_t, x_0) of Gaussians: precisions add."""
    i = 300
    alpha_bar, previous = schedule.alpha_bar[i], schedule.alpha_bar[i - 1]
    alpha = alpha_bar / previous
    precision = alpha / (1 - alpha) + 1 / (1 - previous)
    step = diffusion.posterior(schedule)
    assert step.variance[i] == pytest.approx(1 / precision)
    assert step.x_t_weight[i] == pytest.approx(np.sqrt(alpha) / (1 - alpha) / precision)
    assert step.x_0_weight[i] == pytest.approx(np.sqrt(previous) / (1 - previous) / precision)


@pytest.mark.parametrize(("sampler", "has_posterior_variance"), [(diffusion.ddim, True), (diffusion.ddpm, False)])
def test_ddim_with_eta_one_and_ddpm_draw_from_the_respaced_chain(schedule, sampler, has_posterior_variance):
    chain = diffusion.respace(schedule, 10)
    x0_hat, keys = 0.3, jax.random.split(jax.random.key(1), 1)
    x_T = jax.random.normal(jax.random.key(0), (1, 64, 64, 1))
    seen = []

    def denoise(x_t, t):
        jax.debug.callback(lambda x, at: seen.append((int(at[0]), np.asarray(x))), x_t, t, ordered=True)
        return jnp.full_like(x_t, x0_hat)

    jax.block_until_ready(sampler(denoise, chain, x_T, keys))
    jax.effects_barrier()
    assert [t for t, _ in seen] == chain.timesteps[::-1].tolist()
    step, i = diffusion.posterior(chain), 5
    (_, x_t), (_, x_next) = seen[9 - i], seen[9 - i + 1]
    assert step.x_t_weight[i] > 0.3
    beta = 1 - chain.alpha_bar[i] / chain.alpha_bar[i - 1]  # DDPM's, clearly larger
    variance = step.variance[i] if has_posterior_variance else beta
    assert beta > 1.2 * step.variance[i]
    drawn = (x_next - step.x_0_weight[i] * x0_hat - step.x_t_weight[i] * x_t) / np.sqrt(variance)
    assert drawn.mean() == pytest.approx(0, abs=0.05)
    assert drawn.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("spacing", ["fractional", "stride"])
@pytest.mark.parametrize("sampler", [diffusion.ddim, DETERMINISTIC, diffusion.ddpm, diffusion.dpm_solver])
def test_a_perfect_denoiser_recovers_x_0(schedule, sampler, spacing, steps):
    x_0 = jnp.linspace(-1, 1, 2 * 8 * 8).reshape(2, 8, 8, 1)
    chain = diffusion.respace(schedule, steps, spacing)
    x_T = jax.random.normal(jax.random.key(0), x_0.shape)
    sample = sampler(lambda x_t, t: x_0, chain, x_T, jax.random.split(jax.random.key(1), 2))
    np.testing.assert_allclose(sample, x_0, atol=1e-5)


def test_ddim_inverts_the_forward_path_when_deterministic(schedule):
    """With the true noise known at every step, eta = 0 keeps x_t on the line between x_0 and the noise."""
    x_0, noise = jnp.full((1, 4, 4, 1), 0.5), jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    chain = diffusion.respace(schedule, 10, "stride")
    x_T = diffusion.q_sample(schedule, x_0, jnp.array([900]), noise)
    errors = []

    def denoise(x_t, t):
        expected = diffusion.q_sample(schedule, x_0, t, noise)
        jax.debug.callback(lambda e: errors.append(float(e)), jnp.abs(x_t - expected).max(), ordered=True)
        return x_0

    jax.block_until_ready(diffusion.ddim(denoise, chain, x_T, jax.random.split(jax.random.key(1), 1), eta=0.0))
    jax.effects_barrier()
    assert len(errors) == 10
    assert max(errors) < 1e-4


@pytest.mark.parametrize(("sampler", "order"), [(DETERMINISTIC, 1), (diffusion.dpm_solver, 2)])
def test_order_of_deterministic_samplers_on_gaussian_data(sampler, order):
    """Of images N(0, s^2) the best estimate is linear, and an image keeps its quantile: x_t is in proportion to std(x_t)."""
    s, log_signal_to_noise = 0.2, np.linspace(6, -6, 1000)
    schedule = diffusion.Schedule(1 / (1 + np.exp(-log_signal_to_noise)), np.arange(1000))
    alpha_bar = jnp.asarray(schedule.alpha_bar)
    variance = alpha_bar * s**2 + 1 - alpha_bar
    x_T, last = jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1), jnp.zeros(1, int)

    def denoise(x_t, t):
        return jnp.sqrt(alpha_bar[t[0]]) * s**2 / variance[t[0]] * x_t

    def error(steps):
        chain = diffusion.respace(schedule, steps)
        exact = denoise(x_T * jnp.sqrt(variance[0] / variance[-1]), last)
        return float(jnp.abs(sampler(denoise, chain, x_T, jax.random.split(jax.random.key(0), 1)) - exact).max())

    assert np.log2(error(50) / error(100)) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize(
    ("settings", "sampler"),
    [
        ({"sampler": "ddim"}, diffusion.ddim),
        ({"sampler": "ddim", "eta": 0.0}, DETERMINISTIC),
        ({"sampler": "ddpm"}, diffusion.ddpm),
        ({"sampler": "dpm"}, diffusion.dpm_solver),
    ],
)
def test_the_settings_choose_the_sampler(schedule, settings, sampler):
    chain, like = diffusion.respace(schedule, 4), jnp.zeros((2, 4, 4, 1))
    keys = jax.random.split(jax.random.key(0), 2)

    def denoise(x_t, t):
        return jnp.tanh(x_t)

    expected = sampler(denoise, chain, diffusion.start(like, keys), keys)
    np.testing.assert_array_equal(diffusion.sample(denoise, chain, like, keys, Sampling(**settings)), expected)


@pytest.mark.parametrize("sampler", [diffusion.ddim, diffusion.ddpm, diffusion.dpm_solver])
def test_networks_may_compute_in_bfloat16(schedule, sampler):
    x_T = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    keys = jax.random.split(jax.random.key(1), 1)
    sample = sampler(lambda x_t, t: x_t.astype(jnp.bfloat16), diffusion.respace(schedule, 3), x_T, keys)
    assert sample.dtype == jnp.float32


def test_estimates_are_clipped(schedule):
    chain = diffusion.respace(schedule, 3)
    x_T = jnp.zeros((1, 4, 4, 1))
    sample = diffusion.ddim(lambda x, t: jnp.full_like(x, 7.0), chain, x_T, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_allclose(sample, 1.0)


@pytest.mark.parametrize("sampler", [diffusion.ddim, diffusion.ddpm])
def test_samples_depend_on_their_own_key_alone(schedule, sampler):
    chain = diffusion.respace(schedule, 4)
    keys = jax.random.split(jax.random.key(0), 3)
    x_T = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    together = sampler(lambda x, t: 0.5 * x, chain, x_T, keys)
    alone = sampler(lambda x, t: 0.5 * x, chain, x_T[1:2], keys[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-6)
    assert not np.allclose(together[0], sampler(lambda x, t: 0.5 * x, chain, x_T, keys[::-1])[0])
