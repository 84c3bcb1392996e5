"""What is checked of a call of `prepare` before its work."""

from types import SimpleNamespace

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import tasks
from mrdiff_jax.preparation.splits import Assignment
from mrdiff_jax.scans.exam_files import ExamFiles


@pytest.mark.parametrize("place", ["", "sub-01", "sub-02/prepared", "sub-02/anat"])
def test_the_output_is_not_among_the_scans(root, place):
    exams = tasks.find_exams(root, ("T1w", "T2w"), "bids", "", {})
    with pytest.raises(
        UserError, match=r"--output=.*: (is the folder of the scans; choose another|lies among the scans of sub-0)"
    ):
        tasks.refuse_place(root, root / place, exams, "bids")
    for free in ("derivatives/prepared", "../prepared", "sub"):
        tasks.refuse_place(root, root / free, exams, "bids")


@pytest.mark.parametrize("place", ["out", "derivatives/out"])
def test_where_every_folder_is_a_subject_the_output_is_elsewhere(tmp_path, place):
    with pytest.raises(UserError, match="would be taken for a subject of --input"):
        tasks.refuse_place(tmp_path, tmp_path / place, [], "dicom")
    tasks.refuse_place(tmp_path / "scans", tmp_path / place, [], "dicom")


def named(*names):
    return [ExamFiles(name, name, {}) for name in names]


def test_a_file_of_splits_adds_to_those_that_stand_and_says_whom_it_does_not_know(tmp_path, capsys):
    (tmp_path / "splits.csv").write_text("subject,split\nsub-1,train\nsub-2,validation\nsub-3,test\n")
    (tmp_path / "mine.csv").write_text("subject, split\nsub-1, test\nsub-9,train\n")
    known = tasks.known_splits(tmp_path, named("sub-1", "sub-2", "sub-3"), tmp_path / "mine.csv", Assignment())
    assert known == {"sub-1": "test", "sub-2": "validation", "sub-3": "test", "sub-9": "train"}
    said = capsys.readouterr().out
    assert "mine.csv: not among the scans: sub-9\n" in said
    assert "mine.csv: without a row: sub-2, sub-3\n" in said


@pytest.mark.parametrize("rows", ["01,test\n02,train\n", ""])
def test_a_file_of_splits_that_names_nobody_is_refused(tmp_path, rows):
    (tmp_path / "mine.csv").write_text(f"subject,split\n{rows}")
    with pytest.raises(UserError, match=r"mine\.csv: has no row of these subjects \(sub-01, sub-02\)"):
        tasks.known_splits(tmp_path, named("sub-01", "sub-02"), tmp_path / "mine.csv", Assignment())


def test_times_of_a_session_that_is_not_there_are_refused(tmp_path):
    table = tmp_path / "times.csv"
    table.write_text("subject,session,contrast,tr,te,ti\np1,1,T1w,500,10,\n")
    exams = [ExamFiles("p1_ses-1", "p1", {}, "ses-1")]
    options = SimpleNamespace(contrasts=("T1w", "T2w"))
    with pytest.raises(UserError, match=r"times\.csv: p1 has no session 1 \(it has ses-1\)"):
        tasks.make_tasks(exams, options, tmp_path, tmp_path / "out", {}, table)


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (
            "sub-9*",
            "--test-subjects=sub-9* was not applied (test subjects: 'sub-9*' matches none of the 3 subjects): splits stay as ",
        ),
        ("sub-1", "--test-subjects=sub-1 was not applied (sub-1 is in train, sub-3 is in test): splits stay as "),
        ("sub-3", "splits stay as "),
        ("", "splits stay as "),
    ],
)
def test_test_subjects_that_known_splits_do_not_have_are_told(tmp_path, capsys, patterns, words):
    (tmp_path / "splits.csv").write_text("subject,split\nsub-1,train\nsub-2,validation\nsub-3,test\n")
    exams = [ExamFiles(name, name, {}) for name in ("sub-1", "sub-2", "sub-3")]
    tasks.known_splits(tmp_path, exams, None, Assignment(patterns))
    said = capsys.readouterr().out
    assert said == f"{words}{tmp_path / 'splits.csv'} has them; edit it, or remove it to assign them anew\n"
