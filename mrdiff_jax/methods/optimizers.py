"""From a recipe (`fields.Optimizer`) to the optimiser of a player."""

import jax.numpy as jnp
import optax
from jax import Array

from mrdiff_jax.fields import Optimizer
from mrdiff_jax.methods.packing import packed


def make_optimizer(recipe: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Adam, AdamW or RAdam behind gradient-norm clipping where that is set; `update` takes `progress`, which sets the rate."""
    rate, betas = recipe.learning_rate, {"b1": recipe.b1, "b2": recipe.b2}
    rule = {
        "adam": lambda: optax.adam(rate, **betas),
        "adamw": lambda: optax.adamw(rate, **betas, weight_decay=recipe.weight_decay),
        "radam": lambda: optax.radam(rate, **betas),
    }[recipe.name]()
    clip = optax.clip_by_global_norm(recipe.clip_norm) if recipe.clip_norm else optax.identity()
    return packed(optax.chain(clip, rule, scale_by_progress(recipe.hold)))


def scale_by_progress(hold: float) -> optax.GradientTransformationExtraArgs:
    """Scales updates by `rate_factor` of the progress of the training."""

    def update(updates: optax.Updates, state: optax.EmptyState, params: optax.Params = None, *, progress: Array, **_: object):
        factor = rate_factor(progress, hold)
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def rate_factor(progress: Array, hold: float) -> Array:
    """Share of the learning rate at a share of the training: 1 up to `hold`, then linearly down to 0 at the end."""
    return jnp.where(progress <= hold, 1.0, (1 - progress) / max(1 - hold, 1e-9))
