"""All exams of one call: prepared, held against each other, split, and written with a table and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import checks, manifest, page, prepared_set, workers
from mrdiff_jax.preparation.exam_task import Task
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import ExamRecord, prepared
from mrdiff_jax.preparation.splits import Assignment
from mrdiff_jax.storage import lock
from mrdiff_jax.storage.files import write_text


@dataclass(frozen=True)
class PreparedCohort:
    """What a call made: the records of all exams, the splits of those prepared, and why there are none, if so."""

    records: list[ExamRecord]
    splits: dict[str, str]
    unsplit: UserError | None


def prepare(
    tasks: Sequence[Task],
    output: Path,
    options: Options,
    *,
    known: Mapping[str, str],
    assignment: Assignment,
    max_shift_mm: float | None,
    processes: int,
    beam: str | None,
) -> PreparedCohort:
    """Prepares all exams; one that fails does not stop the others.

    Args:
      tasks: one for each exam.
      output: the folder of the set; what is finished there stays.
      options: of all.
      known: subject -> split, where that is decided.
      assignment: how other subjects get one.
      max_shift_mm: scans that lie further off the reference, or mirrored, fail their exam; None: they do not.
      processes: exams at a time.
      beam: options of an Apache Beam pipeline that takes the place of local processes.

    Raises:
      UserError: before the work, where the splits would leave nobody to train or to test, or another process prepares there.
    """
    usable = sorted({task.files.subject for task in tasks if not task.files.problems})
    if usable:
        prepared_set.check_splits(usable, known, assignment)
    output.mkdir(parents=True, exist_ok=True)
    with lock.hold(output / ".prepare.lock", "prepares"):
        prepared_set.clear_leftovers(output)
        records = checks.refuse_duplicates(workers.run(tasks, processes, beam))
        if max_shift_mm is not None:
            records = [checks.refuse_misaligned(record, options.reference, max_shift_mm) for record in records]
        done, splits, unsplit = prepared(records), {}, None
        if done:
            try:
                subjects = sorted({record.subject for record in done})
                splits = prepared_set.update_splits(output, subjects, known, assignment)
            except UserError as error:  # what is prepared is written nevertheless
                unsplit = error
        manifest.write_manifest(output, records, splits)
        write_text(output / "index.html", page.page(output, records, options, splits))
        if done:
            prepared_set.write_dataset(output, done, options)
        return PreparedCohort(records, splits, unsplit)
