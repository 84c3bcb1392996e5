"""MRDiff: encoder E, generator G, physics module M and decoder D (paper, Sec. 2 and Fig. 1).

    x_t, y --DWT--> E --> e_t --> G --IWT--> x0_hat
                           |
                           +----> M: h_t = {T1, T2, S0}, signal equation --> D --IWT--> y_hat

Synthesis runs E and G alone; M and D regularise e_t in training. Images are in [-1, 1], times in milliseconds.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mrdiff_jax.networks import bloch
from mrdiff_jax.networks.bloch import ContentMaps, Positivity, ScanParameters, Signal
from mrdiff_jax.networks.convolutions import Convolution
from mrdiff_jax.networks.unet import Backbone, Decoder, Encoder, StepEmbedding
from mrdiff_jax.wavelets import to_bands, to_pixels


class Features(NamedTuple):
    """What the encoder knows of a noisy target and its sources.

    Attributes:
      e_t: (B, h, w, C) the deepest feature, on which the consistency loss acts.
      skips: features after every block of the encoder, e_t the last.
      embedding: (B, E) of the diffusion step.
    """

    e_t: Array
    skips: tuple[Array, ...]
    embedding: Array


class Network(nn.Module):
    """The network.

    Attributes:
      backbone: size of the encoder and of the two decoders.
      signals: signal equation of each of the K sources.
      wavelet_levels: of both transforms; without any it is the same network on pixels.
      stem_channels: 0 transforms the images themselves (Sec. 2.2); otherwise convolutions at full resolution lift target and
        sources to that many channels each, and their features are transformed.
      map_channels: channels of each of the maps T1, T2, S0.
      positivity: what keeps the maps non-negative.
      modulation: M puts the sources' contrasts on the maps by the signal equations; without it D sees the maps as they are.
      decoder_skips: D sees the encoder's features too; without them all that D knows of the images has passed through h_t.
      decoder_per_source: one D makes each source from its own signals alone, so that times tell them apart.
    """

    backbone: Backbone
    signals: tuple[Signal, ...]
    wavelet_levels: int = 1
    stem_channels: int = 0
    map_channels: int = 128
    positivity: Positivity = "relu"
    modulation: bool = True
    decoder_skips: bool = True
    decoder_per_source: bool = False

    def setup(self) -> None:
        deepest, bands, dtype = self.backbone.channels[-1], 4**self.wavelet_levels, self.backbone.dtype
        self.step_embedding = StepEmbedding(self.backbone)
        if self.stem_channels:
            self.target_stem = Convolution(self.stem_channels, start=None, dtype=dtype)
            self.source_stem = [Convolution(self.stem_channels, start=None, dtype=dtype) for _ in range(3)]
        self.encoder = Encoder(self.backbone)
        self.generator = Decoder(self.backbone, bands)
        self.map_block = self.backbone.block(3 * self.map_channels)
        self.signal_block = self.backbone.block(deepest // bands)
        self.decoder = Decoder(self.backbone, bands if self.decoder_per_source else bands * len(self.signals))

    def __call__(self, x_t: Array, y: Array, t: Array, scan: ScanParameters) -> tuple[Features, Array, Array]:
        """Runs everything: features, x0_hat (B, H, W, 1) and y_hat (B, H, W, K)."""
        features = self.encode(x_t, y, t)
        return features, self.generate(features), self.reconstruct(features, scan)

    def encode(self, x_t: Array, y: Array, t: Array) -> Features:
        """E: N noisy versions of each target, clean sources (B, H, W, K) and steps (B,) to the versions' features.

        The versions are (N B, H, W, 1), those of one draw together; the stem of the sources is computed once for all of them.

        Raises:
          ValueError: a side is not a multiple of what the levels need.
        """
        self._check_sides(x_t.shape)
        if self.stem_channels:
            lift, mix, out = self.source_stem
            x_t, y = self.target_stem(x_t), out(nn.silu(mix(lift(y))))
        versions = len(x_t) // len(y)
        embedding = self.step_embedding(jnp.tile(t, versions))
        images = jnp.concatenate([x_t, jnp.tile(y, (versions, 1, 1, 1))], axis=-1)
        skips = self.encoder(self._to_bands(images), embedding)
        return Features(skips[-1], skips, embedding)

    def generate(self, features: Features) -> Array:
        """G: features to x0_hat, (B, H, W, 1)."""
        return self._to_pixels(self.generator(features.e_t, features.embedding, features.skips))

    def content_maps(self, features: Features) -> ContentMaps:
        """I_sigma: features to the maps h_t (paper, Eq. 5), at the resolution of the inverse transform of e_t."""
        maps = self.map_block(self._to_pixels(features.e_t), features.embedding)
        return bloch.content_maps(maps, self.positivity)

    def modulate(self, maps: ContentMaps, scan: ScanParameters) -> Array:
        """M_sigma: the sources' contrasts put on the maps by the signal equations (paper, Eq. 7), in float32."""
        return bloch.modulate(maps, scan, self.signals) if self.modulation else jnp.concatenate(maps, axis=-1)

    def reconstruct(self, features: Features, scan: ScanParameters) -> Array:
        """D after M: features and scan parameters to y_hat, (B, H, W, K) (paper, Eq. 8)."""
        modulated = self.modulate(self.content_maps(features), scan)
        seen = jnp.split(modulated, len(self.signals), axis=-1) if self.decoder_per_source else [modulated]
        return jnp.concatenate([self._decode(signals, features) for signals in seen], axis=-1)

    def _decode(self, signals: Array, features: Features) -> Array:
        """D: signals, (B, h, w, C), to images."""
        bands = self._to_bands(self.signal_block((2 * signals - 1).astype(self.backbone.dtype), features.embedding))
        skips = features.skips if self.decoder_skips else None
        return self._to_pixels(self.decoder(bands, features.embedding, skips))

    def denoise(self, x_t: Array, y: Array, t: Array) -> Array:
        """G after E: the estimate x0_hat, all that synthesis needs."""
        return self.generate(self.encode(x_t, y, t))

    def _to_bands(self, x: Array) -> Array:
        return to_bands(x, self.wavelet_levels)

    def _to_pixels(self, x: Array) -> Array:
        return to_pixels(x, self.wavelet_levels)

    def _check_sides(self, shape: tuple[int, ...]) -> None:
        factor = self.backbone.image_stride(self.wavelet_levels)
        if shape[1] % factor or shape[2] % factor:
            raise ValueError(
                f"images of {shape[1]} x {shape[2]} do not fit the network: with {len(self.backbone.channel_mult)} levels"
                f" both sides must be multiples of {factor}"
            )
