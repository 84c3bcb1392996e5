"""MRDiff (the paper), as a method: training by Eq. 11, synthesis by the reverse diffusion of E and G."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrdiff_jax import diffusion
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Tree, Variables
from mrdiff_jax.methods.mrdiff.losses import consistency_loss, image_loss, image_weights, over_draws
from mrdiff_jax.methods.mrdiff.network import Features, Network
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.networks.bloch import ScanParameters, inverted, signals_of
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.layers import power_iteration, settle
from mrdiff_jax.networks.unet import build_backbone
from mrdiff_jax.streams import normal_like, steps_like, stream

SPECTRAL = "spectral"  # the collection of singular vectors


class Examples(NamedTuple):
    """What the loss is of: targets x_0 (B, H, W, 1), sources y (B, H, W, K), their scan parameters, steps t and keys (B,)."""

    x_0: Array
    y: Array
    scan: ScanParameters
    t: Array
    rng: Array


class MRDiff(Method):
    """E, G, M and D in training; E and G in synthesis."""

    samples = True
    lean = True
    described = ("T1 features", "T2 features", "S0 features")

    def __init__(self, config: Any):
        self.settings = config.own
        self.network = build_network(config)
        self.schedule = diffusion.SCHEDULES[self.settings.schedule](self.settings.chain)
        self.chain = diffusion.chain_of(self.schedule, config.sample)
        self.sampler = config.sample
        self.players = {"generator": Player(self.loss, make_optimizer(config.optimizer))}
        self.stride = self.network.backbone.image_stride(self.network.wavelet_levels)
        modulated = self.settings.modulation and self.settings.lambda_d > 0
        self.inverted = inverted(self.network.signals, config.data.sources) if modulated else ()
        self.reconstruct = self._reconstruct if modulated else None

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights, and the singular vectors that go with them."""
        x, y, scan = _images(batch)
        variables = init_on_host(self.network, key, x, y, jnp.zeros(len(x)), scan)
        params, vectors = variables["params"], variables.get(SPECTRAL, {})
        return Variables({"generator": params}, {"generator": {SPECTRAL: settle(params, vectors)}})

    def loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_train (Eq. 11); where `physics_every` is n > 1, of every n-th example, and L_G alone of the others.

        Where lambda_2 is 0, neither M nor D is run.

        Raises:
          UserError: `physics_every` does not divide a device's share of the batch.
        """
        own, (x_0, y, scan) = self.settings, _images(batch)
        examples = Examples(x_0, y, scan, steps_like(stream(rng, "t"), own.chain), rng)
        vectors, by_draw = self._follow(variables)
        chosen, others = _every(own.physics_every, examples)
        l_g, l_d, l_cct = self._losses(variables, chosen, by_draw)
        if own.physics_every > 1:
            l_g = (l_g + (own.physics_every - 1) * self._generator_loss(variables, others, by_draw)) / own.physics_every
        share_g, share_d = image_weights(y.shape[-1], own.joint_mean)
        total = (
            own.lambda_g * share_g * over_draws(l_g, own.draw_reduction, own.draws)
            + own.lambda_d * share_d * over_draws(l_d, own.draw_reduction, own.draws)
            + own.lambda_cct * over_draws(l_cct, own.draw_reduction, own.draws)
        )
        terms = {"L_G": l_g.mean()} | ({"L_D": l_d.mean()} if own.lambda_d else {}) | {"L_CCT": l_cct.mean()}
        return total, Outcome(terms, {"generator": {SPECTRAL: vectors}})

    def _losses(self, variables: Variables, examples: Examples, by_draw: Tree) -> tuple[Array, Array, Array]:
        """L_G, L_D and L_CCT of N noisy versions of each target, at one step t, with the same sources; (N,) or (1,) each."""
        own = self.settings
        features = self._encode(_with_vectors(variables, by_draw), examples, own.draws)
        l_cct = consistency_loss(_by_draw(features.e_t, own.draws), own.cct_normalize, own.cct_stop_gradient)
        restored = own.draws
        if own.loss_draws == "first":
            restored, count = 1, len(examples.t)
            features, by_draw = jax.tree.map(lambda leaf: leaf[:count], features), jax.tree.map(lambda leaf: leaf[:1], by_draw)
        seen = _with_vectors(variables, by_draw)
        x0_hat = self._apply(seen, features, method=Network.generate)
        l_g = image_loss(examples.x_0, _by_draw(x0_hat, restored), own.distance)
        if not own.lambda_d:  # no time for what is not trained
            return l_g, jnp.zeros_like(l_g), l_cct
        scan = jax.tree.map(lambda times: jnp.tile(times, (restored, 1)), examples.scan)
        y_hat = self._apply(seen, features, scan, method=Network.reconstruct)
        return l_g, image_loss(examples.y, _by_draw(y_hat, restored), own.distance), l_cct

    def _generator_loss(self, variables: Variables, examples: Examples, by_draw: Tree) -> Array:
        """L_G (1,) of the first draw."""
        seen = _with_vectors(variables, jax.tree.map(lambda leaf: leaf[:1], by_draw))
        x0_hat = self._apply(seen, self._encode(seen, examples, 1), method=Network.generate)
        return image_loss(examples.x_0, x0_hat[None], self.settings.distance)

    def _encode(self, variables: Variables, examples: Examples, draws: int) -> Features:
        """E of the examples, with the noise of the first draws: (N B, ...), the examples of a draw together."""

        def noised(draw: Array) -> Array:
            noise = normal_like(examples.x_0, stream(examples.rng, "noise", draw))
            return diffusion.q_sample(self.schedule, examples.x_0, examples.t, noise)

        x_t = jax.vmap(noised)(jnp.arange(draws)).reshape(-1, *examples.x_0.shape[1:])
        return self._apply(variables, x_t, examples.y, examples.t, method=Network.encode)

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """Walks the reverse chain from noise to the target, with E and G."""
        denoise = partial(self.denoise, variables, batch)
        x_0 = diffusion.sample(denoise, self.chain, batch["sources"][..., 0], rng, self.sampler)
        return (x_0 + 1) / 2

    def denoise(self, variables: Variables, batch: Batch, x_t: Array, t: Array) -> Array:
        """x0_hat, of E and G."""
        y = 2 * batch["sources"] - 1
        return self._apply(variables, x_t[..., None], y, t, method=Network.denoise)[..., 0].astype(jnp.float32)

    def feature_maps(self, variables: Variables, batch: Batch, rng: Array) -> dict[str, Array]:
        """h_t at the last step, that is of the sources and a target of pure noise."""
        maps = self._apply(variables, self._encode_last(variables, batch, rng), method=Network.content_maps)
        return dict(zip(("T1", "T2", "S0"), maps, strict=True))

    def _reconstruct(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """y_hat at the last step."""
        scan = ScanParameters(batch["tr"], batch["te"], batch["ti"])
        y_hat = self._apply(variables, self._encode_last(variables, batch, rng), scan, method=Network.reconstruct)
        return (y_hat.astype(jnp.float32) + 1) / 2

    def describe(self, variables: Variables, batch: Batch, rng: Array) -> tuple[Array, ...]:
        """The channel means of the maps."""
        return tuple(features.mean(-1) for features in self.feature_maps(variables, batch, rng).values())

    def _encode_last(self, variables: Variables, batch: Batch, rng: Array) -> Features:
        """E of the sources and a target of pure noise."""
        y = 2 * batch["sources"] - 1
        last = jnp.full(len(y), self.settings.chain - 1)
        return self._apply(variables, diffusion.start(y[..., :1], rng), y, last, method=Network.encode)

    def _apply(self, variables: Variables, *args: Any, method: Any) -> Any:
        return self.network.apply(variables.of("generator"), *args, method=method)

    def _follow(self, variables: Variables) -> tuple[Tree, Tree]:
        """The singular vectors moved on once a draw, as in the authors' code: the last ones, and those of every draw."""

        def follow(vectors: Tree, _: None) -> tuple[Tree, Tree]:
            vectors = power_iteration(variables.params["generator"], vectors)
            return vectors, vectors

        return jax.lax.scan(follow, variables.state["generator"][SPECTRAL], length=self.settings.draws)


def _by_draw(images: Array, draws: int) -> Array:
    """(N B, ...) -> (N, B, ...)."""
    return images.reshape(draws, -1, *images.shape[1:])


def _with_vectors(variables: Variables, vectors: Tree) -> Variables:
    return variables.replace(state={"generator": {SPECTRAL: vectors}})


def build_network(config: Any) -> Network:
    """The network of `config.model` and of MRDiff's settings, for the sources of `config.data`.

    Raises:
      UserError: the signals do not match the sources, or settings do not fit each other.
    """
    own = config.own
    if own.decoder_per_source and (own.decoder_skips or not own.modulation):
        needed = "--config.mrdiff.decoder_skips=False --config.mrdiff.modulation=True"
        raise UserError(f"--config.mrdiff.decoder_per_source: D is to know the sources by their signals alone; give {needed}")
    return Network(
        backbone=build_backbone(config, spectral_norm=own.spectral_norm),
        signals=signals_of(own.signals, config.data.sources, "--config.mrdiff.signals"),
        wavelet_levels=config.model.wavelet_levels,
        stem_channels=config.model.base_channels // 8 if own.wavelet_of == "features" else 0,
        map_channels=own.map_channels,
        positivity=own.positivity,
        modulation=own.modulation,
        decoder_skips=own.decoder_skips,
        decoder_per_source=own.decoder_per_source,
    )


def _images(batch: Batch) -> tuple[Array, Array, ScanParameters]:
    """x_0 (B, H, W, 1) and y (B, H, W, K) in [-1, 1], and the scan parameters of y."""
    x_0 = 2 * batch["target"][..., None] - 1
    return x_0, 2 * batch["sources"] - 1, ScanParameters(batch["tr"], batch["te"], batch["ti"])


def _every(n: int, examples: Examples) -> tuple[Examples, Examples]:
    """Every n-th example, from the first on, and the others."""
    count = len(examples.t)
    if count % n:
        raise UserError(
            f"--config.mrdiff.physics_every={n}: a device has {count} examples of a batch at a time, not a multiple of it;"
            " change it, --config.data.batch_size or --config.optimizer.accumulate"
        )
    others = np.flatnonzero(np.arange(count) % n)
    return jax.tree.map(lambda leaf: leaf[::n], examples), jax.tree.map(lambda leaf: leaf[others], examples)
