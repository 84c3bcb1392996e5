import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax.physics import inversion_recovery, spin_echo

# T1, T2, S0, TR, TE (ms) and Eq. 6 by hand: S0 (1 - e^(-TR/T1)) e^(-TE/T2)
TABLE = [
    (1000.0, 100.0, 1.0, 1000.0, 100.0, (1 - 0.36787944) * 0.36787944),
    (800.0, 80.0, 2.0, 400.0, 0.0, 2 * (1 - 0.60653066)),
    (1084.0, 69.0, 0.7, 450.0, 9.8, 0.7 * (1 - 0.66025500) * 0.86759611),
    (4300.0, 2000.0, 1.0, 4300.0, 100.0, 0.63212056 * 0.95122942),
]


@pytest.mark.parametrize(("t1", "t2", "s0", "tr", "te", "signal"), TABLE)
def test_spin_echo_against_values_by_hand(t1, t2, s0, tr, te, signal):
    np.testing.assert_allclose(spin_echo(t1, t2, s0, tr, te), signal, rtol=1e-5)


def test_unit_of_time_does_not_matter():
    milliseconds = spin_echo(800.0, 80.0, 1.0, 450.0, 9.8)
    np.testing.assert_allclose(spin_echo(0.8, 0.08, 1.0, 0.45, 0.0098), milliseconds, rtol=1e-5)


def test_limits():
    assert spin_echo(800.0, 80.0, 1.5, jnp.inf, 0.0) == pytest.approx(1.5)  # proton density
    assert spin_echo(800.0, 80.0, 1.5, 0.0, 10.0) == 0
    assert spin_echo(800.0, 80.0, 1.5, 500.0, jnp.inf) == 0
    assert inversion_recovery(800.0, 80.0, 1.5, jnp.inf, 0.0, jnp.inf) == pytest.approx(1.5)
    assert inversion_recovery(800.0, 80.0, 1.5, jnp.inf, 0.0, 800 * np.log(2)) == pytest.approx(0, abs=1e-6)  # nulled
    assert inversion_recovery(800.0, 80.0, 1.5, jnp.inf, 0.0, 0.0) == pytest.approx(1.5)  # magnitude of the inverted


def test_signal_falls_with_te_and_grows_with_tr():
    te = np.linspace(0, 300, 50)
    assert np.all(np.diff(spin_echo(800.0, 80.0, 1.0, 500.0, te)) < 0)
    tr = np.linspace(0, 5000, 50)
    assert np.all(np.diff(spin_echo(800.0, 80.0, 1.0, tr, 10.0)) > 0)


@pytest.mark.parametrize("te", [0.0, 10.0])
@pytest.mark.parametrize("equation", [spin_echo, lambda *args: inversion_recovery(*args, 900.0)])
def test_zero_relaxation_times_give_limits_not_nan(equation, te):
    value, gradient = jax.value_and_grad(equation, argnums=(0, 1, 2))(0.0, 0.0, 1.0, 500.0, te)
    assert value == (1.0 if te == 0 else 0.0)
    assert np.all(np.isfinite(gradient))


def test_gradient_against_finite_differences():
    arguments = (900.0, 90.0, 1.2, 2000.0, 50.0, 700.0)
    gradient = jax.grad(lambda *a: inversion_recovery(*a), argnums=tuple(range(6)))(*arguments)

    def exact(t1, t2, s0, tr, te, ti):
        return s0 * abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)

    for i, value in enumerate(arguments):
        step = 1e-4 * value
        up, down = ([*arguments[:i], value + sign * step, *arguments[i + 1 :]] for sign in (1, -1))
        assert gradient[i] == pytest.approx((exact(*up) - exact(*down)) / (2 * step), rel=1e-3)


def test_arguments_broadcast():
    maps = np.full((4, 1, 5), 700.0)
    assert spin_echo(maps, maps / 10, 1.0, np.full((1, 3, 1), 500.0), 10.0).shape == (4, 3, 5)
