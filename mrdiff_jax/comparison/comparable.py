"""Whether results may stand in one table."""

from mrdiff_jax.config import STUDIES
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.results import SYNTHESIS, Results


def check_comparable(first: str, reference: Results, name: str, other: Results) -> None:
    """Checks that two results are of the same slices of the same data, scored alike.

    Raises:
      UserError: they differ in convention, contrasts, subjects, slices, data, the slices of a study or the command of one; the
        message has both names.
    """
    a, b = reference.summary, other.summary
    if a.convention.name == b.convention.name and a.convention != b.convention:
        raise UserError(
            f"{name}: the convention {b.convention.name!r} meant something else when it was scored than for {first};"
            " evaluate both again with --mode=eval"
        )
    if a.convention != b.convention:
        raise UserError(
            f"{name}: scored by the convention {b.convention.name!r}, {first} by {a.convention.name!r};"
            " evaluate both with the same --config.evaluate.convention"
        )
    for field, ours, its in (("sources", a.sources, b.sources), ("target", a.target, b.target)):
        if ours != its:
            raise UserError(f"{name}: its {field} {_words(its)}, of {first} {_words(ours)}; such runs cannot be compared")
    if a.split != b.split:
        raise UserError(
            f"{name}: scored on its {b.split} subjects, {first} on its {a.split} subjects;"
            " evaluate both with the same --config.evaluate.split"
        )
    keys, others = ([(row["subject"], row["slice"]) for row in run.rows[SYNTHESIS]] for run in (reference, other))
    for here, there, missing in ((name, first, set(keys) - set(others)), (first, name, set(others) - set(keys))):
        subjects = sorted({subject for subject, _ in missing})
        if missing:
            raise UserError(
                f"{here}: has not been tested on {len(missing)} of the slices that {there} has been, of subjects"
                f" {', '.join(subjects[:5])}{' ...' if len(subjects) > 5 else ''}; give both the same splits"
            )
    if a.dataset != b.dataset:
        raise UserError(f"{name}: its data set is {b.dataset}, that of {first} {a.dataset}: other scans, splits or preparation")

    segmented = all(any(row["study"] == "segmentation" for row in run.studies) for run in (reference, other))
    if segmented and a.segmenter != b.segmenter:
        raise UserError(
            f"{name}: its study 'segmentation' is by another command than that of {first}; evaluate both with the same"
            " --config.evaluate.segmenter"
        )
    for study in (name for name in STUDIES if name != "segmentation"):  # which has no rows of exams without labels
        a, b = ({(row["subject"], row["slice"]) for row in run.studies if row["study"] == study} for run in (reference, other))
        if a and b and a != b:
            raise UserError(
                f"{name}: its study '{study}' is of other slices than that of {first}; evaluate both with the same"
                " --config.evaluate.study_slices"
            )


def _words(value: str | tuple[str, ...]) -> str:
    return f"is {value}" if isinstance(value, str) else f"are {', '.join(value)}"
