"""Pieces of ours beside others' that do the same: by library, what to call."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxwt
import numpy as np

from mrdiff_jax import metrics
from mrdiff_jax.networks.normalization import GroupAffine, activate
from mrdiff_jax.wavelets import dwt2

Calls = dict[str, Callable[[], Any]]
OURS = "ours"


def haar(side: int) -> Calls:
    """The Haar transform of 8 images."""
    images = jnp.asarray(_random(0, 8, side, side, 1))
    other = jax.jit(lambda x: jaxwt.wavedec2(x[..., 0], "haar", level=1))
    return {OURS: partial(jax.jit(dwt2), images), "jaxwt": partial(other, images)}


def normalization(side: int) -> Calls:
    """Group normalisation and SiLU of 8 features of 64 channels, with the gradient."""
    features = jnp.asarray(_random(0, 8, side, side, 64))

    def gradient(activated: Callable[[jax.Array], jax.Array]) -> Callable[[], Any]:
        return partial(jax.jit(jax.grad(lambda x: jnp.square(activated(x)).sum())), features)

    ours, theirs = GroupAffine(), nn.GroupNorm(32, epsilon=1e-5)
    params = ours.init(jax.random.key(0), features)  # flax calls them as we do
    return {
        OURS: gradient(lambda x: activate(x, ours.apply(params, x))),
        "flax": gradient(lambda x: nn.silu(theirs.apply(params, x))),
    }


def fsim(pairs: int, side: int) -> Calls:
    """FSIM of pairs of images; piq's where it is installed."""
    a, b = _random(0, pairs, side, side), _random(1, pairs, side, side)
    return {OURS: lambda: metrics.fsim(a, b)} | ({"piq": _piq_fsim(a, b)} if importlib.util.find_spec("piq") else {})


def _piq_fsim(a: np.ndarray, b: np.ndarray) -> Callable[[], Any]:
    """Eight pairs at a time: faster for piq than all at once."""
    import piq
    import torch

    parts = list(zip(*(torch.from_numpy(images)[:, None].split(8) for images in (a, b)), strict=True))
    return lambda: [piq.fsim(*part, chromatic=False, reduction="none").numpy() for part in parts]


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)
