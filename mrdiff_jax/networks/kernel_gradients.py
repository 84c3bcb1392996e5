"""Convolutions of images, the gradient of whose kernel a small CPU sums up block by block.

XLA computes that gradient as a convolution of the images with the gradients of its output, for which it turns channels into
examples and back. On a core or two this is half of a wide network's training step. Here a block of rows that fits into the
cache is multiplied with the gradients around each of its pixels, one block after another; each is a product of two matrices.
Devices with many cores, accelerators and small arrays are left to XLA.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from mrdiff_jax import parallel
from mrdiff_jax.networks.normalization import Affine, activate

LAYOUT = ("NHWC", "HWIO", "NHWC")
_BLOCK = 256  # pixels
_LARGE, _FEWEST_CHANNELS = 2**19, 32  # elements of a batch of images, and channels: with fewer XLA is as fast


def convolve(x: Array, kernel: Array, padding: int, affine: Affine | None = None) -> Array:
    """Convolution of stride 1 of images (B, H, W, C), or of what `activate` makes of them, padded by zeros on all sides.

    Where its gradient comes in blocks, activations are computed again for it, block by block, and not kept.

    Args:
      x: the images.
      kernel: (k, k, C, D).
      padding: pixels.
      affine: what `activate` is given beside them.
    """
    if affine is not None and not _comes_in_blocks(x, kernel, padding):
        x, affine = activate(x, affine), None
    return _convolve(x, kernel, padding, affine)


def _comes_in_blocks(x: Array, kernel: Array, padding: int) -> bool:
    is_large = x.size >= _LARGE and x.shape[1] * x.shape[2] >= _BLOCK and x.shape[3] >= _FEWEST_CHANNELS
    return parallel.few_cores() and is_large and padding < kernel.shape[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, padding: int, affine: Affine | None) -> Array:
    x = _activated(x, affine)
    if kernel.shape[:2] == (1, 1) and not padding:
        return x @ kernel[0, 0]
    margins = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (1, 1), margins, dimension_numbers=LAYOUT)


def _activated(x: Array, affine: Affine | None) -> Array:
    return x if affine is None else activate(x, affine)


def _forward(x: Array, kernel: Array, padding: int, affine: Affine | None) -> tuple[Array, tuple]:
    return _convolve(x, kernel, padding, affine), (x, kernel, affine)


def _backward(padding: int, inputs: tuple, gradient: Array) -> tuple[Array, Array, Affine | None]:
    x, kernel, affine = inputs
    if affine is not None:
        x, affine = lax.optimization_barrier((x, affine))  # else XLA finds that it knows the activations, and keeps them
    size = kernel.shape[0]
    mirrored = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    of_activations = convolve(gradient, mirrored, size - 1 - padding)
    _, pull = jax.vjp(_activated, x, affine)
    of_x, of_affine = pull(of_activations)
    sum_up = functools.partial(_of_kernel, size=size, padding=padding)
    if _comes_in_blocks(x, kernel, padding):
        in_blocks = functools.partial(_of_kernel_in_blocks, size=size, padding=padding)
        sum_up = functools.partial(lax.platform_dependent, cpu=in_blocks, default=sum_up)
    return of_x, sum_up(x, affine, gradient), of_affine


_convolve.defvjp(_forward, _backward)


def _of_kernel(x: Array, affine: Affine | None, gradient: Array, size: int, padding: int) -> Array:
    """The gradient of the kernel (k, k, C, D), from images and the gradient of their convolution (B, H', W', D)."""
    x = _activated(x, affine)
    if size == 1 and not padding:
        return jnp.einsum("bhwc,bhwd->cd", x, gradient)[None, None]
    examples_last, margins = ("CHWN", "IHWO", "HWNC"), ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, gradient, (1, 1), margins, dimension_numbers=examples_last)


def _of_kernel_in_blocks(x: Array, affine: Affine | None, gradient: Array, size: int, padding: int) -> Array:
    """The same, summed over blocks of rows."""
    b, h, w, c = x.shape
    d, border = gradient.shape[-1], size - 1 - padding
    around = jnp.pad(gradient, ((0, 0), (border, border), (border, border), (0, 0)))
    rows = max(rows for rows in range(1, h + 1) if h % rows == 0 and (rows == 1 or rows * w <= _BLOCK))
    blocks = h // rows

    def add(block: Array, total: Array) -> Array:
        example, row = block // blocks, block % blocks * rows
        pixels = lax.dynamic_slice(x, (example, row, 0, 0), (1, rows, w, c))
        own = jax.tree.map(lambda of_all: lax.dynamic_slice(of_all, (example, 0), (1, c)), affine)
        pixels = _activated(pixels, own).reshape(rows * w, c)
        near = lax.dynamic_slice(around, (example, row, 0, 0), (1, rows + size - 1, w + size - 1, d))[0]
        shifted = [near[i : i + rows, j : j + w] for i in reversed(range(size)) for j in reversed(range(size))]
        columns = jnp.concatenate(shifted, axis=-1).reshape(rows * w, size * size * d)
        return total + jnp.matmul(pixels.T, columns, preferred_element_type=jnp.float32)

    total = lax.fori_loop(0, b * blocks, add, jnp.zeros((c, size * size * d)))
    return total.reshape(c, size, size, d).transpose(1, 2, 0, 3).astype(gradient.dtype)
