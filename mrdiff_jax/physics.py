"""Signal equations of MR pulse sequences.

Times (T1, T2, TR, TE, TI) share one unit, whichever it is; arguments broadcast against each other. At T1 = 0 or T2 = 0
the equations take their limits, in value and in gradient.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_SHORTEST = 1e-6  # relaxation times below it behave like it: exp(-time / 0) is a limit, not a NaN


def spin_echo(t1: ArrayLike, t2: ArrayLike, s0: ArrayLike, tr: ArrayLike, te: ArrayLike) -> Array:
    """Spin-echo signal S0 (1 - exp(-TR / T1)) exp(-TE / T2) (paper, Eq. 6)."""
    return s0 * (1 - _decay(tr, t1)) * _decay(te, t2)


def inversion_recovery(t1: ArrayLike, t2: ArrayLike, s0: ArrayLike, tr: ArrayLike, te: ArrayLike, ti: ArrayLike) -> Array:
    """Magnitude signal of an inversion-recovery spin echo, for FLAIR and, roughly, MP-RAGE.

    S0 |1 - 2 exp(-TI / T1) + exp(-TR / T1)| exp(-TE / T2), the form for TE much shorter than TR
    (Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 2004, Sec. 14.2).
    """
    return s0 * jnp.abs(1 - 2 * _decay(ti, t1) + _decay(tr, t1)) * _decay(te, t2)


def _decay(time: ArrayLike, constant: ArrayLike) -> Array:
    return jnp.exp(-jnp.asarray(time) / jnp.maximum(constant, _SHORTEST))
