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

READ = ("sources", "tr", "te", "ti", "available")  # what a method is given of a batch, if it is there

Compiled = Callable[[Variables, Mapping[str, Any], Array], tuple[np.ndarray, ...]]


class Sampler:
    """A method's synthesis; compiled once for each size of a batch."""

    def __init__(self, method: Method, samples: int = 1):
        """`samples` syntheses of each slice are averaged."""

        def synthesize(variables: Variables, batch: Batch, keys: Array) -> tuple[Array, Array]:
            def draw(number: Array) -> Array:
                return jnp.clip(method.synthesize(variables, batch, stream(keys, "sample", number)), 0, 1)

            images = jax.lax.map(draw, jnp.arange(samples))
            return images.mean(0), images.std(0, ddof=min(1, samples - 1))

        self._synthesize = on_devices(synthesize)

    def __call__(self, variables: Variables, batch: Mapping[str, Any], keys: Array) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (B, H, W) each, over the syntheses of a batch; keys (B,), replicated variables."""
        return self._synthesize(variables, batch, keys)


def on_devices(function: Callable[[Variables, Batch, Array], tuple[Array, ...]]) -> Compiled:
    """A function of the contract, compiled for all local devices: it takes replicated variables and a batch of any size."""
    compiled = parallel.pmap(lambda variables, inputs: function(variables, *inputs))

    def run(variables: Variables, batch: Mapping[str, Any], keys: Array) -> tuple[np.ndarray, ...]:
        return parallel.on_batch(compiled, ({name: batch[name] for name in READ if name in batch}, keys), variables)

    return run
