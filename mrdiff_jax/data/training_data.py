"""What synthesis must know of the slices that a model was trained on, which need not be at hand then."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.scans.sequence_times import SequenceTimes

if TYPE_CHECKING:  # who reads the description of a model needs no data set
    from mrdiff_jax.data.datasets import Dataset


@dataclass(frozen=True)
class TrainingData:
    """A description of training slices.

    Attributes:
      sources: the median times of each source, ms, 0 where unknown; in the order of the model.
      target: name of the contrast that is synthesised.
      offset: from [0, 1] to scanner units: offset + factor x value; the median over the target's scans.
      factor: see offset.
      pixel_mm: sides of the smallest and of the largest pixel.
      preparation: how the scans became slices.
    """

    sources: Mapping[str, SequenceTimes]
    target: str
    offset: float
    factor: float
    pixel_mm: tuple[float, float]
    preparation: Options

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; `from_json` reads it."""
        return {
            "sources": {name: times._asdict() for name, times in self.sources.items()},
            "target": {"name": self.target, "offset": self.offset, "factor": self.factor},
            "pixel_mm": list(self.pixel_mm),
            "preparation": asdict(self.preparation),
        }

    @classmethod
    def from_json(cls, values: Any) -> TrainingData:
        """From what `to_json` gave.

        Raises:
          ValueError: a part is missing or damaged; the message says which, in a few words.
        """
        try:
            smallest, largest = values["pixel_mm"]
            target = values["target"]
            sources = {
                str(name): SequenceTimes(*(float(times[time]) for time in SequenceTimes._fields))
                for name, times in values["sources"].items()
            }
            offset, factor = float(target["offset"]), float(target["factor"])
            preparation = Options.from_json(values["preparation"])
            return cls(sources, str(target["name"]), offset, factor, (float(smallest), float(largest)), preparation)
        except KeyError as error:
            raise ValueError(f"no {error}") from error
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


def describe_training(dataset: Dataset, inverted: Collection[str] = ()) -> TrainingData:
    """Medians over the training exams of a data set, and the range of their pixel sizes.

    Raises:
      UserError: a source among `inverted` has no inversion time; the message names the exam.
    """
    exams = dataset.first_of_each_exam("train")
    columns = {name: [] for name in ("tr", "te", "ti", "scale", "spacing")}
    for i in range(len(exams)):
        example = exams[i]
        for source, time in zip(dataset.sources, example["ti"], strict=True):
            if source in inverted and time <= 0:
                raise UserError(
                    f"{example['subject']}: its {source} has no inversion time, which the signal equation inversion_recovery"
                    f" needs; put InversionTime into its sidecar or give --config.data.ti={source}=MILLISECONDS"
                )
        for name, values in columns.items():
            values.append(example[name])
    median = {name: np.median(values, axis=0).tolist() for name, values in columns.items()}
    known = [times[times > 0].tolist() for times in np.array(columns["ti"]).T]
    median["ti"] = [statistics.median(times) if times else 0.0 for times in known]
    offset, factor = median["scale"]
    times = zip(median["tr"], median["te"], median["ti"], strict=True)
    return TrainingData(
        sources={name: SequenceTimes(*of) for name, of in zip(dataset.sources, times, strict=True)},
        target=dataset.target,
        offset=offset,
        factor=factor,
        pixel_mm=(float(min(columns["spacing"])), float(max(columns["spacing"]))),
        preparation=dataset.preparation,
    )
