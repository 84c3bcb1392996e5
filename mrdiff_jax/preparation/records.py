"""What became of an exam and of each of its scans, in memory and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mrdiff_jax.scans.sequence_times import SequenceTimes

IDENTITY = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
REFERENCE = "reference"


@dataclass(frozen=True)
class Placement:
    """How a scan came to lie on the reference, and how well it does.

    Attributes:
      action: 'reference' for the scan that the others are laid on, else 'left alone' or 'registered'.
      transform: (16,) world mm of the reference to world mm of the scan, by rows.
      shift_before_mm: how far the edges of the two were apart.
      shift_mm: how far they are now.
      shift: (3,) the same along the axes of the grid, signed.
      overlap: of their edges, 0 by chance and 1 for the same scan.
      mirror_gain: above 0 where the scan's mirror image fits better.
    """

    action: str
    transform: tuple[float, ...] = IDENTITY
    shift_before_mm: float = 0.0
    shift_mm: float = 0.0
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    overlap: float = 1.0
    mirror_gain: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields; of the reference the action alone, for nothing was measured."""
        return {"action": self.action} if self.action == REFERENCE else _listed(vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From a mapping that holds what `to_json` gave, and more maybe."""
        return cls(**{name: _frozen(values[name]) for name in cls.__dataclass_fields__ if name in values})


@dataclass(frozen=True)
class ScanRecord:
    """A scan of an exam; all but the first two fields are of exams that were prepared.

    sha256: of the voxels; padding: which was taken for air; blank_slices: left out for this scan being blank in them.
    """

    contrast: str
    path: str
    sha256: str = ""
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    placement: Placement | None = None
    bias_correction: str = ""
    padding: str = ""
    blank_slices: int = 0

    def to_json(self) -> dict[str, Any]:
        """The fields, those of the placement among them."""
        flat = {}
        for name, value in vars(self).items():
            flat |= self.placement.to_json() if name == "placement" and self.placement else {name: value}
        return _listed(flat)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_json` gave."""
        own = {name: _frozen(values[name]) for name in cls.__dataclass_fields__ if name in values}
        return cls(**own | {"placement": Placement.from_json(values)})


@dataclass(frozen=True)
class ExamRecord:
    """An exam: which it is, what it was made from, and either what came of it or the `reason` why nothing did.

    Attributes:
      exam: its name.
      subject: whose it is.
      session: of the subject; '' where there is one alone.
      key: changes whenever scans or options do.
      contents: checksums of the scans' files.
      state: sizes and times of change of these files.
      times_key: changes whenever what is stated of times does.
      scans: in the order of the contrasts.
      times: TR, TE and TI of each, ms, 0 where unknown.
      scale: (offset, factor) of each, from [0, 1] to scanner units.
      slices: numbers of those that are kept.
      pixel: side of their pixels, mm.
      slice_spacing: from one to the next, mm.
      spacing: (3,) of the reference, mm.
      reason: one line, for exams that failed.
    """

    exam: str
    subject: str
    session: str
    key: str = ""
    contents: tuple[str, ...] = ()
    state: tuple[Any, ...] = ()
    times_key: str = ""
    scans: tuple[ScanRecord, ...] = ()
    times: tuple[SequenceTimes, ...] = ()
    scale: tuple[tuple[float, float], ...] = ()
    slices: tuple[int, ...] = ()
    pixel: float = 0.0
    slice_spacing: float = 0.0
    spacing: tuple[float, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields of an exam that was prepared."""
        fields = {name: value for name, value in vars(self).items() if name != "reason"}
        return _listed(fields | {"scans": [scan.to_json() for scan in self.scans]})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_json` gave. Raises KeyError, TypeError or AttributeError for anything else."""
        fields = {name: _frozen(values[name]) for name in cls.__dataclass_fields__ if name != "reason"}
        scans = tuple(ScanRecord.from_json(scan) for scan in values["scans"])
        return cls(**fields | {"scans": scans, "times": tuple(SequenceTimes(*times) for times in values["times"])})


def prepared(records: Sequence[ExamRecord]) -> list[ExamRecord]:
    """Those of exams that did not fail."""
    return [record for record in records if not record.reason]


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list | tuple) else value
