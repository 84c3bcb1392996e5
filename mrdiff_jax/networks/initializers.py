"""How weights start: each array of a network says how it is drawn, and all of them are drawn on the host.

Compiling jax's generator for every shape of a network takes a minute; numpy needs none.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

ArraySampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Initializer = Callable[..., "Drawn"]


class Drawn(struct.PyTreeNode, nn.meta.AxisMetadata):
    """An array of a network, with the sampler that it is drawn by."""

    value: Any
    sampler: ArraySampler = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        """The array."""
        return self.value

    def replace_boxed(self, value: Any) -> "Drawn":
        """Another array of the same sampler."""
        return self.replace(value=value)

    def add_axis(self, index: int, params: dict) -> "Drawn":
        """Stacking arrays does not change their sampler."""
        return self

    remove_axis = add_axis


def drawn(sampler: ArraySampler) -> Initializer:
    """The initialiser of a flax module's parameters with this sampler."""

    def initialize(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        seed = jax.random.bits(key, (), jnp.uint32)
        result = jax.ShapeDtypeStruct(shape, dtype)
        value = jax.pure_callback(lambda s: sampler(np.random.default_rng(int(s)), shape).astype(dtype), result, seed)
        return Drawn(value, sampler)

    return initialize


def constant(value: float) -> Initializer:
    """All elements the same; needs no key."""

    def initialize(key: Array | None, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Drawn:
        return Drawn(jnp.full(shape, value, dtype), lambda rng, shape: np.full(shape, value, dtype))

    return initialize


zeros, ones = constant(0.0), constant(1.0)


def uniform(bound: float) -> Initializer:
    """Uniform within plus and minus `bound`; a bound of 0 gives zeros."""
    return drawn(lambda rng, shape: rng.uniform(-bound, bound, shape).astype(np.float32))


def normal(deviation: float, mean: float = 0.0) -> Initializer:
    """Normal with this standard deviation and mean."""
    return drawn(lambda rng, shape: rng.normal(mean, deviation, shape).astype(np.float32))


def init_on_host(network: nn.Module, key: Array, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The variables of `network.init(key, *args, **kwargs)`, as numpy arrays, without running or compiling the network.

    Raises:
      TypeError: an array of the network has no sampler; the message names it.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        if not isinstance(leaf, Drawn):
            raise TypeError(f"{jax.tree_util.keystr(path)}: does not say how it is drawn; use networks.initializers")
        return leaf.sampler(rng, leaf.value.shape)

    shapes = jax.eval_shape(lambda: network.init(key, *args, **kwargs))
    return jax.tree_util.tree_map_with_path(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, Drawn))
