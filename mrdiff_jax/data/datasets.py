"""From `config.data` to a data set, which is prepared at its first use."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mrdiff_jax import data
from mrdiff_jax.data.study import ExamRef, Study
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.log import logger
from mrdiff_jax.preparation import example_files, intensity, prepared_set, slice_set
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.slice_set import ExamSlices
from mrdiff_jax.preparation.slices import exam_examples
from mrdiff_jax.preparation.splits import Assignment, assign_splits, read_splits, write_splits
from mrdiff_jax.scans.exam import Exam
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.visits import look_alike
from mrdiff_jax.storage.files import replace_folder, scratch_folder
from mrdiff_jax.storage.paths import cache_folder, local_path

PADDED_SAID = 3  # scans whose padding is told one by one
READ_VERSION = 2  # raise it whenever the same scans give other slices


@dataclass(frozen=True)
class Dataset:
    """A prepared set of slices, seen as source contrasts and a target.

    preparation: how its scans became slices; splits_file: the CSV of subjects and splits; splits: what it says. The set is
    written as a whole, and its splits are applied when it is read.
    """

    contrasts: tuple[str, ...]
    sources: tuple[str, ...]
    target: str
    folder: Path
    fingerprint: str
    preparation: Options
    splits_file: Path
    splits: Mapping[str, str]

    def split(self, name: str) -> "Examples":
        """The examples of 'train', 'validation' or 'test', in a fixed order; validation may be empty."""
        return self._examples([row for exam in self._exams[name] for row in exam])

    def first_of_each_exam(self, name: str) -> "Examples":
        """The first example of every exam of a split: for what all slices of an exam share."""
        return self._examples([exam[0] for exam in self._exams[name] if exam])

    @cached_property
    def _exams(self) -> dict[str, list[range]]:
        """Read once: `prepare` may write the set anew while it is trained on."""
        return slice_set.read(self.folder).rows(self.splits)

    @cached_property
    def _records(self) -> Any:
        return example_files.read(self.folder)

    def _examples(self, rows: Sequence[int]) -> "Examples":
        channels = [self.contrasts.index(name) for name in self.sources]
        return Examples(_Rows(self._records, rows), channels, self.contrasts.index(self.target))


class _Rows(NamedTuple):
    """Some of the records of a data source."""

    records: Any
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.records[self.rows[index]]


@dataclass(frozen=True)
class Examples:
    """Random access to the examples of a split.

    An example: sources (H, W, K) and target (H, W), float32 in [0, 1]; tr, te, ti (K,) of the sources, ms; subject;
    slice; scale (2,): offset and factor from target values to scanner units; spacing: side of a pixel, mm; slice_spacing: from
    one slice to the next, mm; and, where known, maps (H, W, 3): true T1 (ms), T2 (ms) and S0, and lesions (H, W): 1 in a
    lesion, else 0.
    """

    records: Any
    source_channels: list[int]
    target_channel: int

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        image = intensity.dequantise(record["image"])
        example = {
            "sources": image[..., self.source_channels],
            "target": image[..., self.target_channel],
            **{time: record[time][self.source_channels] for time in ("tr", "te", "ti")},
            "subject": record["subject"].decode(),
            "slice": record["slice"],
            "scale": record["scale"][self.target_channel],
            "spacing": record["spacing"],
            "slice_spacing": record["slice_spacing"],
        }
        return example | {truth: record[truth] for truth in example_files.TRUTHS if truth in record}


def open_dataset(data_config: Any) -> Dataset:
    """The data set of `config.data`, prepared at its first use and read from the cache after that.

    The cache folder is named by a fingerprint of all that determines its content; it holds the slices and `splits.csv`.
    Raises UserError for a mistake in the config or in the scans.
    """
    sources, target = split_names(data_config.sources), data_config.target.strip()
    if data_config.name == "prepared":
        return _open_prepared(data_config, sources, target)
    study = import_module(f"mrdiff_jax.data.{data.require(data_config.name)}").study(data_config, sources, target)
    _check_names(sources, target, study.contrasts)

    splits = _splits(data_config, sorted({exam.subject for exam in study.exams}))
    if alike := look_alike(splits) if data_config.name == "bids" else "":
        logger.warning("%s", alike)
    cut = {
        "image_size": data_config.image_size,
        "percentiles": tuple(data_config.percentiles),
        "slices": data_config.slices,
        "plane": data_config.plane,
    }
    identity = [str(example_files.VERSION), READ_VERSION, data_config.name, study.contrasts, study.identity, splits, cut]
    fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = cache_folder(data_config.cache) / f"{data_config.name}-{fingerprint}"
    preparation = Options(study.contrasts, sources[0], bias_correction=False, mask="none", **cut)
    if slice_set.read(folder) is None:
        _prepare(study, splits, folder, preparation, fingerprint)
    splits_file = folder / prepared_set.SPLITS_FILE
    return Dataset(study.contrasts, sources, target, folder, fingerprint, preparation, splits_file, splits)


def _check_names(sources: tuple[str, ...], target: str, contrasts: Sequence[str]) -> None:
    for field, names in (("sources", sources), ("target", (target,))):
        for name in names:
            if name not in contrasts:
                choices = ", ".join(contrasts)
                raise UserError(f"--config.data.{field}: no contrast {name!r} in this data set; choose from {choices}")
    if not sources or len({*sources, target}) <= len(sources):
        raise UserError(f"--config.data.sources: give one contrast or more, each once, and not the target {target!r}")


def _open_prepared(config: Any, sources: tuple[str, ...], target: str) -> Dataset:
    """The set that `mrdiff prepare` wrote, split as its `splits.csv` says now."""
    root = local_path(config.root, "--config.data.root")
    written = prepared_set.read(root)
    contrasts, side = written.options.contrasts, written.options.image_size
    _check_names(sources, target, contrasts)
    if config.image_size != side:
        raise UserError(
            f"{root}: its slices are {side} x {side}, not {config.image_size}; "
            f"give --config.data.image_size={side}, or prepare again with --image-size={config.image_size}"
        )
    prepared_set.check_times(root, written, sources)
    file = (
        local_path(config.splits_file, "--config.data.splits_file") if config.splits_file else root / prepared_set.SPLITS_FILE
    )
    splits = read_splits(file, written.subjects)
    fingerprint = hashlib.sha256(json.dumps([written.fingerprint, splits]).encode()).hexdigest()[:16]
    folder = root / prepared_set.DATASET_FOLDER
    if not slice_set.has_examples(folder):
        raise UserError(f"{root}: was prepared by another version of the package; give the command of prepare again")
    return Dataset(contrasts, sources, target, folder, fingerprint, written.options, file, splits)


def _splits(config: Any, subjects: list[str]) -> dict[str, str]:
    if config.splits_file:
        return read_splits(local_path(config.splits_file, "--config.data.splits_file"), subjects)
    by = Assignment(config.test_subjects, config.test_fraction, config.validation_fraction, config.split_seed)
    return assign_splits(subjects, by)


def _prepare(study: Study, splits: Mapping[str, str], folder: Path, options: Options, fingerprint: str) -> None:
    """Writes the study's slices and `splits.csv` into `folder`, which appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    side = options.image_size
    unmarked = np.zeros((side, side), np.uint8) if "lesions" in study.truths else None
    padded: list[str] = []

    def exams() -> Iterator[ExamSlices]:
        loaded = tqdm(_loaded(study.exams), "Preparing slices", len(study.exams), unit="exam", delay=1, disable=None)
        for ref, exam in zip(study.exams, loaded, strict=True):
            padded.extend(exam.padding)
            examples = exam_examples(exam, side, options.percentiles, options.slices, options.plane)
            marked = (replace(one, lesions=unmarked if one.lesions is None else one.lesions) for one in examples)
            yield ExamSlices(exam.name, ref.subject, [SequenceTimes(*times) for times in exam.times], marked)

    with scratch_folder(folder.parent, ".preparing-") as temporary:
        whole = temporary / folder.name
        slice_set.write(whole, exams(), options, fingerprint, study.truths)
        write_splits(whole / prepared_set.SPLITS_FILE, splits)
        try:
            whole.rename(folder)
        except OSError:
            if slice_set.read(folder) is None:  # of a version that wrote it otherwise
                replace_folder(whole, folder)
            # else another process was faster, with the same content
    for line in padded[:PADDED_SAID]:
        logger.warning("%s", line)
    if len(padded) > PADDED_SAID:
        logger.warning("so in %d more scans: padding and backgrounds are taken for air", len(padded) - PADDED_SAID)


def _loaded(exams: list[ExamRef], workers: int = 2) -> Iterator[Exam]:
    """The exams in order, read or simulated a few ahead by threads."""
    with ThreadPoolExecutor(workers) as pool:
        pending = deque()
        for exam in exams:
            pending.append(pool.submit(exam.load))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
