"""BlochGAN (Kim et al., MedIA 2021): a conditional GAN whose encoder also explains its sources by the Bloch equation.

    y --E--> features --G--> x0_hat
               |
               +--> maps T1, T2, S0 --signal equation, TR, TE--> D --> y_hat

L_G = LSGAN(P([y, x0_hat])) + 100 |x0_hat - x_0| + 10 |y_hat - y|, with P a PatchGAN; P first, then E, G and D together.
Synthesis runs E and G alone, and neither knows TR and TE.

The paper says that there are these four networks, that D rebuilds the sources by the Bloch equation from what E has found, and
that D and P serve training alone. It gives no layers, weights or rates: the following design is ours.
- E and G are the two halves of the nine-block ResNet of pix2pix: E its contraction and four blocks, G five blocks and its
  expansion. So the difference to that network is the physics, and dropout, which that one has.
- Maps are convolved from E's features at 1/4 of the resolution and made non-negative; the signal equations, the units of T1
  and T2 (3000 and 2000 ms) and the choice of the equation by source are those of MRDiff, from the same group.
- D is four blocks and an expansion, and sees the images through the maps alone: with skips it could pass the physics by.
- |y_hat - y| is a mean over the sources with weight 10: the regulariser stays below the task, whatever the number of sources.
- No dropout; the recipe is that of pix2pix.
- Any number of sources K >= 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Length, Optimizer, field
from mrdiff_jax.methods.conditional_gan import ConditionalGAN
from mrdiff_jax.methods.contract import Batch, Outcome, Tree, Variables
from mrdiff_jax.networks import bloch
from mrdiff_jax.networks.bloch import POSITIVITIES, ContentMaps, Positivity, ScanParameters, Signal
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.image_to_image import Contraction, Expansion, ResidualBlock
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.normalization import BatchNorm


@dataclass(frozen=True)
class Settings:
    """Our recipe; see the module."""

    base_channels: int = field(64, "at full resolution", least=1)
    discriminator_channels: int = field(64, "of the discriminator", least=1)
    patch_layers: int = field(3, "3 judges patches of 70 x 70 pixels, 2 of 34, 1 of 16", least=1, most=5)
    encoder_blocks: int = field(4, "residual blocks of E", least=0)
    generator_blocks: int = field(5, "residual blocks of G", least=0)
    decoder_blocks: int = field(4, "residual blocks of D", least=0)
    signals: str = field("spin_echo", "or 'inversion_recovery'; once for all sources, or one each, comma-separated")
    map_channels: int = field(64, "of each of the feature maps T1, T2, S0", least=1)
    positivity: Literal["relu", "softplus"] = field("relu", "what keeps the maps from 0 up", choices=POSITIVITIES)
    lambda_l1: float = field(100.0, "weight of L1 of the target", least=0)
    lambda_sources: float = field(10.0, "weight of L1 of the sources", least=0)
    optimizer: Optimizer = Optimizer(b1=0.5, hold=0.5, ema_decay=0.0)
    published: ClassVar[Length] = Length(200, "epochs")  # not said: pix2pix's, whose recipe it has
    small: ClassVar[Mapping[str, Any]] = {
        "base_channels": 8,
        "discriminator_channels": 8,
        "map_channels": 8,
        "optimizer": {"learning_rate": 2e-3},
    }


class Network(nn.Module):
    """E, G, the maps and D.

    Attributes:
      base: channels at full resolution.
      signals: signal equation of each of the K sources.
      encoder_blocks, generator_blocks, decoder_blocks: residual blocks of each.
      map_channels: channels of each of the maps T1, T2, S0.
      positivity: what keeps the maps non-negative.
    """

    base: int
    signals: tuple[Signal, ...]
    encoder_blocks: int = 4
    generator_blocks: int = 5
    decoder_blocks: int = 4
    map_channels: int = 64
    positivity: Positivity = "relu"

    def setup(self) -> None:
        self.contraction = Contraction(self.base)
        self.encoder = [ResidualBlock() for _ in range(self.encoder_blocks)]
        self.generator = [ResidualBlock() for _ in range(self.generator_blocks)]
        self.expansion = Expansion(self.base)
        self.to_maps = Convolution(3 * self.map_channels)
        self.from_signals = Convolution(4 * self.base, bias=False)
        self.signal_norm = BatchNorm(gain_deviation=0.02)
        self.decoder = [ResidualBlock() for _ in range(self.decoder_blocks)]
        self.decoder_expansion = Expansion(self.base, len(self.signals))

    def __call__(self, y: Array, train: bool) -> Array:
        """The target (B, H, W, 1) from the sources (B, H, W, K), both in [-1, 1]: all that synthesis needs."""
        return self.generate(self.encode(y, train), train)

    def with_reconstruction(self, y: Array, scan: ScanParameters, train: bool) -> tuple[Array, Array]:
        """The target, and y_hat (B, H, W, K)."""
        features = self.encode(y, train)
        return self.generate(features, train), self.reconstruct(features, scan, train)

    def encode(self, y: Array, train: bool) -> Array:
        """E: the features (B, H / 4, W / 4, 4 base)."""
        return _through(self.encoder, self.contraction(y, train), train)

    def generate(self, features: Array, train: bool) -> Array:
        """G."""
        return self.expansion(_through(self.generator, features, train), train)

    def content_maps(self, features: Array) -> ContentMaps:
        """T1, T2 and S0, each (B, H / 4, W / 4, map_channels)."""
        return bloch.content_maps(self.to_maps(features), self.positivity)

    def reconstruct(self, features: Array, scan: ScanParameters, train: bool) -> Array:
        """D, after the signal equations."""
        signals = 2 * bloch.modulate(self.content_maps(features), scan, self.signals) - 1
        h = nn.relu(self.signal_norm(self.from_signals(signals), train))
        return self.decoder_expansion(_through(self.decoder, h, train), train)


def _through(blocks: list[ResidualBlock], h: Array, train: bool) -> Array:
    for block in blocks:
        h = block(h, train)
    return h


class BlochGAN(ConditionalGAN):
    """E, G and D as one player, against the discriminator."""

    described = ("T1 features", "T2 features", "S0 features")
    stride = 4

    def __init__(self, config: Any):
        super().__init__(config)
        own, data = config.own, config.data
        if data.image_size % self.stride:
            raise UserError(f"--config.data.image_size={data.image_size}: blochgan needs a multiple of {self.stride}")
        signals = bloch.signals_of(own.signals, data.sources, "--config.blochgan.signals")
        self.inverted = bloch.inverted(signals, data.sources)
        self.generator = Network(
            own.base_channels,
            signals,
            own.encoder_blocks,
            own.generator_blocks,
            own.decoder_blocks,
            own.map_channels,
            own.positivity,
        )

    def init_generator(self, key: Array, batch: Batch) -> dict[str, Tree]:
        """Those of D, too."""
        scan, whole = ScanParameters(batch["tr"], batch["te"], batch["ti"]), Network.with_reconstruction
        return init_on_host(self.generator, key, batch["sources"], scan, train=False, method=whole)

    def generate(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Tree]:
        """By E and G; what the discriminator sees."""
        y = 2 * batch["sources"] - 1
        image, state = self.generator.apply(variables.of("generator"), y, train=True, mutable=["batch_stats"])
        return image[..., 0], state

    def generator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_G, by E, G and D."""
        y, scan = 2 * batch["sources"] - 1, ScanParameters(batch["tr"], batch["te"], batch["ti"])
        whole = Network.with_reconstruction
        (image, y_hat), state = self.generator.apply(
            variables.of("generator"), y, scan, train=True, method=whole, mutable=["batch_stats"]
        )
        loss, terms = self.synthesis_loss(variables, batch, image[..., 0])
        l_d = jnp.abs(y_hat - y).mean()
        return loss + self.settings.lambda_sources * l_d, Outcome(terms | {"L_sources": l_d}, {"generator": state})

    def feature_maps(self, variables: Variables, batch: Batch, rng: Array) -> dict[str, Array]:
        """T1, T2 and S0 as the encoder has found them."""

        def run(network: Network, y: Array) -> ContentMaps:
            return network.content_maps(network.encode(y, train=False))

        found = self.generator.apply(variables.of("generator"), 2 * batch["sources"] - 1, method=run)
        return dict(zip(("T1", "T2", "S0"), found, strict=True))

    def reconstruct(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """y_hat of D."""

        def run(network: Network, y: Array, scan: ScanParameters) -> Array:
            return network.reconstruct(network.encode(y, train=False), scan, train=False)

        scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])
        y_hat = self.generator.apply(variables.of("generator"), 2 * batch["sources"] - 1, scan, method=run)
        return (y_hat.astype(jnp.float32) + 1) / 2

    def describe(self, variables: Variables, batch: Batch, rng: Array) -> tuple[Array, ...]:
        """The channel means of the maps."""
        return tuple(features.mean(-1) for features in self.feature_maps(variables, batch, rng).values())


create = BlochGAN
