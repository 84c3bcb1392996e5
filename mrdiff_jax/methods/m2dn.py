"""M2DN, the multi-modal modality-masked diffusion network (Meng et al., TMI 2024): any contrasts give the others.

All M = K + 1 contrasts, the sources and then the target, go in and come out. v marks those that are missing, with 1. They alone
are noised and denoised; the available ones stay clean at every step, and their predictions are not fed back.

    L = mean over all M contrasts of  |x_0 - f(v x_t + (1 - v) x_0, v, t)|^2

There is no public code, and what is known of the paper is second-hand: masks, loss and outline are as cited, the rest is ours.
- Outline, as cited: an encoder for each contrast (3 x 3 convolution of stride 2, group normalisation, ReLU, residual blocks,
  bilinear downsampling), a U-shaped fusion with squeeze-excite gates, v broadcast over the bottleneck (128 channels, at
  a sixteenth of the side), and a decoder for each contrast (residual blocks and upsampling).
- Widths 32, 64, 128, 128 lead to that bottleneck. One residual block a level: ADM's, conditioned on the step by FiLM, which is
  how today's diffusion networks are. Groups of 8: 32 would leave one channel each at the first level.
- A gate squeezes to a quarter of the channels of all contrasts, before a linear layer mixes them.
- The last upsampling is a transposed convolution, the mirror of the first convolution: interpolation could not give back the
  detail of single pixels that the first convolution keeps in its channels.
- x_0 is predicted (as cited), of 1000 steps on the cosine schedule of MRDiff, and 50 steps of DDIM with eta = 1 walk back: what
  is open in the paper is as in the method it is compared with. Adam 1e-4, and an average of decay 0.9999.
- Masks: all that leave something and lack something, each as probable as any other (for M = 3 there are 6), as cited.
  `masks='target'` trains the one pattern that a comparison tests: mixing patterns may explain part of its low published score.

At synthesis the target is missing, and of the sources those that the batch says: 'available' (B, K), 1 for each that is there
and 0 for each that is not, whose image is not read. Without that entry all are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax import diffusion
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import QUICK, Length, Optimizer, Sampling, field
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.convolutions import Convolution, Upconvolution
from mrdiff_jax.networks.initializers import init_on_host, zeros
from mrdiff_jax.networks.layers import Linear, downsample, fan_in_uniform, upsample
from mrdiff_jax.networks.normalization import GroupAffine, rescale
from mrdiff_jax.networks.unet import Backbone, StepEmbedding
from mrdiff_jax.streams import normal_like, steps_like, stream


@dataclass(frozen=True)
class Settings:
    """Small enough for CPUs: widths (16, 32, 32): 0.53 million parameters for two sources; learning_rate 1e-3."""

    widths: tuple[int, ...] = field((32, 64, 128, 128), "channels at each level, of which the first has half the side", least=1)
    blocks_per_level: int = field(1, "residual blocks", least=1)
    norm_groups: int = field(8, "of the group normalisation", least=1)
    masks: Literal["all", "target"] = field("all", "what is missing in training", choices=("all", "target"))
    schedule: Literal["cosine", "linear"] = field("cosine", "of the noise", choices=("cosine", "linear"))
    chain: int = field(1000, "T, the steps of the forward process", least=2)
    optimizer: Optimizer = Optimizer(learning_rate=1e-4)
    sample: Sampling = Sampling()
    published: ClassVar[Length] = Length(350_000, "steps of 8 slices")  # none for such data: MRDiff's
    small: ClassVar[Mapping[str, Any]] = {
        "widths": (16, 32, 32),
        "sample": {"steps": 2},
        "optimizer": {"learning_rate": 1e-3, **QUICK},
    }


class Part(nn.Module):
    """What encoders, fusion and decoders have: widths of the levels, and residual blocks."""

    size: Backbone

    def residual(self, features: int, h: Array, embedding: Array, name: str) -> Array:
        """Residual blocks in a row."""
        for i in range(self.size.blocks_per_level):
            h = self.size.block(features, name=f"{name}_{i}")(h, embedding)
        return h

    def norm(self, h: Array, name: str) -> Array:
        """Group normalisation and ReLU."""
        return nn.relu(rescale(h, GroupAffine(self.size.norm_groups, name=name)(h)))


class ContrastEncoder(Part):
    """One contrast (B, H, W, 1) to its features at every level, shallow to deep."""

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> list[Array]:
        stem = Convolution(self.size.channels[0], stride=2, start=None, dtype=self.size.dtype, name="stem")
        h = self.norm(stem(x), "stem_norm")
        features = []
        for level, channels in enumerate(self.size.channels):
            h = self.residual(channels, downsample(h) if level else h, embedding, f"block_{level}")
            features.append(h)
        return features


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): channels weighed by what all of them are on average over the image."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        squeezed = nn.relu(Linear(max(x.shape[-1] // 4, 1), name="squeeze")(x.mean((1, 2))))
        return x * nn.sigmoid(Linear(x.shape[-1], name="excite")(squeezed))[:, None, None].astype(x.dtype)


class ContrastFusion(Part):
    """A UNet over the features of all contrasts: fused features at every level, deep to shallow."""

    @nn.compact
    def __call__(self, features: list[list[Array]], missing: Array, embedding: Array) -> list[Array]:
        """Takes, by contrast, features at every level, v (B, M), and the embedding of the step."""
        channels, skips = self.size.channels, []
        for level, of_contrasts in enumerate(zip(*features, strict=True)):
            h = Gate(name=f"gate_{level}")(jnp.concatenate(of_contrasts, axis=-1))
            h = Linear(channels[level], dtype=self.size.dtype, name=f"mix_{level}")(h)
            if level:
                h = jnp.concatenate([h, downsample(skips[-1])], axis=-1)
            skips.append(self.residual(channels[level], h, embedding, f"down_{level}"))
        bottom = skips.pop()
        mask = jnp.broadcast_to(missing[:, None, None].astype(bottom.dtype), (*bottom.shape[:3], missing.shape[-1]))
        h = self.residual(channels[-1], jnp.concatenate([bottom, mask], axis=-1), embedding, "bottom")
        fused = [h]
        for level in reversed(range(len(channels) - 1)):
            h = jnp.concatenate([upsample(h), skips.pop()], axis=-1)
            h = self.residual(channels[level], h, embedding, f"up_{level}")
            fused.append(h)
        return fused


class ContrastDecoder(Part):
    """Fused features to one clean contrast (B, H, W, 1)."""

    @nn.compact
    def __call__(self, fused: list[Array], embedding: Array) -> Array:
        levels = reversed(range(len(self.size.channels)))
        h = None
        for level, feature in zip(levels, fused, strict=True):
            h = feature if h is None else jnp.concatenate([upsample(h), feature], axis=-1)
            h = self.residual(self.size.channels[level], h, embedding, f"block_{level}")
        width = self.size.channels[0]
        start = fan_in_uniform(4 * width)  # a pixel sees 2 x 2 of the 4 x 4 weights
        h = Upconvolution(width, start=start, dtype=self.size.dtype, name="up")(self.norm(h, "norm_up"))
        return Convolution(1, start=zeros, dtype=self.size.dtype, name="head")(self.norm(h, "norm_out"))


class Network(nn.Module):
    """Contrasts (B, H, W, M), the missing ones noisy, v (B, M) and steps (B,) to clean contrasts (B, H, W, M).

    Attributes:
      size: widths of the levels, as multiples of 1, and the residual blocks; the embedding is of the first width.
    """

    size: Backbone
    embedding_channels: int

    @nn.compact
    def __call__(self, x: Array, missing: Array, t: Array) -> Array:
        embedding = StepEmbedding(Backbone(self.embedding_channels), name="step_embedding")(t)
        names = range(x.shape[-1])
        features = [ContrastEncoder(self.size, name=f"encoder_{m}")(x[..., m : m + 1], embedding) for m in names]
        fused = ContrastFusion(self.size, name="fusion")(features, missing, embedding)
        return jnp.concatenate([ContrastDecoder(self.size, name=f"decoder_{m}")(fused, embedding) for m in names], axis=-1)


class M2DN(Method):
    """One network that gives all contrasts, whichever are missing."""

    any_sources = True
    samples = True

    def __init__(self, config: Any):
        own = self.settings = config.own
        if not own.widths:
            raise UserError("--config.m2dn.widths=(): give a number of at least 1 for each level")
        self.stride = 2 ** len(own.widths)
        if config.data.image_size % self.stride:
            raise UserError(
                f"--config.data.image_size={config.data.image_size}: the {len(own.widths)} levels of --config.m2dn.widths need"
                f" a multiple of {self.stride}"
            )
        size = Backbone(1, tuple(own.widths), own.blocks_per_level, norm_groups=own.norm_groups)
        self.network = Network(size, own.widths[0])
        self.schedule = diffusion.SCHEDULES[own.schedule](own.chain)
        self.sampler, self.chain = config.sample, diffusion.chain_of(self.schedule, config.sample)
        self.players = {"generator": Player(self.loss, make_optimizer(config.optimizer))}

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights."""
        y = batch["sources"]
        x = jnp.concatenate([y, y[..., :1]], axis=-1)
        return Variables({"generator": init_on_host(self.network, key, x, x[:, 0, 0], jnp.zeros(len(x)))["params"]})

    def loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """The error of all contrasts, of which a mask of the settings is missing."""
        x_0 = 2 * jnp.concatenate([batch["sources"], batch["target"][..., None]], axis=-1) - 1
        t, missing = steps_like(stream(rng, "t"), self.settings.chain), self.draw_masks(rng, x_0.shape[-1])
        x_t = diffusion.q_sample(self.schedule, x_0, t, normal_like(x_0, stream(rng, "noise")))
        error = jnp.square(self._restore(variables, _masked(x_t, x_0, missing), missing, t) - x_0).mean((1, 2))
        gone = (missing * error).sum() / missing.sum()
        return error.mean(), Outcome({"L_missing": gone, "L_target": error[:, -1].mean()})

    def draw_masks(self, rng: Array, contrasts: int) -> Array:
        """v (B, M) of training, float32, 1 for what is missing, drawn from one key an example."""
        if self.settings.masks == "target":
            number = jnp.full(len(rng), 1 << (contrasts - 1))
        else:
            number = 1 + steps_like(stream(rng, "masks"), 2**contrasts - 2)  # bit m is contrast m
        return (number[:, None] >> jnp.arange(contrasts) & 1).astype(jnp.float32)

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """Walks the reverse chain of all missing contrasts together; the target's."""
        y = 2 * batch["sources"] - 1
        available = batch.get("available", jnp.ones((len(y), y.shape[-1])))
        missing = jnp.concatenate([1 - available, jnp.ones((len(y), 1))], axis=-1)
        known = jnp.concatenate([y, jnp.zeros_like(y[..., :1])], axis=-1)

        def denoise(x_t: Array, t: Array) -> Array:
            return self._restore(variables, _masked(x_t, known, missing), missing, t)

        x_0 = diffusion.sample(denoise, self.chain, known, rng, self.sampler)
        return (x_0[..., -1] + 1) / 2

    def denoise(self, variables: Variables, batch: Batch, x_t: Array, t: Array) -> Array:
        """The target, where no source is missing."""
        x = jnp.concatenate([2 * batch["sources"] - 1, x_t[..., None]], axis=-1)
        missing = jnp.zeros(x.shape[::3]).at[:, -1].set(1)
        return self._restore(variables, x, missing, t)[..., -1]

    def _restore(self, variables: Variables, x: Array, missing: Array, t: Array) -> Array:
        return self.network.apply(variables.of("generator"), x, missing, t)


def _masked(noisy: Array, clean: Array, missing: Array) -> Array:
    """Noisy contrasts where they are missing, clean ones elsewhere, to the bit."""
    return jnp.where(missing[:, None, None] > 0, noisy, clean)


create = M2DN
