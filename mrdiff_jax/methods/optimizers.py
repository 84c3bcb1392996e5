"""From a recipe (`fields.Optimizer`) to the optimiser of a player."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from mrdiff_jax.fields import Optimizer


def make_optimizer(recipe: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Adam, AdamW or RAdam behind gradient-norm clipping where that is set; `update` takes `progress`, which sets the rate."""
    rate, betas = recipe.learning_rate, {"b1": recipe.b1, "b2": recipe.b2}
    rule = {
        "adam": lambda: optax.adam(rate, **betas),
        "adamw": lambda: optax.adamw(rate, **betas, weight_decay=recipe.weight_decay),
        "radam": lambda: optax.radam(rate, **betas),
    }[recipe.name]()
    clip = optax.clip_by_global_norm(recipe.clip_norm) if recipe.clip_norm else optax.identity()
    return optax.chain(clip, rule, scale_by_progress(recipe.hold))


def scale_by_progress(hold: float) -> optax.GradientTransformationExtraArgs:
    """Scales updates by `rate_factor` of the progress of the training."""

    def update(updates: optax.Updates, state: optax.EmptyState, params: optax.Params = None, *, progress: Array, **_: object):
        factor = rate_factor(progress, hold)
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def rate_factor(progress: Array, hold: float) -> Array:
    """Share of the learning rate at a share of the training: 1 up to `hold`, then linearly down to 0 at the end."""
    return jnp.where(progress <= hold, 1.0, (1 - progress) / max(1 - hold, 1e-9))


class StagedState(NamedTuple):
    """The stage that the last step was in, 0 or 1, and the optimiser's own state."""

    stage: Array
    inner: Any


def in_two_stages(
    optimizer: optax.GradientTransformationExtraArgs, start: float, rate: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """The optimiser over two trainings, one after the other: each has the whole curve of its rate and fresh moments.

    A run that goes on, and whose progress by the clock begins anew, stays in the stage that it had reached.

    Adam divides its moments by what they have missed since step 0. Weights that no gradient reached before stage 2 would
    otherwise take first steps many times too large, for their moments are as empty as at step 0 and the count is not.

    Args:
      optimizer: of one stage; takes `progress` within it.
      start: the progress at which the second stage begins.
      rate: of the second stage, in rates of the first.
    """

    def update(updates: optax.Updates, state: StagedState, params: optax.Params = None, *, progress: Array, **extra: Any):
        stage = in_second_stage(progress, start) | (state.stage > 0)
        fresh = stage > state.stage
        inner = jax.lax.cond(fresh, lambda: optimizer.init(params), lambda: state.inner)
        within = jnp.where(stage, (progress - start) / max(1 - start, 1e-9), progress / max(start, 1e-9))
        updates, inner = optimizer.update(updates, inner, params, progress=within, **extra)
        return optax.tree.scale(jnp.where(stage, rate, 1.0), updates), StagedState(stage.astype(jnp.int32), inner)

    def init(params: optax.Params) -> StagedState:
        return StagedState(jnp.zeros((), jnp.int32), optimizer.init(params))

    return optax.GradientTransformationExtraArgs(init, update)


def in_second_stage(progress: Array, start: float) -> Array:
    """Whether the second of two stages has begun; with a start of 1 there is none."""
    return (progress >= start) & (start < 1)
