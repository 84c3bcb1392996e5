"""The PatchGAN discriminator (Isola et al. 2017), and the least-squares losses (Mao et al. 2017)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.convolutions import Convolution, leaky
from mrdiff_jax.networks.normalization import BatchNorm, InstanceNorm


class PatchGAN(nn.Module):
    """Images (B, H, W, C) to a map of scores (B, h, w, 1), each of a patch: of 70 x 70 pixels with three `layers`.

    It is used in training alone, so that it normalises by the batch or the image at hand and keeps no statistics.

    Attributes:
      base: channels of the first convolution.
      layers: convolutions of stride 2; patches of 16, 34 and 70 pixels with one, two and three.
      norm: what is normalised over.
    """

    base: int = 64
    layers: int = 3
    norm: Literal["batch", "instance"] = "batch"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = leaky(Convolution(self.base, 4, 2, name="conv_0")(x))
        for n in range(1, self.layers + 1):
            stride = 2 if n < self.layers else 1
            x = Convolution(self.base * min(2**n, 8), 4, stride, bias=False, name=f"conv_{n}")(x)
            x = leaky(self._norm(f"norm_{n}")(x, train=True))
        return Convolution(1, 4, name="scores")(x)

    def _norm(self, name: str) -> nn.Module:
        if self.norm == "instance":
            return InstanceNorm(gain_deviation=0.02, name=name)
        return BatchNorm(gain_deviation=0.02, running=False, name=name)


def smallest_side(layers: int) -> int:
    """The smallest side of an image that gives a score."""
    return 8 * 2 ** (layers - 1)


def discriminator_loss(real: Array, fake: Array) -> Array:
    """Half the squared distance of the scores of real images to 1 and of synthetic ones to 0, each as a mean."""
    return (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake))) / 2


def generator_loss(fake: Array) -> Array:
    """Squared distance of the scores of synthetic images to 1, as a mean."""
    return jnp.mean(jnp.square(fake - 1))
