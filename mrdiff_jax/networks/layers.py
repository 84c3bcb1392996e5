"""Building blocks of the ADM UNet (Dhariwal and Nichol 2021), channels last.

Weights start as in the authors' framework: uniform within 1 / sqrt(fan-in), and zero for the last layer of every residual
branch, so that a block starts as the identity.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.attention import attend
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.initializers import Initializer, ones, uniform, zeros
from mrdiff_jax.networks.kernel_gradients import convolve
from mrdiff_jax.networks.normalization import GroupAffine, activate, rescale


def fan_in_uniform(fan_in: int, zero: bool = False) -> Initializer:
    """Uniform within 1 / sqrt(fan_in), or zero: the start of convolutions and linear layers in the authors' framework."""
    return uniform(0.0 if zero else fan_in**-0.5)


def timestep_embedding(t: Array, channels: int, max_period: float = 10_000.0) -> Array:
    """Sinusoidal embedding of diffusion steps: (B,) -> (B, channels), the cosines first."""
    half = channels // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / half)
    phases = t[:, None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(phases), jnp.sin(phases)], axis=-1)


class Linear(nn.Module):
    """Dense layer; with `spectral_norm` its weight is divided by its largest singular value (Miyato et al. 2018).

    The singular vectors u and v live in the collection 'spectral' and are moved by `power_iteration`. There may be N of
    each, (N, features) and (N, inputs): then each N-th part of the inputs (B, C), in their order, has its own.
    """

    features: int
    spectral_norm: bool = False
    zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]
        kernel = self.param("kernel", fan_in_uniform(fan_in, self.zero), (fan_in, self.features))
        bias = self.param("bias", fan_in_uniform(fan_in, self.zero), (self.features,))
        x, weight = x.astype(self.dtype), kernel.astype(self.dtype)
        y = convolve(x, weight[None, None], padding=0) if x.ndim == 4 else x @ weight
        if self.spectral_norm:  # of the product: one weight serves all draws, whose singular values differ
            u = self.variable("spectral", "u", ones, None, (self.features,)).value
            v = self.variable("spectral", "v", ones, None, (fan_in,)).value
            largest = jnp.einsum("...i,io,...o->...", v, kernel, u).astype(self.dtype)
            y = y / jnp.repeat(largest.reshape(-1, 1), len(y) // largest.size, axis=0)
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
    xp = x.__array_namespace__()  # JAX's within a program, or numpy's, which compiles nothing
    return x / xp.maximum(xp.linalg.vector_norm(x), 1e-12)


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
        affine = GroupAffine(self.norm_groups, name="norm_in")(x)
        conv_in = Convolution(self.features, start=None, dtype=self.dtype, name="conv_in")
        if self.resample is None:
            h = conv_in(x, affine)
        else:
            resample = {"up": upsample, "down": downsample}[self.resample]
            h, x = conv_in(resample(activate(x, affine))), resample(x)
        film = Linear(2 * self.features, self.spectral_norm, name="film")(nn.silu(embedding))
        affine = GroupAffine(self.norm_groups, name="norm_out")(h, jnp.split(film, 2, axis=-1))
        h = Convolution(self.features, start=zeros, dtype=self.dtype, name="conv_out")(h, affine)
        if x.shape[-1] != self.features:
            x = Linear(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all pixels, in heads of `head_channels`, added to its input.

    Attributes:
      onto_normalized: it is added to the normalised input, as in video diffusion (Harvey et al. 2022).
    """

    head_channels: int = 64
    norm_groups: int = 32
    onto_normalized: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        heads = max(c // self.head_channels, 1)
        normalized = rescale(x, GroupAffine(self.norm_groups, name="norm")(x))
        qkv = Linear(3 * c, dtype=self.dtype, name="qkv")(normalized)
        q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, 3, heads, c // heads), 2, 0)
        mixed = attend(q, k, v).reshape(b, h, w, c)
        return (normalized if self.onto_normalized else x) + Linear(c, zero=True, dtype=self.dtype, name="out")(mixed)


def upsample(x: Array) -> Array:
    """Doubles both sides of (B, H, W, C) by repeating pixels."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Halves both sides of (B, H, W, C) by averaging 2 x 2 pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
