"""What speaks against prepared exams when they are seen side by side, and whether their scans lie on each other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.placement import misaligned
from mrdiff_jax.preparation.records import ExamRecord
from mrdiff_jax.scans.contrasts import contradiction


def refuse_duplicates(records: Sequence[ExamRecord]) -> list[ExamRecord]:
    """The records, with a reason where an exam has a scan twice, or one that an earlier exam has too."""
    owners: dict[str, str] = {}
    checked = []
    for record in records:
        own: dict[str, str] = {}
        for scan in () if record.reason else record.scans:
            owner = owners.get(scan.sha256) or own.get(scan.sha256)
            if owner:
                reason = f"{record.exam}: its {scan.contrast} has the voxels of {owner}; keep one of them"
                record = replace(record, reason=reason)
                break
            own[scan.sha256] = f"its {scan.contrast}"
        else:
            owners |= dict.fromkeys(own, f"a scan of {record.exam}")
        checked.append(record)
    return checked


def refuse_misaligned(record: ExamRecord, reference: str, max_shift_mm: float) -> ExamRecord:
    """The record, with a reason where a scan does not lie on the reference or fits better mirrored."""
    for scan in () if record.reason else record.scans:
        what = misaligned(scan.placement, reference, record.spacing, max_shift_mm)
        if what:
            fix = "look at it on the page, then remove it or --keep-misaligned"
            return replace(record, reason=f"{record.exam}: its {scan.contrast} {what}; {fix}")
    return record


def odd_times(contrast: str, options: Options, done: Sequence[ExamRecord]) -> Iterator[str]:
    """Lines on finished exams whose times a contrast hardly has: they may hold another contrast."""
    found = {record.exam: record.times[options.contrasts.index(contrast)] for record in done}
    odd = {exam: reason for exam, times in found.items() if (reason := contradiction(contrast, times))}
    if odd:
        exam, reason = next(iter(odd.items()))
        yield f"warning: {contrast} of {len(odd)} exams, as of {exam}: {reason}; check the scan, or fix its times"
    untimed = sum(times.te > 0 and not times.ti for times in found.values())
    if contrast == "FLAIR" and untimed:
        yield (
            f"warning: FLAIR of {untimed} exams has no inversion time, which every FLAIR has; if it is FLAIR, call again with "
            "--ti=FLAIR=MILLISECONDS"
        )
