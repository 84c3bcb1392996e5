"""What an evaluation leaves in the folder of its run, written and read again; docs/evaluation.md describes each file."""

import csv
import dataclasses
import json
import shlex
import types
import typing
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.metrics.conventions import BANDS, ERRORS, METRICS, Description
from mrdiff_jax.preparation.intensity import dequantise, quantise
from mrdiff_jax.storage import json_files
from mrdiff_jax.storage.files import replacing

SYNTHESIS, REFERENCES = "synthesis", ("copy", "linear")
SUMMARY, SCORES, REFERENCE_SCORES = "metrics.json", "metrics.csv", "references.csv"
SPECTRA, IMAGES, STUDIES = "spectra.csv", "images.npz", "studies.csv"
_FIELDS = ("target", "synthesis", "sources")
_CONVENTION = "convention"

Row = dict[str, Any]


@dataclass(frozen=True)
class Means:
    """Mean scores by column: of the synthesis, and of each of REFERENCES; NaN for a mean that is not finite."""

    synthesis: dict[str, float]
    references: dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What metrics.json says of an evaluation.

    Attributes:
      synthesis, references: mean metrics of the whole slice, as in `Means`.
      body: those inside the body, if the convention has it.
      errors: mean NMSE and MAE, of the whole slice and inside the body.
      bands: mean errors by wavelet band.
      convention: by which slices were scored.
      split: whose subjects were scored.
      subjects, slices: how many.
      left_out: by name (SYNTHESIS, and each of REFERENCES) and column, how many slices have an infinite score.
      step: of the weights.
      trained: steps that the training took, of which `step` may be the best; None in results of before there was a choice.
      method: of the training.
      sources, target: contrasts.
      copied: the source that 'copy' copies.
      linear_weights: of 'linear': one for each source, then the intercept.
      sample: how a method that samples did, as `config.sample`.
      segmenter: the command of the study 'segmentation', where there is one.
      seed: of the synthesis.
      dataset: fingerprint of scans, splits and preparation.
    """

    synthesis: dict[str, float]
    references: dict[str, dict[str, float]]
    body: Means | None = None
    errors: Means
    bands: Means
    convention: Description
    split: str
    subjects: int
    slices: int
    left_out: dict[str, dict[str, int]]
    step: int
    trained: int | None = None
    method: str
    sources: tuple[str, ...]
    target: str
    copied: str
    linear_weights: tuple[float, ...]
    sample: dict[str, Any] | None = None
    segmenter: str | None = None
    seed: int
    dataset: str


@dataclass(frozen=True)
class Images:
    """Test slices to look at; intensities in [0, 1].

    Attributes:
      subject, slice: (N,), which slice it is.
      target, synthesis: (N, H, W).
      sources: (N, H, W, K).
    """

    subject: np.ndarray
    slice: np.ndarray
    target: np.ndarray
    synthesis: np.ndarray
    sources: np.ndarray

    @cached_property
    def places(self) -> dict[tuple[str, int], int]:
        """Where (subject, slice) stands."""
        return {
            (str(subject), int(number)): i for i, (subject, number) in enumerate(zip(self.subject, self.slice, strict=True))
        }


@dataclass(frozen=True)
class Results:
    """The results of one evaluation.

    Attributes:
      summary: means, and how they came about.
      rows: by name (SYNTHESIS, and each of REFERENCES), a row a slice: subject, slice and the scores.
      spectra: 'frequency' (cycles per pixel), and the mean power of 'target' and of each name in rows, (rings,).
      images: of all slices, or of some evenly spread.
      studies: a row for each study, setting, measure, method and slice; often none.
    """

    summary: Summary
    rows: Mapping[str, list[Row]]
    spectra: Mapping[str, np.ndarray]
    images: Images
    studies: Sequence[Row] = ()


def write(results: Results, workdir: Path) -> None:
    """Writes metrics.json, metrics.csv, references.csv, spectra.csv, images.npz and the studies; earlier ones are removed.

    All take their names together at the end, metrics.json last: an evaluation that fails leaves the one before.
    """
    convention = results.summary.convention.name
    references = [{"reference": name} | row for name in REFERENCES for row in results.rows[name]]
    frequencies = zip(*results.spectra.values(), strict=True)
    images = results.images
    pixels = {name: quantise(getattr(images, name)) for name in _FIELDS}
    entries = dataclasses.asdict(results.summary)
    with ExitStack() as files:

        def aside(name: str) -> Path:
            return files.enter_context(replacing(workdir / name))

        summary = json_files.text({name: entry for name, entry in entries.items() if entry is not None}, indent=2)
        aside(SUMMARY).write_text(summary + "\n", encoding="utf-8")
        _write_rows(aside(SCORES), results.rows[SYNTHESIS], convention)
        _write_rows(aside(REFERENCE_SCORES), references, convention)
        _write_csv(aside(SPECTRA), [dict(zip(results.spectra, values, strict=True)) for values in frequencies])
        with aside(IMAGES).open("wb") as file:
            np.savez_compressed(file, subject=images.subject, slice=images.slice, **pixels)
        (workdir / STUDIES).unlink(missing_ok=True)
    write_studies(results.studies, convention, workdir)


def write_studies(rows: Sequence[Row], convention: str, workdir: Path) -> None:
    """Writes studies.csv, if there are rows."""
    if rows:
        with replacing(workdir / STUDIES) as aside:
            _write_rows(aside, rows, convention)


def read(workdir: Path) -> Results:
    """The results in the folder of a run.

    Raises:
      UserError: there are none, or not all, or a file cannot be read.
    """
    missing = [name for name in (SUMMARY, SCORES, REFERENCE_SCORES, SPECTRA, IMAGES) if not (workdir / name).is_file()]
    if missing:
        if not workdir.is_dir():
            raise UserError(f"{workdir}: no such folder; name the workdir of a run")
        if not (workdir / "config.json").is_file():
            raise UserError(f"{workdir}: not the workdir of a run; name one")
        fix = f"mrdiff train --workdir={shlex.quote(str(workdir))} --mode=eval"
        raise UserError(f"{workdir}: no {missing[0]}; evaluate the run with {fix}")
    try:
        summary = _read_summary(workdir / SUMMARY)
        rows = {SYNTHESIS: _read_rows(workdir / SCORES), **{name: [] for name in REFERENCES}}
        for row in _read_rows(workdir / REFERENCE_SCORES):
            rows[row.pop("reference")].append(row)
        for name, scored in rows.items():
            if len(scored) != summary.slices:
                raise ValueError(f"{summary.slices} slices in {SUMMARY}, {len(scored)} rows of '{name}'")
        table = _read_csv(workdir / SPECTRA)
        spectra = {name: np.array([float(row[name]) for row in table]) for name in table[0]}
        with (workdir / IMAGES).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            pixels = {name: dequantise(stored[name]) for name in _FIELDS}
            images = Images(stored["subject"], stored["slice"], **pixels)
        studies = _read_rows(workdir / STUDIES) if (workdir / STUDIES).exists() else []
    except (ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, csv.Error) as error:
        raise UserError(f"{workdir}: its results cannot be read ({error}); evaluate the run again with --mode=eval") from error
    return Results(summary, rows, spectra, images, studies)


def _read_summary(path: Path) -> Summary:
    """The summary in a file. Raises ValueError, naming the file and the entry that is missing, unknown or of another kind."""
    summary = _typed(Summary, json.loads(path.read_text(encoding="utf-8")), path.name)
    inside = [f"{metric}_body" for metric in METRICS]
    errors = [f"{name}{where}" for where in ("", "_body")[: 2 if summary.body else 1] for name in ERRORS]
    for name, means, columns in (
        (path.name, summary, METRICS),
        (f"{path.name}: body", summary.body, inside),
        (f"{path.name}: errors", summary.errors, errors),
        (f"{path.name}: bands", summary.bands, BANDS),
    ):
        if means is not None:
            _check_entries(f"{name}: references", means.references, REFERENCES)
            for scores in (means.synthesis, *means.references.values()):
                _check_entries(f"{name}: scores", scores, columns)
    return summary


def _typed(kind: Any, value: Any, name: str) -> Any:
    """A value from JSON as a field of this type holds it; null is a number that is not finite."""
    inner = typing.get_args(kind)
    if isinstance(kind, types.UnionType):  # an entry that may be missing
        return _typed(inner[0], value, name)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        declared = {field.name: field for field in dataclasses.fields(kind)}
        optional = {field.name for field in declared.values() if field.default is not dataclasses.MISSING}
        _check_entries(name, value, declared, optional)
        return kind(**{key: _typed(declared[key].type, entry, f"{name}: {key}") for key, entry in value.items()})
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return {key: _typed(inner[1], entry, f"{name}: {key}") for key, entry in value.items()}
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], entry, name) for entry in value)
    if kind is float and (value is None or type(value) in (int, float)):
        return float("nan") if value is None else float(value)
    if kind is Any or (kind in (int, str) and type(value) is kind):
        return value
    raise ValueError(f"{name} is {json.dumps(value)}")


def _check_entries(name: str, found: Mapping[str, Any], wanted: Iterable[str], optional: Collection[str] = ()) -> None:
    """Raises ValueError for an entry that is missing, unless it is optional, or that is not wanted."""
    for entry in wanted:
        if entry not in found and entry not in optional:
            raise ValueError(f"{name}: no entry '{entry}'")
    if unknown := sorted(found.keys() - set(wanted)):
        raise ValueError(f"{name}: unknown entry '{unknown[0]}'")


def _write_rows(path: Path, rows: Sequence[Row], convention: str) -> None:
    """Rows that carry their convention, for a table leaves its folder easily."""
    _write_csv(path, [row | {_CONVENTION: convention} for row in rows])


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_rows(path: Path) -> list[Row]:
    readers = {"slice": int} | dict.fromkeys(("subject", "reference", "study", "setting", "measure", "method"), str)
    rows = _read_csv(path)
    return [{name: readers.get(name, float)(value) for name, value in row.items() if name != _CONVENTION} for row in rows]
