"""The ADM UNet (Dhariwal and Nichol 2021) in parts: encoder, decoder and head, for networks that share or double them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.initializers import zeros
from mrdiff_jax.networks.layers import Attention, Linear, ResBlock, timestep_embedding
from mrdiff_jax.networks.normalization import GroupAffine


class Backbone(NamedTuple):
    """Size of an ADM UNet.

    Attributes:
      base_channels: channels at the first level; the step's embedding has four times as many.
      channel_mult: channels of each level, in base channels; each level halves the resolution of the one before.
      blocks_per_level: residual blocks a level in the encoder (the decoder has one more).
      attention_levels: levels with self-attention, counted from 0.
      head_channels: channels of an attention head.
      norm_groups: groups of the group normalisation.
      spectral_norm: normalises the layers that read the step's embedding.
      dtype: compute type; parameters and normalisation stay float32.
      remat: blocks keep their inputs alone, and compute the rest again for the gradient.
    """

    base_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 1, 2, 3, 4)
    blocks_per_level: int = 1
    attention_levels: tuple[int, ...] = (2, 3, 4)
    head_channels: int = 64
    norm_groups: int = 32
    spectral_norm: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of every level."""
        return tuple(self.base_channels * m for m in self.channel_mult)

    @property
    def stride(self) -> int:
        """The sides of an input must be multiples of it."""
        return 2 ** (len(self.channel_mult) - 1)

    def image_stride(self, wavelet_levels: int) -> int:
        """The sides of an image must be multiples of it; the input is the image's transform of that many levels."""
        return self.stride * 2**wavelet_levels

    def block(self, features: int, **kwargs: Any) -> ResBlock:
        """A residual block of this backbone."""
        kind = nn.remat(ResBlock) if self.remat else ResBlock
        return kind(features, norm_groups=self.norm_groups, spectral_norm=self.spectral_norm, dtype=self.dtype, **kwargs)

    def attention(self, **kwargs: Any) -> Attention:
        """An attention block of this backbone."""
        kind = nn.remat(Attention) if self.remat else Attention
        return kind(self.head_channels, self.norm_groups, dtype=self.dtype, **kwargs)


def build_backbone(config: Any, spectral_norm: bool = False) -> Backbone:
    """The backbone of `config.model`, checked against itself and the image size.

    Raises:
      UserError: channels are not a multiple of the heads' or of the bands, or the image not of the stride; the message names
        the field.
    """
    size, backbone = config.model, build_plain_backbone(config)
    for level in {*size.attention_levels, len(size.channel_mult) - 1}:
        channels = backbone.channels[level]
        if channels % min(size.head_channels, channels):
            flag = f"--config.model.head_channels={size.head_channels}"
            raise UserError(f"{flag}: level {level} has {channels} channels, not a multiple of it")
    return backbone._replace(
        attention_levels=tuple(size.attention_levels), head_channels=size.head_channels, spectral_norm=spectral_norm
    )


def build_plain_backbone(config: Any) -> Backbone:
    """The same without attention, for a network that has its own."""
    size = config.model
    backbone = Backbone(
        base_channels=size.base_channels,
        channel_mult=tuple(size.channel_mult),
        blocks_per_level=size.blocks_per_level,
        attention_levels=(),
        norm_groups=size.norm_groups,
        dtype=jnp.dtype(size.dtype),
        remat=size.remat,
    )
    bands = 4**size.wavelet_levels
    if backbone.channels[-1] % bands:
        flag = f"--config.model.base_channels={size.base_channels}"
        raise UserError(
            f"{flag}: the deepest level needs a multiple of {bands} channels for {size.wavelet_levels} wavelet levels"
        )
    factor = backbone.image_stride(size.wavelet_levels)
    if config.data.image_size % factor:
        nearest = max(factor, round(config.data.image_size / factor) * factor)
        raise UserError(
            f"--config.data.image_size={config.data.image_size}: {len(size.channel_mult)} levels and {size.wavelet_levels} of"
            f" wavelets need a multiple of {factor}; the nearest is {nearest}"
        )
    return backbone


class StepEmbedding(nn.Module):
    """Embeds the diffusion step t (B,) as (B, 4 base_channels)."""

    backbone: Backbone

    @nn.compact
    def __call__(self, t: Array) -> Array:
        channels, norm = self.backbone.base_channels, self.backbone.spectral_norm
        h = nn.silu(Linear(4 * channels, norm, name="in")(timestep_embedding(t, channels)))
        return Linear(4 * channels, norm, name="out")(h)


class Encoder(nn.Module):
    """The contracting half: (B, h, w, C) -> features after every block, shallow to deep."""

    backbone: Backbone

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> tuple[Array, ...]:
        size = self.backbone
        h = Convolution(size.base_channels, start=None, dtype=size.dtype, name="conv_in")(x)
        features = [h]
        for level, channels in enumerate(size.channels):
            if level:
                h = size.block(h.shape[-1], resample="down", name=f"down_{level}")(h, embedding)
                features.append(h)
            for i in range(size.blocks_per_level):
                h = size.block(channels, name=f"block_{level}_{i}")(h, embedding)
                if level in size.attention_levels:
                    h = size.attention(name=f"attention_{level}_{i}")(h)
                features.append(h)
        return tuple(features)


class Decoder(nn.Module):
    """Middle block, expanding half and head: (B, h / stride, w / stride, C) -> (B, h, w, out_channels).

    With `skips`, the encoder's features, each block also sees the feature of its level, deepest first.
    """

    backbone: Backbone
    out_channels: int

    @nn.compact
    def __call__(self, h: Array, embedding: Array, skips: tuple[Array, ...] | None) -> Array:
        size = self.backbone
        h = size.block(h.shape[-1], name="middle_in")(h, embedding)
        h = size.attention(name="middle_attention")(h)
        h = size.block(h.shape[-1], name="middle_out")(h, embedding)

        remaining = list(skips) if skips is not None else None
        for level, channels in reversed(list(enumerate(size.channels))):
            for i in range(size.blocks_per_level + 1):
                if remaining is not None:
                    h = jnp.concatenate([h, remaining.pop()], axis=-1)
                h = size.block(channels, name=f"block_{level}_{i}")(h, embedding)
                if level in size.attention_levels:
                    h = size.attention(name=f"attention_{level}_{i}")(h)
            if level:
                h = size.block(channels, resample="up", name=f"up_{level}")(h, embedding)

        affine = GroupAffine(size.norm_groups, name="norm_out")(h)
        return Convolution(self.out_channels, start=zeros, dtype=size.dtype, name="conv_out")(h, affine)
