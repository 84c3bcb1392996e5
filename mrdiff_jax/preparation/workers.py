"""Exams prepared side by side, each by one thread: in processes of this machine, or on a cluster by Apache Beam."""

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from tqdm import tqdm

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import exam_task
from mrdiff_jax.preparation.exam_task import Task
from mrdiff_jax.preparation.records import ExamRecord


def run(tasks: Sequence[Task], processes: int, beam: str | None = None) -> list[ExamRecord]:
    """The records of all tasks, sorted by exam: by processes, or with the options of a pipeline by Beam.

    Raises:
      UserError: Beam is not installed, or a process was ended from outside.
    """
    if beam is not None:
        records = run_beam(tasks, beam)
    else:
        finished = run_processes(tasks, processes)
        records = list(tqdm(finished, total=len(tasks), desc="Preparing", unit="exam", disable=None))
    return sorted(records, key=lambda record: record.exam)


def run_processes(tasks: Sequence[Task], processes: int) -> Iterator[ExamRecord]:
    """The records of all tasks as they are finished."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(processes, len(tasks)), mp_context=context, initializer=_end_with, initargs=(os.getpid(),)
    ) as pool:
        try:
            for finished in as_completed([pool.submit(exam_task.prepare, task) for task in tasks]):
                yield finished.result()
        except BrokenProcessPool:
            raise UserError(
                "a process was ended from outside, mostly for want of memory; run again with fewer --processes: "
                "finished subjects are kept"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with(parent: int) -> None:
    """Lets a worker end when its parent does, which a killed parent cannot ask it to."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_beam(tasks: Sequence[Task], beam_flags: str) -> list[ExamRecord]:
    """The records of all tasks, run as a Beam pipeline; workers must see the folders of input and output."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--beam needs Apache Beam: pip install 'mrdiff_jax[beam]'") from None
    with beam.Pipeline(options=PipelineOptions(beam_flags.split())) as pipeline:
        _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(exam_task.prepare)
    return [exam_task.prepare(task) for task in tasks]  # finished ones are read, failed ones give their reason again
