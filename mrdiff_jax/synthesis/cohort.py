"""A whole BIDS folder: the target of every exam that lacks it, as a BIDS derivative."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

import mrdiff_jax
from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.scans.bids import find_bids
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.sequence_times import Stated, sidecar_path
from mrdiff_jax.storage.files import replacing, sha256, write_text
from mrdiff_jax.synthesis import from_scans, nifti_output
from mrdiff_jax.synthesis.acquired import acquired, perhaps_acquired
from mrdiff_jax.synthesis.from_scans import SYNTHETIC, SynthesisOptions
from mrdiff_jax.synthesis.synthesizer import Synthesizer

OUTCOMES = ("synthesised", "done", "acquired", "in doubt", "passed over", "failed")
BIDS_VERSION = "1.10.0"


class ExamOutcome(NamedTuple):
    """What became of an exam, and why: one of OUTCOMES.

    'done': before; 'acquired': it has the target; 'in doubt': a scan may be it; 'passed over': it has no anat folder.
    """

    exam: str
    outcome: str
    reason: str = ""


def run(synthesizer: Synthesizer, root: Path, output: Path, settings: SynthesisOptions, stated: Stated) -> list[ExamOutcome]:
    """Synthesises the target of every exam of a BIDS folder that lacks it; one that fails does not stop the others.

    Args:
      synthesizer: of the model.
      root: the BIDS folder.
      output: folder of the derivative; what is done there already stays as it is.
      settings: for all exams.
      stated: times of sources that are recorded nowhere.

    Returns:
      An outcome for each exam, also written as report.csv.

    Raises:
      UserError: there is no exam, or the output holds another data set.
    """
    exams = find_bids(root, synthesizer.sources, some=synthesizer.method.any_sources)
    if all(exam.empty for exam in exams):
        raise UserError(f"--bids={root}: has no sub-*/anat folders")
    _claim(synthesizer, root, output)
    outcomes: list[ExamOutcome] = []
    try:
        for number, exam in enumerate(exams, 1):
            logger.info("%s (%d of %d)", exam.name, number, len(exams))
            if exam.empty:
                outcomes.append(ExamOutcome(exam.name, "passed over", "no anat folder"))
                continue
            if there := acquired(exam, synthesizer):
                logger.info("%s: has its %s (%s)", exam.name, synthesizer.target, there.name)
                outcomes.append(ExamOutcome(exam.name, "acquired", there.name))
                continue
            if there := perhaps_acquired(exam, synthesizer):
                reason = f"{there.name} may be its {synthesizer.target}; rename or move it, or synthesise this exam by --source"
                logger.warning("%s: %s", exam.name, reason)
                outcomes.append(ExamOutcome(exam.name, "in doubt", reason))
                continue
            try:
                outcomes.append(ExamOutcome(exam.name, _synthesize(synthesizer, exam, output, settings, stated)))
            except (UserError, OSError, MemoryError, jax.errors.JaxRuntimeError) as error:  # the last: no memory of the device
                reason = " ".join(str(error).split()) or "out of memory"
                outcomes.append(ExamOutcome(exam.name, "failed", reason))
                logger.warning("%s: %s", exam.name, reason)
    finally:  # also of a run that is interrupted
        with replacing(output / "report.csv") as aside, open(aside, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([ExamOutcome._fields, *outcomes])
    return outcomes


def _synthesize(synthesizer: Synthesizer, exam: ExamFiles, output: Path, settings: SynthesisOptions, stated: Stated) -> str:
    if exam.problems:
        raise UserError(exam.problems[0])
    path_of = partial(path_in, output, exam, synthesizer.target)
    if _is_done(synthesizer, exam, settings, path_of):
        return "done"
    scans = from_scans.read_scans(synthesizer, exam.scans, None, stated)
    volumes = from_scans.synthesize(synthesizer, scans, settings)
    nifti_output.write(volumes, scans, nifti_output.provenance(synthesizer, scans, settings), path_of)
    return "synthesised"


def path_in(output: Path, exam: ExamFiles, target: str, result: str) -> Path:
    """Where BIDS has a result: sub-01, 'ce-gad_T1w' -> sub-01/anat/sub-01_ce-gad_desc-synthetic_T1w.nii.gz."""
    return output / exam.subject / exam.session / "anat" / nifti_output.bids_name(exam.name, target, result)


def _is_done(synthesizer: Synthesizer, exam: ExamFiles, settings: SynthesisOptions, path_of: Callable[[str], Path]) -> bool:
    """Whether all results are there. Raises UserError where they were made otherwise, or of other scans."""
    results = from_scans.results(synthesizer, settings)
    sidecars = [sidecar_path(path_of(result)) for result in results]
    if not all(path.exists() for path in (*map(path_of, results), *sidecars)):
        return False
    try:
        about = dict(json.loads(sidecars[0].read_text(encoding="utf-8")))
        read = {name: source["SHA256"] for name, source in about["Sources"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise UserError(f"{sidecars[0]}: is damaged; remove it and its volume") from None
    for part, made in nifti_output.recipe(synthesizer, settings).items():
        if about.get(part) != made:
            raise UserError(f"{path_of(SYNTHETIC)}: was made with another {part}; remove it, or choose another --output")
    for name, path in exam.scans.items():
        if read.get(name) != sha256(path.path):
            raise UserError(f"{path_of(SYNTHETIC)}: was made from another {path.name}; remove it, or choose another --output")
    return True


def _claim(synthesizer: Synthesizer, root: Path, output: Path) -> None:
    """Makes a folder the home of the derivative. Raises UserError where it holds the scans, or another data set."""
    path = output / "dataset_description.json"
    if output.resolve() == root.resolve():
        raise UserError(f"--output={output}: is the folder of the scans; choose another")
    if path.exists() and _generator(path) != "mrdiff_jax":
        raise UserError(f"--output={output}: holds a data set that mrdiff_jax did not make; choose another folder")
    made = f"Synthetic {synthesizer.target} from {', '.join(synthesizer.sources)}; not acquired, not for diagnosis."
    about = {
        "Name": f"Synthetic {synthesizer.target}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "mrdiff_jax", "Version": mrdiff_jax.__version__, "Description": made}],
    }
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(about, indent=2) + "\n")


def _generator(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["GeneratedBy"][0]["Name"]
    except (ValueError, LookupError, TypeError):
        return None


def summary(outcomes: list[ExamOutcome]) -> Iterator[str]:
    """How many exams came to each outcome, a line each."""
    for outcome in OUTCOMES:
        yield f"{sum(one.outcome == outcome for one in outcomes):5d} {outcome}"
