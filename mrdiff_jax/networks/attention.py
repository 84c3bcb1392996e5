"""Scaled dot-product attention, which a small CPU computes block by block.

N queries and N keys have N x N weights, for every head of every example: more than a cache holds, and training would keep
them for the backward pass. Here some queries of one head are answered at a time, and the backward pass computes their
weights again. Devices with many cores, accelerators and small arrays get it in one piece.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from mrdiff_jax import parallel

_BLOCK, _SMALLEST = 256, 32  # queries at a time: so many, or their largest divisor that is not less than the other
_LARGE = 2**19  # weights: with fewer one piece is as fast


def attend(q: Array, k: Array, v: Array) -> Array:
    """The mean of the values, weighted by softmax(q k^T / sqrt(C)) in float32, for every head (Vaswani et al. 2017).

    Args:
      q: queries (B, N, heads, C).
      k: keys, of that shape.
      v: values, of that shape.

    Returns:
      An array of that shape.
    """
    b, n, heads, _ = q.shape
    size = max(size for size in range(1, min(n, _BLOCK) + 1) if n % size == 0)
    if parallel.few_cores() and b * heads * n * n >= _LARGE and size >= _SMALLEST:
        in_blocks = functools.partial(_in_blocks, size=size)
        return lax.platform_dependent(q, k, v, cpu=in_blocks, default=_in_one_piece)
    return _in_one_piece(q, k, v)


def _in_one_piece(q: Array, k: Array, v: Array) -> Array:
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    return jnp.einsum("bhqk,bkhd->bqhd", _weights(logits, q), v)


def _in_blocks(q: Array, k: Array, v: Array, size: int) -> Array:
    """The same, for so many queries of one head of one example at a time."""
    b, n, heads, c = q.shape

    @jax.checkpoint
    def of_head(inputs: tuple[Array, Array, Array]) -> Array:
        blocks, k, v = inputs
        k, v = k.astype(jnp.float32), v.astype(jnp.float32)  # so that their gradients are summed in float32

        @jax.checkpoint
        def of_block(queries: Array) -> Array:
            return _weights(queries @ k.T.astype(q.dtype), queries) @ v.astype(q.dtype)

        return lax.map(of_block, blocks)

    q, k, v = (x.swapaxes(1, 2).reshape(b * heads, n, c) for x in (q, k, v))
    return lax.map(of_head, (q.reshape(b * heads, -1, size, c), k, v)).reshape(b, heads, n, c).swapaxes(1, 2)


def _weights(logits: Array, q: Array) -> Array:
    return jax.nn.softmax(logits.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
