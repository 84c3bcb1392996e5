"""The losses of MRDiff (paper, Sec. 2), as means over examples and elements; images in [-1, 1]."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.methods.distances import DISTANCES, Distance

Reduction = Literal["mean", "sum"]


def image_loss(image: Array, estimate: Array, distance: Distance = "l2") -> Array:
    """Loss of the generator, x_0 against x0_hat (Eq. 3), and of the decoder, y against y_hat (Eq. 8).

    Args:
      image: (B, H, W, C).
      estimate: (N, B, H, W, C), one a noise draw.
      distance: "l2" is the paper's.

    Returns:
      (N,) losses, one a draw.
    """
    return DISTANCES[distance](estimate - image).mean((1, 2, 3, 4))


def global_content(e_t: Array) -> Array:
    """The global content feature: features (N, B, h, w, C) averaged over the draws (Eq. 9)."""
    return e_t.mean(0)


def consistency_loss(e_t: Array, normalize: bool = False, stop_gradient: bool = False) -> Array:
    """Self-content consistency loss: each draw's feature against the global content feature (Eq. 10).

    Args:
      e_t: (N, B, h, w, C) features, one a noise draw at the same t.
      normalize: compares directions: features and global content are scaled to unit length over the channels.
      stop_gradient: the global content is a constant target.

    Returns:
      (N,) losses, one a draw.
    """
    e_t = e_t.astype(jnp.float32)  # draws differ by less than bfloat16 rounds
    content = global_content(e_t)
    if normalize:
        e_t, content = _unit(e_t), _unit(content)
    if stop_gradient:
        content = jax.lax.stop_gradient(content)
    return jnp.mean(jnp.square(e_t - content), axis=(1, 2, 3, 4))


def _unit(x: Array) -> Array:
    length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))
    return x / length


def image_weights(sources: int, joint: bool) -> tuple[float, float]:
    """Weights of generator and decoder loss: (1, 1), or their shares in one mean over the channels of [x_0, y]."""
    return (1 / (1 + sources), sources / (1 + sources)) if joint else (1.0, 1.0)


def over_draws(losses: Array, reduction: Reduction, draws: int) -> Array:
    """Mean or sum over the draws of losses known for all of them or for the first alone; (N,) or (1,) -> scalar."""
    return losses.mean() * (draws if reduction == "sum" else 1)
