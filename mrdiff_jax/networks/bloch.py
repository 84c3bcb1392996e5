"""Content maps that stand for T1, T2 and S0, and the signal equations that put the contrasts of the sources on them.

What MRDiff (paper, Eq. 5 to 7) and BlochGAN share. Times are in milliseconds; maps hold T1 in units of `T1_UNIT` and T2 in
units of `T2_UNIT`. All of it is computed in float32, whatever the type of the networks around it.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax import physics
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names

T1_UNIT, T2_UNIT = 3000.0, 2000.0  # milliseconds
_SHORTEST = 1e-5  # added to both maps, in their units

Signal = Literal["spin_echo", "inversion_recovery"]
Positivity = Literal["relu", "softplus"]
SIGNALS = ("spin_echo", "inversion_recovery")
POSITIVITIES = ("relu", "softplus")


class ContentMaps(NamedTuple):
    """h: non-negative feature maps that stand for T1, T2 and S0; each (B, h, w, C), float32.

    They are shaped by the physics, but they are features: nothing makes their values quantitative.
    """

    t1: Array
    t2: Array
    s0: Array


class ScanParameters(NamedTuple):
    """Repetition, echo and inversion times of the K sources, (B, K), milliseconds."""

    tr: Array
    te: Array
    ti: Array


def content_maps(features: Array, positivity: Positivity) -> ContentMaps:
    """Features (B, h, w, 3C) as three maps of C channels, made non-negative."""
    positive = {"relu": nn.relu, "softplus": nn.softplus}[positivity]
    return ContentMaps(*jnp.split(positive(features.astype(jnp.float32)), 3, axis=-1))


def modulate(maps: ContentMaps, scan: ScanParameters, signals: tuple[Signal, ...]) -> Array:
    """The signals of the K sources, (B, h, w, K C), by each one's equation: S0 as the maps have it, weighted."""
    t1, t2 = maps.t1 + _SHORTEST, maps.t2 + _SHORTEST
    weighted = []
    for k, signal in enumerate(signals):
        tr, te, ti = (time[:, k, None, None, None] for time in scan)
        if signal == "spin_echo":
            s = physics.spin_echo(t1, t2, maps.s0, tr / T1_UNIT, te / T2_UNIT)
        else:
            s = physics.inversion_recovery(t1, t2, maps.s0, tr / T1_UNIT, te / T2_UNIT, ti / T1_UNIT)
        weighted.append(s)
    return jnp.concatenate(weighted, axis=-1)


def signals_of(text: str, sources: str, flag: str) -> tuple[Signal, ...]:
    """The signal equation of each source, as the settings say them: one for all, or one each.

    Raises:
      UserError: they do not match the sources; the message names the flag.
    """
    names, signals = split_names(sources), split_names(text)
    signals = signals * len(names) if len(signals) == 1 else signals
    if len(signals) != len(names) or not set(signals) <= set(SIGNALS):
        raise UserError(
            f"{flag}={text}: give {' or '.join(SIGNALS)} once for all sources, or once for each of {','.join(names)}"
        )
    return signals


def inverted(signals: tuple[Signal, ...], sources: str) -> tuple[str, ...]:
    """The sources whose inversion time their signal equation reads."""
    return tuple(name for name, signal in zip(split_names(sources), signals, strict=True) if signal == "inversion_recovery")
