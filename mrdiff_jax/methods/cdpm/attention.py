"""Factorised attention: across frames, with their relative positions, then over the pixels of each frame."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.layers import Attention, Linear
from mrdiff_jax.networks.normalization import GroupAffine, rescale


class Frames(NamedTuple):
    """T frames of each of B examples.

    Attributes:
      observed: (B, T) 1 for frames that are given, else 0.
      latent: (B, T) 1 for frames that are to be denoised; one that is neither takes no part.
      index: (B, T) the place of each frame in the sequence.
    """

    observed: Array
    latent: Array
    index: Array

    @property
    def seen(self) -> Array:
        """(B, T, T) whether frame t may look at frame s: both take part, or it is itself."""
        part = (self.observed + self.latent) > 0
        return (part[:, :, None] & part[:, None, :]) | jnp.eye(part.shape[1], dtype=bool)

    @property
    def distance(self) -> Array:
        """(B, T, T) index of frame t less that of frame s."""
        return (self.index[:, :, None] - self.index[:, None, :]).astype(jnp.float32)


class RelativePosition(nn.Module):
    """A vector for each head and pair of frames, of their distance d and the diffusion step; zero at first.

    d is encoded as (log(1 + d+), log(1 + d-), [d = 0]).
    """

    channels: int
    heads: int

    @nn.compact
    def __call__(self, distance: Array, embedding: Array) -> Array:
        """Maps distances (B, T, T) and the step's embedding (B, E) to (B, T, T, heads, channels / heads)."""
        sides = jnp.log1p(nn.relu(distance)), jnp.log1p(nn.relu(-distance)), (distance == 0).astype(jnp.float32)
        encoded = Linear(self.channels, name="distance")(jnp.stack(sides, axis=-1))
        step = Linear(self.channels, name="step")(embedding)[:, None, None]
        out = Linear(self.channels, zero=True, name="out")(nn.silu(encoded + step))
        return out.reshape(*distance.shape, self.heads, self.channels // self.heads)


class FrameAttention(nn.Module):
    """Attention across the frames of each pixel, with relative positions on queries, keys and values (Wu et al. 2021).

    It is added to the normalised input.
    """

    heads: int
    norm_groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, frames: Frames) -> Array:
        """Maps x (B, T, H, W, C) and the step's embedding (B, E) to the like of x."""
        b, t, h, w, c = x.shape
        frame_by_frame = x.reshape(b * t, h, w, c)
        affine = GroupAffine(self.norm_groups, name="norm")(frame_by_frame)
        normalized = rescale(frame_by_frame, affine).reshape(x.shape)
        qkv = Linear(3 * c, dtype=self.dtype, name="qkv")(normalized).reshape(b, t, h * w, 3, self.heads, c // self.heads)
        q, k, v = jnp.moveaxis(qkv, 3, 0)  # (B, T, pixels, heads, channels of a head)
        q = q * (c // self.heads) ** -0.5
        of_q, of_k, of_v = (
            RelativePosition(c, self.heads, name=f"position_{name}")(frames.distance, embedding).astype(self.dtype)
            for name in "qkv"
        )
        logits = jnp.einsum("btphf,bsphf->bphts", q, k) + jnp.einsum("btphf,btshf->bphts", q, of_k)
        logits += jnp.einsum("bsphf,bsthf->bphts", k * (c // self.heads) ** -0.5, of_q)
        logits = jnp.where(frames.seen[:, None, None], logits.astype(jnp.float32), -jnp.inf)
        weights = jax.nn.softmax(logits).astype(self.dtype)
        mixed = jnp.einsum("bphts,bsphf->btphf", weights, v) + jnp.einsum("bphts,btshf->btphf", weights, of_v)
        return normalized + Linear(c, zero=True, dtype=self.dtype, name="out")(mixed.reshape(x.shape))


class FactorizedAttention(nn.Module):
    """Attention across frames, then over pixels; both are added to their normalised inputs."""

    heads: int
    norm_groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, frames: Frames) -> Array:
        """Maps x (B T, H, W, C), the frames of an example together, and the step's embedding (B, E) to the like of x."""
        b, t = frames.observed.shape
        x = x.reshape(b, t, *x.shape[1:])
        x = FrameAttention(self.heads, self.norm_groups, self.dtype, name="frames")(x, embedding, frames)
        x = x.reshape(b * t, *x.shape[2:])
        head = x.shape[-1] // self.heads
        return Attention(head, self.norm_groups, onto_normalized=True, dtype=self.dtype, name="pixels")(x)
