"""Building blocks of the ADM UNet (Dhariwal and Nichol 2021), channels last.

Weights start as in the authors' framework: uniform within 1 / sqrt(fan-in), and zero for the last layer of every residual
branch, so that a block starts as the identity.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array


class Drawn(struct.PyTreeNode, nn.meta.AxisMetadata):
    """A parameter, with the bound of the uniform distribution that it is drawn from."""

    value: Any
    bound: float = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """The parameter."""
        return self.value

    def replace_boxed(self, value: Any) -> "Drawn":
        """Another parameter of the same distribution."""
        return self.replace(value=value)

    def add_axis(self, index: int, params: dict) -> "Drawn":
        """Stacking parameters does not change their distribution."""
        return self

    remove_axis = add_axis


def _uniform(fan_in: int, zero: bool) -> Callable[..., Drawn]:
    """Initialiser: uniform within 1 / sqrt(fan_in), or zero."""
    bound = 0.0 if zero else fan_in**-0.5

    def initialize(key: Array, shape: tuple[int, ...]) -> Drawn:
        return Drawn(jax.random.uniform(key, shape, minval=-bound, maxval=bound), bound)

    return initialize


def init_on_host(network: nn.Module, key: Array, *args: Any) -> dict[str, Any]:
    """The variables of `network.init(key, *args)`, drawn by numpy: compiling jax's generator for every shape takes a minute.

    Collections other than 'params' and parameters that are not drawn must start at ones, or be called 'bias' and start at zero.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        if isinstance(leaf, Drawn):
            return rng.uniform(-leaf.bound, leaf.bound, leaf.value.shape).astype(np.float32)
        return np.zeros(leaf.shape, np.float32) if path[-1].key == "bias" else np.ones(leaf.shape, np.float32)

    shapes = jax.eval_shape(network.init, key, *args)
    return jax.tree_util.tree_map_with_path(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, Drawn))


def timestep_embedding(t: Array, channels: int, max_period: float = 10_000.0) -> Array:
    """Sinusoidal embedding of diffusion steps: (B,) -> (B, channels), the cosines first."""
    half = channels // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / half)
    phases = t[:, None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], axis=-1)


class Linear(nn.Module):
    """Dense layer; with `spectral_norm` its weight is divided by its largest singular value (Miyato et al. 2018).

    The singular vectors u and v live in the collection 'spectral' and are moved by `power_iteration`.
    """

    features: int
    spectral_norm: bool = False
    zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]
        kernel = self.param("kernel", _uniform(fan_in, self.zero), (fan_in, self.features))
        bias = self.param("bias", _uniform(fan_in, self.zero), (self.features,))
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.spectral_norm:  # of the product: one weight serves all draws, whose singular values differ
            u = self.variable("spectral", "u", jnp.ones, (self.features,)).value
            v = self.variable("spectral", "v", jnp.ones, (fan_in,)).value
            y = y / (v @ kernel @ u).astype(self.dtype)
        return y + bias.astype(self.dtype)


def power_iteration(params: Mapping, spectral: Mapping) -> dict:
    """One step of the power iteration that follows the largest singular vectors of every normalised weight.

    Args:
      params: the parameters of a network.
      spectral: its collection 'spectral', a sub-tree of the same structure with leaves u (outputs), v (inputs).

    Returns:
      The collection, one step on.
    """
    if "u" in spectral:
        kernel = jax.lax.stop_gradient(params["kernel"])
        v = _normalise(kernel @ spectral["u"])
        return {"u": _normalise(v @ kernel), "v": v}
    return {name: power_iteration(params[name], child) for name, child in spectral.items()}


def settle(params: Mapping, spectral: Mapping, iterations: int = 15) -> dict:
    """The collection 'spectral' of fresh weights, after power iterations enough for the first step of training."""
    for _ in range(iterations):
        spectral = power_iteration(params, spectral)
    return spectral


def _normalise(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


class Conv(nn.Module):
    """3 x 3 convolution, zero padded."""

    features: int
    zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = 9 * x.shape[-1]
        kernel = self.param("kernel", _uniform(fan_in, self.zero), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", _uniform(fan_in, self.zero), (self.features,))
        layout = ("NHWC", "HWIO", "NHWC")
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return y + bias.astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation, an optional FiLM (scale, shift), and statistics in float32.

    Normalisation, affine map and FiLM are one multiply-add a pixel, with the moments taken in one pass. Where the number of
    groups does not divide the channels, their greatest common divisor is taken.
    """

    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, film: tuple[Array, Array] | None = None) -> Array:
        c = x.shape[-1]
        groups = math.gcd(self.groups, c)
        gamma = self.param("scale", nn.initializers.ones, (c,))
        beta = self.param("bias", nn.initializers.zeros, (c,))

        return _normalise_groups(x, gamma, beta, film, groups, self.epsilon)


@functools.partial(jax.jit, static_argnames=("groups", "epsilon"))  # traced once for all layers of one shape
def _normalise_groups(
    x: Array, gamma: Array, beta: Array, film: tuple[Array, Array] | None, groups: int, epsilon: float
) -> Array:
    x32 = x.astype(jnp.float32)
    mean = _group_mean(x32.mean((1, 2)), groups)  # (B, C)
    square = _group_mean(jnp.square(x32).mean((1, 2)), groups)
    gain = gamma * jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    offset = beta - mean * gain
    if film is not None:
        scale, shift = film  # (B, C)
        gain, offset = gain * (1 + scale), offset * (1 + scale) + shift
    return (x32 * gain[:, None, None] + offset[:, None, None]).astype(x.dtype)


def _group_mean(x: Array, groups: int) -> Array:
    """Replaces each channel of (B, C) by the mean of its group."""
    b, c = x.shape
    grouped = x.reshape(b, groups, c // groups)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(b, c)


class ResBlock(nn.Module):
    """Residual block, conditioned on the diffusion step by FiLM, that may resample by two."""

    features: int
    resample: Literal["up", "down"] | None = None
    norm_groups: int = 32
    spectral_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        """Maps x (B, H, W, C) and the step's embedding (B, E) to (B, H', W', features)."""
        h = nn.silu(GroupNorm(self.norm_groups, name="norm_in")(x))
        if self.resample == "up":
            h, x = upsample(h), upsample(x)
        elif self.resample == "down":
            h, x = downsample(h), downsample(x)
        h = Conv(self.features, dtype=self.dtype, name="conv_in")(h)
        film = Linear(2 * self.features, self.spectral_norm, name="film")(nn.silu(embedding))
        h = nn.silu(GroupNorm(self.norm_groups, name="norm_out")(h, jnp.split(film, 2, axis=-1)))
        h = Conv(self.features, zero=True, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Linear(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class Attention(nn.Module):
    """Residual self-attention over all pixels, in heads of `head_channels`."""

    head_channels: int = 64
    norm_groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        heads = max(c // self.head_channels, 1)
        qkv = Linear(3 * c, dtype=self.dtype, name="qkv")(GroupNorm(self.norm_groups, name="norm")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, 3, heads, c // heads), 2, 0)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * (c // heads) ** -0.5
        weights = jax.nn.softmax(logits).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, h, w, c)
        return x + Linear(c, zero=True, dtype=self.dtype, name="out")(mixed)


def upsample(x: Array) -> Array:
    """Doubles both sides of (B, H, W, C) by repeating pixels."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Halves both sides of (B, H, W, C) by averaging 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
