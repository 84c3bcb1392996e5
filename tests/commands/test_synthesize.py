"""The commands synthesize and export: one exam, a cohort, and the measure of banding."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
import pytest
from helpers.heads import SHAPE, TIMES, affine_of, head, save
from helpers.models import TINY_METHODS, tiny, write_run
from helpers.scans import head as scan_head
from helpers.scans import write_scan

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.exam_files import ExamFiles
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.synthesis import acquired, cohort, from_scans, model_files
from mrdiff_jax.synthesis.from_scans import SynthesisOptions
from mrdiff_jax.synthesis.synthesizer import Synthesizer

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("score_volume", ROOT / "tools" / "score_volume.py")
score_volume = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(score_volume)


def make_cohort(root):
    for subject, contrasts in {"sub-01": ("T2w", "PDw"), "sub-02": ("T2w", "PDw", "T1w"), "sub-03": ("T2w",)}.items():
        for contrast in contrasts:
            write_scan(root, subject, contrast, sidecar={"RepetitionTime": 4, "EchoTime": 0.09})
    for contrast in ("T2w", "PDw"):
        write_scan(root, "sub-04", contrast, session="ses-1", sidecar=None if contrast == "PDw" else "default")
    return root


def test_a_cohort_becomes_a_derivative(synthesizer, tmp_path):
    root, output = make_cohort(tmp_path / "in"), tmp_path / "out"

    def run(**settings):
        return cohort.run(synthesizer, root, output, SynthesisOptions(steps=1, samples=2, **settings), {})

    outcomes = {one.exam: one for one in run()}
    assert {name: one.outcome for name, one in outcomes.items()} == {
        **{"sub-01": "synthesised", "sub-02": "acquired", "sub-03": "failed", "sub-04_ses-1": "failed"},
    }
    assert "has no PDw" in outcomes["sub-03"].reason
    assert "--tr=PDw=MILLISECONDS" in outcomes["sub-04_ses-1"].reason
    files = {path.relative_to(output).as_posix() for path in output.rglob("*.*") if path.is_file()}
    made = {f"sub-01/anat/sub-01_desc-synthetic{kind}_T1w{end}" for kind in ("", "Std") for end in (".nii.gz", ".json")}
    assert files == {"dataset_description.json", "report.csv"} | made
    description = json.loads((output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "mrdiff_jax"
    assert len((output / "report.csv").read_text().splitlines()) == 5

    volume = output / "sub-01/anat/sub-01_desc-synthetic_T1w.nii.gz"
    before = volume.stat().st_mtime_ns
    stated = {"PDw": SequenceTimes(4000.0, 20.0)}
    again = cohort.run(synthesizer, root, output, SynthesisOptions(steps=1, samples=2), stated)
    assert [one.outcome for one in again] == ["done", "acquired", "failed", "synthesised"]
    assert volume.stat().st_mtime_ns == before
    assert (output / "sub-04/ses-1/anat/sub-04_ses-1_desc-synthetic_T1w.nii.gz").exists()
    assert "another Sampling" in run(seed=1)[0].reason
    write_scan(root, "sub-01", "PDw", scan_head(1), sidecar={"RepetitionTime": 4, "EchoTime": 0.09})
    assert "another sub-01_PDw.nii.gz" in run()[0].reason
    volume.with_name(volume.name.replace(".nii.gz", ".json")).write_text("{")
    assert "is damaged" in run()[0].reason


def test_a_method_that_does_without_some_sources_takes_exams_that_have_one(tmp_path):
    config = tiny(**{"method.name": "m2dn"} | TINY_METHODS["m2dn"])
    model = Synthesizer.load(write_run(tmp_path / "m2dn", config))
    root, output = make_cohort(tmp_path / "in"), tmp_path / "out"
    outcomes = {one.exam: one.outcome for one in cohort.run(model, root, output, SynthesisOptions(steps=1), {})}
    assert outcomes["sub-01"] == outcomes["sub-03"] == "synthesised"
    sidecars = [output / f"{name}/anat/{name}_desc-synthetic_T1w.json" for name in ("sub-01", "sub-03")]
    assert [list(json.loads(path.read_text())["Sources"]) for path in sidecars] == [["T2w", "PDw"], ["T2w"]]


def test_an_interrupted_cohort_leaves_its_report(synthesizer, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(from_scans, "synthesize", interrupted)
    root, output = make_cohort(tmp_path / "in"), tmp_path / "out"
    (root / "sub-03").rename(root / "sub-00")  # fails first
    with pytest.raises(KeyboardInterrupt):
        cohort.run(synthesizer, root, output, SynthesisOptions(), {})
    assert [line.split(",")[:2] for line in (output / "report.csv").read_text().splitlines()[1:]] == [["sub-00", "failed"]]


def test_an_exam_that_is_too_large_for_the_memory_stops_no_other(synthesizer, tmp_path, monkeypatch):
    whole = from_scans.synthesize

    def short_of_memory(model, scans, settings):
        if "sub-01" in scans.frame_path.name:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
        return whole(model, scans, settings)

    monkeypatch.setattr(from_scans, "synthesize", short_of_memory)
    root = make_cohort(tmp_path / "in")
    (root / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
    outcomes = {one.exam: one for one in cohort.run(synthesizer, root, tmp_path / "out", SynthesisOptions(steps=1), {})}
    assert outcomes["sub-02"].outcome == "synthesised"
    assert outcomes["sub-01"][1:] == ("failed", "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")


def test_names_of_a_derivative_keep_the_targets_entities(tmp_path):
    exam = cohort.ExamFiles("sub-01_ses-2", "sub-01", {}, "ses-2")
    names = [cohort.path_in(tmp_path, exam, "ce-gad_T1w", result).name for result in ("synthetic", "std", "T1 features")]
    kinds = ("", "Std", "T1Features")
    assert names == [f"sub-01_ses-2_ce-gad_desc-synthetic{kind}_T1w.nii.gz" for kind in kinds]


def test_another_data_set_is_not_written_into(synthesizer, tmp_path):
    root = make_cohort(tmp_path)
    (root / "dataset_description.json").write_text('{"Name": "raw", "BIDSVersion": "1.9.0"}')
    with pytest.raises(UserError, match="folder of the scans"):
        cohort.run(synthesizer, root, root, SynthesisOptions(), {})
    other = tmp_path / "other"
    other.mkdir()
    (root / "dataset_description.json").rename(other / "dataset_description.json")
    with pytest.raises(UserError, match="did not make"):
        cohort.run(synthesizer, root, other, SynthesisOptions(), {})
    with pytest.raises(UserError, match="no sub-"):
        cohort.run(synthesizer, tmp_path / "sub-01", tmp_path / "out", SynthesisOptions(), {})


def call(*flags):
    command = [sys.executable, "-m", "mrdiff_jax.synthesize", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_the_command(workdir, pair, tmp_path):
    output = tmp_path / "made" / "t1.nii.gz"
    finer = (46, 44, 40)
    pair["PDw"] = save(tmp_path / "finer.nii.gz", affine_of((4, 3, -5), (1.5,) * 3, finer), finer)
    sources = [f"--source={name}={path}" for name, path in pair.items()]
    run = call(
        f"--workdir={workdir}", *sources, f"--output={output}", "--tr=T2w=4000,PDw=2000", "--te=T2w=100,PDw=10", "--steps=1"
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(output)
    assert "PDw: registered, for its edges lay" in run.stderr
    assert "slice/s" not in run.stderr  # no progress bar where nobody looks on
    made = nib.load(output)
    assert made.shape == SHAPE
    assert made.get_data_dtype() == np.float32
    assert 10 <= made.get_fdata().min() < made.get_fdata().max() <= 210
    assert json.loads((output.parent / "t1.json").read_text())["Sampling"]["Steps"] == 1


def test_a_mistake_is_one_line_and_status_2(workdir, pair, tmp_path):
    root = make_cohort(tmp_path / "in")
    sources = [f"--source={name}={path}" for name, path in pair.items()]
    (tmp_path / "t1_std.nii.gz").touch()
    (tmp_path / "old_T2-features.nii.gz").touch()
    for flags, message in (
        ([*sources, f"--output={tmp_path / 't1.nii.gz'}"], "t1_std.nii.gz: would lie beside this synthesis"),
        ([*sources, f"--output={tmp_path / 'old.nii.gz'}"], "old_T2-features.nii.gz: would lie beside this synthesis"),
        (["--source=T2=t2.nii.gz", f"--output={tmp_path / 'new.nii.gz'}"], "did you mean T2w?"),
        (
            [*sources, f"--output={tmp_path / 't1.nii.gz'}", "--tr=T2w=4000,PDw=2000", "--te=T2w=90,PDw=9", "--steps=1001"],
            "--steps",
        ),
        (
            [*sources, f"--output={tmp_path / 't1.nii.gz'}", "--tr=T2w=4000,PDw=2000", "--te=T2w=90,PDw=9", "--samples=2"],
            "t1_std.nii.gz: is there and not synthetic",
        ),
        (["--bids", root, "--output", tmp_path / "out", "--steps=1"], "of 4 exams failed"),
    ):
        run = call(f"--workdir={workdir}", *flags)
        assert run.returncode == 2, run.stderr
        assert message in run.stderr.strip().splitlines()[-1]
        assert "Traceback" not in run.stderr


def test_the_exported_model_makes_the_same(synthesizer, workdir, pair, tmp_path):
    command = [sys.executable, "-m", "mrdiff_jax.export", f"--workdir={workdir}", f"--output={tmp_path / 'model.safetensors'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    exported = Synthesizer.load(tmp_path / "model.safetensors")
    assert exported.trained.sha256 == synthesizer.trained.sha256
    scans = from_scans.read_scans(synthesizer, pair, None, TIMES)
    settings = SynthesisOptions(steps=1, batch_size=4)
    a, b = (from_scans.synthesize(one, scans, settings)["synthetic"] for one in (synthesizer, exported))
    np.testing.assert_array_equal(a, b)
    (tmp_path / "foreign.json").write_text('{"Name": "raw"}')
    with pytest.raises(UserError, match=r"foreign\.json: is there and no export"):
        model_files.export(synthesizer.trained, tmp_path / "foreign.safetensors")


def test_banding_is_seen():
    truth = head(nib.affines.apply_affine(affine_of(), np.moveaxis(np.indices(SHAPE), 0, -1))) / 1000
    body, banding = truth > 0.1, score_volume.banding
    banded = truth + np.where(np.arange(SHAPE[2]) % 2, 0.05, -0.05)
    assert banding(truth, truth, body, 2) == pytest.approx(1)
    assert banding(0.5 * truth, truth, body, 2) == pytest.approx(1)
    assert banding(banded, truth, body, 2) > 1.3
    assert banding(np.swapaxes(banded, 0, 2), np.swapaxes(truth, 0, 2), np.swapaxes(body, 0, 2), 0) > 1.3


def test_a_target_acquired_under_another_spelling_counts_and_folders_without_anat_are_passed_over(synthesizer, tmp_path):
    root = make_cohort(tmp_path / "in")
    anat = root / "sub-09" / "anat"
    anat.mkdir(parents=True)
    for name in ("T2w", "PDw", "acq-3D_run-1_T1w"):
        save(anat / f"sub-09_{name}.nii.gz", affine_of())
    for name in ("sub-emptyroom/meg", "sub-10/func"):
        (root / name).mkdir(parents=True)
    outcomes = {one.exam: one for one in cohort.run(synthesizer, root, tmp_path / "out", SynthesisOptions(steps=1), TIMES)}
    assert outcomes["sub-09"][1:] == ("acquired", "sub-09_acq-3D_run-1_T1w.nii.gz")
    assert outcomes["sub-10"].outcome == "passed over"
    assert "sub-emptyroom" not in outcomes


def found(spelled, target):
    """Whether a file of an exam counts as its target: 'yes', 'perhaps' or 'no'."""
    exam = ExamFiles("sub-09", "sub-09", {}, found={spelled: ScanPath(Path(f"{spelled}.nii"))})
    asked = SimpleNamespace(target=target, sources=("acq-source_T1w",))
    sure, perhaps = acquired.acquired(exam, asked), acquired.perhaps_acquired(exam, asked)
    return "yes" if sure else "perhaps" if perhaps else "no"


@pytest.mark.parametrize(
    ("target", "yes", "perhaps", "no"),
    [
        (
            *("T1w", "T1w acq-mprage_T1w acq-highres_T1w acq-siteB_T1w run-2_T1w ce-none_T1w acq-pre_T1w t1w part-mag_T1w"),
            *("acq-prepost_T1w acq-C_T1w echo-1_T1w desc-preproc_T1w", "ce-gad_T1w acq-post_T1w acq-GD_T1w ce-1_T1w T1map"),
        ),
        (
            *("ce-gad_T1w", "ce-gad_T1w ce-gadolinium_T1w ce-GAD_T1w ce-gd_T1w ce-dotarem_T1w acq-post_T1w acq-ce_T1w"),
            *("ce-1_T1w acq-prepost_T1w", "T1w acq-mprage_T1w ce-none_T1w ce-gad_FLAIR inv-1_ce-gad_T1w acq-source_T1w"),
        ),
        (
            *("FLAIR", "FLAIR acq-3D_run-1_FLAIR flair T2FLAIR space-orig_FLAIR rec-norm_FLAIR"),
            *("echo-1_FLAIR acq-flair_T2w desc-preproc_FLAIR acq-post_FLAIR",),
            *("ce-gad_FLAIR acq-FLAIR_T1w part-phase_FLAIR T2w desc-synthetic_FLAIR mod-FLAIR_defacemask",),
        ),
        ("T2wFS", "T2wFS acq-fs_T2w acq-FS_T2w acq-STIR_T2w", "echo-2_T2wFS", "T2w acq-tse_T2w FLAIR"),
        ("T2w", "T2w acq-tse_T2w", "acq-flair_T2w", "acq-fs_T2w T2wFS T2starw"),
        ("acq-3D_FLAIR", "acq-3D_FLAIR acq-3d_run-01_FLAIR", "acq-3D_echo-1_FLAIR", "FLAIR acq-2D_FLAIR"),
    ],
)
def test_a_target_is_known_by_what_its_name_says(target, yes, perhaps, no):
    for expected, names in {"yes": yes, "perhaps": perhaps, "no": no}.items():
        assert {name: found(name, target) for name in names.split()} == dict.fromkeys(names.split(), expected)


def test_an_exam_that_may_have_the_target_is_left_with_a_word(synthesizer, tmp_path):
    root = make_cohort(tmp_path / "in")
    save(root / "sub-01" / "anat" / "sub-01_echo-1_T1w.nii.gz", affine_of())
    outcomes = {one.exam: one for one in cohort.run(synthesizer, root, tmp_path / "out", SynthesisOptions(steps=1), TIMES)}
    assert outcomes["sub-01"].outcome == "in doubt"
    assert outcomes["sub-01"].reason.startswith("sub-01_echo-1_T1w.nii.gz may be its T1w; rename")
