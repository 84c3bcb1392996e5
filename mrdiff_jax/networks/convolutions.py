"""Convolutions of any size, and what stands around them in the networks of the image-to-image literature; channels last."""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks.initializers import Initializer, normal, uniform, zeros
from mrdiff_jax.networks.kernel_gradients import LAYOUT, convolve
from mrdiff_jax.networks.normalization import Affine, activate

NORMAL_02 = normal(0.02)


class Convolution(nn.Module):
    """Convolution, padded on all sides by `padding` pixels.

    Attributes:
      start: of the kernel, and the bias then starts at zero; None draws both within 1 / sqrt(fan-in), as torch does by default.
      border: what the padding holds.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    border: Literal["zero", "reflect"] = "zero"
    bias: bool = True
    start: Initializer | None = NORMAL_02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, affine: Affine | None = None) -> Array:
        """Convolves x (B, H, W, C), or what `activate` makes of it and `affine`."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        start, bias_start = _starts(self.start, math.prod(shape[:3]))
        kernel = self.param("kernel", start, shape)
        padding, margin = self.padding, (self.padding, self.padding)
        if self.border == "reflect":
            x, padding, margin = jnp.pad(x, ((0, 0), margin, margin, (0, 0)), mode="reflect"), 0, (0, 0)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.stride == 1:
            y = convolve(x, kernel, padding, affine)
        else:
            x = x if affine is None else activate(x, affine)
            y = jax.lax.conv_general_dilated(x, kernel, (self.stride,) * 2, (margin, margin), dimension_numbers=LAYOUT)
        return y + self.param("bias", bias_start, (self.features,)).astype(self.dtype) if self.bias else y


class Upconvolution(nn.Module):
    """Transposed convolution of stride 2 that doubles both sides; of an even kernel, or of 3 (padded at the far end).

    Attributes:
      start: as that of `Convolution`.
    """

    features: int
    kernel: int = 4
    bias: bool = True
    start: Initializer | None = NORMAL_02
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        start, bias_start = _starts(self.start, self.kernel**2 * self.features)  # torch counts the outputs here
        kernel = self.param("kernel", start, (self.kernel, self.kernel, x.shape[-1], self.features))
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
        return y + self.param("bias", bias_start, (self.features,)).astype(self.dtype) if self.bias else y


def _starts(start: Initializer | None, fan_in: int) -> tuple[Initializer, Initializer]:
    """Of kernel and bias."""
    return (start, zeros) if start else (uniform(fan_in**-0.5), uniform(fan_in**-0.5))


def dropout(x: Array, rate: float, keys: Array | None) -> Array:
    """Elements of x (B, ...) set to 0 with this probability and the others scaled up, by one key an example; None keeps all."""
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def leaky(x: Array) -> Array:
    """LeakyReLU of slope 0.2."""
    return nn.leaky_relu(x, 0.2)
