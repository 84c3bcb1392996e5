"""Convolutions of any size, and what stands around them in the networks of the image-to-image literature; channels last."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.initializers import Initializer, normal, zeros

LAYOUT = ("NHWC", "HWIO", "NHWC")
NORMAL_02 = normal(0.02)


class Convolution(nn.Module):
    """Convolution, padded on all sides by `padding` pixels.

    Attributes:
      start: of the kernel; the bias starts at zero.
      border: what the padding holds.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    border: Literal["zero", "reflect"] = "zero"
    bias: bool = True
    start: Initializer = NORMAL_02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.start, (self.kernel, self.kernel, x.shape[-1], self.features))
        margin = (self.padding, self.padding)
        if self.border == "reflect":
            x, margin = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), mode="reflect"), (0, 0)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jax.lax.conv_general_dilated(x, kernel, (self.stride,) * 2, (margin, margin), dimension_numbers=LAYOUT)
        return y + self.param("bias", zeros, (self.features,)).astype(self.dtype) if self.bias else y


class Upconvolution(nn.Module):
    """Transposed convolution of stride 2 that doubles both sides; of an even kernel, or of 3 (padded at the far end)."""

    features: int
    kernel: int = 4
    bias: bool = True
    start: Initializer = NORMAL_02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.start, (self.kernel, self.kernel, x.shape[-1], self.features))
        low = self.kernel // 2
        margin = (low, self.kernel - low)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (1, 1),
            (margin, margin),
            lhs_dilation=(2, 2),
            dimension_numbers=LAYOUT,
        )
        return y + self.param("bias", zeros, (self.features,)).astype(self.dtype) if self.bias else y


def dropout(x: Array, rate: float, keys: Array | None) -> Array:
    """Elements of x (B, ...) set to 0 with this probability and the others scaled up, by one key an example; None keeps all."""
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def leaky(x: Array) -> Array:
    """LeakyReLU of slope 0.2."""
    return nn.leaky_relu(x, 0.2)
