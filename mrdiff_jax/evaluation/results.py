"""What an evaluation leaves in the folder of its run, written and read again; docs/evaluation.md describes each file."""

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mrdiff_jax.errors import UserError
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
      summary: content of metrics.json.
      rows: by name (SYNTHESIS, and each of REFERENCES), a row a slice: subject, slice and the scores.
      spectra: 'frequency' (cycles per pixel), and the mean power of 'target' and of each name in rows, (rings,).
      images: of all slices, or of some evenly spread.
      studies: a row for each study, setting, measure, method and slice; often none.
    """

    summary: dict[str, Any]
    rows: Mapping[str, list[Row]]
    spectra: Mapping[str, np.ndarray]
    images: Images
    studies: Sequence[Row] = ()


def write(results: Results, workdir: Path) -> None:
    """Writes metrics.json, metrics.csv, references.csv, spectra.csv, images.npz and the studies; earlier ones are removed."""
    (workdir / STUDIES).unlink(missing_ok=True)
    convention = results.summary["convention"]["name"]
    _write_rows(workdir / SCORES, results.rows[SYNTHESIS], convention)
    references = [{"reference": name} | row for name in REFERENCES for row in results.rows[name]]
    _write_rows(workdir / REFERENCE_SCORES, references, convention)
    frequencies = zip(*results.spectra.values(), strict=True)
    _write_csv(workdir / SPECTRA, [dict(zip(results.spectra, values, strict=True)) for values in frequencies])
    images = results.images
    pixels = {name: quantise(getattr(images, name)) for name in _FIELDS}
    with replacing(workdir / IMAGES) as aside, aside.open("wb") as file:
        np.savez_compressed(file, subject=images.subject, slice=images.slice, **pixels)
    json_files.write(workdir / SUMMARY, results.summary)
    write_studies(results.studies, convention, workdir)


def write_studies(rows: Sequence[Row], convention: str, workdir: Path) -> None:
    """Writes studies.csv, if there are rows."""
    if rows:
        _write_rows(workdir / STUDIES, rows, convention)


def read(workdir: Path) -> Results:
    """The results in the folder of a run.

    Raises:
      UserError: there are none, or not all, or a file cannot be read.
    """
    missing = [name for name in (SUMMARY, SCORES, REFERENCE_SCORES, SPECTRA, IMAGES) if not (workdir / name).is_file()]
    if missing:
        raise UserError(f"{workdir}: no {missing[0]}; evaluate the run with python -m mrdiff_jax.main --mode=eval")
    try:
        summary = _with_nan(json.loads((workdir / SUMMARY).read_text()))
        rows = {SYNTHESIS: _read_rows(workdir / SCORES), **{name: [] for name in REFERENCES}}
        for row in _read_rows(workdir / REFERENCE_SCORES):
            rows[row.pop("reference")].append(row)
        for name, scored in rows.items():
            if len(scored) != summary["slices"]:
                raise ValueError(f"{summary['slices']} slices in {SUMMARY}, {len(scored)} rows of '{name}'")
        table = _read_csv(workdir / SPECTRA)
        spectra = {name: np.array([float(row[name]) for row in table]) for name in table[0]}
        with (workdir / IMAGES).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            pixels = {name: dequantise(stored[name]) for name in _FIELDS}
            images = Images(stored["subject"], stored["slice"], **pixels)
        studies = _read_rows(workdir / STUDIES) if (workdir / STUDIES).exists() else []
    except (ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, csv.Error) as error:
        raise UserError(f"{workdir}: its results cannot be read ({error}); evaluate the run again with --mode=eval") from error
    return Results(summary, rows, spectra, images, studies)


def _with_nan(value: Any) -> Any:
    """NaN for null, which stands for means that are not finite."""
    if isinstance(value, dict):
        return {name: _with_nan(entry) for name, entry in value.items()}
    return float("nan") if value is None else value


def _write_rows(path: Path, rows: Sequence[Row], convention: str) -> None:
    """Rows that carry their convention, for a table leaves its folder easily."""
    _write_csv(path, [row | {_CONVENTION: convention} for row in rows])


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
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
