"""Slices of exams on disk: one TFDS data set of all, and beside it whose they are; splits are applied when it is read."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import example_files
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.slices import SliceExample
from mrdiff_jax.preparation.splits import SPLITS
from mrdiff_jax.scans.sequence_times import SequenceTimes

INFO_FILE = "prepared.json"


class ExamSlices(NamedTuple):
    """An exam to write: its name and subject, the times of its contrasts, its examples."""

    exam: str
    subject: str
    times: Sequence[SequenceTimes]
    examples: Iterable[SliceExample]


@dataclass(frozen=True)
class WrittenExam:
    """An exam in a set: its name, its subject, TR, TE and TI (ms) of each contrast, and how many slices it has."""

    exam: str
    subject: str
    times: tuple[SequenceTimes, ...]
    slices: int


@dataclass(frozen=True)
class SliceSet:
    """What a set holds.

    Attributes:
      options: how scans became slices.
      fingerprint: changes whenever the slices do.
      exams: in the order of their slices.
    """

    options: Options
    fingerprint: str
    exams: tuple[WrittenExam, ...]

    @property
    def subjects(self) -> list[str]:
        """Their names, sorted."""
        return sorted({exam.subject for exam in self.exams})

    def rows(self, splits: Mapping[str, str]) -> dict[str, list[range]]:
        """Where the slices of each exam of a split stand in the set, by the splits of subjects."""
        rows: dict[str, list[range]] = {split: [] for split in SPLITS}
        start = 0
        for exam in self.exams:
            rows[splits[exam.subject]].append(range(start, start + exam.slices))
            start += exam.slices
        return rows

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; `from_json` reads it."""
        return {
            "contrasts": self.options.contrasts,
            "image_size": self.options.image_size,
            "fingerprint": self.fingerprint,
            "options": asdict(self.options),
            "exams": [asdict(exam) | {"times": list(map(list, exam.times))} for exam in self.exams],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        exams = tuple(
            WrittenExam(exam["exam"], exam["subject"], tuple(SequenceTimes(*of) for of in exam["times"]), exam["slices"])
            for exam in values["exams"]
        )
        return cls(Options.from_json(values["options"]), values["fingerprint"], exams)


def read(folder: Path) -> SliceSet | None:
    """What the set in a folder holds; None where there is none.

    Raises:
      UserError: its description is damaged.
    """
    path = folder / INFO_FILE
    try:
        return SliceSet.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged, or of another version ({error}); remove {folder} and make it again") from error


def has_examples(folder: Path) -> bool:
    """Whether the slices of the set in a folder are there, written as this version reads them."""
    return (folder / example_files.EXAMPLES_FOLDER).is_dir()


def write(folder: Path, exams: Iterable[ExamSlices], options: Options, fingerprint: str, truths: Sequence[str] = ()) -> None:
    """Writes a set into a folder that is not there yet; `truths` as `example_files.features` has them."""
    written: list[WrittenExam] = []

    def examples() -> Iterator[dict[str, Any]]:
        for exam, subject, times, slices in exams:
            count = 0
            for count, example in enumerate(slices, 1):  # noqa: B007
                yield example.features()
            written.append(WrittenExam(exam, subject, tuple(SequenceTimes(*map(float, of)) for of in times), count))

    example_files.write(folder, examples(), options.contrasts, options.image_size, truths)
    described = SliceSet(options, fingerprint, tuple(written)).to_json()
    (folder / INFO_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
