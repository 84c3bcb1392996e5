"""Methods as tests build, differentiate and train them, without a loop around them."""

import jax
import numpy as np

from mrdiff_jax import methods, parallel
from mrdiff_jax.config import default, resolve
from mrdiff_jax.training.step import create_train_state, make_train_step


def settings(name, size=32, sources="T2w,PDw", rate=None, **own):
    """The resolved configuration of a method."""
    config = default()
    config.method.name = name
    config.data.update(sources=sources, target="T1w", image_size=size)
    config[name].update(own)
    config.optimizer.learning_rate = rate
    return resolve(config)


def keys(seed=0, count=2):
    return jax.random.split(jax.random.key(seed), count)


def count(tree):
    """Parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def stirred(variables, scale=0.1):
    """The variables with every parameter moved from its start."""
    rng = np.random.default_rng(1)
    return variables.replace(
        params=jax.tree.map(lambda p: p + scale * rng.standard_normal(p.shape, np.float32), variables.params)
    )


def differentiable(method, name):
    """A player's loss as training has it: (variables, batch, progress) -> value, outcome and gradient; compiled once."""

    def loss(params, variables, batch, progress):
        return method.players[name].loss(variables.with_params(name, params), batch, keys(), progress)

    run = parallel.pmap(jax.value_and_grad(loss, has_aux=True), jax.local_devices()[:1])

    def differentiate(variables, batch, progress=0.0):
        args = (variables.params[name], variables, dict(batch), np.float32(progress))
        (value, outcome), gradient = run(*jax.tree.map(lambda leaf: np.asarray(leaf)[None], args))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], (value, outcome, gradient))

    return differentiate


def largest(tree):
    """The largest size of a number in a tree."""
    return max((float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree)), default=0.0)


def train(config, batch, progress):
    """The method, and its variables before and after a step on one batch at each progress."""
    method, held = methods.create(config), jax.local_devices()[:1]
    step = parallel.pmap(make_train_step(method, config.optimizer, jax.random.key(1)), held)
    fresh = create_train_state(method, config.optimizer, jax.random.key(0), batch)
    state, shards = parallel.replicate(fresh, held), parallel.shard(batch, 1)
    for share in progress:
        state, _ = step(state, shards, np.full(1, share, np.float32))
    return method, fresh.variables, parallel.unreplicate(state).evaluated()


def two_slices(size=32, sources=2):
    """Two smooth pictures to learn, of which the sources are different functions, and scan parameters."""
    from conftest import make_batch

    rows, columns = np.meshgrid(*2 * [np.linspace(0, 1, size, dtype=np.float32)], indexing="ij")
    waves = np.stack([np.sin(7 * rows + 3 * columns), np.cos(9 * rows * columns + 2 * rows)]) / 2 + 0.5
    seen = np.stack([waves ** (k + 1) for k in range(sources)], axis=-1)
    return make_batch(2, size, sources) | {"sources": seen, "target": 1 - np.abs(2 * waves - 1)}


def error_learnt(config, copies, steps):
    """The error after training on copies of two slices, as a share of the target's spread."""
    two = two_slices(config.data.image_size)
    batch = {name: np.repeat(values, copies, 0) for name, values in two.items()}
    method, _, variables = train(config, batch, np.arange(steps) / steps)
    return error(method, variables, two) / two["target"].std()


def error(method, variables, batch):
    """Root mean square error of the synthesis."""
    image = jax.jit(method.synthesize)(variables, batch, keys(5, len(batch["target"])))
    return float(np.sqrt(np.square(image - batch["target"]).mean()))
