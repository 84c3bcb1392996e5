"""What the conditional GANs of image synthesis have in common (Isola et al., CVPR 2017): pix2pix, ResViT and BlochGAN.

L_D = LSGAN of [y, x_0] against [y, G(y)]; L_G = LSGAN(D([y, G(y)])) + lambda_l1 |G(y) - x_0|; D then G, each step.
"""

import abc
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Tree, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.patchgan import PatchGAN, discriminator_loss, generator_loss, smallest_side
from mrdiff_jax.streams import named


class ConditionalGAN(Method):
    """A generator and a PatchGAN that judges its images beside the sources.

    The settings of such a method hold `discriminator_channels`, `patch_layers` and `lambda_l1`.

    Attributes:
      generator: maps (y, train) to an image (B, H, W, 1) in [-1, 1].
    """

    generator: nn.Module

    def __init__(self, config: Any, norm: str = "batch"):
        own, size = config.own, config.data.image_size
        if size < smallest_side(own.patch_layers):
            raise UserError(
                f"--config.{config.method.name}.patch_layers={own.patch_layers}: its patches do not fit images of {size};"
                " give fewer layers"
            )
        self.settings = own
        self.discriminator = PatchGAN(own.discriminator_channels, own.patch_layers, norm)
        self.players = {
            "discriminator": Player(self.discriminator_loss, make_optimizer(config.optimizer)),
            "generator": Player(self.generator_loss, make_optimizer(config.optimizer)),
        }

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights, and the statistics of the generator."""
        y = batch["sources"]
        generator = self.init_generator(named(key, "generator"), batch)
        pair = jnp.concatenate([y, y[..., :1]], axis=-1)
        discriminator = init_on_host(self.discriminator, named(key, "discriminator"), pair)
        return Variables(
            {"generator": generator.pop("params"), "discriminator": discriminator["params"]}, {"generator": generator}
        )

    def init_generator(self, key: Array, batch: Batch) -> dict[str, Tree]:
        """The variables of the generator."""
        return init_on_host(self.generator, key, batch["sources"], train=False)

    @abc.abstractmethod
    def generate(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Tree]:
        """An image (B, H, W) in [-1, 1] in training, and the statistics after it."""

    def discriminator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_D: real pairs from synthetic ones."""
        fake, _ = self.generate(variables, batch, rng, progress)
        real = self._judge(variables, batch, 2 * batch["target"] - 1)
        loss = discriminator_loss(real, self._judge(variables, batch, fake))
        return loss, Outcome({"L_D": loss})

    def generator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_G: the discriminator's word, and L1."""
        fake, state = self.generate(variables, batch, rng, progress)
        loss, terms = self.synthesis_loss(variables, batch, fake)
        return loss, Outcome(terms, {"generator": state})

    def synthesis_loss(self, variables: Variables, batch: Batch, fake: Array) -> tuple[Array, dict[str, Array]]:
        """L_G of an image (B, H, W) in [-1, 1], and its terms."""
        adversarial = generator_loss(self._judge(variables, batch, fake))
        l1 = jnp.abs(fake - (2 * batch["target"] - 1)).mean()
        return adversarial + self.settings.lambda_l1 * l1, {"L_adv": adversarial, "L_1": l1}

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """The generator's image, by running statistics and without dropout."""
        image = self.generator.apply(variables.of("generator"), 2 * batch["sources"] - 1, train=False)
        return (image[..., 0] + 1) / 2

    def _judge(self, variables: Variables, batch: Batch, image: Array) -> Array:
        pair = jnp.concatenate([2 * batch["sources"] - 1, image[..., None]], axis=-1)
        return self.discriminator.apply(variables.of("discriminator"), pair)
