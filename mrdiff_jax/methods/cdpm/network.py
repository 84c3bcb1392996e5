"""The UNet over frames of flexible video diffusion (Harvey et al. 2022): 2-D blocks, joined by attention across frames."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.methods.cdpm.attention import FactorizedAttention, Frames
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.initializers import zeros
from mrdiff_jax.networks.layers import upsample
from mrdiff_jax.networks.normalization import GroupAffine
from mrdiff_jax.networks.unet import Backbone, StepEmbedding
from mrdiff_jax.wavelets import to_bands, to_pixels


class _Half(nn.Module):
    """What both halves have.

    Attributes:
      backbone: size; its `attention_levels` are those of the factorised attention.
      heads: of all attention.
    """

    backbone: Backbone
    heads: int = 4

    def stage(self, features: int, name: str, attend: bool, h: Array, embedding: Array, frames: Frames) -> Array:
        """A residual block, and attention where that is wanted; the embedding is one an example."""
        size = self.backbone
        each = jnp.repeat(embedding, frames.observed.shape[1], axis=0)
        h = size.block(features, name=f"block_{name}")(h, each)
        if not attend:
            return h
        attention = FactorizedAttention(self.heads, size.norm_groups, size.dtype, name=f"attention_{name}")
        return attention(h, embedding, frames)


class FramesEncoder(_Half):
    """The contracting half: (B T, h, w, C) -> features after every stage, shallow to deep."""

    @nn.compact
    def __call__(self, x: Array, embedding: Array, frames: Frames) -> tuple[Array, ...]:
        size = self.backbone
        h = Convolution(size.base_channels, start=None, dtype=size.dtype, name="conv_in")(x)
        features = [h]
        for level, channels in enumerate(size.channels):
            if level:
                h = Convolution(h.shape[-1], stride=2, start=None, dtype=size.dtype, name=f"down_{level}")(h)
                features.append(h)
            for i in range(size.blocks_per_level):
                h = self.stage(channels, f"{level}_{i}", level in size.attention_levels, h, embedding, frames)
                features.append(h)
        return tuple(features)


class FramesDecoder(_Half):
    """Middle, expanding half and head: the encoder's features -> (B T, h, w, out_channels)."""

    out_channels: int = 1

    @nn.compact
    def __call__(self, skips: tuple[Array, ...], embedding: Array, frames: Frames) -> Array:
        size, remaining, h = self.backbone, list(skips), skips[-1]
        h = self.stage(h.shape[-1], "middle_in", True, h, embedding, frames)
        h = self.stage(h.shape[-1], "middle_out", False, h, embedding, frames)
        for level, channels in reversed(list(enumerate(size.channels))):
            for i in range(size.blocks_per_level + 1):
                h = jnp.concatenate([h, remaining.pop()], axis=-1)
                h = self.stage(channels, f"{level}_{i}", level in size.attention_levels, h, embedding, frames)
            if level:
                h = Convolution(channels, start=None, dtype=size.dtype, name=f"up_{level}")(upsample(h))
        affine = GroupAffine(size.norm_groups, name="norm_out")(h)
        return Convolution(self.out_channels, start=zeros, dtype=size.dtype, name="conv_out")(h, affine)


class Network(nn.Module):
    """The noise in each frame; of observed frames the clean image is seen, and a mask says which they are."""

    backbone: Backbone
    heads: int = 4
    wavelet_levels: int = 0

    def setup(self) -> None:
        self.step_embedding = StepEmbedding(self.backbone)
        self.encoder = FramesEncoder(self.backbone, self.heads)
        self.generator = FramesDecoder(self.backbone, self.heads, 4**self.wavelet_levels)

    def __call__(self, x_t: Array, x_0: Array, t: Array, frames: Frames) -> Array:
        """Maps noisy frames x_t and clean ones x_0 (of which only the observed are read), (B, T, H, W), and steps t (B,) to
        the noise, (B, T, H, W)."""
        b, count, height, width = x_t.shape
        observed = frames.observed[:, :, None, None]
        x = jnp.where(observed > 0, x_0, x_t).reshape(b * count, height, width, 1)
        h = to_bands(x, self.wavelet_levels)
        mask = jnp.broadcast_to(observed.reshape(-1, 1, 1, 1), (*h.shape[:3], 1)).astype(h.dtype)
        embedding = self.step_embedding(t)
        skips = self.encoder(jnp.concatenate([h, mask], axis=-1), embedding, frames)
        noise = self.generator(skips, embedding, frames).astype(x.dtype)
        return to_pixels(noise, self.wavelet_levels).reshape(x_t.shape)
