"""MRDiff (the paper), as a method: training by Eq. 11, synthesis by the reverse diffusion of E and G."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mrdiff_jax import diffusion
from mrdiff_jax.config import split_names
from mrdiff_jax.errors import UserError
from mrdiff_jax.methods import Aux, Batch, Method, Params
from mrdiff_jax.methods.mrdiff.losses import consistency_loss, image_loss, image_weights, over_draws
from mrdiff_jax.methods.mrdiff.network import MRDiff, ScanParameters
from mrdiff_jax.networks import unet
from mrdiff_jax.networks.layers import init_on_host, power_iteration, settle

# what a key is folded with, by purpose; the steps of a sampler take 0, 1, 2, ...
_STEP, _START = 1_000_001, 1_000_002


def create(config: Any) -> Method:
    """Builds MRDiff from `config.model`, `config.diffusion`, `config.loss` and `config.sample`."""
    network = build_network(config)
    schedule = diffusion.SCHEDULES[config.diffusion.schedule](config.diffusion.steps)
    loss, sample = config.loss, config.sample
    try:
        chain = diffusion.respace(schedule, sample.steps, sample.spacing)
    except ValueError as error:
        raise UserError(
            f"--config.sample.steps={sample.steps} with --config.sample.spacing={sample.spacing}: {error}"
        ) from error

    def apply(params: Params, *args: Any, method: Any = None) -> Any:
        variables = {"params": params["generator"], "spectral": params["stats"]}
        return network.apply(variables, *args, method=method)

    def init(key: Array, batch: Batch) -> Params:
        x, y, scan = _images(batch)
        variables = init_on_host(network, key, x, y, jnp.zeros(len(x)), scan)
        params, stats = variables["params"], variables.get("spectral", {})
        return {"generator": params, "stats": settle(params, stats)}

    def train_loss(params: Params, batch: Batch, rng: Array) -> tuple[Array, Aux]:
        """L_train (Eq. 11): N noisy versions of each target, at one step, with the same sources."""
        x_0, y, scan = _images(batch)
        t = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, _STEP), (), 0, len(schedule.alpha_bar)))(rng)

        def follow(stats: Any, _: None) -> tuple[Any, Any]:
            """Moves the singular vectors on: every draw's pass through the network has its own (as in the authors' code)."""
            stats = power_iteration(params["generator"], stats)
            return stats, stats

        def encode(draw: Array, stats: Any) -> Any:
            x_t = diffusion.q_sample(schedule, x_0, t, diffusion.normal_like(x_0, rng, draw))
            return apply(params | {"stats": stats}, x_t, y, t, method=MRDiff.encode)

        def restore(features: Any, stats: Any) -> tuple[Array, Array]:
            own = params | {"stats": stats}
            x0_hat = apply(own, features, method=MRDiff.generate)
            return x0_hat, apply(own, features, scan, method=MRDiff.reconstruct)

        stats, by_draw = jax.lax.scan(follow, params["stats"], length=loss.draws)
        features = jax.vmap(encode)(jnp.arange(loss.draws), by_draw)
        seen = (features, by_draw)
        if loss.loss_draws == "first":
            seen = jax.tree.map(lambda leaf: leaf[:1], seen)
        x0_hat, y_hat = jax.vmap(restore)(*seen)

        l_g = image_loss(x_0, x0_hat)
        l_d = image_loss(y, y_hat)
        l_cct = consistency_loss(features.e_t, loss.cct_normalize, loss.cct_stop_gradient)
        share_g, share_d = image_weights(y.shape[-1], loss.joint_mean)
        total = (
            loss.lambda_g * share_g * over_draws(l_g, loss.draw_reduction, loss.draws)
            + loss.lambda_d * share_d * over_draws(l_d, loss.draw_reduction, loss.draws)
            + loss.lambda_cct * over_draws(l_cct, loss.draw_reduction, loss.draws)
        )
        terms = {"L_G": l_g.mean(), "L_D": l_d.mean(), "L_CCT": l_cct.mean()}
        return total, {"metrics": terms, "stats": stats}

    def synthesize(params: Params, batch: Batch, rng: Array) -> Array:
        """Walks the reverse chain from noise to the target, with E and G."""
        y = 2 * batch["sources"] - 1
        x_T = diffusion.normal_like(y[..., :1], rng, _START)

        def denoise(x_t: Array, t: Array) -> Array:
            return apply(params, x_t, y, t, method=MRDiff.denoise)

        if sample.sampler == "ddim":
            x_0 = diffusion.ddim(denoise, chain, x_T, rng, sample.eta)
        else:
            x_0 = diffusion.ddpm(denoise, chain, x_T, rng)
        return (x_0[..., 0] + 1) / 2

    def maps(params: Params, batch: Batch, rng: Array) -> dict[str, Array]:
        """h_t at the last step, that is of the sources and a target of pure noise."""
        y = 2 * batch["sources"] - 1
        last = jnp.full(len(y), len(schedule.alpha_bar) - 1)
        features = apply(params, diffusion.normal_like(y[..., :1], rng, _START), y, last, method=MRDiff.encode)
        return dict(zip(("T1", "T2", "S0"), apply(params, features, method=MRDiff.content_maps), strict=True))

    def describe(params: Params, batch: Batch, rng: Array) -> tuple[Array, ...]:
        """The channel means of the maps."""
        return tuple(features.mean(-1) for features in maps(params, batch, rng).values())

    return Method(
        init=init,
        losses={"generator": train_loss},
        synthesize=synthesize,
        describe=describe,
        described=("T1 features", "T2 features", "S0 features"),
        maps=maps,
        inverted=tuple(
            source
            for source, signal in zip(split_names(config.data.sources), network.signals, strict=True)
            if signal == "inversion_recovery"
        ),
        stride=network.backbone.image_stride(network.wavelet_domain),
    )


def build_network(config: Any) -> MRDiff:
    """The network of `config.model` for the sources of `config.data`.

    Raises:
      UserError: the signals do not match the sources, or the sizes do not fit each other.
    """
    size, sources, signals = config.model, split_names(config.data.sources), split_names(config.model.signals)
    if len(signals) == 1:
        signals = signals * len(sources)
    if len(signals) != len(sources) or not set(signals) <= {"spin_echo", "inversion_recovery"}:
        raise UserError(
            f"--config.model.signals={config.model.signals}: give spin_echo or inversion_recovery once for all sources,"
            f" or once for each of {config.data.sources}"
        )
    backbone = unet.build_backbone(config)
    return MRDiff(
        backbone=backbone,
        signals=signals,
        wavelet_domain=size.wavelet_domain,
        stem_channels=size.base_channels // 8 if size.wavelet_of == "features" else 0,
        map_channels=size.map_channels,
        positivity=size.positivity,
        decoder_skips=size.decoder_skips,
    )


def _images(batch: Batch) -> tuple[Array, Array, ScanParameters]:
    """x_0 (B, H, W, 1) and y (B, H, W, K) in [-1, 1], and the scan parameters of y."""
    x_0 = 2 * batch["target"][..., None] - 1
    return x_0, 2 * batch["sources"] - 1, ScanParameters(batch["tr"], batch["te"], batch["ti"])
