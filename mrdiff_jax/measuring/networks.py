"""The programs of a method, as training and synthesis run them, on random images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import Config
from mrdiff_jax.fields import split_names
from mrdiff_jax.measuring.programs import Program, compile_and_weigh
from mrdiff_jax.methods.contract import Variables
from mrdiff_jax.methods.reading import synthesis_part
from mrdiff_jax.training.step import TrainState, create_train_state, make_train_step

Devices = Sequence[jax.Device]
TINY = {  # what makes a network and its phantom so small that all is measured in seconds
    **{"data.image_size": 16, "data.batch_size": 2, "data.subjects": 5, "data.subject_slices": 3},
    **{"model.base_channels": 8, "model.channel_mult": (1,), "model.attention_levels": (), "model.head_channels": 8},
    "mrdiff.map_channels": 4,
}


def random_batch(config: Config, count: int) -> dict[str, np.ndarray]:
    """A batch of that many slices as training sees it, of random images."""
    rng, side, k = np.random.default_rng(0), config.data.image_size, len(split_names(config.data.sources))
    times = {"tr": 3000.0, "te": 100.0, "ti": 1000.0}
    images = {"sources": rng.random((count, side, side, k), np.float32), "target": rng.random((count, side, side), np.float32)}
    return images | {name: np.full((count, k), value, np.float32) for name, value in times.items()}


def fresh_state(config: Config) -> TrainState:
    """The state before training."""
    return create_train_state(methods.create(config), config.optimizer, jax.random.key(0), random_batch(config, 1))


def fresh_variables(config: Config) -> Variables:
    """Its variables alone, for what does not train: the optimiser's state takes more memory than they do."""
    return methods.create(config).init(jax.random.key(0), random_batch(config, 1))


def parameters(variables: Variables) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables.params))


def with_steps(config: Config, steps: int) -> Config:
    """The same with that many reverse steps, where the method has any."""
    if config.sample is None:
        return config
    return dataclasses.replace(config, sample=dataclasses.replace(config.sample, steps=steps))


def training_step(config: Config, state: TrainState, devices: Devices) -> Program:
    """A step of training on a batch of the configuration's size that is already there."""
    method = methods.create(config)
    step = make_train_step(method, config.optimizer, jax.random.key(1))
    batch = parallel.shard(random_batch(config, config.data.batch_size), len(devices))
    arguments = (_shapes(state, devices), batch, _shapes(np.float32(0), devices))
    compiled, record = compile_and_weigh(step, arguments, devices, donate=(0,), once=True, lean=method.lean)
    if compiled is None:
        return None, record
    held, batch, progress = (
        parallel.replicate(state, devices),
        _place(batch, devices),
        parallel.replicate(np.float32(0), devices),
    )

    def call() -> Any:
        nonlocal held
        held, metrics = compiled(held, batch, progress)
        return metrics

    return call, record


def synthesis(config: Config, variables: Variables, count: int, devices: Devices) -> Program:
    """Synthesis of that many slices with the configuration's number of steps; FLOPs are those of all steps."""
    method = methods.create(config)
    part = synthesis_part(method, config, variables)
    batch = random_batch(config, count)
    del batch["target"]

    def synthesize(variables: Variables, batch: Any) -> jax.Array:
        return method.synthesize(variables, batch, parallel.example_keys(jax.random.key(0), len(batch["tr"])))

    batch = parallel.shard(batch, len(devices))
    compiled, record = compile_and_weigh(synthesize, (_shapes(part, devices), batch), devices)
    if "gflop" in record and config.sample:
        record["gflop"] *= config.sample.steps
    if compiled is None:
        return None, record
    part, batch = parallel.replicate(part, devices), _place(batch, devices)
    return lambda: compiled(part, batch), record


def _shapes(tree: Any, devices: Devices) -> Any:
    """Shapes of a tree that is replicated."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(devices), *np.shape(x)), x.dtype), tree)


def _place(shards: Any, devices: Devices) -> Any:
    """Each device's share of a batch, on it."""
    return parallel.pmap(lambda tree: tree, devices)(shards)
