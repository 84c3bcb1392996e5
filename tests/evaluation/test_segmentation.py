"""The study of a user's segmenter: Dice, volumes as they were cut, commands that work and that fail."""

import shlex
import sys
import types

import numpy as np
import pytest
from helpers.segmenter import SEGMENTER, THRESHOLDS

from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation.results import REFERENCES, SYNTHESIS
from mrdiff_jax.evaluation.studies import segmentation
from mrdiff_jax.preparation.slicing import slice_image


def test_dice_of_each_label_and_their_mean():
    truth, found = np.zeros((4, 4, 1), int), np.zeros((4, 4, 1), int)
    truth[:2], found[1:3] = 1, 1  # 8 voxels each, 4 together
    found[3] = 7  # of which the truth has none
    assert segmentation.dice(found, truth, "") == {"label 1": 0.5, "label 7": 0.0, segmentation.MEAN: 0.25}
    assert segmentation.dice(truth, truth, "") == {"label 1": 1.0, segmentation.MEAN: 1.0}
    nothing = segmentation.dice(0 * truth, 0 * truth, "")
    assert list(nothing) == [segmentation.MEAN]
    assert np.isnan(nothing[segmentation.MEAN])
    with pytest.raises(UserError, match=r"evaluate\.segmenter: sub-1, copy: labels of shape \(4, 4, 1\), but of the truth"):
        segmentation.dice(found, truth[:2], "sub-1, copy")


@pytest.mark.parametrize("axis", range(3))
def test_a_volume_is_that_which_was_cut(axis):
    scan = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    images = slice_image(np.moveaxis(scan, axis, 0))
    place = {"spacing": np.float32(2), "slice_spacing": np.float32(3)}
    exam = [{"slice": i, "truth": images[i]} | place for i in range(1, scan.shape[axis]) if i != 3]
    data, affine = segmentation.volume(exam, "truth", axis)
    expected = np.moveaxis(scan, axis, 0)[1:].copy()
    expected[2] = 0  # the slice that was left out
    np.testing.assert_array_equal(np.moveaxis(data, axis, 0), expected)
    np.testing.assert_array_equal(affine, np.diag([*(3 if i == axis else 2 for i in range(3)), 1]))


def test_a_program_that_the_system_cannot_run_and_a_blank_command_are_named(tiny_config, tmp_path):
    (tmp_path / "broken").write_text("no program")
    (tmp_path / "broken").chmod(0o755)
    with pytest.raises(UserError, match=r"sub-1: .*broken cannot be run"):
        segmentation.segment(f"{tmp_path}/broken {{input}} {{output}}", np.ones((2, 2, 2), np.float32), np.eye(4), "sub-1")
    tiny_config.evaluate.segmenter = "  "
    assert "no segmenter is named" in segmentation.obstacle(tiny_config, [], None)


def test_a_command_reads_and_writes_nifti():
    data = np.array([0, 0.4, 1], np.float32).reshape(3, 1, 1)
    np.testing.assert_array_equal(segmentation.segment(SEGMENTER, data, np.eye(4), "")[:, 0, 0], [0, 1, 2])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('no licence')", "sub-1: .*python.* ended with status 1: no licence"),
        ("pass", r"sub-1: .* left no NIfTI file at {output}"),
        ("import sys; open(sys.argv[2], 'wb').write(b'1f')", r"sub-1: .* left no NIfTI file at {output}"),
        (THRESHOLDS.replace("labels,", "labels / 3,"), "sub-1: .* values between the integers"),
    ],
)
def test_a_command_that_fails_is_an_error_that_says_why(script, reason):
    command = shlex.join([sys.executable, "-c", script, "{input}", "{output}"])
    with pytest.raises(UserError, match=reason):
        segmentation.segment(command, np.ones((2, 2, 2), np.float32), np.eye(4), "sub-1")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("synthseg {input}", "say where {input} and {output} stand"),
        ("no-such-program {input} {output}", "there is no program 'no-such-program'"),
        ("sh 'x {input} {output}", "cannot be read"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_runs(tiny_config, command, reason):
    tiny_config.evaluate.segmenter = command
    with pytest.raises(UserError, match=rf"--config\.evaluate\.segmenter=.*: {reason}"):
        segmentation.obstacle(tiny_config, [], None)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_each_exam_is_a_volume_of_its_own(plane):
    """Two exams, whose slices share a batch: the synthesis of the one is the truth, that of the other is blank."""
    rng = np.random.default_rng(0)
    truth, subjects = rng.random((6, 8, 8)).astype(np.float32), ["sub-1"] * 3 + ["sub-2"] * 3
    numbers = np.array([4, 5, 6, 0, 1, 2])
    synthesis = np.where((np.array(subjects) == "sub-1")[:, None, None], truth, 0)

    def batches(split, wanted, text):
        for rows in (slice(0, 4), slice(4, 6)):
            count = len(truth[rows])
            place = {
                "spacing": np.ones(count),
                "slice_spacing": np.full(count, 2.0),
                "scale": np.tile([10.0, 100.0], (count, 1)),
            }
            known = {"target": truth[rows], "sources": truth[rows, ..., None], "synthesis": synthesis[rows]}
            yield place | known | {"subject": subjects[rows], "slice": numbers[rows], "valid": np.ones(count, bool)}

    references = types.SimpleNamespace(predict=lambda sources: dict.fromkeys(REFERENCES, sources[..., 0] / 2))
    evaluator = types.SimpleNamespace(split="test", slices=lambda split: None, batches=batches, references=references)
    context = types.SimpleNamespace(
        dataset=types.SimpleNamespace(preparation=types.SimpleNamespace(plane=plane)),
        config=types.SimpleNamespace(evaluate=types.SimpleNamespace(segmenter=SEGMENTER)),
        evaluator=evaluator,
        synthesis=lambda batch: batch["synthesis"],
    )
    rows = list(segmentation.run(context))
    found = {(row["subject"], row["setting"]): row["value"] for row in rows if row["method"] == SYNTHESIS}
    for setting in ("label 1", "label 2", segmentation.MEAN):
        assert found["sub-1", setting] == 1
        assert found["sub-2", setting] < 0.7
    assert {row["slice"] for row in rows} == {4, 0}
    assert {row["method"] for row in rows} == {SYNTHESIS, *REFERENCES}
