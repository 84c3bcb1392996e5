"""Regression: a UNet of the size of MRDiff's E and G that maps the sources to the target, without noise and without physics.

The baseline that tells what diffusion adds: the same blocks, wavelet domain, data and loop.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.methods import Aux, Batch, Method, Params
from mrdiff_jax.networks import layers, unet
from mrdiff_jax.wavelets import dwt2, idwt2


class Regression(nn.Module):
    """The network: sources (B, H, W, K) in [-1, 1] to the target (B, H, W, 1).

    Attributes:
      backbone: size of the encoder and the decoder.
      wavelet_domain: False works on pixels.
    """

    backbone: unet.Backbone
    wavelet_domain: bool = True

    @nn.compact
    def __call__(self, y: Array) -> Array:
        h = dwt2(y) if self.wavelet_domain else y
        embedding = unet.StepEmbedding(self.backbone, name="embedding")(
            jnp.zeros(len(y))
        )  # there is one step: a learnt constant
        skips = unet.Encoder(self.backbone, name="encoder")(h, embedding)
        x = unet.Decoder(self.backbone, h.shape[-1] // y.shape[-1], name="decoder")(skips[-1], embedding, skips)
        return idwt2(x) if self.wavelet_domain else x


def create(config: Any) -> Method:
    """Builds the baseline from `config.model` and `config.loss.regression`."""
    network = Regression(unet.build_backbone(config), config.model.wavelet_domain)
    distance = {"l1": jnp.abs, "l2": jnp.square}[config.loss.regression]

    def predict(params: Params, batch: Batch) -> Array:
        variables = {"params": params["generator"], "spectral": params["stats"]}
        return network.apply(variables, 2 * batch["sources"] - 1)[..., 0]

    def init(key: Array, batch: Batch) -> Params:
        variables = layers.init_on_host(network, key, batch["sources"])
        params, stats = variables["params"], variables.get("spectral", {})
        return {"generator": params, "stats": layers.settle(params, stats)}

    def train_loss(params: Params, batch: Batch, rng: Array) -> tuple[Array, Aux]:
        params = params | {"stats": layers.power_iteration(params["generator"], params["stats"])}
        loss = distance(predict(params, batch) - (2 * batch["target"] - 1)).mean()
        return loss, {"metrics": {"L_G": loss}, "stats": params["stats"]}

    def synthesize(params: Params, batch: Batch, rng: Array) -> Array:
        return (predict(params, batch) + 1) / 2

    stride = network.backbone.image_stride(network.wavelet_domain)
    return Method(init=init, losses={"generator": train_loss}, synthesize=synthesize, stride=stride)
