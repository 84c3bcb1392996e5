"""cDPM as a method: sources and target as frames, of which the target is latent."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jax import Array

from mrdiff_jax import diffusion
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import MODEL_FIELDS, QUICK, Length, Optimizer, Sampling, field
from mrdiff_jax.methods.cdpm.attention import Frames
from mrdiff_jax.methods.cdpm.network import Network
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.unet import Backbone, build_plain_backbone
from mrdiff_jax.streams import normal_like, steps_like, stream

_ATTENTION = ("attention_levels", "head_channels")  # where attention stands, and its heads, are settings of its own


@dataclass(frozen=True)
class Settings:
    """The recipe of the video model that it is built on.

    Frames see each other by attention alone. The video model has it at sides of 16 and 8: of 256 x 256 images and one wavelet
    level these are the levels 3 and 4 of `config.model`.
    """

    attention_levels: tuple[int, ...] = field((3, 4), "of config.model, from 0; the middle block attends, too", least=0)
    heads: int = field(4, "of all attention", least=1)
    schedule: Literal["linear", "cosine"] = field("linear", "of the noise", choices=("linear", "cosine"))
    chain: int = field(1000, "T, the steps of the forward process", least=2)
    optimizer: Optimizer = Optimizer(learning_rate=1e-4)
    sample: Sampling = Sampling()
    model_fields: ClassVar[tuple[str, ...]] = tuple(name for name in MODEL_FIELDS if name not in _ATTENTION)
    published: ClassVar[Length] = Length(350_000, "steps of 8 slices")  # none for such data: MRDiff's
    small: ClassVar[Mapping[str, Any]] = {
        "attention_levels": (1,),
        "sample": {"steps": 5},
        "optimizer": {"learning_rate": 3e-3, **QUICK},
    }


class CDPM(Method):
    """One network that says which noise is in the target."""

    samples = True

    def __init__(self, config: Any):
        own = self.settings = config.own
        self.network = Network(_backbone(config), own.heads, config.model.wavelet_levels)
        self.schedule = diffusion.SCHEDULES[own.schedule](own.chain)
        self.sampler, self.chain = config.sample, diffusion.chain_of(self.schedule, config.sample)
        self.stride = self.network.backbone.image_stride(self.network.wavelet_levels)
        self.players = {"generator": Player(self.loss, make_optimizer(config.optimizer))}

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights."""
        x_0 = _frames_of(batch["sources"], batch["sources"][..., 0])
        params = init_on_host(self.network, key, x_0, x_0, jnp.zeros(len(x_0)), contrasts(*x_0.shape[:2]))["params"]
        return Variables({"generator": params})

    def loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """The error of the noise of latent frames, over all elements."""
        x_0 = 2 * _frames_of(batch["sources"], batch["target"]) - 1
        t, noise = steps_like(stream(rng, "t"), self.settings.chain), normal_like(x_0, stream(rng, "noise"))
        x_t, frames = diffusion.q_sample(self.schedule, x_0, t, noise), contrasts(*x_0.shape[:2])
        error = jnp.square(noise - self._noise(variables, x_t, x_0, t, frames)).mean((2, 3))
        return (frames.latent * error).mean(), Outcome({"L_eps": error[:, -1].mean()})

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """Walks the reverse chain of the target, with the sources as observed frames."""
        denoise = partial(self.denoise, variables, batch)
        return (diffusion.sample(denoise, self.chain, batch["sources"][..., 0], rng, self.sampler) + 1) / 2

    def denoise(self, variables: Variables, batch: Batch, x_t: Array, t: Array) -> Array:
        """The target whose noise the network says."""
        x = _frames_of(2 * batch["sources"] - 1, x_t)
        noise = self._noise(variables, x, x, t, contrasts(*x.shape[:2]))[:, -1]
        return diffusion.x_0_of_noise(self.schedule, x_t, t, noise)

    def _noise(self, variables: Variables, x_t: Array, x_0: Array, t: Array, frames: Frames) -> Array:
        return self.network.apply(variables.of("generator"), x_t, x_0, t, frames)


def contrasts(examples: int, count: int) -> Frames:
    """The frames of `count` contrasts, the target last: it is latent, the others are observed."""
    index = jnp.broadcast_to(jnp.arange(count), (examples, count))
    latent = (index == count - 1).astype(jnp.float32)
    return Frames(1 - latent, latent, index)


def _frames_of(sources: Array, target: Array) -> Array:
    """Sources (B, H, W, K) and target (B, H, W) as frames (B, K + 1, H, W)."""
    return jnp.moveaxis(jnp.concatenate([sources, target[..., None]], axis=-1), -1, 1)


def _backbone(config: Any) -> Backbone:
    """The backbone of `config.model`, with attention where the method has it.

    Raises:
      UserError: there is no such level, or the channels of one with attention, the deepest among them, are not a multiple of
        the heads.
    """
    own, backbone = config.own, build_plain_backbone(config)
    last = len(backbone.channels) - 1
    if not set(own.attention_levels) <= set(range(last + 1)):
        raise UserError(f"--config.cdpm.attention_levels={own.attention_levels}: give levels of 0 to {last}")
    for level in sorted({*own.attention_levels, last}):
        if backbone.channels[level] % own.heads:
            channels = backbone.channels[level]
            raise UserError(f"--config.cdpm.heads={own.heads}: level {level} has {channels} channels, not a multiple of it")
    return backbone._replace(attention_levels=tuple(own.attention_levels))
