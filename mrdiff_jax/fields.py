"""Fields of the configuration: a section is a frozen dataclass whose fields carry default, range and meaning."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from mrdiff_jax.errors import UserError

Section = TypeVar("Section")


def field(
    default: Any,
    doc: str,
    *,
    choices: Sequence[str] = (),
    least: float | None = None,
    most: float | None = None,
    ignored_by: Sequence[str] = (),
) -> Any:
    """A field of a section: its default, what it means and what it may be; with a default of None it says its type.

    `ignored_by` names the data sets, by `config.data.name`, for which it has no meaning.
    """
    rule = {"choices": tuple(choices), "least": least, "most": most}
    return dataclasses.field(default=default, metadata={"doc": doc, **rule, "ignored_by": tuple(ignored_by)})


def check(section: Any, flag: str) -> None:
    """Checks each field of a section by its declaration; `flag` is how its fields are named, as '--config.data.'.

    Raises:
      UserError: the first field that is wrong, with what it may be.
    """
    for entry in dataclasses.fields(section):
        value, rule = getattr(section, entry.name), entry.metadata
        if dataclasses.is_dataclass(value):
            check(value, f"{flag}{entry.name}.")
            continue
        if value is None:
            continue
        name = f"{flag}{entry.name}={value}"
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise UserError(f"{name}: must be a finite number")
        if isinstance(value, tuple):
            _check_numbers(numbers, whole=isinstance(entry.default, tuple) and isinstance(entry.default[0], int), name=name)
        if rule["choices"] and value not in rule["choices"]:
            raise UserError(f"{name}: choose one of {', '.join(rule['choices'])}")
        if rule["least"] is not None and min(numbers, default=rule["least"]) < rule["least"]:
            raise UserError(f"{name}: must be at least {rule['least']}")
        if rule["most"] is not None and max(numbers, default=rule["most"]) > rule["most"]:
            raise UserError(f"{name}: must be at most {rule['most']}")


def _check_numbers(numbers: tuple, whole: bool, name: str) -> None:
    kind = int if whole else int | float
    if any(isinstance(number, bool) or not isinstance(number, kind) for number in numbers):
        raise UserError(f"{name}: give {'whole ' if whole else ''}numbers")


def from_values(kind: type[Section], values: Mapping[str, Any]) -> Section:
    """The section of this kind with these values, nested sections included. Raises KeyError for a field that it lacks."""
    declared = {entry.name: entry for entry in dataclasses.fields(kind)}
    found = {}
    for name, value in values.items():
        if name not in declared:
            raise KeyError(name)
        default = getattr(kind(), name)
        found[name] = from_values(type(default), value) if dataclasses.is_dataclass(default) else _typed(value, declared[name])
    return kind(**found)


def _typed(value: Any, entry: dataclasses.Field) -> Any:
    """A value from a flag or from JSON as its field declares it: lists are tuples, whole numbers may stand for real ones."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and value_type(entry) is float:
        return float(value)
    return value


def value_type(entry: dataclasses.Field) -> type:
    """The type of a field's values: that of its default, or, where this is None, `float` of `float | None`."""
    if entry.default is not None:
        return type(entry.default)
    return next(member for member in typing.get_args(entry.type) if member is not types.NoneType)


def override(section: Section, changes: Any) -> Section:
    """The section with those fields of `changes`, another section, that are not None."""
    values = {entry.name: getattr(changes, entry.name) for entry in dataclasses.fields(changes)}
    return dataclasses.replace(section, **{name: value for name, value in values.items() if value is not None})


def optional(kind: type, name: str) -> type:
    """A section with the fields of another, all of them None: those that are set override the other's."""
    entries = [
        (entry.name, value_type(entry) | None, dataclasses.field(default=None, metadata=entry.metadata))
        for entry in dataclasses.fields(kind)
    ]
    doc = "Changes of the chosen method's recipe; a field without a value is as it is there."
    return dataclasses.make_dataclass(name, entries, frozen=True, namespace={"__doc__": doc})


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that is none of these: '; did you mean mrdiff?', or '' where none is near."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""


def split_names(text: str) -> tuple[str, ...]:
    """The names in a comma-separated string."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class Model:
    """Size of the ADM UNet, of the methods that are built of it; `Settings.model_fields` says which fields these read."""

    base_channels: int = field(192, "channels of the first level", least=8)
    channel_mult: tuple[int, ...] = field((1, 1, 2, 3, 4), "channels of each level, in base channels", least=1)
    blocks_per_level: int = field(1, "residual blocks", least=1)
    attention_levels: tuple[int, ...] = field((2, 3, 4), "levels with self-attention, from 0", least=0)
    head_channels: int = field(64, "channels of an attention head", least=1)
    norm_groups: int = field(32, "of the group normalisation; small networks want a few channels in each", least=1)
    wavelet_levels: int = field(1, "of the Haar transform on whose bands networks work; 0 is pixels", least=0)
    dtype: Literal["float32", "bfloat16"] = field("float32", "of the computation", choices=("float32", "bfloat16"))
    remat: bool = field(False, "computes features again for the gradient in place of keeping them: for accelerators' memory")


MODEL_FIELDS = tuple(entry.name for entry in dataclasses.fields(Model))


@dataclass(frozen=True)
class Optimizer:
    """How the weights of a method's players move."""

    name: Literal["adam", "adamw", "radam"] = field("adam", "the optimiser", choices=("adam", "adamw", "radam"))
    learning_rate: float = field(2e-4, "its rate", least=0)
    b1: float = field(0.9, "decay of its first moment", least=0, most=1)
    b2: float = field(0.999, "decay of its second moment", least=0, most=1)
    weight_decay: float = field(0.0, "of adamw", least=0)
    clip_norm: float = field(0.0, "largest norm of a gradient; 0 does not clip", least=0)
    accumulate: int = field(1, "parts of a batch taken in turn, for memory (slow on CPUs); gradients are averaged", least=1)
    hold: float = field(1.0, "share of the training at the full rate, which then falls linearly to 0", least=0, most=1)
    ema_decay: float = field(0.9999, "of the average of the weights that is evaluated; 0 takes the weights", least=0, most=1)
    ema_warmup: bool = field(True, "the average forgets the random start even in a run of a few hundred steps")


QUICK = {"hold": 0.0, "ema_decay": 0.99, "clip_norm": 1.0}  # of an optimiser, for minutes of training


@dataclass(frozen=True)
class Sampling:
    """How a method that samples walks from noise to an image."""

    sampler: Literal["ddim", "ddpm", "dpm"] = field("ddim", "the reverse process", choices=("ddim", "ddpm", "dpm"))
    steps: int = field(50, "reverse steps", least=1)
    eta: float = field(1.0, "share of fresh noise in ddim; ddpm and dpm do not read it", least=0, most=1)
    spacing: Literal["fractional", "stride"] = field("fractional", "which steps are kept", choices=("fractional", "stride"))


class Length(NamedTuple):
    """Of a training."""

    count: int
    unit: Literal["epochs", "steps of 8 slices"]
