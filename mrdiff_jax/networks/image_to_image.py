"""The two generators of pix2pix (Isola et al. 2017; Johnson et al. 2016): sources to target, in [-1, 1], channels last."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.convolutions import Convolution, Upconvolution, dropout, leaky
from mrdiff_jax.networks.normalization import BatchNorm
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


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to the input."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool, keys: Array | None = None) -> Array:
        features = x.shape[-1]
        h = Convolution(features, border="reflect", bias=False, name="conv_in")(x)
        h = nn.relu(BatchNorm(gain_deviation=0.02, name="norm_in")(h, train))
        h = dropout(h, self.rate, keys)
        h = Convolution(features, border="reflect", bias=False, name="conv_out")(h)
        return x + BatchNorm(gain_deviation=0.02, name="norm_out")(h, train)


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
        h = Convolution(self.base, 7, padding=3, border="reflect", bias=False, name="stem")(y)
        h = nn.relu(BatchNorm(gain_deviation=0.02, name="stem_norm")(h, train))
        for level in (1, 2):
            h = Convolution(self.base * 2**level, 3, 2, bias=False, name=f"down_{level}")(h)
            h = nn.relu(BatchNorm(gain_deviation=0.02, name=f"down_norm_{level}")(h, train))
        for i in range(self.blocks):
            h = ResidualBlock(self.rate, name=f"block_{i}")(h, train, None if keys is None else stream(keys, "dropout", i))
        for level in (1, 0):
            h = Upconvolution(self.base * 2**level, 3, bias=False, name=f"up_{level}")(h)
            h = nn.relu(BatchNorm(gain_deviation=0.02, name=f"up_norm_{level}")(h, train))
        return jnp.tanh(Convolution(1, 7, padding=3, border="reflect", name="head")(h))
