"""Regression: a UNet of the size of MRDiff's E and G that maps the sources to the target, without noise and without physics.

The baseline that says what diffusion adds: the same blocks, wavelet domain, data and loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.fields import MODEL_FIELDS, QUICK, Length, Optimizer, field
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Variables
from mrdiff_jax.methods.distances import DISTANCES
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.unet import Backbone, Decoder, Encoder, StepEmbedding, build_backbone
from mrdiff_jax.wavelets import to_bands, to_pixels


@dataclass(frozen=True)
class Settings:
    """The optimiser is the paper's of MRDiff."""

    distance: Literal["l1", "l2", "wavelet_l1"] = field(
        "l1", "of the images; 'wavelet_l1' is l1 of Haar packets", choices=tuple(DISTANCES)
    )
    optimizer: Optimizer = Optimizer()
    model_fields: ClassVar[tuple[str, ...]] = MODEL_FIELDS
    published: ClassVar[Length] = Length(350_000, "steps of 8 slices")  # MRDiff's
    small: ClassVar[Mapping[str, Any]] = {"distance": "wavelet_l1", "optimizer": {"learning_rate": 3e-3, **QUICK}}


class Network(nn.Module):
    """Sources (B, H, W, K) in [-1, 1] to the target (B, H, W, 1).

    Attributes:
      backbone: size of the encoder and the decoder.
      wavelet_levels: of the transform on whose bands it works.
    """

    backbone: Backbone
    wavelet_levels: int = 1

    @nn.compact
    def __call__(self, y: Array) -> Array:
        h = to_bands(y, self.wavelet_levels)
        step = jnp.zeros(len(y))  # there is one: its embedding is a learnt constant
        embedding = StepEmbedding(self.backbone, name="embedding")(step)
        skips = Encoder(self.backbone, name="encoder")(h, embedding)
        x = Decoder(self.backbone, h.shape[-1] // y.shape[-1], name="decoder")(skips[-1], embedding, skips)
        return to_pixels(x, self.wavelet_levels)


class Regression(Method):
    """One network, one loss."""

    def __init__(self, config: Any):
        self.network = Network(build_backbone(config), config.model.wavelet_levels)
        self.distance = DISTANCES[config.own.distance]
        self.players = {"generator": Player(self.loss, make_optimizer(config.optimizer))}
        self.stride = self.network.backbone.image_stride(self.network.wavelet_levels)

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights."""
        return Variables({"generator": init_on_host(self.network, key, batch["sources"])["params"]})

    def loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """The distance to the target."""
        loss = self.distance((self._predict(variables, batch) - (2 * batch["target"] - 1))[..., None]).mean()
        return loss, Outcome({"L_G": loss})

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """The prediction."""
        return jnp.clip((self._predict(variables, batch) + 1) / 2, 0, 1)

    def _predict(self, variables: Variables, batch: Batch) -> Array:
        return self.network.apply(variables.of("generator"), 2 * batch["sources"] - 1)[..., 0].astype(jnp.float32)


create = Regression
