"""The settings of MRDiff: what the paper says, and what the authors' published code does instead."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mrdiff_jax.fields import MODEL_FIELDS, QUICK, Length, Optimizer, Sampling, field
from mrdiff_jax.methods.distances import DISTANCES
from mrdiff_jax.networks.bloch import POSITIVITIES


@dataclass(frozen=True)
class Settings:
    """As the paper has it."""

    signals: str = field("spin_echo", "or 'inversion_recovery'; once for all sources, or one each, comma-separated")
    map_channels: int = field(128, "of each of the feature maps T1, T2, S0", least=1)
    positivity: Literal["relu", "softplus"] = field("relu", "what keeps the maps from 0 up", choices=POSITIVITIES)
    modulation: bool = field(True, "M puts the sources' contrasts on the maps; without it D sees the maps themselves")
    decoder_skips: bool = field(True, "D sees the encoder's features too")
    decoder_per_source: bool = field(False, "one D makes each source from its own signals; needs decoder_skips=False")
    wavelet_of: Literal["images", "features"] = field(
        "images", "what is transformed; 'features' are those of convolutions at full resolution", choices=("images", "features")
    )
    spectral_norm: bool = field(False, "of the layers that read the step")
    schedule: Literal["cosine", "linear"] = field("cosine", "of the noise", choices=("cosine", "linear"))
    chain: int = field(1000, "T, the steps of the forward process", least=2)
    draws: int = field(3, "N, noise draws of each target", least=1)
    loss_draws: Literal["all", "first"] = field("all", "draws that L_G and L_D see", choices=("all", "first"))
    distance: Literal["l1", "l2", "wavelet_l1"] = field(
        "l2", "of L_G and L_D; 'wavelet_l1' is l1 of Haar packets", choices=tuple(DISTANCES)
    )
    physics_every: int = field(1, "n: every n-th example of a batch trains M, D and L_CCT, all of them L_G", least=1)
    lambda_g: float = field(1.0, "weight of L_G", least=0)
    lambda_d: float = field(1.0, "weight of L_D", least=0)
    lambda_cct: float = field(0.01, "weight of L_CCT", least=0)
    joint_mean: bool = field(False, "L_G and L_D weighted as one mean over the channels of [x_0, y]")
    draw_reduction: Literal["mean", "sum"] = field("mean", "of the losses over the draws", choices=("mean", "sum"))
    cct_normalize: bool = field(False, "L_CCT compares directions")
    cct_stop_gradient: bool = field(False, "the global content feature is a constant target")
    optimizer: Optimizer = Optimizer()
    sample: Sampling = Sampling()
    model_fields: ClassVar[tuple[str, ...]] = MODEL_FIELDS
    published: ClassVar[Length] = Length(350_000, "steps of 8 slices")
    small: ClassVar[Mapping[str, Any]] = {
        "map_channels": 16,
        "loss_draws": "first",
        "distance": "wavelet_l1",
        "sample": {"steps": 2},
        "optimizer": {"learning_rate": 3e-3, **QUICK},
    }


PRESETS = {  # what each changes of the defaults
    "paper": {},
    "authors": {
        "wavelet_of": "features",
        "spectral_norm": True,
        "joint_mean": True,
        "draw_reduction": "sum",
        "cct_normalize": True,
        "cct_stop_gradient": True,
        "optimizer": {"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.05, "ema_warmup": False},
    },
}
