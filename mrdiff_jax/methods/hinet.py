"""HiNet (Zhou et al., TMI 2020): encoders of each source, fused at every scale, and a decoder that reads the fusion.

    y_k --E_k--> P1, P2, P3 (1/2, 1/4, 1/8) --R_k--> reconstruction of y_k
                  |
                  +--> fusion of all k: [sum, product, max] --> F --> S --> x0_hat

L_G = LSGAN(D(x0_hat)) + 100 |x0_hat - x_0| + 20 sum_k |R_k(E_k(y_k)) - y_k|; D judges the image alone. Both players move from
the weights before the step: the published code takes G's step first and then shows D the image that G made before it.

Choices, where the publication leaves them open or its code differs:
- Any number of sources K >= 1: sum, product and maximum are taken over all K, so that the fusion does not grow with K. With
  K = 1 they are three copies of the same features.
- Whole slices, in place of four corner patches of 128 x 128: the network is fully convolutional, and nothing is stitched.
- Batches of `data.batch_size`; the published code has one slice, and 128 in the command of its README.
- Learning rate 2e-4, the usual one of such GANs and the safer: the published code's configuration has 1e-3.
- Running statistics in synthesis: the published code normalises with the test batch, so that a result depends on what stands
  beside it.
- The epsilon of D's normalisation stays at the published 0.8, though probably meant as a momentum: it weakens D, and the
  weights 100 and 20 were found with it.
- Predictions are not set to 0 where the truth is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Length, Optimizer, field, split_names
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Tree, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.convolutions import Convolution, leaky
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.layers import upsample
from mrdiff_jax.networks.normalization import BatchNorm
from mrdiff_jax.networks.patchgan import discriminator_loss, generator_loss
from mrdiff_jax.streams import named

EPSILON = 0.8  # of the discriminator's normalisation


@dataclass(frozen=True)
class Settings:
    """The published recipe (400 epochs, the rate constant for the first 100)."""

    base_channels: int = field(32, "at full resolution", least=1)
    discriminator_channels: int = field(32, "of its first convolution", least=1)
    discriminator_layers: int = field(4, "its convolutions of stride 2; small images have fewer", least=1, most=6)
    lambda_l1: float = field(100.0, "weight of L1 of the target", least=0)
    lambda_reconstruction: float = field(20.0, "weight of L1 of each source", least=0)
    optimizer: Optimizer = Optimizer(b1=0.5, hold=0.25, ema_decay=0.0)
    published: ClassVar[Length] = Length(400, "epochs")
    small: ClassVar[Mapping[str, Any]] = {"base_channels": 8, "discriminator_channels": 8, "optimizer": {"learning_rate": 2e-3}}


class Unit(nn.Module):
    """3 x 3 convolution, batch normalisation and LeakyReLU, or ReLU in decoders."""

    features: int
    decoding: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = BatchNorm(gain_deviation=0.02, name="norm")(Convolution(self.features, name="conv")(x), train)
        return nn.relu(x) if self.decoding else leaky(x)


class SourceEncoder(nn.Module):
    """One source (B, H, W, 1) to its features at 1/2, 1/4 and 1/8."""

    base: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> list[Array]:
        pooled = []
        for level in range(3):
            for part in ("in", "out"):
                x = Unit(self.base * 2**level, name=f"unit_{level}_{part}")(x, train)
            x = pool(x)
            pooled.append(x)
        return pooled


class SourceDecoder(nn.Module):
    """The deepest features of one source to its reconstruction (B, H, W, 1)."""

    base: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = Unit(4 * self.base, decoding=True, name="unit_in")(x, train)
        for level in (2, 1, 0):
            x = upsample(x)
            x = Unit(self.base * 2**level, decoding=True, name=f"unit_{level}_in")(x, train)
            if level:
                x = Unit(self.base * 2 ** (level - 1), decoding=True, name=f"unit_{level}_out")(x, train)
        return jnp.tanh(Convolution(1, name="head")(x))


class FusionBlock(nn.Module):
    """Mixed fusion block: the sources' features at one scale, by sum, product and maximum, beside what was fused before."""

    features: int
    decoding: bool = False

    @nn.compact
    def __call__(self, sources: list[Array], before: Array | None, train: bool) -> Array:
        mixed = [reduce(mix, sources) for mix in (jnp.add, jnp.multiply, jnp.maximum)]
        h = Unit(sources[0].shape[-1], self.decoding, name="unit_in")(jnp.concatenate(mixed, axis=-1), train)
        if before is not None:
            h = jnp.concatenate([h, before], axis=-1)
        return Unit(self.features, self.decoding, name="unit_out")(h, train)


class HiNetGenerator(nn.Module):
    """The sources (B, H, W, K) in [-1, 1] to the target (B, H, W, 1), by way of the features of each."""

    base: int
    sources: int

    def setup(self) -> None:
        base = self.base
        self.encoders = [SourceEncoder(base) for _ in range(self.sources)]
        self.decoders = [SourceDecoder(base) for _ in range(self.sources)]
        self.fuse_1, self.fuse_2, self.fuse_3 = (FusionBlock(base * n) for n in (2, 4, 4))
        self.deepest = Unit(8 * base)
        self.decode_in = Unit(4 * base, decoding=True)
        self.decode_3, self.decode_2, self.decode_1 = (FusionBlock(base * n, decoding=True) for n in (2, 1, 1))
        self.decode_out = Unit(base, decoding=True)
        self.head = Convolution(1)

    def __call__(self, y: Array, train: bool) -> Array:
        """The target in [-1, 1]."""
        return self.fuse(self.encode(y, train), train)

    def with_reconstructions(self, y: Array, train: bool) -> tuple[Array, Array]:
        """The target, and the reconstructions of the sources (B, H, W, K)."""
        features = self.encode(y, train)
        rebuilt = [decoder(own[-1], train) for decoder, own in zip(self.decoders, features, strict=True)]
        return self.fuse(features, train), jnp.concatenate(rebuilt, axis=-1)

    def encode(self, y: Array, train: bool) -> list[list[Array]]:
        """The features of each source, at three scales."""
        return [encoder(y[..., k, None], train) for k, encoder in enumerate(self.encoders)]

    def fuse(self, features: list[list[Array]], train: bool) -> Array:
        """The target from the features of the sources."""
        p1, p2, p3 = zip(*features, strict=True)
        h = pool(self.fuse_1(p1, None, train))
        h = pool(self.fuse_2(p2, h, train))
        h = self.deepest(self.fuse_3(p3, h, train), train)
        h = self.decode_3(p3, self.decode_in(h, train), train)
        h = self.decode_2(p2, upsample(h), train)
        h = self.decode_1(p1, upsample(h), train)
        return jnp.tanh(self.head(self.decode_out(upsample(h), train)))


class Discriminator(nn.Module):
    """Images (B, H, W, 1) to a map of scores; used in training alone, so that it keeps no statistics."""

    base: int = 32
    layers: int = 4

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for n in range(self.layers):
            x = Convolution(self.base * 2**n, stride=2, name=f"conv_{n}")(x)
            if n:
                x = BatchNorm(epsilon=EPSILON, gain_deviation=0.02, running=False, name=f"norm_{n}")(x, train=True)
            x = leaky(x)
        return Convolution(1, padding=0, name="scores")(x)


def pool(x: Array) -> Array:
    """The largest of 2 x 2 pixels."""
    return nn.max_pool(x, (2, 2), (2, 2))


class HiNet(Method):
    """Generator with the sources' encoders and decoders, and discriminator."""

    simultaneous = True
    stride = 8

    def __init__(self, config: Any):
        own, size, sources = config.own, config.data.image_size, len(split_names(config.data.sources))
        if size % self.stride:
            raise UserError(f"--config.data.image_size={size}: hinet needs a multiple of {self.stride}")
        self.settings = own
        self.generator = HiNetGenerator(own.base_channels, sources)
        self.discriminator = Discriminator(own.discriminator_channels, min(own.discriminator_layers, most_layers(size)))
        self.players = {
            "generator": Player(self.generator_loss, make_optimizer(config.optimizer)),
            "discriminator": Player(self.discriminator_loss, make_optimizer(config.optimizer)),
        }

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights, and the running statistics of the generator."""
        keys = {name: named(key, name) for name in self.players}
        y, whole = batch["sources"], HiNetGenerator.with_reconstructions
        generator = init_on_host(self.generator, keys["generator"], y, train=False, method=whole)
        discriminator = init_on_host(self.discriminator, keys["discriminator"], y[..., :1])
        params = {"generator": generator.pop("params"), "discriminator": discriminator["params"]}
        return Variables(params, {"generator": generator})

    def generator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_G."""
        own, y = self.settings, 2 * batch["sources"] - 1
        fake, rebuilt, state = self._generate(variables, batch)
        adversarial = generator_loss(self._judge(variables, fake))
        l1 = jnp.abs(fake - (2 * batch["target"][..., None] - 1)).mean()
        reconstruction = jnp.abs(rebuilt - y).mean((0, 1, 2)).sum()  # over the sources, as published
        loss = adversarial + own.lambda_l1 * l1 + own.lambda_reconstruction * reconstruction
        terms = {"L_adv": adversarial, "L_1": l1, "L_rec": reconstruction}
        return loss, Outcome(terms, {"generator": state})

    def discriminator_loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """Real targets from synthetic ones."""
        fake, _, _ = self._generate(variables, batch)
        real = self._judge(variables, 2 * batch["target"][..., None] - 1)
        loss = discriminator_loss(real, self._judge(variables, fake))
        return loss, Outcome({"L_D": loss})

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """The generator's image; the decoders of the sources are not needed."""
        image = self.generator.apply(variables.of("generator"), 2 * batch["sources"] - 1, train=False)
        return (image[..., 0] + 1) / 2

    def _generate(self, variables: Variables, batch: Batch) -> tuple[Array, Array, Tree]:
        """In training: an image (B, H, W, 1), the reconstructions, and the statistics after them."""
        (image, rebuilt), state = self.generator.apply(
            variables.of("generator"),
            2 * batch["sources"] - 1,
            train=True,
            method=HiNetGenerator.with_reconstructions,
            mutable=["batch_stats"],
        )
        return image, rebuilt, state

    def _judge(self, variables: Variables, image: Array) -> Array:
        return self.discriminator.apply(variables.of("discriminator"), image)


def most_layers(size: int) -> int:
    """Convolutions of stride 2 after which the 3 x 3 of the scores still fits."""
    return max(n for n in range(1, 10) if n == 1 or -(-size // 2**n) >= 3)


create = HiNet
