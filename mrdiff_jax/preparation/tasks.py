"""What one call of `prepare` is to do: its exams, their times and their splits, checked before the work."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import prepared_set
from mrdiff_jax.preparation.exam_task import Task
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.splits import Assignment, matching, read_rows
from mrdiff_jax.scans import layouts, sequence_times
from mrdiff_jax.scans.dicom_stack import bounded
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.sequence_times import SequenceTimes

SEEN_LENGTH = 40  # characters that a message spends on splits


def find_exams(root: Path, contrasts: Sequence[str], layout: str, pattern: str, rules: Mapping[str, str]) -> list[ExamFiles]:
    """The exams under a folder, as `layouts.find_subjects` has them. Raises UserError for what the layout does not read."""
    if pattern and layout != "pattern":
        raise UserError(f"--pattern: has no meaning for --layout={layout}; give --layout=pattern, or leave it out")
    if rules and layout == "bids":
        raise UserError("--rules: has no meaning for --layout=bids; give --layout=pattern and a --pattern, or leave it out")
    return layouts.find_subjects(root, layout, contrasts, pattern=pattern, rules=rules)


def make_tasks(
    exams: Sequence[ExamFiles],
    options: Options,
    root: Path,
    output: Path,
    stated: Mapping[str, SequenceTimes],
    table: Path | None,
) -> list[Task]:
    """A task for each exam, with the times that are `stated` by contrast, or in a CSV by subject.

    Raises:
      UserError: times are of a contrast or a subject that is not there.
    """
    overrides = sequence_times.read_overrides(table) if table else {}
    for contrast in stated:
        if contrast not in options.contrasts:
            raise UserError(f"--tr, --te, --ti: {contrast!r} is not among the contrasts {', '.join(options.contrasts)}")
    subjects = {files.subject for files in exams}
    sessions = {(files.subject, files.session) for files in exams}
    for subject, session, contrast in overrides:
        if subject not in subjects or contrast not in options.contrasts:
            raise UserError(f"{table}: {contrast} of {subject} is not among the scans; fix the name or remove the row")
        if session and (subject, session) not in sessions:
            there = ", ".join(sorted(own or "none" for one, own in sessions if one == subject))
            raise UserError(f"{table}: {subject} has no session {session} (it has {there}); fix the name or remove the row")
    tasks = []
    for files in exams:
        own = sequence_times.overrides_of(overrides, files.subject, files.session)
        tasks.append(Task(files, sequence_times.merged(own, stated, files.times), options, root, output))
    return tasks


def known_splits(output: Path, exams: Sequence[ExamFiles], file: Path | None, assignment: Assignment) -> dict[str, str]:
    """The splits that stand already, and over them those that a file gives.

    Raises UserError where they, or the assignment, cannot be meant.
    """
    known = prepared_set.known_splits(output)
    if file:
        return known | _given(file, {files.subject for files in exams})
    if known:
        stay = f"splits stay as {output / prepared_set.SPLITS_FILE} has them; edit it, or remove it to assign them anew"
        unlike = _unlike(known, assignment.test_subjects, [files.subject for files in exams])
        print(f"--test-subjects={assignment.test_subjects} was not applied ({unlike}): {stay}" if unlike else stay)
    else:
        matching(assignment.test_subjects, [files.subject for files in exams])
    return known


def _given(file: Path, subjects: Set[str]) -> dict[str, str]:
    """The splits of a file, of which some must be of the subjects; says who is in one and not in the other."""
    given = read_rows(file)
    if not given.keys() & subjects:
        theirs, ours = (bounded(sorted(names), SEEN_LENGTH) or "nobody" for names in (given, subjects))
        raise UserError(f"{file}: has no row of these subjects ({ours}), but of {theirs}; write their names as they are here")
    for what, names in (("not among the scans", given.keys() - subjects), ("without a row", subjects - given.keys())):
        if names:
            print(f"{file}: {what}: {bounded(sorted(names), SEEN_LENGTH)}")
    return given


def _unlike(known: Mapping[str, str], patterns: str, subjects: Sequence[str]) -> str:
    """How known splits differ from what the patterns of test subjects ask for; '' where they do not, or nothing is asked."""
    try:
        chosen = matching(patterns, subjects)
    except UserError as error:
        return str(error)
    if not chosen:
        return ""
    wrong = sorted(one for one in known.keys() & {*subjects} if (known[one] == "test") != (one in chosen))
    return bounded([f"{one} is in {known[one]}" for one in wrong], SEEN_LENGTH) if wrong else ""


def refuse_place(root: Path, output: Path, exams: Sequence[ExamFiles], layout: str) -> None:
    """Raises UserError where the output is the folder of the scans, or lies where it would be taken for a subject's."""
    root, output = root.resolve(), output.resolve()
    if output == root:
        raise UserError(f"--output={output}: is the folder of the scans; choose another")
    if root not in output.parents:
        return
    if layout in ("dicom", "spine"):
        raise UserError(f"--output={output}: would be taken for a subject of --input; choose a folder elsewhere")
    first = root / output.relative_to(root).parts[0]
    for exam in exams:
        folders = [root / exam.subject, *(scan.path.parent.resolve() for scan in exam.scans.values())]
        if first in folders or any(first in folder.parents for folder in folders) or output in folders:
            raise UserError(f"--output={output}: lies among the scans of {exam.subject}; choose a folder elsewhere")
