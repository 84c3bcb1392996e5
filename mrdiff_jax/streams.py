"""Random numbers by purpose: every use has a stream of its own name, so that no two uses share numbers by accident."""

import zlib

import jax
from jax import Array


def named(key: Array, name: str, index: Array | int = 0) -> Array:
    """The key of the index-th draw for a purpose: the same name and index give the same key again."""
    number = zlib.crc32(name.encode()) & 0x7FFFFFFF
    return jax.random.fold_in(jax.random.fold_in(key, number), index)


def stream(keys: Array, name: str, index: Array | int = 0) -> Array:
    """The same of keys (B,), one an example."""
    return jax.vmap(lambda key: named(key, name, index))(keys)


def normal_like(x: Array, keys: Array) -> Array:
    """Standard normal noise of the shape of x (B, ...), example i from keys[i]."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)


def steps_like(keys: Array, steps: int) -> Array:
    """(B,) integers, uniform on 0 .. steps - 1, one from each key."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, steps))(keys)
