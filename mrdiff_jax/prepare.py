"""Scans to training slices: mrdiff prepare --input SCANS --output SET --contrasts=T1w,FLAIR --reference=FLAIR.

Finished subjects are kept: after a stop, or with scans fixed or added, the same command does what is left.
"""

import sys
from collections.abc import Sequence

from absl import flags

from mrdiff_jax import cli, host
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.preparation.options import INTERPOLATIONS, MASKS, PLANES, REGISTRATIONS, Options
from mrdiff_jax.preparation.splits import Assignment
from mrdiff_jax.scans import sequence_times
from mrdiff_jax.scans.archives import LAYOUTS
from mrdiff_jax.storage.paths import local_path

LEAST_MULTIPLE = 8  # of the sides of images, for the networks of the configs: 8 for bids.py, 32 for the paper's
MOST_FAILURES = 20  # that are printed, in a line each

_INPUT = flags.DEFINE_string("input", None, "Folder of the scans.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the prepared set.")
_CONTRASTS = flags.DEFINE_string("contrasts", None, "Contrasts to prepare, as T1w,T2w,FLAIR.")
_REFERENCE = flags.DEFINE_string("reference", "", "The contrast whose grid the others are brought to; default: the first.")
_LAYOUT = flags.DEFINE_enum("layout", "bids", LAYOUTS, "How the folder is arranged; docs/data.md describes each.")
_PATTERN = flags.DEFINE_string("pattern", "", "Of --layout=pattern: where a scan lies, as '{subject}/*_{contrast}.nii.gz'.")
_RULES = flags.DEFINE_multi_string("rules", [], "Contrast by its text, as T1w=MP-?RAGE (a regular expression); repeat it.")
_TR = flags.DEFINE_string("tr", "", "Repetition times (ms) where header and sidecar have none, as T1w=500,T2w=4000.")
_TE = flags.DEFINE_string("te", "", "Echo times (ms), likewise.")
_TI = flags.DEFINE_string("ti", "", "Inversion times (ms), likewise.")
_TIMES = flags.DEFINE_string("times", "", "CSV of times, with columns subject, [session,] contrast, tr, te, ti (ms).")
_REGISTRATION = flags.DEFINE_enum(
    "registration", "auto", REGISTRATIONS, "'auto' registers scans unless aligned; 'never' refuses other grids."
)
_INTERPOLATION = flags.DEFINE_enum("interpolation", "linear", INTERPOLATIONS, "Of scans that are registered.")
_MAX_SHIFT = flags.DEFINE_float("max-shift", 2.0, "Largest shift (mm) between contrasts; half a slice is always allowed.", 0.0)
_KEEP_MISALIGNED = flags.DEFINE_bool("keep-misaligned", False, "Keep subjects whose contrasts do not lie on each other.")
_BIAS_CORRECTION = flags.DEFINE_bool("bias-correction", True, "Remove bias fields (N4).")
_MASK = flags.DEFINE_enum("mask", "body", MASKS, "'body' blackens what lies outside of head or body.")
_PERCENTILES = flags.DEFINE_list("percentiles", ["0.5", "99.5"], "Of each volume, mapped to 0 and 1.")
_PLANE = flags.DEFINE_enum("plane", "axial", PLANES, "Of the slices.")
_SLICES = flags.DEFINE_string("slices", "", "Slices to take, as 40:120; default: all that show enough of the body.")
_IMAGE_SIZE = flags.DEFINE_integer("image-size", 256, "Side of the slices, pixels.", 16)
_FIELD = flags.DEFINE_float("field", 0.0, "Side of the slices, mm, around the middle of the body; 0 is all of the scan.", 0.0)
_TEST_SUBJECTS = flags.DEFINE_string("test-subjects", "", "Held-out subjects, as 'sub-A*,sub-B01'; default: a share at random.")
_TEST_FRACTION = flags.DEFINE_float("test-fraction", 0.2, "That share.", 0.0, 1.0)
_VALIDATION_FRACTION = flags.DEFINE_float("validation-fraction", 0.1, "Share of subjects for validation.", 0.0, 1.0)
_SPLITS = flags.DEFINE_string("splits", "", "CSV of splits, with columns subject, split; others are assigned as below.")
_SPLIT_SEED = flags.DEFINE_integer("split-seed", 0, "Of the random splits.", 0, 2**32 - 1)
_PROCESSES = flags.DEFINE_integer("processes", host.cores(), "Subjects that are prepared at a time.", 1)
_BEAM = flags.DEFINE_string("beam", None, "Run on Apache Beam with these options, as '--runner=DirectRunner', not locally.")
_ALLOW_FAILURES = flags.DEFINE_bool("allow-failures", False, "Exit with 0 although subjects failed.")
flags.mark_flags_as_required(["input", "output", "contrasts"])


def main() -> None:
    """Prepares what the flags ask for; says which exams failed, and how to train on the others."""
    from mrdiff_jax.preparation import cohort, report, tasks
    from mrdiff_jax.scans import layouts

    options, root, output = _options(), local_path(_INPUT.value, "--input"), local_path(_OUTPUT.value, "--output")
    rules = layouts.parse_rules(_RULES.value)
    stated = sequence_times.parse_stated(_TR.value, _TE.value, _TI.value, "--")
    exams = tasks.find_exams(root, options.contrasts, _LAYOUT.value, _PATTERN.value, rules)
    tasks.refuse_place(root, output, exams, _LAYOUT.value)
    table = local_path(_TIMES.value, "--times") if _TIMES.value else None
    splits = local_path(_SPLITS.value, "--splits") if _SPLITS.value else None
    assignment = Assignment(_TEST_SUBJECTS.value, _TEST_FRACTION.value, _VALIDATION_FRACTION.value, _SPLIT_SEED.value)
    made = cohort.prepare(
        tasks.make_tasks(exams, options, root, output, stated, table),
        output,
        options,
        known=tasks.known_splits(output, exams, splits, assignment),
        assignment=assignment,
        max_shift_mm=None if _KEEP_MISALIGNED.value else _MAX_SHIFT.value,
        processes=_PROCESSES.value,
        beam=_BEAM.value,
    )
    print(*report.lines(output, options, made.records, made.splits, rules), sep="\n")
    failed = [record for record in made.records if record.reason]
    for record in failed[:MOST_FAILURES]:
        print(f"failed: {record.reason}", file=sys.stderr)
    if more := len(failed[MOST_FAILURES:]):
        print(f"failed: {more} more; {output / 'index.html'} names them all", file=sys.stderr)
    if made.unsplit:
        raise made.unsplit
    if failed and not _ALLOW_FAILURES.value:
        sys.exit(2)


def _options() -> Options:
    contrasts = split_names(_CONTRASTS.value)
    if len({*contrasts}) < max(len(contrasts), 2):
        raise UserError(f"--contrasts={_CONTRASTS.value}: name two contrasts or more, each once")
    reference = _REFERENCE.value or contrasts[0]
    if reference not in contrasts:
        raise UserError(f"--reference={reference}: not among the contrasts {', '.join(contrasts)}")
    first, _, last = (_SLICES.value or "0:1").partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"--slices={_SLICES.value}: give a rising range such as 40:120")
    if _IMAGE_SIZE.value % LEAST_MULTIPLE:
        raise UserError(f"--image-size={_IMAGE_SIZE.value}: no network takes it; give a multiple of {LEAST_MULTIPLE}")
    return Options(
        contrasts=contrasts,
        reference=reference,
        registration=_REGISTRATION.value,
        interpolation=_INTERPOLATION.value,
        bias_correction=_BIAS_CORRECTION.value,
        mask=_MASK.value,
        percentiles=_percentiles(_PERCENTILES.value),
        plane=_PLANE.value,
        slices=_SLICES.value,
        image_size=_IMAGE_SIZE.value,
        field_mm=_FIELD.value,
    )


def _percentiles(texts: Sequence[str]) -> tuple[float, float]:
    try:
        low, high = map(float, texts)
    except ValueError:
        low = high = 0.0
    if not 0 <= low < high <= 100:
        raise UserError(f"--percentiles={','.join(texts)}: give two rising numbers between 0 and 100, as 0.5,99.5")
    return low, high


if __name__ == "__main__":
    cli.run(main, __doc__)
