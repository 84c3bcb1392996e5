"""What training carries from step to step, and the step itself: the same for every method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array
from jax.flatten_util import ravel_pytree

from mrdiff_jax import parallel
from mrdiff_jax.methods import Batch, Method, Params

StepFn = Callable[["TrainState", Batch, Array], tuple["TrainState", dict[str, Array]]]


@struct.dataclass
class TrainState:
    """The state of a run: steps taken, parameters, their moving average and the optimisers' states by player."""

    step: Array
    params: Params
    ema_params: Params
    opt_state: dict[str, Any]


def make_optimizer(config: Any) -> optax.GradientTransformationExtraArgs:
    """Adam or AdamW from `config.optimizer`, behind gradient-norm clipping where that is set.

    `update` takes `rate`, which scales the learning rate. All parameters are updated as one vector: hundreds of small arrays
    would be most of the program that is traced, compiled and loaded.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adam = (
        optax.adam(config.learning_rate)
        if config.name == "adam"
        else optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    )

    def scale(updates: Array, state: optax.EmptyState, params: Any = None, *, rate: Array) -> tuple[Array, optax.EmptyState]:
        return rate * updates, state

    by_rate = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), scale)
    return optax.flatten(optax.chain(clip, adam, by_rate))


def create_train_state(method: Method, optimizer: optax.GradientTransformation, key: Array, batch: Batch) -> TrainState:
    """A fresh state, as numpy arrays."""
    params = method.init(key, batch)
    opt_state = jax.jit(lambda p: {player: optimizer.init(p[player]) for player in method.losses})(params)
    return TrainState(np.zeros((), np.int32), params, jax.tree.map(np.copy, params), jax.device_get(opt_state))


def make_train_step(
    method: Method, optimizer: optax.GradientTransformation, ema_decay: float, key: Array, ema_warmup: bool = True
) -> StepFn:
    """Builds the step: for each player in turn, differentiate its loss by its own parameters and update them.

    The step runs under `parallel.pmap`; randomness is a function of the key, the step and the example's place in the batch.
    `rate`, in [0, 1], scales the learning rate; with `ema_warmup` the moving average follows faster at first. The step returns
    the new state and scalars to log.
    """

    def train_step(state: TrainState, batch: Batch, rate: Array) -> tuple[TrainState, dict[str, Array]]:
        rng = parallel.example_keys(jax.random.fold_in(key, state.step), len(batch["target"]))
        params, opt_state, metrics = dict(state.params), dict(state.opt_state), {}
        rate = parallel.mean(rate)  # where it depends on the clock, hosts differ
        for player, loss in method.losses.items():

            def own_loss(own: Any, player: str = player, loss: Callable = loss) -> tuple[Array, dict]:
                return loss(params | {player: own}, batch, rng)

            (value, aux), gradient = parallel.mean(jax.value_and_grad(own_loss, has_aux=True)(params[player]))
            updates, opt_state[player] = optimizer.update(gradient, opt_state[player], params[player], rate=rate)
            params[player] = optax.apply_updates(params[player], updates)
            params["stats"] = aux.get("stats", params["stats"])
            norm = jnp.linalg.norm(ravel_pytree(gradient)[0])
            metrics |= {f"{player}/loss": value, f"{player}/gradient_norm": norm} | aux["metrics"]

        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step)) if ema_warmup else ema_decay
        (average, unravel), (new, _) = ravel_pytree(state.ema_params), ravel_pytree(params)
        ema_params = unravel(new + decay * (average - new))
        ema_params["stats"] = params["stats"]  # singular vectors do not average
        return TrainState(state.step + 1, params, ema_params, opt_state), metrics

    return train_step
