"""CM, consistency models (Song et al., ICML 2023): one or two evaluations of a network take noise to an image.

Consistency training, without a teacher (their Alg. 3), conditioned on the sources y, which are concatenated, unscaled, to the
scaled noisy target. With neighbouring noise levels s > r and the same noise z,

    L = d( f(x_0 + s z, s), f'(x_0 + r z, r) ),

f' of the target network, which follows at the rate mu(k) while the grid of noise levels grows from 2 to N(K) = 151.

Choices, where publications differ or are silent:
- The network is the ADM UNet of `config.model`, on pixels or wavelet bands as that says, with FiLM: methods are compared, not
  sizes. The transform is orthonormal: noise and L2 distances are the same on both sides of it. The published one is on pixels.
- The distance was LPIPS, a network that knows colour photographs. Here it is the pseudo-Huber distance that the authors put in
  its place (Song and Dhariwal, ICLR 2024); all levels have weight 1, as published.
- sigma_data = 0.5 is the published value; standard deviations of slices of scans in [-1, 1] are near it (0.46 to 0.54 where we
  looked), those of the phantom are not (0.77).
- mu(k) is what both published programs compute; the formula of the paper is a field.
- k / K is the progress of the training: a run that is bounded by the clock has no number of steps.
- The average that is evaluated, of decay 0.9999, is apart from the target network, as published.
- Of `config.sample` only `steps` has a meaning: the sampler is its own. Two steps are the published ones of LSUN-256.
- The published commands start from a trained diffusion model. `init='diffusion'` takes from a run of this package those tensors
  that fit by name and shape: all of E and G of an MRDiff run of the same `config.model`, without spectral normalisation and
  with wavelets of the image, whose network is the same; of a cDPM run the residual blocks of the levels, the embedding of the
  step and the last layer. Their embedding has read steps 0 .. 999, where that of a consistency model reads
  250 ln(sigma), and what they predict is not F: they give features, not a function. The default is random, so that a comparison
  starts all methods alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from mrdiff_jax.diffusion import consistency
from mrdiff_jax.diffusion.preconditioning import Preconditioning
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import MODEL_FIELDS, QUICK, Length, Optimizer, Sampling, field
from mrdiff_jax.methods.contract import Batch, Method, Outcome, Player, Tree, Variables
from mrdiff_jax.methods.optimizers import make_optimizer
from mrdiff_jax.methods.transfer import fitting, trained_params
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.unet import Backbone, Decoder, Encoder, StepEmbedding, build_backbone
from mrdiff_jax.streams import normal_like, stream
from mrdiff_jax.wavelets import to_bands, to_pixels


@dataclass(frozen=True)
class Settings:
    """The recipe published for LSUN at 256 x 256, whose batch was 256."""

    distance: Literal["pseudo_huber", "l1", "l2"] = field("pseudo_huber", "d of the loss", choices=consistency.DISTANCES)
    sigma_min: float = field(0.002, "the smallest noise level, where f is the identity", least=1e-6)
    sigma_max: float = field(80.0, "the largest noise level", least=1e-6)
    rho: float = field(7.0, "how noise levels crowd at the small end", least=1)
    sigma_data: float = field(0.5, "standard deviation of the images in [-1, 1]", least=1e-6)
    first_levels: int = field(2, "s_0, noise levels at the start", least=2)
    last_levels: int = field(150, "s_1, noise levels at the end, less one", least=2)
    target_decay: float = field(0.95, "mu_0", least=1e-6, most=1)
    decay_formula: Literal["code", "paper"] = field("code", "of mu(k), as published in both", choices=("code", "paper"))
    init: Literal["random", "diffusion"] = field("random", "what the weights start from", choices=("random", "diffusion"))
    init_workdir: str = field("", "of init='diffusion': the workdir of a run of mrdiff or cdpm with the same config.model")
    optimizer: Optimizer = Optimizer("radam", learning_rate=5e-5)
    sample: Sampling = Sampling(steps=2)
    model_fields: ClassVar[tuple[str, ...]] = MODEL_FIELDS
    published: ClassVar[Length] = Length(350_000, "steps of 8 slices")  # none for such data: MRDiff's
    small: ClassVar[Mapping[str, Any]] = {  # no time to climb to 151 noise levels
        "last_levels": 2,
        "optimizer": {"learning_rate": 1e-3, **QUICK},
    }


class Network(nn.Module):
    """F: scaled noisy target (B, H, W, 1), sources (B, H, W, K) and c_noise (B,) to (B, H, W, 1).

    The parts have the names of MRDiff's E and G, so that `init='diffusion'` finds them.
    """

    backbone: Backbone
    wavelet_levels: int = 0

    def setup(self) -> None:
        self.step_embedding = StepEmbedding(self.backbone)
        self.encoder = Encoder(self.backbone)
        self.generator = Decoder(self.backbone, 4**self.wavelet_levels)

    def __call__(self, x: Array, y: Array, c_noise: Array) -> Array:
        h = jnp.concatenate([x, y], axis=-1)
        embedding = self.step_embedding(c_noise)
        skips = self.encoder(to_bands(h, self.wavelet_levels), embedding)
        return to_pixels(self.generator(skips[-1], embedding, skips), self.wavelet_levels)


class CM(Method):
    """One network, and the target network that follows it."""

    samples = True
    sampling = ("steps",)

    def __init__(self, config: Any):
        own = self.settings = config.own
        if own.sigma_min >= own.sigma_max:
            raise UserError(f"--config.cm.sigma_min={own.sigma_min:g}: must be below sigma_max, {own.sigma_max:g}")
        if own.first_levels > own.last_levels:
            raise UserError(f"--config.cm.first_levels={own.first_levels}: must not exceed last_levels, {own.last_levels}")
        if (own.init == "diffusion") != bool(own.init_workdir):
            raise UserError(f"--config.cm.init={own.init}: 'diffusion' goes with --config.cm.init_workdir, 'random' without")
        self.levels = consistency.Levels(own.sigma_min, own.sigma_max, own.rho)
        self.curriculum = consistency.Curriculum(own.first_levels, own.last_levels, own.target_decay, own.decay_formula)
        self.preconditioning = Preconditioning(own.sigma_min, own.sigma_data)
        self.walk = self._sampling_levels(config.sample)
        self.network = Network(build_backbone(config), config.model.wavelet_levels)
        self.stride = self.network.backbone.image_stride(self.network.wavelet_levels)
        self.players = {"generator": Player(self.loss, make_optimizer(config.optimizer))}

    def init(self, key: Array, batch: Batch) -> Variables:
        """Fresh weights; the target network starts as the other."""
        y = batch["sources"]
        return _at_start(init_on_host(self.network, key, y[..., :1], y, jnp.zeros(len(y)))["params"])

    def begin(self, variables: Variables) -> Variables:
        """With the weights of a diffusion model where they fit, if `init` says so."""
        if self.settings.init == "random":
            return variables
        workdir = Path(self.settings.init_workdir)
        try:
            return _at_start(fitting(variables.params["generator"], trained_params(workdir), workdir))
        except UserError as error:
            raise UserError(f"--config.cm.init_workdir={workdir}: {error}") from error

    def loss(self, variables: Variables, batch: Batch, rng: Array, progress: Array) -> tuple[Array, Outcome]:
        """L_CT, of one pair of noise levels an example."""
        x_0, y = 2 * batch["target"][..., None] - 1, 2 * batch["sources"] - 1
        count = self.curriculum.levels(progress)
        pair = consistency.draw_pair(self.levels, count, stream(rng, "levels"))
        noise = normal_like(x_0, stream(rng, "noise"))
        student, target = (
            self._consistency(params, y) for params in (variables.params["generator"], variables.targets["generator"])
        )
        loss = consistency.training_loss(student, target, x_0, noise, pair, self.settings.distance)
        return loss, Outcome({"L_CT": loss, "noise_levels": count.astype(jnp.float32)})

    def after_step(self, variables: Variables, progress: Array) -> Variables:
        """The target network follows."""
        share = 1 - self.curriculum.target_decay(progress)
        return variables.replace(targets=optax.incremental_update(variables.params, variables.targets, share))

    def synthesize(self, variables: Variables, batch: Batch, rng: Array) -> Array:
        """From noise to the target in `config.sample.steps` evaluations."""
        y = 2 * batch["sources"] - 1
        f = self._consistency(variables.params["generator"], y)
        return (consistency.sample(f, self.levels, self.walk, y[..., :1], rng)[..., 0] + 1) / 2

    def _consistency(self, params: Tree, y: Array) -> consistency.Consistency:
        """f(x, sigma), given the sources."""

        def network(x: Array, c_noise: Array) -> Array:
            return self.network.apply({"params": params}, x, y, c_noise)

        return lambda x, sigma: self.preconditioning.apply(network, x, sigma)

    def _sampling_levels(self, sampling: Sampling) -> np.ndarray:
        """Raises UserError where the settings ask for what only a diffusion model can do."""
        for name, default in (("sampler", Sampling().sampler), ("eta", Sampling().eta), ("spacing", Sampling().spacing)):
            if getattr(sampling, name) != default:
                raise UserError(
                    f"--config.sample.{name}={getattr(sampling, name)}: cm has its own sampler, of which"
                    " --config.sample.steps alone can be set; leave it out"
                )
        try:
            return consistency.sampling_levels(self.levels, self.settings.last_levels + 1, sampling.steps)
        except ValueError as error:
            raise UserError(f"--config.sample.steps={sampling.steps}: {error}") from error


def _at_start(params: Tree) -> Variables:
    return Variables({"generator": params}, targets={"generator": jax.tree.map(np.copy, params)})


create = CM
