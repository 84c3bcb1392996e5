"""Drawing synthetic images from a method, on all local devices: the one way, for evaluation and for users."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax import parallel
from mrdiff_jax.methods.contract import Batch, Method, Variables
from mrdiff_jax.streams import stream

READ = ("sources", "tr", "te", "ti")  # what a method is given of a batch


class Sampler:
    """A method's synthesis; compiled once for each size of a batch."""

    def __init__(self, method: Method, samples: int = 1):
        """`samples` syntheses of each slice are averaged."""

        def synthesize(variables: Variables, batch: Batch, keys: Array) -> tuple[Array, Array]:
            def draw(number: Array) -> Array:
                return jnp.clip(method.synthesize(variables, batch, stream(keys, "sample", number)), 0, 1)

            images = jax.lax.map(draw, jnp.arange(samples))
            return images.mean(0), images.std(0, ddof=min(1, samples - 1))

        self._synthesize = parallel.pmap(synthesize)

    def __call__(self, variables: Variables, batch: Mapping[str, Any], keys: Array) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (B, H, W) each, over the syntheses of a batch; keys (B,), replicated variables."""
        return run(self._synthesize, variables, batch, keys)


def describer(method: Method) -> Callable[[Variables, Mapping[str, Any], Array], tuple[np.ndarray, ...]]:
    """A method's `describe`, compiled for all local devices; called as a `Sampler`."""
    compiled = parallel.pmap(method.describe)
    return lambda variables, batch, keys: run(compiled, variables, batch, keys)


def run(compiled: Any, variables: Variables, batch: Mapping[str, Any], keys: Array) -> tuple[np.ndarray, ...]:
    """Runs a compiled function of the contract on a batch of any size, which is filled up to a multiple of the devices."""
    count, devices = len(batch["sources"]), jax.local_device_count()
    filled = np.minimum(np.arange(-(-count // devices) * devices), count - 1)
    arrays, keys = jax.tree.map(lambda leaf: leaf[filled], ({name: batch[name] for name in READ}, keys))
    images = parallel.gather(compiled(variables, parallel.shard(arrays), parallel.shard(keys)))
    return tuple(image[:count] for image in images)
