"""Whether a large prepared set is read without growing memory, and how fast."""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from mrdiff_jax.data.batches import train_iterator
from mrdiff_jax.data.datasets import Dataset
from mrdiff_jax.data.training_data import describe_training
from mrdiff_jax.measuring.programs import process_peak_mib
from mrdiff_jax.measuring.timing import Record
from mrdiff_jax.preparation import slice_set
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.slice_set import ExamSlices
from mrdiff_jax.preparation.slices import SliceExample
from mrdiff_jax.scans.sequence_times import SequenceTimes

CONTRASTS = ("T1w", "T2w", "FLAIR")
BATCH = 8
_TIMES = SequenceTimes(4000.0, 100.0, 2500.0)


def large_set(slices: int, side: int, slices_an_exam: int = 50) -> Record:
    """Writes a set of that many slices of noise, and reads all of them once as training does.

    Another process writes it, so that this one's peak of memory is of reading.

    Returns:
      The size of the set (MiB), seconds to the first batch, slices a second, and the most memory (MiB) that the process had
      held after a twentieth of the pass and after all of it: where the two are alike, memory does not grow with the set.
    """
    options = Options(CONTRASTS, CONTRASTS[0], image_size=side, bias_correction=False, mask="none")
    with tempfile.TemporaryDirectory() as temporary:
        folder, exams = Path(temporary, "set"), slices // slices_an_exam
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(_write, folder, options, exams, slices_an_exam).result()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        splits = {_name(exam): "train" for exam in range(exams)}
        dataset = Dataset(CONTRASTS, CONTRASTS[:2], CONTRASTS[2], folder, "", options, folder / "splits.csv", splits)
        start = time.perf_counter()
        describe_training(dataset)
        batches = train_iterator(dataset, BATCH, 0)
        next(batches)
        first, early, many = time.perf_counter() - start, 0.0, slices // BATCH
        start = time.perf_counter()
        for batch in range(1, many):
            if batch == max(1, many // 20):
                early = process_peak_mib()
            next(batches)
        seconds = time.perf_counter() - start
    record = {"slices": slices, "side": side, "set_mib": size / 2**20, "first_batch_s": first}
    record |= {"slices_per_second": BATCH * (many - 1) / seconds}
    return record | {"peak_mib_after_a_twentieth": early, "peak_mib_after_all": process_peak_mib()}


def _write(folder: Path, options: Options, exams: int, slices: int) -> None:
    slice_set.write(folder, _exams(options, exams, slices), options, "noise")


def _exams(options: Options, exams: int, slices: int) -> Iterator[ExamSlices]:
    rng, shape = np.random.default_rng(0), (options.image_size, options.image_size, len(CONTRASTS))
    scale, times = np.array([[0.0, 1.0]] * len(CONTRASTS), np.float32), [_TIMES] * len(CONTRASTS)
    tr, te, ti = np.array(times, np.float32).T
    for exam in range(exams):
        images = (rng.integers(0, 2**16, shape, np.uint16) for _ in range(slices))
        examples = (SliceExample(image, scale, tr, te, ti, _name(exam), i, 1.0, 1.0) for i, image in enumerate(images))
        yield ExamSlices(_name(exam), _name(exam), times, examples)


def _name(exam: int) -> str:
    return f"sub-{exam:05d}"
