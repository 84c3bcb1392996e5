"""What is checked of a call of `prepare` before its work."""

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
        tasks.refuse_place(root, root / place, exams)
    for free in ("derivatives/prepared", "../prepared", "sub"):
        tasks.refuse_place(root, root / free, exams)


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
