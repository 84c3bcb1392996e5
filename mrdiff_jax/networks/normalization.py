"""Normalisation over groups of channels, and over the batch of all devices; channels last, statistics in float32."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax import parallel
from mrdiff_jax.networks.initializers import normal, ones, zeros

Affine = tuple[Array, Array]  # gain and offset (B, C) of each example's channels, in float32


def rescale(x: Array, affine: Affine) -> Array:
    """Images (B, H, W, C) times their gain, plus their offset."""
    gain, offset = affine
    return (x.astype(jnp.float32) * gain[:, None, None] + offset[:, None, None]).astype(x.dtype)


def activate(x: Array, affine: Affine) -> Array:
    """SiLU of images (B, H, W, C) after gain and offset."""
    return nn.silu(rescale(x, affine))


class GroupAffine(nn.Module):
    """The gain and offset that group normalisation of images (B, H, W, C) amounts to, with an optional FiLM (scale, shift).

    Normalisation, affine map and FiLM are one multiply-add a pixel, with the moments taken in one pass, in float32. Where the
    channels are not a multiple of the groups, the greatest common divisor of both is taken.
    """

    groups: int = 32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, film: tuple[Array, Array] | None = None) -> Affine:
        c = x.shape[-1]
        groups = math.gcd(self.groups, c)
        gamma = self.param("scale", ones, (c,))
        beta = self.param("bias", zeros, (c,))
        return _group_affine(x, gamma, beta, film, groups, self.epsilon)


@functools.partial(jax.jit, static_argnames=("groups", "epsilon"))  # traced once for all layers of one shape
def _group_affine(x: Array, gamma: Array, beta: Array, film: tuple[Array, Array] | None, groups: int, epsilon: float) -> Affine:
    x32 = x.astype(jnp.float32)
    mean = _group_mean(x32.mean((1, 2)), groups)  # (B, C)
    square = _group_mean(jnp.square(x32).mean((1, 2)), groups)
    gain = gamma * jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    offset = beta - mean * gain
    if film is None:
        return gain, offset
    scale, shift = film  # (B, C)
    return gain * (1 + scale), offset * (1 + scale) + shift


def _group_mean(x: Array, groups: int) -> Array:
    """Replaces each channel of (B, C) by the mean of its group."""
    b, c = x.shape
    grouped = x.reshape(b, groups, c // groups)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(b, c)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) whose statistics in training span the batch of all devices.

    Attributes:
      momentum: share of a running statistic that each batch replaces.
      gain_deviation: the gain starts at N(1, gain_deviation).
      running: keeps running statistics, in the collection 'batch_stats', to normalise with outside of training.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    gain_deviation: float = 0.0
    running: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Normalises x (B, H, W, C); in training inside `parallel.pmap`, and with 'batch_stats' mutable."""
        c = x.shape[-1]
        gamma = self.param("scale", normal(self.gain_deviation, 1.0) if self.gain_deviation else ones, (c,))
        beta = self.param("bias", zeros, (c,))
        starts = {"mean": zeros, "var": ones} if self.running else {}
        kept = [self.variable("batch_stats", name, start, None, (c,)) for name, start in starts.items()]
        if self.is_initializing():
            return x
        mean, variance = batch_moments(x) if train else (statistic.value for statistic in kept)
        if train and self.running:
            count = math.prod(x.shape[:3]) * parallel.devices()
            unbiased = variance * (count / max(count - 1, 1))
            for statistic, now in zip(kept, (mean, unbiased), strict=True):
                statistic.value += self.momentum * (now - statistic.value)
        gain = gamma * jax.lax.rsqrt(variance + self.epsilon)
        return (x.astype(jnp.float32) * gain + (beta - mean * gain)).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Normalisation of each image by its own moments, in training and outside of it: what `BatchNorm` does to a batch of one.

    Attributes:
      gain_deviation: the gain starts at N(1, gain_deviation).
    """

    epsilon: float = 1e-5
    gain_deviation: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Normalises x (B, H, W, C)."""
        c = x.shape[-1]
        gamma = self.param("scale", normal(self.gain_deviation, 1.0) if self.gain_deviation else ones, (c,))
        beta = self.param("bias", zeros, (c,))
        return rescale(x, _group_affine(x, gamma, beta, None, c, self.epsilon))


def batch_moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance (C,) of x (B, H, W, C) over the batch of all devices; inside `parallel.pmap`."""
    x32 = x.astype(jnp.float32)
    mean, square = parallel.mean((x32.mean((0, 1, 2)), jnp.square(x32).mean((0, 1, 2))))
    return mean, jnp.maximum(square - jnp.square(mean), 0)
