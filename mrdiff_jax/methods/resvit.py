"""ResViT (Dalmaz et al., TMI 2022): a residual network two of whose blocks look at the whole image, by a vision transformer.

    y --contraction--> 9 blocks of 1/4 the resolution --expansion--> x0_hat

Blocks 1 and 6 are aggregated residual transformers (ART): features go down to 1/16, through a ViT that both share, up again,
and are compressed together with what came in; a residual block follows. The other seven are that residual block alone.
L_G = LSGAN(D([y, G(y)])) + 100 |G(y) - x_0|; D then G.

Training has two stages, by progress: first without transformers (100 epochs, published), then with (50 epochs). Each has its
own rate, constant for its first half and then falling to 0, and fresh moments of Adam, as two runs of the published code
have. What stage 1 has learnt goes on in stage 2, for the tensors are the same. Synthesis has the transformers if the last
step had them: the variables say so.

Choices, where the publication leaves them open or its code differs:
- The ViT starts at random, for the package brings no weights; `vit_init` takes Google's of R50+ViT-B/16, trained on
  ImageNet-21k, which the published numbers are based on. Expect less without.
- Learning rate 2e-4 in both stages: an independent replication found that the published 1e-3 of stage 2 diverges with random
  weights; `stage_2_rate` of 5 is the published one.
- D goes on in stage 2; in the published code it starts anew. G has not forgotten what D knows.
- `norm`: the published code trains with batches of one and never leaves training mode, where batch normalisation is instance
  normalisation, and dropout stays on. 'batch' here has running statistics in synthesis, 'instance' computes what the
  published normalisation did. With batches of one or two, take 'instance'.
- No dropout in synthesis: a result does not depend on chance.
- Batches of `data.batch_size` in place of one slice, and no random flips: `data.mirror` has those of left and right.
- Position embeddings are learnt for the size of the training images, and resized bilinearly for others.
- One source or many: they are channels of the input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Length, Optimizer, field
from mrdiff_jax.methods.conditional_gan import ConditionalGAN
from mrdiff_jax.methods.contract import Batch, Tree, Variables
from mrdiff_jax.methods.optimizers import in_second_stage, in_two_stages
from mrdiff_jax.networks.convolutions import Convolution, Upconvolution, dropout
from mrdiff_jax.networks.image_to_image import Contraction, Expansion, ResidualBlock, Style
from mrdiff_jax.networks.initializers import init_on_host, zeros
from mrdiff_jax.networks.vit import Pretrained, VisionTransformer
from mrdiff_jax.streams import stream


@dataclass(frozen=True)
class Settings:
    """The published recipe, but for what the module says."""

    base_channels: int = field(64, "of the generator, at full resolution", least=1)
    discriminator_channels: int = field(64, "of the discriminator", least=1)
    patch_layers: int = field(3, "3 judges patches of 70 x 70 pixels, 2 of 34, 1 of 16", least=1, most=5)
    norm: Literal["batch", "instance"] = field("batch", "what is normalised over", choices=("batch", "instance"))
    blocks: int = field(9, "residual blocks; the first and the sixth of nine have the transformer", least=2)
    vit_layers: int = field(12, "of the transformer", least=1)
    vit_width: int = field(768, "channels of a token", least=1)
    vit_heads: int = field(12, "of its attention", least=1)
    vit_init: str = field("random", "or the path of an .npz, in the layout of Google's R50+ViT-B_16.npz")
    dropout: float = field(0.1, "rate in the transformer, in training", least=0, most=0.99)
    lambda_l1: float = field(100.0, "weight of L1", least=0)
    stage_2_start: float = field(2 / 3, "share of the training at which the transformers come in; 1 is never", least=0, most=1)
    stage_2_rate: float = field(1.0, "learning rate of stage 2, in those of stage 1", least=0)
    optimizer: Optimizer = Optimizer(b1=0.5, hold=0.5, ema_decay=0.0)
    published: ClassVar[Length] = Length(150, "epochs")
    small: ClassVar[Mapping[str, Any]] = {
        "base_channels": 8,
        "discriminator_channels": 8,
        "vit_layers": 2,
        "vit_width": 64,
        "vit_heads": 4,
        "optimizer": {"learning_rate": 6e-3},
    }


class Aggregation(nn.Module):
    """An ART block without its residual block: what a transformer sees, compressed together with what came in.

    Attributes:
      width: channels of a token.
      side: tokens along each side of the training images.
      rate: of the dropout after the embedding.
    """

    width: int
    side: int
    rate: float
    style: Style

    @nn.compact
    def __call__(self, x: Array, transformer: nn.Module, train: bool, keys: Array | None) -> Array:
        """Maps x (B, h, w, C) to the same shape."""
        channels, norm, start, h = x.shape[-1], self.style.normalization, self.style.start, x
        for level in (1, 2):
            h = Convolution(channels * 2**level, 3, 2, bias=False, start=start, name=f"down_{level}")(h)
            h = nn.relu(norm(f"down_norm_{level}")(h, train))
        h = self._transformed(h, transformer, keys)
        for level in (1, 0):
            h = Upconvolution(channels * 2**level, 3, bias=False, start=start, name=f"up_{level}")(h)
            h = nn.relu(norm(f"up_norm_{level}")(h, train))
        joined = jnp.concatenate([h, x], axis=-1)
        h = Convolution(channels, bias=False, start=start, name="compress_in")(joined)
        h = nn.relu(norm("compress_norm_in")(h, train))
        h = norm("compress_norm_out")(Convolution(channels, bias=False, start=start, name="compress_out")(h), train)
        skip = Convolution(channels, 1, padding=0, bias=False, start=start, name="skip")(joined)
        return nn.relu(h + norm("skip_norm")(skip, train))

    def _transformed(self, h: Array, transformer: nn.Module, keys: Array | None) -> Array:
        """Features (B, m, n, C) as tokens, one a place, that have seen each other: (B, m, n, width)."""
        h = Convolution(self.width, 1, padding=0, start=self.style.start, name="embedding")(h)
        positions = self.param("positions", zeros, (self.side, self.side, self.width))
        h += jax.image.resize(positions, h.shape[1:], "bilinear")
        h = dropout(h, self.rate, None if keys is None else stream(keys, "embedding"))
        tokens = transformer(h.reshape(len(h), -1, self.width), None if keys is None else stream(keys, "transformer"))
        return tokens.reshape(h.shape)


class ResViTGenerator(nn.Module):
    """The sources (B, H, W, K) in [-1, 1] to the target (B, H, W, 1).

    The collection 'stage' says whether it has its transformers (1) or does without (0).

    Attributes:
      base: channels at full resolution.
      count: blocks.
      layers, width, heads: of the vision transformer.
      side: tokens along each side of the training images.
      rate: of the dropout in the transformer.
      norm: what is normalised over.
    """

    base: int = 64
    count: int = 9
    layers: int = 12
    width: int = 768
    heads: int = 12
    side: int = 16
    rate: float = 0.1
    norm: Literal["batch", "instance"] = "batch"

    @property
    def places(self) -> tuple[int, int]:
        """The blocks that have a transformer."""
        return 0, 5 * self.count // 9

    def setup(self) -> None:
        style = Style(self.norm, start=None, gain_deviation=0.0)
        self.contraction = Contraction(self.base, style)
        self.blocks = [ResidualBlock(style=style) for _ in range(self.count)]
        self.aggregations = [Aggregation(self.width, self.side, self.rate, style) for _ in self.places]
        self.transformer = VisionTransformer(self.layers, self.heads, self.rate)
        self.expansion = Expansion(self.base, style=style)
        self.stage = self.variable("stage", "transformers", zeros, None, ())

    def __call__(self, y: Array, train: bool, keys: Array | None = None, transformers: Array | None = None) -> Array:
        """The target in [-1, 1].

        Args:
          y: the sources.
          train: normalises by the batch, and moves the running statistics.
          keys: (B,) of the dropout; None does without.
          transformers: moves the network to this stage first; from stage 2 there is no way back.
        """
        if transformers is not None:
            self.stage.value = jnp.maximum(self.stage.value, transformers.astype(jnp.float32))
        h = self.contraction(y, train)
        for i, block in enumerate(self.blocks):
            if i in self.places:
                h = self._aggregated(self.places.index(i), h, train, None if keys is None else stream(keys, "block", i))
            h = block(h, train)
        return self.expansion(h, train)

    def _aggregated(self, index: int, h: Array, train: bool, keys: Array | None) -> Array:
        """What the transformer adds; in stage 1, what came in."""

        def aggregate(self: ResViTGenerator, h: Array) -> Array:
            return self.aggregations[index](h, self.transformer, train, keys)

        if self.is_initializing():
            return aggregate(self, h)
        return nn.cond(self.stage.value > 0, aggregate, lambda _, h: h, self, h)


class ResViT(ConditionalGAN):
    """Generator and discriminator, in two stages."""

    stride = 4 * 4

    def __init__(self, config: Any):
        own, size = config.own, config.data.image_size
        super().__init__(config, own.norm)
        if size % self.stride or size == self.stride:
            raise UserError(f"--config.data.image_size={size}: resvit needs a multiple of {self.stride}, two of them at least")
        if own.vit_width % own.vit_heads:
            raise UserError(
                f"--config.resvit.vit_heads={own.vit_heads}: vit_width has {own.vit_width} channels, not a multiple of it"
            )
        self.generator = ResViTGenerator(
            own.base_channels,
            own.blocks,
            own.vit_layers,
            own.vit_width,
            own.vit_heads,
            size // self.stride,
            own.dropout,
            own.norm,
        )
        self.players = {
            name: player._replace(optimizer=in_two_stages(player.optimizer, own.stage_2_start, own.stage_2_rate))
            for name, player in self.players.items()
        }

    def init_generator(self, key: Array, batch: Batch) -> dict[str, Tree]:
        """Fresh weights."""
        return init_on_host(self.generator, key, batch["sources"], train=False)

    def begin(self, variables: Variables) -> Variables:
        """With the weights of the file that `vit_init` names."""
        own, params = self.settings, variables.params["generator"]
        if own.vit_init == "random":
            return variables
        file = Pretrained(own.vit_init)
        read = {"transformer": file.transformer(own.vit_layers, own.vit_heads, own.vit_width)}
        for i in range(len(self.generator.places)):
            name = f"aggregations_{i}"
            positions = file.positions(self.generator.side, own.vit_width)
            embedding = file.embedding(16 * own.base_channels, own.vit_width)
            read[name] = params[name] | {"embedding": embedding, "positions": positions}
        return variables.with_params("generator", params | read)

    def generate(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Tree]:
        """With dropout, and with the transformers from stage 2 on."""
        image, state = self.generator.apply(
            variables.of("generator"),
            2 * batch["sources"] - 1,
            train=True,
            keys=stream(rng, "dropout"),
            transformers=in_second_stage(progress, self.settings.stage_2_start),
            mutable=["batch_stats", "stage"],
        )
        return image[..., 0], state


create = ResViT
