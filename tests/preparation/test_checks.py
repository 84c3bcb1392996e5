"""What an exam may not be, and what is only told of it."""

from dataclasses import replace

from mrdiff_jax.preparation import checks
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.records import ExamRecord, Placement, ScanRecord
from mrdiff_jax.scans.sequence_times import SequenceTimes

CONTRASTS = ("T1w", "T2w")


def test_misaligned_exams_are_refused_unless_kept():
    moved = Placement("registered", shift_mm=2.4, mirror_gain=-0.1)
    scans = (ScanRecord("T1w", "", placement=Placement("reference")), ScanRecord("T2w", "", placement=moved))
    record = ExamRecord("sub-01", "sub-01", "", scans=scans, spacing=(1.0, 1.0, 1.0))
    assert "2.4 mm off T1w" in checks.refuse_misaligned(record, "T1w", 2.0).reason
    assert not checks.refuse_misaligned(record, "T1w", 3.0).reason
    assert not checks.refuse_misaligned(replace(record, spacing=(1.0, 1.0, 5.0)), "T1w", 2.0).reason


def test_a_scan_that_is_there_twice_is_refused_in_one_exam_and_in_two():
    def record(exam, *checksums):
        scans = tuple(ScanRecord(c, "", s) for c, s in zip(CONTRASTS, checksums, strict=True))
        return ExamRecord(exam, exam, "", scans=scans)

    first, second, third, fourth = checks.refuse_duplicates(
        [record("a", "1", "2"), record("b", "3", "3"), record("c", "4", "2"), record("d", "3", "5")]
    )
    assert not first.reason
    assert "its T2w has the voxels of its T1w" in second.reason
    assert "its T2w has the voxels of a scan of a" in third.reason
    assert not fourth.reason


def test_times_that_a_contrast_hardly_has_are_warned_of():
    options = Options(("T2w", "FLAIR"), "T2w")
    times = {"a": [(2000, 20, 0), (9000, 90, 0)], "b": [(4000, 90, 0), (0, 0, 0)]}
    done = [ExamRecord(exam, exam, "", times=tuple(SequenceTimes(*of) for of in own)) for exam, own in times.items()]
    (t2,) = checks.odd_times("T2w", options, done)
    (flair,) = checks.odd_times("FLAIR", options, done)
    assert "T2w of 1 exams, as of a: TE 20 ms is too short for T2w" in t2
    assert "FLAIR of 1 exams has no inversion time" in flair
    assert "--ti=FLAIR=" in flair
