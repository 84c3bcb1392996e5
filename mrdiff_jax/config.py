"""The configuration: every field with its default, the two presets, and the checks.

Files in `configs/` start from `default(preset)`, set what their data needs and lock the result.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mrdiff_jax.errors import UserError
from mrdiff_jax.metrics.conventions import CONVENTIONS

PRESETS = ("paper", "authors")
STUDIES = ("sampling", "robustness", "uncertainty", "maps", "hallucination", "lesions")


def default(preset: str | None) -> ConfigDict:
    """MRDiff at 256 x 256 as the paper has it, or, for 'authors', as the authors' published code has it.

    Raises:
      UserError: an unknown preset.
    """
    if preset not in (None, "", *PRESETS):
        raise UserError(f"unknown preset ':{preset}'; choose one of {', '.join(':' + name for name in PRESETS)}")
    config = _paper()
    if preset == "authors":
        config.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.05, ema_warmup=False)
        config.model.update(wavelet_of="features", spectral_norm=True)
        config.loss.update(joint_mean=True, draw_reduction="sum", cct_normalize=True, cct_stop_gradient=True)
    return config


def _paper() -> ConfigDict:
    return ConfigDict(
        dict(
            method=dict(name="mrdiff"),
            data=dict(
                name="bids",
                root="",  # folder of scans, or, of 'prepared', of what mrdiff_jax.prepare wrote: image_size must be that of its
                # slices, its splits.csv counts unless splits_file names another, and the other fields below do not
                cache="",  # where prepared data sets are kept; '' is $MRDIFF_CACHE or ~/.cache/mrdiff_jax
                sources="T1w,T2w",
                target="FLAIR",
                contrasts="",  # contrasts to prepare; '' is all of the phantom's, or sources and target
                image_size=256,
                batch_size=8,  # over all devices
                mirror=False,  # left and right of the training slices, by chance; not of sagittal ones
                intensity=0.0,  # how far gamma and black level of the training sources vary by chance, 0 to 1
                percentiles=(0.5, 99.5),  # of each volume, mapped to 0 and 1
                tr="",  # milliseconds, as 'T1w=500,T2w=4000', for scans without a sidecar
                te="",
                ti="",
                lesions="",  # lesion masks beside the scans, as 'label-lesion_mask' for sub-*_label-lesion_mask.nii.gz
                plane="axial",  # or 'coronal', 'sagittal'
                slices="",  # slices to take, as 'first:last'; '' is all that show enough of the body
                test_subjects="",  # held-out subjects, as 'sub-A*,sub-B01'; '' draws test_fraction of them
                test_fraction=0.2,
                validation_fraction=0.1,
                split_seed=0,
                splits_file="",  # CSV 'subject,split' that decides all splits
                subjects=32,  # of the phantom, as are the next two
                subject_slices=24,
                seed=0,
            ),
            model=dict(
                base_channels=192,
                channel_mult=(1, 1, 2, 3, 4),
                blocks_per_level=1,
                attention_levels=(2, 3, 4),
                head_channels=64,
                norm_groups=32,  # of the group normalisation; small networks want a few channels in each
                map_channels=128,  # of each of the feature maps T1, T2, S0
                wavelet_domain=True,
                wavelet_of="images",  # or 'features': of convolutional stems at full resolution
                decoder_skips=True,
                signals="spin_echo",  # or 'inversion_recovery'; once for all sources, or one each, comma-separated
                positivity="relu",  # or 'softplus'
                spectral_norm=False,
                dtype="float32",
            ),
            diffusion=dict(schedule="cosine", steps=1000),
            loss=dict(
                draws=3,  # N
                loss_draws="all",  # or 'first': L_G and L_D on the first draw alone
                lambda_g=1.0,
                lambda_d=1.0,
                lambda_cct=0.01,
                joint_mean=False,  # L_G and L_D weighted as one mean over the channels of [x_0, y]
                draw_reduction="mean",
                cct_normalize=False,
                cct_stop_gradient=False,
                regression="l1",  # or 'l2': of the method 'regression', which has no other loss
            ),
            optimizer=dict(
                name="adam",
                learning_rate=2e-4,
                schedule="constant",  # of the learning rate; 'linear' falls to 0 at the last step, or at the time limit
                weight_decay=0.0,
                clip_norm=0.0,  # largest gradient norm; 0 does not clip
                ema_decay=0.9999,
                ema_warmup=True,  # the average forgets the random start even in a run of a few hundred steps
            ),
            train=dict(
                steps=350_000,
                max_minutes=0.0,  # limit on the whole run, its final evaluation included; 0 is none
                seed=0,
                log_every=100,
                evaluate_every=10_000,
                checkpoint_every=10_000,
                keep_checkpoints=3,
            ),
            sample=dict(sampler="ddim", steps=50, eta=1.0, spacing="fractional"),
            evaluate=dict(
                convention="default",  # of the scores; mrdiff_jax/conventions.py has those of other publications
                batch_size=16,
                slices=0,  # of each evaluation in training; 0 is all
                images=256,  # test slices whose images are kept for comparisons; 0 is all
                panels=6,
                seed=0,
                studies="",  # with --mode=eval: 'all', or some of STUDIES, comma-separated
                study_slices=64,  # test slices of each study; 0 is all
                sampling="1,50,8x50",  # what the study of this name tries: steps, and 8x50, the mean of 8 samples of 50 steps
                samples=8,  # of the study 'uncertainty'
            ),
        )
    )


def from_json(values: Mapping[str, Any]) -> ConfigDict:
    """The configuration that `to_json` wrote; fields that it lacks have their defaults.

    Fields of `train` and `evaluate` that are unknown, for another version wrote them, are left out: the model is the same.

    Raises:
      UserError: another field is unknown, or a field is of another type, or wrong.
    """
    config = default(None)
    for section, fields in values.items():
        if not isinstance(fields, Mapping):
            raise UserError(f"config.{section}: is {fields!r}, not a group of fields")
    values = {
        section: {name: value for name, value in fields.items() if name in config[section]}
        if section in ("train", "evaluate")
        else fields
        for section, fields in values.items()
    }
    for section, fields in values.items():
        for name in fields:
            if section not in config or name not in config[section]:
                raise UserError(f"config.{section}.{name}: a field that this version does not know")
    try:
        config.update(_with_tuples(values))
    except TypeError as error:
        raise UserError(f"config: {' '.join(str(error).split())}") from error
    validate(config)
    return config.lock()


def _with_tuples(value: Any) -> Any:
    """JSON has lists where a configuration has tuples."""
    if isinstance(value, Mapping):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    return tuple(value) if isinstance(value, list) else value


_CHOICES = {
    "data.name": ("phantom", "bids", "prepared"),
    "data.plane": ("axial", "coronal", "sagittal"),
    "model.wavelet_of": ("images", "features"),
    "model.positivity": ("relu", "softplus"),
    "model.dtype": ("float32", "bfloat16"),
    "diffusion.schedule": ("cosine", "linear"),
    "loss.loss_draws": ("all", "first"),
    "loss.draw_reduction": ("mean", "sum"),
    "loss.regression": ("l1", "l2"),
    "optimizer.name": ("adam", "adamw"),
    "optimizer.schedule": ("constant", "linear"),
    "sample.sampler": ("ddim", "ddpm"),
    "sample.spacing": ("fractional", "stride"),
    "evaluate.convention": tuple(CONVENTIONS),
}

_ANY, _SEED = math.inf, 2**32 - 1

_RANGES = {  # of every number: from, to
    "data.image_size": (16, _ANY),
    "data.batch_size": (1, _ANY),
    "data.intensity": (0, 1),
    "data.test_fraction": (0, 1),
    "data.validation_fraction": (0, 1),
    "data.split_seed": (0, _SEED),
    "data.subjects": (3, _ANY),
    "data.subject_slices": (1, _ANY),
    "data.seed": (0, _SEED),
    "model.base_channels": (8, _ANY),
    "model.blocks_per_level": (1, _ANY),
    "model.head_channels": (1, _ANY),
    "model.norm_groups": (1, _ANY),
    "model.map_channels": (1, _ANY),
    "diffusion.steps": (2, _ANY),
    "loss.draws": (1, _ANY),
    "loss.lambda_g": (0, _ANY),
    "loss.lambda_d": (0, _ANY),
    "loss.lambda_cct": (0, _ANY),
    "optimizer.learning_rate": (0, _ANY),
    "optimizer.weight_decay": (0, _ANY),
    "optimizer.clip_norm": (0, _ANY),
    "optimizer.ema_decay": (0, 1),
    "train.steps": (1, _ANY),
    "train.max_minutes": (0, _ANY),
    "train.seed": (0, _SEED),
    "train.log_every": (1, _ANY),
    "train.evaluate_every": (1, _ANY),
    "train.checkpoint_every": (1, _ANY),
    "train.keep_checkpoints": (1, _ANY),
    "sample.steps": (1, _ANY),
    "sample.eta": (0, 1),
    "evaluate.batch_size": (1, _ANY),
    "evaluate.slices": (0, _ANY),
    "evaluate.images": (0, _ANY),
    "evaluate.panels": (1, _ANY),
    "evaluate.seed": (0, _SEED),
    "evaluate.study_slices": (0, _ANY),
    "evaluate.samples": (2, _ANY),
}

_TUPLES = {  # of what numbers
    "data.percentiles": float,
    "model.channel_mult": int,
    "model.attention_levels": int,
}


def validate(config: ConfigDict) -> None:
    """Checks single fields; what depends on the data or the method is checked there.

    Raises:
      UserError: the first field that is wrong, with what it may be.
    """
    for field, choices in _CHOICES.items():
        value = _get(config, field)
        if value not in choices:
            raise UserError(f"--config.{field}={value}: choose one of {', '.join(choices)}")
    for field, (least, most) in _RANGES.items():
        value = _get(config, field)
        if not math.isfinite(value):
            raise UserError(f"--config.{field}={value}: must be a finite number")
        if not least <= value <= most:
            raise UserError(f"--config.{field}={value}: must be {f'at least {least}' if value < least else f'at most {most}'}")
    for field, kind in _TUPLES.items():
        value = _get(config, field)
        if any(isinstance(entry, bool) or not isinstance(entry, kind | int) for entry in value):
            raise UserError(f"--config.{field}={value}: give {'whole ' if kind is int else ''}numbers")
    if not config.model.channel_mult or min(config.model.channel_mult) < 1:
        raise UserError(f"--config.model.channel_mult={config.model.channel_mult}: give a number of at least 1 for each level")
    levels = range(len(config.model.channel_mult))
    if not set(config.model.attention_levels) <= set(levels):
        raise UserError(f"--config.model.attention_levels={config.model.attention_levels}: give levels of 0 to {levels[-1]}")
    percentiles = config.data.percentiles
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise UserError(f"--config.data.percentiles={percentiles}: give two rising numbers between 0 and 100")
    if config.sample.steps > config.diffusion.steps:
        raise UserError(f"--config.sample.steps={config.sample.steps}: the chain has {config.diffusion.steps} steps")
    for name in studies(config.evaluate.studies):
        if name not in STUDIES:
            raise UserError(f"--config.evaluate.studies: no study {name!r}; give 'all', or some of {','.join(STUDIES)}")
    for _, steps in samplings(config.evaluate.sampling):
        if "sampling" in config.evaluate.studies and steps > config.diffusion.steps:
            raise UserError(f"--config.evaluate.sampling: {steps} steps of a chain that has {config.diffusion.steps}")


def split_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated string."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def studies(text: str) -> tuple[str, ...]:
    """The names in `evaluate.studies`; 'all' is every one."""
    names = split_names(text)
    return tuple(STUDIES) if names == ("all",) else names


def samplings(text: str) -> list[tuple[int, int]]:
    """(samples, steps) of each entry of `evaluate.sampling`.

    Raises:
      UserError: an entry is neither a number nor two with an x between.
    """
    found = []
    for entry in filter(None, text.replace(" ", "").split(",")):
        samples, x, steps = entry.rpartition("x")
        numbers = (samples if x else "1", steps)
        if not all(number.isdecimal() and int(number) for number in numbers):
            raise UserError(f"--config.evaluate.sampling={text}: cannot read {entry!r}; write it as 1,50,8x50")
        found.append((int(numbers[0]), int(numbers[1])))
    return found


def _get(config: ConfigDict, field: str):
    for name in field.split("."):
        config = config[name]
    return config
