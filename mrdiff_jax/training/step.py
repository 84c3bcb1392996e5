"""What training carries from step to step, and the step itself: the same for every method."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from mrdiff_jax import parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Optimizer
from mrdiff_jax.methods.contract import Batch, Method, Tree, Variables
from mrdiff_jax.methods.packing import Packed, pack, unpack

StepFn = Callable[["TrainState", Batch, Array], tuple["TrainState", dict[str, Array]]]
Moving = tuple[Packed, Any, Packed | None]  # of a player: parameters, state of the optimiser, average if any


@struct.dataclass
class TrainState:
    """The state of a run: steps taken, variables, the moving average of players' parameters, optimisers' states by player."""

    step: Array
    variables: Variables
    average: dict[str, Tree]
    opt_state: dict[str, Any]

    def evaluated(self) -> Variables:
        """The variables with the average in the place of what it is the average of."""
        return self.variables.replace(params=self.variables.params | self.average)


def averaged_players(method: Method, recipe: Optimizer) -> tuple[str, ...]:
    """The players of which a moving average is kept."""
    return method.averaged if recipe.ema_decay else ()


def create_train_state(
    method: Method, recipe: Optimizer, key: Array, batch: Batch, begin: Callable[[Variables], Variables] | None = None
) -> TrainState:
    """A fresh state, as numpy arrays; `begin` may put other variables in the place of the fresh ones."""
    variables = method.init(key, batch)
    variables = begin(variables) if begin else variables
    init = jax.jit(lambda params: {name: player.optimizer.init(pack(params[name])) for name, player in method.players.items()})
    average = {name: jax.tree.map(np.copy, variables.params[name]) for name in averaged_players(method, recipe)}
    return TrainState(np.zeros((), np.int32), variables, average, jax.device_get(init(variables.params)))


def make_train_step(method: Method, recipe: Optimizer, key: Array) -> StepFn:
    """Builds the step: differentiates the loss of each player by its own parameters and moves them, one player after the other.

    The step runs under `parallel.pmap`; randomness is a function of the key, the step and the example's place in the batch.
    Its third argument is the progress of the training. It returns the new state and scalars to log.
    """

    def train_step(state: TrainState, batch: Batch, progress: Array) -> tuple[TrainState, dict[str, Array]]:
        rng = parallel.example_keys(jax.random.fold_in(key, state.step), len(batch["target"]))
        progress = parallel.mean(progress)  # where it depends on the clock, hosts differ
        before = after = state.variables
        average, opt_state, metrics = dict(state.average), dict(state.opt_state), {"progress": progress}
        for name, player in method.players.items():
            seen = before if method.simultaneous else after

            def of_part(batch: Batch, rng: Array, name: str = name, player: Any = player, seen: Variables = seen) -> Any:
                def loss(params: Tree) -> tuple[Array, Any]:
                    return player.loss(seen.with_params(name, params), batch, rng, progress)

                found, gradient = jax.value_and_grad(loss, has_aux=True)(seen.params[name])
                return found, pack(gradient)

            (value, outcome), gradient = parallel.mean(averaged(of_part, recipe.accumulate, batch, rng))
            mine = seen.params[name], opt_state[name], average.get(name)
            move = partial(moved, player.optimizer)
            new, opt_state[name], mean = apart(state.step >= 0, move, mine, gradient, progress, _decay(recipe, state.step))
            after = after.with_params(name, unpack(new, seen.params[name]))
            if mean is not None:
                average[name] = unpack(mean, seen.params[name])
            after = after.replace(state=after.state | outcome.state)
            metrics |= {f"{name}/loss": value, f"{name}/gradient_norm": optax.tree.norm(gradient)} | outcome.metrics
        after = method.after_step(after, progress)
        return TrainState(state.step + 1, after, average, opt_state), metrics

    return train_step


def averaged(function: Callable[..., Tree], parts: int, *arguments: Tree) -> Tree:
    """The mean of what a function of examples (B, ...) gives for each of that many parts of them, computed in turn.

    Raises:
      UserError: the examples cannot be divided so.
    """
    if parts == 1:
        return function(*arguments)
    count = len(jax.tree.leaves(arguments)[0])
    if count % parts:
        raise UserError(
            f"--config.optimizer.accumulate={parts}: a device has {count} examples of a batch, not a multiple of it"
        )
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), arguments)
    first = jax.tree.map(lambda leaf: leaf[0], split)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *first))

    def add(total: Tree, part: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, function(*part)), None

    return jax.tree.map(lambda total: total / parts, jax.lax.scan(add, zeros, split)[0])


def moved(
    optimizer: optax.GradientTransformationExtraArgs, mine: Moving, gradient: Packed, progress: Array, decay: Array | float
) -> Moving:
    """What of a player moves, packed, after a step along the gradient."""
    old, opt_state, average = mine
    updates, opt_state = optimizer.update(gradient, opt_state, old, progress=progress)
    new = jax.tree.map(jnp.add, old, updates)
    if average is not None:
        average = jax.tree.map(lambda mean, now: now + decay * (mean - now), average, new)
    return new, opt_state, average


def apart(certain: Array, move: Callable[..., Moving], mine: tuple[Tree, Any, Tree | None], *arguments: Any) -> Moving:
    """What `move` makes of trees, packed, if `certain` is true; it always is, but XLA cannot know, and so keeps `move` whole.

    Else on a CPU it begins a step by copying what is overwritten at its end, and computes anew, in each of the hundreds of
    arrays that `unpack` takes of a vector, how that came about: a fifth of a step's instructions.
    """

    def as_packed(params: Tree, opt_state: Any, average: Tree | None) -> Moving:
        return pack(params), opt_state, None if average is None else pack(average)

    if not parallel.on_cpu():
        return move(as_packed(*mine), *arguments)
    moving, staying = lambda mine, *rest: move(as_packed(*mine), *rest), lambda mine, *_: as_packed(*mine)
    return jax.lax.cond(certain, moving, staying, mine, *arguments)


def _decay(recipe: Optimizer, step: Array) -> Array | float:
    return jnp.minimum(recipe.ema_decay, (1 + step) / (10 + step)) if recipe.ema_warmup else recipe.ema_decay
