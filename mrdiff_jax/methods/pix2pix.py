"""pix2pix (Isola et al., CVPR 2017), the conditional GAN that recent comparisons found hardest to beat.

L_G = LSGAN(D([y, G(y)])) + 100 |G(y) - x_0|; D then G, each step. Choices, where publications differ: least squares rather
than cross entropy, as CycleGAN and most MR synthesis have it; dropout in training alone and running statistics in synthesis,
so that a result depends neither on chance nor on the rest of the batch (the published test keeps both).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Length, Optimizer, field
from mrdiff_jax.methods.conditional_gan import ConditionalGAN
from mrdiff_jax.methods.contract import Batch, Tree, Variables
from mrdiff_jax.networks.image_to_image import ResNet, SkipUNet
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
    published: ClassVar[Length] = Length(200, "epochs")
    small: ClassVar[Mapping[str, Any]] = {
        "base_channels": 16,
        "discriminator_channels": 16,
        "optimizer": {"learning_rate": 6e-3},
    }


class Pix2Pix(ConditionalGAN):
    """Generator and discriminator."""

    def __init__(self, config: Any):
        super().__init__(config)
        own, size = config.own, config.data.image_size
        downs = next(n for n in range(MOST_DOWNS, 0, -1) if size % 2**n == 0 or n == 1)
        self.stride = 2**downs if own.generator == "unet" else 4
        if size % self.stride:
            raise UserError(f"--config.data.image_size={size}: the generator needs a multiple of {self.stride}")
        if own.generator == "unet":
            self.generator = SkipUNet(own.base_channels, downs, own.dropout)
        else:
            self.generator = ResNet(own.base_channels, rate=own.dropout)

    def generate(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Tree]:
        """With dropout."""
        y = 2 * batch["sources"] - 1
        image, state = self.generator.apply(
            variables.of("generator"), y, train=True, keys=stream(rng, "dropout"), mutable=["batch_stats"]
        )
        return image[..., 0], state


create = Pix2Pix
