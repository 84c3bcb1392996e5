"""Training in a test: the real step, on one device, with the same batch again and again."""

import jax
import jax.numpy as jnp
import numpy as np

from mrdiff_jax import methods, parallel
from mrdiff_jax.training.step import create_train_state, make_train_step


def smooth_batch(examples=2, size=16, sources=2, seed=0):
    """Slices that look like something: blobs in [0, 1], the target a function of the sources and of its own."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size),) * 2), -1).astype(np.float32)
    centres = rng.uniform(-0.6, 0.6, (examples, sources + 1, 1, 1, 2)).astype(np.float32)
    blobs = np.exp(-4 * ((grid - centres) ** 2).sum(-1))
    times = {name: np.full((examples, sources), 1000, np.float32) for name in ("tr", "te", "ti")}
    return {"sources": np.moveaxis(blobs[:, :sources], 1, -1), "target": (blobs[:, 0] + blobs[:, -1]) / 2} | times


def fit(method, recipe, batch, steps, seed=0):
    """The state after that many steps, and the metrics of each."""
    device = jax.local_devices()[:1]
    state = parallel.replicate(create_train_state(method, recipe, jax.random.key(seed), batch), device)
    batch = parallel.shard(batch, 1)
    step = parallel.pmap(make_train_step(method, recipe, jax.random.key(seed + 1)), device)
    history = []
    for i in range(steps):
        state, metrics = step(state, batch, jnp.full(1, i / steps, jnp.float32))
        history.append(metrics)
    return parallel.unreplicate(state), jax.tree.map(lambda leaf: leaf[0], history)


def error_learnt(config, copies, steps):
    """Error of the two slices of `smooth_batch` after training on copies of them, as a share of the target's spread."""
    method, two = methods.create(config), smooth_batch()
    state, _ = fit(method, config.optimizer, {name: np.repeat(values, copies, 0) for name, values in two.items()}, steps)
    image = jax.jit(method.synthesize)(state.evaluated(), two, jax.random.split(jax.random.key(0), 2))
    return np.sqrt(np.mean((np.asarray(image) - two["target"]) ** 2)) / two["target"].std()


def gradients(method, variables, batch, rng, progress=0.5):
    """By player, the outcome of its loss and the gradient of it by the player's own parameters."""

    def own(name, params):
        return method.players[name].loss(variables.with_params(name, params), batch, rng, jnp.float32(progress))

    def run(name):
        one = parallel.pmap(jax.value_and_grad(lambda params: own(name, params), has_aux=True), jax.local_devices()[:1])
        return parallel.unreplicate(one(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], variables.params[name])))

    return {name: run(name) for name in method.players}


def disturbed(variables, scale=0.1, seed=0):
    """Variables away from their zero start, so that outputs answer to inputs."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: leaf + scale * rng.standard_normal(leaf.shape, np.float32), variables.params)
    return variables.replace(params=params)


def count(tree):
    """Elements of a tree of arrays, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
