"""The configuration: sections that all methods share, and one of each method's own.

Files in `configs/` start from `default(preset)`, set what their data needs and lock the result; `resolve` makes of it the
typed and checked `Config` that everything else is given.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ml_collections import ConfigDict, config_dict

from mrdiff_jax import data as data_sets
from mrdiff_jax import fields, methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import Model, Optimizer, Sampling, did_you_mean, field
from mrdiff_jax.log import logger
from mrdiff_jax.methods.mrdiff.settings import PRESETS
from mrdiff_jax.metrics.conventions import CONVENTIONS, METRICS

SEED = 2**32 - 1
_WRITTEN, _NOT_SCANS, _NOT_SIMULATED = ("prepared",), ("phantom", "prepared"), ("bids", "prepared")
STUDIES = {  # with their titles
    "sampling": "Sampling",
    "denoising": "One estimate by noise level",
    "robustness": "Robustness",
    "uncertainty": "Calibration of the uncertainty",
    "maps": "Content maps against the truth",
    "physics": "Sources at other times, explained",
    "hallucination": "False structures",
    "lesions": "Error inside lesions",
    "segmentation": "What a segmenter finds",
}


@dataclass(frozen=True)
class MethodName:
    """Which method; the section of its name holds its settings."""

    name: str = field("mrdiff", "the method")


@dataclass(frozen=True)
class Data:
    """What is trained on. Of a set that `mrdiff prepare` wrote (name 'prepared'), `image_size` must be that of its slices,
    and its splits.csv counts unless `splits_file` names another."""

    name: str = field("bids", "kind of data set, one of " + ", ".join(data_sets.NAMES))
    root: str = field("", "folder of the scans, or of the prepared set", ignored_by=("phantom",))
    cache: str = field("", "where data sets are kept; '' is $MRDIFF_CACHE or ~/.cache/mrdiff_jax", ignored_by=_WRITTEN)
    sources: str = field("T1w,T2w", "contrasts to synthesise from")
    target: str = field("FLAIR", "the contrast to synthesise")
    contrasts: str = field("", "to prepare; '' is all of the phantom's, or sources and target", ignored_by=_WRITTEN)
    image_size: int = field(256, "side of a slice, pixels", least=16)
    batch_size: int = field(8, "slices of a training step, over all devices", least=1)
    mirror: bool = field(False, "left and right of the training slices, by chance; not of sagittal ones")
    intensity: float = field(0.0, "how far gamma and black level of the training sources vary by chance", least=0, most=1)
    splits_file: str = field("", "CSV 'subject,split' that decides all splits")
    percentiles: tuple[float, ...] = field(
        (0.5, 99.5), "of each volume, mapped to 0 and 1", least=0, most=100, ignored_by=_WRITTEN
    )
    tr: str = field("", "ms, as 'T1w=500,T2w=4000', for scans without a sidecar", ignored_by=_NOT_SCANS)
    te: str = field("", "likewise", ignored_by=_NOT_SCANS)
    ti: str = field("", "likewise", ignored_by=_NOT_SCANS)
    lesions: str = field(
        "", "lesion masks beside the scans, as 'label-lesion_mask' for sub-*_label-lesion_mask.nii.gz", ignored_by=_NOT_SCANS
    )
    plane: str = field("axial", "of the slices", choices=("axial", "coronal", "sagittal"), ignored_by=_WRITTEN)
    slices: str = field("", "as 'first:last'; '' is all that show enough of the body", ignored_by=_WRITTEN)
    test_subjects: str = field("", "held out, as 'sub-A*,sub-B01'; '' draws test_fraction of them", ignored_by=_WRITTEN)
    test_fraction: float = field(0.2, "share of held-out subjects", least=0, most=1, ignored_by=_WRITTEN)
    validation_fraction: float = field(0.1, "share of subjects for validation", least=0, most=1, ignored_by=_WRITTEN)
    split_seed: int = field(0, "of the random splits", least=0, most=SEED, ignored_by=_WRITTEN)
    subjects: int = field(32, "of the phantom", least=3, ignored_by=_NOT_SIMULATED)
    subject_slices: int = field(24, "of a phantom's subject", least=1, ignored_by=_NOT_SIMULATED)
    seed: int = field(0, "of the phantom", least=0, most=SEED, ignored_by=_NOT_SIMULATED)


@dataclass(frozen=True)
class Train:
    """The training loop."""

    steps: int = field(350_000, "optimiser steps", least=1)
    max_minutes: float = field(0.0, "limit on the whole run, its final evaluation included; 0 is none", least=0)
    seed: int = field(0, "of weights, order and noise", least=0, most=SEED)
    init: str = field("", "workdir of a run of the same method and sizes whose weights are the start; '' is a fresh start")
    log_every: int = field(100, "steps between lines of the log", least=1)
    evaluate_every: int = field(10_000, "steps between validations", least=1)
    checkpoint_every: int = field(10_000, "steps between checkpoints", least=1)
    keep_checkpoints: int = field(3, "the newest ones; the best stays, too", least=1)
    best_by: str = field(
        "", "score of validations by which the best checkpoint is kept, and evaluated; '' is the last", choices=("", *METRICS)
    )


@dataclass(frozen=True)
class Evaluate:
    """Scores, pictures and studies."""

    split: Literal["test", "validation"] = field(
        "test", "whose subjects are scored; 'validation' to choose settings by", choices=("test", "validation")
    )
    convention: str = field("default", "of the scores; see metrics/conventions.py", choices=tuple(CONVENTIONS))
    batch_size: int = field(16, "slices at a time", least=1)
    slices: int = field(0, "of each validation in training; 0 is all", least=0)
    images: int = field(256, "scored slices whose images are kept for comparisons; 0 is all", least=0)
    panels: int = field(6, "slices in a picture", least=1)
    seed: int = field(0, "of the noise", least=0, most=SEED)
    studies: str = field("", "with --mode=eval: 'all', or some of " + ",".join(STUDIES))
    study_slices: int = field(64, "slices of each study; 0 is all", least=0)
    sampling: str = field("1,50,8x50", "what that study tries: steps, and 8x50, the mean of 8 samples of 50 steps")
    samples: int = field(8, "of the study 'uncertainty'", least=2)
    segmenter: str = field("", "of the study 'segmentation': a command with {input}, a NIfTI file, and {output}, its labels")


SMALL_MODEL = {
    "base_channels": 16,
    "channel_mult": (1, 2, 4),
    "attention_levels": (2,),
    "head_channels": 32,
    "norm_groups": 4,  # a few channels each: brightness gets lost in groups of one
}
SHARED = {
    "method": MethodName,
    "data": Data,
    "model": Model,
    "optimizer": fields.optional(Optimizer, "OptimizerChanges"),
    "sample": fields.optional(Sampling, "SamplingChanges"),
    "train": Train,
    "evaluate": Evaluate,
}


@dataclass(frozen=True)
class Config:
    """The settings of a run; fields that have no meaning for its method or its data are at their defaults.

    Attributes:
      own: the chosen method's section.
      model: None of a method that is not built of it.
      optimizer: the method's recipe, with what `config.optimizer` changes of it.
      sample: likewise, or None of a method that does not sample.
    """

    method: MethodName
    data: Data
    model: Model | None
    optimizer: Optimizer
    sample: Sampling | None
    train: Train
    evaluate: Evaluate
    own: Any

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """What has a meaning, by section, as JSON has it; `from_json` makes the same settings of it again."""
        shared = {name: dataclasses.asdict(getattr(self, name)) for name in SHARED if getattr(self, name) is not None}
        own = dataclasses.asdict(self.own)
        recipes = {"optimizer", "sample"}  # resolved: what they have become is in the shared sections
        own = {name: value for name, value in own.items() if name not in recipes}
        values = _with_meaning(shared, self.method.name, self.data.name) | {self.method.name: own}
        return json.loads(json.dumps(values))


def default(preset: str | None = None) -> ConfigDict:
    """MRDiff at 256 x 256 as the paper has it, or, for 'authors', as the authors' published code has it.

    Raises:
      UserError: an unknown preset.
    """
    if preset not in (None, "", *PRESETS):
        raise UserError(f"unknown preset ':{preset}'; choose one of {', '.join(':' + name for name in PRESETS)}")
    sections = SHARED | {name: methods.settings(name) for name in methods.NAMES}
    config = ConfigDict({name: _as_dict(section()) for name, section in sections.items()})
    config.mrdiff.update(PRESETS[preset or "paper"])
    return config


def small(preset: str | None = None) -> ConfigDict:
    """The same, with networks and rates of every method for minutes of training rather than for its paper's results."""
    config = default(preset)
    config.model.update(SMALL_MODEL)
    for name in methods.NAMES:
        config[name].update(getattr(methods.settings(name), "small", {}))
    return config


def _as_dict(section: Any) -> dict[str, Any]:
    """A section's defaults, with a typed placeholder where there is none."""
    values = {}
    for entry in dataclasses.fields(section):
        value = getattr(section, entry.name)
        if dataclasses.is_dataclass(value):
            value = _as_dict(value)
        values[entry.name] = config_dict.placeholder(fields.value_type(entry)) if value is None else value
    return values


def resolve(config: ConfigDict) -> Config:
    """The typed settings: those of the shared sections and of the chosen method's own, checked.

    Raises:
      UserError: a field that is wrong, with what it may be.
    """
    values = {section: _plain(entries) for section, entries in config.items()}
    name, kind_of_data = methods.require(values["method"]["name"]), data_sets.require(values["data"]["name"])
    own = fields.from_values(methods.settings(name), values[name])
    for section, kind in SHARED.items():
        fields.check(fields.from_values(kind, values[section]), f"--config.{section}.")
    fields.check(own, f"--config.{name}.")
    counted = _with_meaning({section: values[section] for section in SHARED}, name, kind_of_data)
    shared = {section: fields.from_values(kind, counted[section]) for section, kind in SHARED.items()}
    recipes = {
        "model": shared["model"] if counted["model"] else None,
        "optimizer": fields.override(own.optimizer, shared["optimizer"]),
        "sample": fields.override(own.sample, shared["sample"]) if hasattr(own, "sample") else None,
    }
    resolved = Config(**shared | recipes, own=own)
    _check_together(resolved)
    return resolved


def ignored_for(path: str, method: str, data: str) -> str:
    """The flag for which a field, as 'hinet.base_channels', has no meaning: that of the method or of the data; '' if it has."""
    section, name, *_ = path.split(".")
    own = methods.settings(method)
    of_others = section in methods.NAMES and section != method
    not_built = section == "model" and name not in getattr(own, "model_fields", ())
    not_drawn = section == "sample" and not hasattr(own, "sample")
    if of_others or not_built or not_drawn:
        return f"--config.method.name={method}"
    if section == "data" and data in Data.__dataclass_fields__[name].metadata["ignored_by"]:
        return f"--config.data.name={data}"
    return ""


def warn_of_ignored(config: Config, paths: Iterable[str]) -> None:
    """Warns of fields, as 'hinet.base_channels', that flags set and nothing reads: of another method, or not for this data.

    A file may set those of all methods; whoever sets one by a flag may have meant another.
    """
    for path in paths:
        if flag := ignored_for(path, config.method.name, config.data.name):
            logger.warning("--config.%s: has no meaning for %s, and is left out", path, flag)


def _with_meaning(values: Mapping[str, Mapping[str, Any]], method: str, data: str) -> dict[str, dict[str, Any]]:
    """Of the sections, the fields that the method and the data read."""
    return {
        section: {name: value for name, value in entries.items() if not ignored_for(f"{section}.{name}", method, data)}
        for section, entries in values.items()
    }


def _plain(value: Any) -> Any:
    return {name: _plain(entry) for name, entry in value.items()} if isinstance(value, ConfigDict) else value


def from_json(values: Mapping[str, Any]) -> Config:
    """The settings that `Config.to_dict` gave. Raises UserError as `fields_from_json` and `resolve` do."""
    return resolve(fields_from_json(values))


def fields_from_json(values: Mapping[str, Any]) -> ConfigDict:
    """What `Config.to_dict` gave as fields that may still be changed; those that are missing have their defaults.

    The recipe is the method's own again, so that fields change it as in any configuration. Fields of `train` and `evaluate`
    that are unknown, for another version wrote them, are left out: the model is the same.

    Raises:
      UserError: another field is unknown, or a field is of another type.
    """
    config, method = default(), values.get("method")
    own = config.get(str(method["name"]), {}) if isinstance(method, Mapping) and "name" in method else {}
    for section, entries in values.items():
        if not isinstance(entries, Mapping):
            raise UserError(f"config.{section}: is {entries!r}, not a group of fields")
        group = config.get(section)
        if section in ("optimizer", "sample"):
            group = own.get(section, group)
        if group is None:
            raise UserError(f"config.{section}: a section that this version does not know{did_you_mean(section, config)}")
        for name, value in entries.items():
            if name not in group:
                if section in ("train", "evaluate"):
                    continue
                meant = did_you_mean(name, group)
                raise UserError(f"config.{section}.{name}: a field that this version does not know{meant}")
            try:
                group[name] = tuple(value) if isinstance(value, list) else value
            except TypeError as error:
                raise UserError(f"config.{section}.{name}: {' '.join(str(error).split())}") from error
    return config


def _check_together(config: Config) -> None:
    """Checks of fields that hang together; what depends on the data or the method is checked there."""
    data, evaluate = config.data, config.evaluate
    if config.model is not None:
        _check_levels(config.model, "attention_levels" in config.own.model_fields)
    if len(data.percentiles) != 2 or not data.percentiles[0] < data.percentiles[1]:
        raise UserError(f"--config.data.percentiles={data.percentiles}: give two rising numbers between 0 and 100")
    for name in studies(evaluate.studies):
        if name not in STUDIES:
            choices = f"give 'all', or some of {','.join(STUDIES)}{did_you_mean(name, ('all', *STUDIES))}"
            raise UserError(f"--config.evaluate.studies={evaluate.studies}: no study {name!r}; {choices}")
    samplings(evaluate.sampling)


def _check_levels(model: Model, attention: bool) -> None:
    if not model.channel_mult:
        raise UserError("--config.model.channel_mult=(): give a number of at least 1 for each level")
    levels = range(len(model.channel_mult))
    if attention and not set(model.attention_levels) <= set(levels):
        raise UserError(f"--config.model.attention_levels={model.attention_levels}: give levels of 0 to {levels[-1]}")


def studies(text: str) -> tuple[str, ...]:
    """The names in `evaluate.studies`; 'all' is every one."""
    names = fields.split_names(text)
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
