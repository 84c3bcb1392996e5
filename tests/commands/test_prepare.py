"""The command `prepare` as a user calls it: what it makes, keeps, refuses and says, and that training reads it."""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import browser
from helpers.made_heads import displacement, grid, head, rigid
from helpers.scans import data_config, write_scan

from mrdiff_jax.data import datasets
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import scoring
from mrdiff_jax.preparation import exam_task, example_files, prepared_set, slice_set
from mrdiff_jax.preparation.exam_task import Task
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.scans import layouts
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage import lock
from mrdiff_jax.synthesis import from_scans
from mrdiff_jax.synthesis.from_scans import SynthesisOptions
from mrdiff_jax.synthesis.synthesizer import Synthesizer
from mrdiff_jax.training.loop import train_and_evaluate

ROOT = Path(__file__).parents[2]
PREPARE = [sys.executable, "-m", "mrdiff_jax.prepare"]
CONTRASTS = ("T1w", "T2w")
THICK = grid((40, 44, 22), (3, 3, 5))
MOVE = rigid(8, (1, 0, 1), (6, -4, 5))
OPTIONS = Options(CONTRASTS, "T1w", image_size=32)
FLAGS = ["--contrasts=T1w,T2w", "--reference=T1w", "--image-size=32", "--test-subjects=sub-03", "--validation-fraction=0"]


def call(*flags):
    return subprocess.run([*PREPARE, *map(str, flags)], cwd=ROOT, capture_output=True, text=True, timeout=300)


def write_exam(root, subject, seed, t2w=None, on=THICK):
    write_scan(root, subject, "T1w", head("T1w", THICK, seed=seed), THICK.affine)
    t2w = head("T2w", on, seed=seed + 100) if t2w is None else t2w
    return write_scan(root, subject, "T2w", t2w, on.affine)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Good exams (one with its T2w elsewhere) and bad ones."""
    root = tmp_path_factory.mktemp("cohort") / "scans"
    write_exam(root, "sub-01", 1)
    own = grid((48, 48, 24), (2.5, 2.5, 5), shift=(2, 0, 0))
    write_exam(root, "sub-02", 2, head("T2w", own, MOVE, seed=102), own)
    write_exam(root, "sub-03", 3)
    damaged = write_exam(root, "sub-04", 4)
    damaged.write_bytes(damaged.read_bytes()[:-500])
    write_exam(root, "sub-05", 5).unlink()
    write_exam(root, "sub-06", 6, head("T2w", THICK, seed=106)[::-1].copy())
    shutil.copytree(root / "sub-01", root / "sub-07")
    for path in list((root / "sub-07" / "anat").iterdir()):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-07")))
    write_exam(root, "sub-08", 8, np.full(THICK.shape, 7, np.float32))
    return root


@pytest.fixture(scope="module")
def made(cohort):
    """The output of a run that was killed after its first exam, and started again; and the second call."""
    output = cohort.parent / "out"
    flags = [f"--input={cohort}", f"--output={output}", "--processes=2", *FLAGS]
    process = subprocess.Popen([*PREPARE, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not list((output / "subjects").glob("sub-*")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(is_alive, workers)))
    before = {path: path.stat().st_mtime_ns for path in (output / "subjects").glob("sub-*/record.json")}
    run = call(*flags)
    assert before
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    return output, run


def wait_until(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def manifest(output):
    with (output / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_change_of_subjects_reaches_the_set_and_lost_slices_are_written_again(made, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(made[0], output)
    records = [exam_task.read_record(folder) for folder in sorted((output / "subjects").iterdir())]
    options = prepared_set.read(output).options
    one = [replace(record, subject="p1") for record in records]
    prepared_set.write_dataset(output, one, options)
    assert prepared_set.read(output).subjects == ["p1"]
    shutil.rmtree(output / "dataset" / "mr_slices")
    prepared_set.write_dataset(output, one, options)
    assert slice_set.has_examples(output / "dataset")


def test_a_second_call_on_one_set_waits_for_the_first(made, cohort):
    output, _ = made
    with lock.hold(output / ".prepare.lock", "prepares"):
        run = call(f"--input={cohort}", f"--output={output}", *FLAGS)
    assert run.returncode == 2
    assert f"{output}: process" in run.stderr
    assert "prepares here; wait for it" in run.stderr


def test_a_data_set_that_is_trained_on_stays_as_it_was_opened(made, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(made[0], output)
    dataset = datasets.open_dataset(prepared_config(output))
    before = [dataset.split("train")[i]["slice"] for i in range(3)]
    prepared_file = output / "dataset" / "prepared.json"
    prepared_file.write_text(prepared_file.read_text().replace('"subject": "sub-01"', '"subject": "sub-99"'))
    assert [dataset.split("train")[i]["slice"] for i in range(3)] == before


def test_a_scan_is_read_again_when_another_takes_its_place(tmp_path):
    scans = {name: tmp_path / name / "scan.nii" for name in "ab"}
    for path in scans.values():
        path.parent.mkdir()
        path.write_bytes(b"0123")
        os.utime(path, (1e9, 1e9))
    states = {exam_task._state(path) for path in scans.values()}
    assert len(states) == 2  # of equal name, size and time
    assert str(tmp_path) not in str(states)


def test_what_a_rule_excuses_is_looked_at_again_without_it(made, cohort):
    exam = next(one for one in layouts.find_subjects(cohort, "bids", CONTRASTS) if one.name == "sub-01")
    task = Task(exam, {}, OPTIONS, cohort, made[0])
    ruled = task._replace(files=replace(exam, ruled=frozenset({"T2w"})))
    assert exam_task._times_key(task) != exam_task._times_key(ruled)


def test_the_good_are_prepared_and_the_bad_told_in_a_line_each(made):
    output, run = made
    assert run.returncode == 2
    assert "3 of 8 exams prepared" in run.stdout
    assert "--config.data.sources=T1w --config.data.target=T2w" in run.stdout
    assert "exam" not in run.stderr.split("failed:")[0]  # no progress bar where nobody looks on
    lines = [line for line in run.stderr.splitlines() if line.startswith("failed: ")]
    words = {
        "sub-04": "not a readable NIfTI",
        "sub-05": "has no T2w",
        "sub-06": "mirrored",
        "sub-07": "voxels of a scan of sub-01",
        "sub-08": "all voxels are 7",
    }
    assert len(lines) == len(words)
    rows = manifest(output)
    for line, (subject, reason) in zip(lines, words.items(), strict=True):
        assert subject in line
        assert reason in line
        told = [row for row in rows if row["exam"] == subject]
        assert {row["status"] for row in told} == {"failed"}
        assert all(row["reason"] in line for row in told)
    assert {row["exam"] for row in rows if row["status"] == "done"} == {"sub-01", "sub-02", "sub-03"}
    assert [path.name for path in output.rglob(".*")] == [".prepare.lock"]


def test_the_manifest_says_what_was_done(made):
    rows = {(row["exam"], row["contrast"]): row for row in manifest(made[0])}
    alone, moved = rows["sub-01", "T2w"], rows["sub-02", "T2w"]
    assert alone["path"] == "sub-01/anat/sub-01_T2w.nii.gz"
    assert (alone["tr_ms"], alone["te_ms"], alone["ti_ms"]) == ("4000.0", "100.0", "")
    assert (alone["action"], moved["action"], rows["sub-02", "T1w"]["action"]) == ("left alone", "registered", "reference")
    assert displacement(np.array(moved["transform"].split(), float).reshape(4, 4), MOVE) < 0.5
    assert float(moved["shift_mm"]) < 1 < 5 < float(moved["shift_before_mm"])
    assert float(alone["mirror_gain"]) < 0 < float(rows["sub-06", "T2w"]["mirror_gain"])
    assert alone["bias_correction"] == "N4"
    assert (alone["split"], rows["sub-03", "T1w"]["split"]) == ("train", "test")


def prepare_here(cohort, output, subjects, options=OPTIONS):
    exams = [exam for exam in layouts.find_subjects(cohort, "bids", CONTRASTS) if exam.name in subjects]
    return [exam_task.prepare(Task(exam, exam.times, options, cohort, output)) for exam in exams]


def test_neither_processes_nor_a_kill_change_a_byte(made, cohort, tmp_path):
    records = prepare_here(cohort, tmp_path, ("sub-01", "sub-02", "sub-03"))
    prepared_set.write_dataset(tmp_path, records, OPTIONS)
    for part in ("subjects/sub-01", "subjects/sub-02", "subjects/sub-03", "dataset"):
        assert digest(tmp_path / part) == digest(made[0] / part)


def test_registered_slices_show_what_aligned_ones_show(made):
    slices = [np.load(made[0] / "subjects" / exam / "slices.npy") / 65535 for exam in ("sub-01", "sub-02")]
    records = [exam_task.read_record(made[0] / "subjects" / exam) for exam in ("sub-01", "sub-02")]
    common = sorted({*records[0].slices} & {*records[1].slices})
    a, b = (part[[record.slices.index(i) for i in common]] for part, record in zip(slices, records, strict=True))
    assert len(common) > 8
    for channel in range(2):
        assert np.corrcoef(a[..., channel].ravel(), b[..., channel].ravel())[0, 1] > 0.97


def prepared_config(output, **changes):
    return data_config(output, name="prepared", sources="T1w", target="T2w", image_size=32, **changes)


def test_training_reads_the_set_and_an_edit_of_its_splits_counts(made, tmp_path):
    output = tmp_path / "set"
    shutil.copytree(made[0], output)
    first = datasets.open_dataset(prepared_config(output))
    assert {first.split("test")[i]["subject"] for i in range(len(first.split("test")))} == {"sub-03"}
    example = first.split("train")[0]
    assert example["sources"].shape == (32, 32, 1)
    np.testing.assert_allclose([example["tr"], example["te"]], [[500], [10]])
    splits = (output / "splits.csv").read_text()
    (output / "splits.csv").write_text(splits.replace("sub-03,test", "sub-03,train").replace("sub-01,train", "sub-01,test"))
    second = datasets.open_dataset(prepared_config(output))
    assert {second.split("test")[i]["subject"] for i in range(len(second.split("test")))} == {"sub-01"}
    assert first.fingerprint != second.fingerprint
    for dataset, held_out in ((first, "sub-03"), (second, "sub-01")):
        scores = scoring.reference_scores(dataset, "test", scoring.Scorer("default"), 4)[1]
        assert {row["subject"] for row in scores["linear"].rows} == {held_out}
    total = sum(len(second.split(split)) for split in ("train", "validation", "test"))
    assert total == sum(len(first.split(split)) for split in ("train", "validation", "test"))


class Observed(Synthesizer):
    """Keeps the images that it was given."""

    def __call__(self, sources, *args, **kwargs):
        self.seen = [*getattr(self, "seen", ()), *sources]
        return super().__call__(sources, *args, **kwargs)


def test_a_network_trains_on_the_set_and_then_sees_scans_as_in_training(made, cohort, tiny_config, tmp_path):
    tiny_config.data.update(prepared_config(made[0]))
    tiny_config.train.update(steps=2)
    tiny_config.evaluate.update(slices=2)
    train_and_evaluate(tiny_config, tmp_path)
    assert (tmp_path / "metrics.json").is_file()

    synthesizer = Observed.load(tmp_path)
    scans = from_scans.read_scans(synthesizer, {"T1w": cohort / "sub-01" / "anat" / "sub-01_T1w.nii.gz"}, None, {})
    volume = from_scans.synthesize(synthesizer, scans, SynthesisOptions(steps=1))["synthetic"]
    assert volume.shape == THICK.shape
    assert np.isfinite(volume).all()
    slices = datasets.open_dataset(prepared_config(made[0])).split("train")
    own = [slices[i] for i in range(len(slices)) if slices[i]["subject"] == "sub-01"]
    trained_on = np.stack([example["sources"] for example in own])
    seen = np.stack([synthesizer.seen[example["slice"]] for example in own])
    assert np.abs(seen - trained_on).mean() < 0.01  # the body mask and the bias field are of the sources alone


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 64}, ("32 x 32", "--config.data.image_size=32")),
        ({"target": "FLAIR"}, ("no contrast 'FLAIR'", "T1w, T2w")),
        ({"root": "nowhere"}, ("nowhere", "mrdiff prepare")),
    ],
)
def test_a_set_that_does_not_fit_the_config_is_refused(made, changes, words):
    config = prepared_config(made[0])
    config.update(changes)
    with pytest.raises(UserError) as caught:
        datasets.open_dataset(config)
    assert all(word in str(caught.value) for word in words)


def test_a_set_of_another_version_is_refused(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "old")
    examples = tmp_path / "old" / "dataset" / example_files.EXAMPLES_FOLDER
    examples.rename(examples.with_name("0.0.1"))
    with pytest.raises(
        UserError, match=r"old: was prepared by another version of the package; give the command of prepare again"
    ):
        datasets.open_dataset(prepared_config(tmp_path / "old"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--contrasts=T1w"], "two contrasts"),
        (["--contrasts=T1w,T2w", "--reference=PDw"], "--reference=PDw"),
        (["--contrasts=T1w,T2w", "--slices=40:30"], "--slices=40:30"),
        (["--contrasts=T1w,T2w", "--image-size=50"], "multiple of 8"),
        (["--contrasts=T1w,T2w", "--tr=T1=500"], "'T1' is not among the contrasts"),
        (["--contrasts=T1w,T2w", "--test-subjects=sub-9*"], "'sub-9*' matches none"),
        (["--contrasts=T1w,T2w", "--times=TABLE"], "T1w of sub-99 is not among the scans"),
    ],
)
def test_wrong_flags_are_told_in_one_line(cohort, tmp_path, flags, words):
    table = tmp_path / "times.csv"
    table.write_text("subject,contrast,tr,te,ti\nsub-99,T1w,500,10,\n")
    flags = [flag.replace("TABLE", str(table)) for flag in flags]
    run = call(f"--input={cohort}", f"--output={tmp_path / 'out'}", *flags)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert words in run.stderr
    assert not (tmp_path / "out").exists()


def test_many_problems_of_an_exam_fit_in_two_lines_of_a_terminal(cohort, tmp_path):
    (exam,) = (one for one in layouts.find_subjects(cohort, "bids", CONTRASTS) if one.name == "sub-01")
    problems = tuple(f"sub-01: has two scans that fit contrast {number}" for number in range(9))
    reason = exam_task.prepare(Task(replace(exam, problems=problems), {}, OPTIONS, cohort, tmp_path)).reason
    assert reason.startswith(f"{problems[0]}; {problems[1]}")
    assert reason.endswith(" more)")
    assert len(reason) <= 215


def test_times_that_a_contrast_cannot_have_are_refused_unless_a_rule_says_so(cohort, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(cohort / "sub-01", root / "sub-01")
    (exam,) = layouts.find_subjects(root, "bids", CONTRASTS)
    exam.scans["T2w"].path.with_name("sub-01_T2w.json").write_text('{"EchoTime": 0.00298, "InversionTime": 0.9}')
    task = Task(exam, {}, OPTIONS, root, tmp_path / "out")
    assert "sub-01_T2w.nii.gz: TE 2.98 ms is too short for T2w; fix" in exam_task.prepare(task).reason
    ruled = exam_task.prepare(task._replace(files=replace(exam, ruled=frozenset(["T2w"]))))
    assert ruled.times[1] == (0, 2.98, 900)


def test_times_stated_later_are_added_and_slices_stay(cohort, tmp_path):
    root = tmp_path / "scans"
    shutil.copytree(cohort / "sub-01", root / "sub-01")
    for sidecar in root.rglob("*.json"):
        sidecar.unlink()
    (exam,) = layouts.find_subjects(root, "bids", CONTRASTS)

    def done(**stated):
        return exam_task.prepare(Task(exam, stated, OPTIONS, root, tmp_path / "out"))

    assert done().times == ((0, 0, 0), (0, 0, 0))
    slices = tmp_path / "out" / "subjects" / "sub-01" / "slices.npy"
    before = slices.stat().st_mtime_ns
    record = done(T2w=SequenceTimes(4000.0, 90.0))
    assert record.times == ((0, 0, 0), (4000, 90, 0))
    assert slices.stat().st_mtime_ns == before
    assert slices.parent.stat().st_mode & 0o777 == tmp_path.joinpath("out").stat().st_mode & 0o777
    assert done(T2w=SequenceTimes(4000.0, 90.0)) == record


def test_a_mended_scan_is_prepared_anew_and_others_are_not(cohort, tmp_path):
    root, output = tmp_path / "scans", tmp_path / "out"
    for subject in ("sub-01", "sub-05"):
        shutil.copytree(cohort / subject, root / subject)
    first = prepare_here(root, output, ("sub-01", "sub-05"))
    assert [bool(record.reason) for record in first] == [False, True]
    written = (output / "subjects" / "sub-01" / "record.json").stat().st_mtime_ns
    write_scan(root, "sub-05", "T2w", head("T2w", THICK, seed=105), THICK.affine)
    again = prepare_here(root, output, ("sub-01", "sub-05"))
    assert not any(record.reason for record in again)
    assert (output / "subjects" / "sub-01" / "record.json").stat().st_mtime_ns == written


def test_a_field_of_view_in_mm_is_cut_around_the_body(cohort, tmp_path):
    (record,) = prepare_here(cohort, tmp_path, ("sub-01",), Options(CONTRASTS, "T1w", image_size=32, field_mm=100.0))
    slices = np.load(tmp_path / "subjects" / "sub-01" / "slices.npy")
    assert not record.reason
    shown = slices[len(slices) // 2, ..., 0] > 6000
    columns, rows = shown.any(0), shown.any(1)
    assert rows.sum() * 100 / 32 == pytest.approx(92, abs=8)  # the head is 92 mm long
    for profile in (rows, columns):
        first, last = np.flatnonzero(profile)[[0, -1]]
        assert abs(first - (31 - last)) <= 2


def test_names_of_patients_and_places_stay_out(made, cohort):
    for path in made[0].rglob("*"):
        if path.is_file():
            assert str(cohort).encode() not in path.read_bytes() or path.name in ("manifest.csv", "index.html")


@pytest.mark.skipif(browser.BROWSER is None, reason="no Chromium")
def test_the_page_shows_every_exam_in_a_browser(made, tmp_path):
    page = (made[0] / "index.html").read_text()
    assert not re.search(r"(src|href)=.?http", page)
    dom = browser.shown(made[0] / "index.html", tmp_path)
    assert dom.count('class="exam failed"') == 5
    assert dom.count('class="exam"') == 3
    assert "mirrored" in dom


def test_beam_gives_the_same_bytes(made, cohort, tmp_path):
    pytest.importorskip("apache_beam")
    run = call(f"--input={cohort}", f"--output={tmp_path / 'out'}", "--beam=--runner=DirectRunner", *FLAGS)
    assert run.returncode == 2, run.stderr
    written, others = digest(tmp_path / "out"), digest(made[0])
    assert written == others


def test_one_subject_is_refused_before_the_work(tmp_path):
    write_exam(tmp_path / "scans", "sub-01", 1)
    run = call(f"--input={tmp_path / 'scans'}", f"--output={tmp_path / 'out'}", "--contrasts=T1w,T2w", "--image-size=32")
    assert run.returncode == 2
    assert "leaves no subject for train" in run.stderr
    assert not (tmp_path / "out").exists()


def test_of_many_exams_that_fail_alike_the_page_has_all(tmp_path):
    for number in range(23):
        write_exam(tmp_path / "scans", f"sub-{number:02d}", number).unlink()
    run = call(f"--input={tmp_path / 'scans'}", f"--output={tmp_path / 'out'}", "--contrasts=T1w,T2w", "--image-size=32")
    assert run.returncode == 2
    assert run.stderr.count("has no T2w") == 20
    assert f"failed: 3 more; {tmp_path / 'out' / 'index.html'} names them all" in run.stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(f"sub-{number:02d} has no T2w" in page for number in range(23))
