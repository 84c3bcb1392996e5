"""pix2pix (Isola et al., CVPR 2017), the conditional GAN that recent comparisons found hardest to beat.

L_G = LSGAN(D([y, G(y)])) + 100 |G(y) - x_0|; D then G, each step. Choices, where publications differ: least squares rather
than cross entropy, as CycleGAN and most MR synthesis have it; dropout in training alone and running statistics in synthesis,
so that a result depends neither on chance nor on the rest of the batch (the published test keeps both).
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Optimizer, field
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.image_to_image import ResNet, SkipUNet
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.patchgan import PatchGAN, discriminator_loss, generator_loss, smallest_side
from mrdiff_jax.streams import stream

MOST_DOWNS = 8  # of the published UNet, which takes 256 pixels down to one


@dataclass(frozen=True)
class Settings:
    """The published recipe, with batches of `data.batch_size` (one, as published)."""

    generator: Literal["unet", "resnet"] = field("unet", "'resnet' has nine residual blocks", choices=("unet", "resnet"))
    base_channels: int = field(64, "of the generator", least=1)
    discriminator_channels: int = field(64, "of the discriminator", least=1)
    patch_layers: int = field(3, "3 judges patches of 70 x 70 pixels, 2 of 34, 1 of 16", least=1, most=5)
    dropout: float = field(0.5, "rate, in training", least=0, most=0.99)
    lambda_l1: float = field(100.0, "weight of L1", least=0)
    optimizer: Optimizer = Optimizer(b1=0.5, hold=0.5, ema_decay=0.0)


class Pix2Pix(Method):
    """Generator and discriminator."""

    def __init__(self, config: Any):
        own, size = config.own, config.data.image_size
        if size < smallest_side(own.patch_layers):
            raise UserError(
                f"--config.pix2pix.patch_layers={own.patch_layers}: its patches do not fit images of {size}; give fewer layers"
            )
        downs = next(n for n in range(MOST_DOWNS, 0, -1) if size % 2**n == 0 or n == 1)
        self.stride = 2**downs if own.generator == "unet" else 4
        if size % self.stride:
            raise UserError(f"--config.data.image_size={size}: the generator needs a multiple of {self.stride}")
        if own.generator == "unet":
            self.generator = SkipUNet(own.base_channels, downs, own.dropout)
        else:
            self.generator = ResNet(own.base_channels, rate=own.dropout)
        self.discriminator = PatchGAN(own.discriminator_channels, own.patch_layers)
        self.settings = own
        self.players = {
            "discriminator": Player(self.discriminator_loss, make_optimizer(config.optimizer)),
            "generator": Player(self.generator_loss, make_optimizer(config.optimizer)),
        }

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights, and the running statistics of the generator."""
        y = batch["sources"]
        generator = init_on_host(self.generator, stream(key[None], "generator")[0], y, train=False)
        pair = jnp.concatenate([y, y[..., :1]], axis=-1)
        discriminator = init_on_host(self.discriminator, stream(key[None], "discriminator")[0], pair)
        params = {"generator": generator.pop("params"), "discriminator": discriminator["params"]}
        return Variables(params, {"generator": generator})

    def discriminator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """Real pairs from synthetic ones."""
        fake, _ = self._generate(variables, batch, rng)
        real = self._judge(variables, batch, 2 * batch["target"] - 1)
        loss = discriminator_loss(real, self._judge(variables, batch, fake))
        return loss, Outcome({"L_D": loss})

    def generator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_G: the discriminator's word, and L1."""
        fake, state = self._generate(variables, batch, rng)
        adversarial = generator_loss(self._judge(variables, batch, fake))
        l1 = jnp.abs(fake - (2 * batch["target"] - 1)).mean()
        return adversarial + self.settings.lambda_l1 * l1, Outcome({"L_adv": adversarial, "L_1": l1}, {"generator": state})

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """The generator's image."""
        image = self.generator.apply(variables.of("generator"), 2 * batch["sources"] - 1, train=False)
        return (image[..., 0] + 1) / 2

    def _generate(self, variables: Variables, batch: Batch, rng: Array) -> tuple[Array, Any]:
        """An image (B, H, W) in [-1, 1] in training, and the statistics after it."""
        y = 2 * batch["sources"] - 1
        image, state = self.generator.apply(
            variables.of("generator"), y, train=True, keys=stream(rng, "dropout"), mutable=["batch_stats"]
        )
        return image[..., 0], state

    def _judge(self, variables: Variables, batch: Batch, image: Array) -> Array:
        pair = jnp.concatenate([2 * batch["sources"] - 1, image[..., None]], axis=-1)
        return self.discriminator.apply(variables.of("discriminator"), pair)


create = Pix2Pix
