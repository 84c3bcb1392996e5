"""The two generators of pix2pix (Isola et al. 2017; Johnson et al. 2016): sources to target, in [-1, 1], channels last.

The parts of the residual one are those of ResViT and of BlochGAN, too.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.convolutions import NORMAL_02, Convolution, Upconvolution, dropout, leaky
from mrdiff_jax.networks.initializers import Initializer
from mrdiff_jax.networks.normalization import BatchNorm, InstanceNorm
from mrdiff_jax.streams import stream


class SkipUNet(nn.Module):
    """A UNet of 4 x 4 convolutions of stride 2 down to the bottom, and back with skips.

    Attributes:
      base: channels of the first convolution, eight times as many at most.
      downs: convolutions of stride 2; 8 take 256 pixels down to one.
      rate: of the dropout in the innermost blocks of full width.
    """

    base: int = 64
    downs: int = 8
    rate: float = 0.5

    @nn.compact
    def __call__(self, y: Array, train: bool, keys: Array | None = None) -> Array:
        """Maps y (B, H, W, K) to (B, H, W, 1); `keys` (B,) are those of the dropout, None does without."""
        widths = [self.base * min(2**level, 8) for level in range(self.downs)]
        skips, h = [], y
        for level, width in enumerate(widths):
            h = Convolution(width, 4, 2, bias=False, name=f"down_{level}")(leaky(h) if level else h)
            if 0 < level < self.downs - 1:
                h = BatchNorm(gain_deviation=0.02, name=f"down_norm_{level}")(h, train)
            skips.append(h)
        h = skips.pop()
        for level in reversed(range(1, self.downs)):
            h = Upconvolution(widths[level - 1], bias=False, name=f"up_{level}")(nn.relu(h))
            h = BatchNorm(gain_deviation=0.02, name=f"up_norm_{level}")(h, train)
            if 4 <= level < self.downs - 1:
                h = dropout(h, self.rate, None if keys is None else stream(keys, "dropout", level))
            h = jnp.concatenate([skips.pop(), h], axis=-1)
        return jnp.tanh(Upconvolution(1, name="up_0")(nn.relu(h)))


class Style(NamedTuple):
    """How the layers of a residual network start, and what they normalise over.

    Attributes:
      norm: the batch, with running statistics outside of training, or each image by itself.
      start: of the kernels, as that of `Convolution`.
      gain_deviation: the gains of the normalisation start at N(1, gain_deviation).
    """

    norm: Literal["batch", "instance"] = "batch"
    start: Initializer | None = NORMAL_02
    gain_deviation: float = 0.02

    def normalization(self, name: str) -> nn.Module:
        """A layer that takes (x, train)."""
        return {"batch": BatchNorm, "instance": InstanceNorm}[self.norm](gain_deviation=self.gain_deviation, name=name)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with normalisation, added to the input.

    Attributes:
      rate: of the dropout between them.
    """

    rate: float = 0.0
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Array, train: bool, keys: Array | None = None) -> Array:
        features, norm, start = x.shape[-1], self.style.normalization, self.style.start
        h = Convolution(features, border="reflect", bias=False, start=start, name="conv_in")(x)
        h = nn.relu(norm("norm_in")(h, train))
        h = dropout(h, self.rate, keys)
        h = Convolution(features, border="reflect", bias=False, start=start, name="conv_out")(h)
        return x + norm("norm_out")(h, train)


class Contraction(nn.Module):
    """The first third of a `ResNet`: images (B, H, W, K) to features (B, H / 4, W / 4, 4 base)."""

    base: int = 64
    style: Style = Style()

    @nn.compact
    def __call__(self, y: Array, train: bool) -> Array:
        norm, start = self.style.normalization, self.style.start
        h = Convolution(self.base, 7, padding=3, border="reflect", bias=False, start=start, name="stem")(y)
        h = nn.relu(norm("stem_norm")(h, train))
        for level in (1, 2):
            h = Convolution(self.base * 2**level, 3, 2, bias=False, start=start, name=f"down_{level}")(h)
            h = nn.relu(norm(f"down_norm_{level}")(h, train))
        return h


class Expansion(nn.Module):
    """The last third: features (B, h, w, C) to images (B, 4 h, 4 w, channels) in [-1, 1]."""

    base: int = 64
    channels: int = 1
    style: Style = Style()

    @nn.compact
    def __call__(self, h: Array, train: bool) -> Array:
        norm, start = self.style.normalization, self.style.start
        for level in (1, 0):
            h = Upconvolution(self.base * 2**level, 3, bias=False, start=start, name=f"up_{level}")(h)
            h = nn.relu(norm(f"up_norm_{level}")(h, train))
        return jnp.tanh(Convolution(self.channels, 7, padding=3, border="reflect", start=start, name="head")(h))


class ResNet(nn.Module):
    """Two convolutions of stride 2 down, residual blocks, and two transposed ones up.

    Attributes:
      base: channels at full resolution, four times as many in the blocks.
      blocks: residual blocks.
      rate: of the dropout inside them.
    """

    base: int = 64
    blocks: int = 9
    rate: float = 0.5

    @nn.compact
    def __call__(self, y: Array, train: bool, keys: Array | None = None) -> Array:
        """As that of `SkipUNet`."""
        h = Contraction(self.base, name="contraction")(y, train)
        for i in range(self.blocks):
            h = ResidualBlock(self.rate, name=f"block_{i}")(h, train, None if keys is None else stream(keys, "dropout", i))
        return Expansion(self.base, name="expansion")(h, train)
