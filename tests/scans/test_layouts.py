"""What is found where in trees as users have them, their problems said one by one."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import canonical, write_dual_echo, write_enhanced, write_series
from helpers.layouts import found, names, nifti, the_problem
from helpers.scans import head, real_scans, write_scan

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.archives import LAYOUTS
from mrdiff_jax.scans.layouts import find_subjects, parse_rules
from mrdiff_jax.scans.volumes import read_scan, scan_times

# BIDS


def test_bids_tells_the_problems_of_each_exam(root):
    write_scan(root, "sub-04", "T1w", session="ses-1")
    write_scan(root, "sub-02", "T2w", suffix=".nii")
    (root / "sub-05").mkdir()
    exams = found(root, "bids", "T1w,T2w")
    assert names(exams["sub-01"]) == {"T1w": "sub-01_T1w.nii.gz", "T2w": "sub-01_T2w.nii.gz"}
    assert not exams["sub-01"].problems
    the_problem(exams["sub-02"], "a second T2w", "sub-02_T2w.nii;", "keep one")
    the_problem(exams["sub-04_ses-1"], "has no T2w (it has T1w)")
    assert (exams["sub-04_ses-1"].subject, exams["sub-04_ses-1"].session) == ("sub-04", "ses-1")
    the_problem(exams["sub-05"], root / "sub-05", "no anat folder")


# Patterns


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("{subject}_{contrast}.nii.gz", ("a_T1w.nii.gz", "a_ce-gad_T1w.nii.gz", "b_1_T1w.nii.gz", "b_1_ce-gad_T1w.nii.gz")),
        ("{subject}/{contrast}_*.nii*", ("a/T1w_x.nii", "a/ce-gad_T1w_y.nii.gz", "b_1/T1w_.nii", "b_1/ce-gad_T1w_z.nii")),
        ("**/{subject}-{contrast}.nii", ("a-T1w.nii", "x/a-ce-gad_T1w.nii", "x/y/b_1-T1w.nii", "b_1-ce-gad_T1w.nii")),
        (
            "{subject}/{subject}.{contrast}.nii",
            ("a/a.T1w.nii", "a/a.ce-gad_T1w.nii", "b_1/b_1.T1w.nii", "b_1/b_1.ce-gad_T1w.nii"),
        ),
    ],
)
def test_a_pattern_names_subjects_and_contrasts(tmp_path, pattern, paths):
    files = [nifti(tmp_path / path) for path in paths]
    nifti(tmp_path / "notes" / "a.T1.nii")
    exams = found(tmp_path, "pattern", "T1w,ce-gad_T1w", pattern=pattern)
    lying = {name: [scan.path for scan in exam.scans.values()] for name, exam in exams.items()}
    assert lying == {"a": files[:2], "b_1": files[2:]}
    assert not any(exam.problems for exam in exams.values())
    alone = found(tmp_path, "pattern", "T1w", pattern=pattern)
    assert list(alone) == ["a", "b_1"]  # no subject 'a_ce-gad'


@pytest.mark.parametrize("visits", [("2020-01-01", "2021-01-01"), ("ses-1", "ses-2"), ("baseline", "week4"), ("2020", "2021")])
def test_a_pattern_that_takes_visits_for_subjects_asks_for_the_patient(tmp_path, visits):
    for visit in visits:
        nifti(tmp_path / "s1" / visit / "T1w.nii.gz")
    with pytest.raises(UserError, match=rf"takes '{visits[0]}' for a subject.*\{{subject\}}/\{{session\}}/") as refusal:
        find_subjects(tmp_path, "pattern", ["T1w"], pattern="**/{subject}/{contrast}.nii.gz")
    assert len(str(refusal.value)) < 240
    named = {"{subject}/{session}/{contrast}.nii.gz": {"s1"}, "s1/{subject}/{contrast}.nii.gz": {*visits}}
    for pattern, subjects in named.items():
        assert {exam.subject for exam in find_subjects(tmp_path, "pattern", ["T1w"], pattern=pattern)} == subjects


def test_a_pattern_with_sessions_and_words_of_ones_own(tmp_path):
    for name in (
        "p1/jan/FL_1.nii",
        "p1/jan/pre_1.nii",
        "p1/feb/FL_1.nii",
        "p1/feb/FL_2.nii",
        "p1/feb/pre_1.nii",
        "p2/jan/pre_3.nii",
    ):
        nifti(tmp_path / name)
    options = {"pattern": "{subject}/{session}/{contrast}_*.nii", "rules": {"FLAIR": "fl", "T1w": "pre|native"}}
    exams = found(tmp_path, "pattern", "T1w,FLAIR", **options)
    assert list(exams) == ["p1_ses-feb", "p1_ses-jan", "p2_ses-jan"]
    assert (exams["p1_ses-jan"].subject, exams["p1_ses-jan"].session) == ("p1", "jan")
    assert names(exams["p1_ses-jan"]) == {"T1w": "pre_1.nii", "FLAIR": "FL_1.nii"}
    the_problem(exams["p1_ses-feb"], "p1/feb/FL_1.nii and p1/feb/FL_2.nii all fit FLAIR", "keep one")
    the_problem(exams["p2_ses-jan"], "has no FLAIR (it has T1w)")


@pytest.mark.parametrize(
    ("layout", "options", "words"),
    [
        ("pattern", {}, "needs {subject} and {contrast}"),
        ("pattern", {"pattern": "{subject}_{modality}.nii"}, "no field {modality}"),
        ("pattern", {"pattern": "{subject}_{contrast}.nii"}, r"no file fits .* \(it has x/IXI001-T1.nii.gz\); fix --pattern"),
        ("pattern", {"pattern": "{subject}_{contrast}.nii", "rules": {"T1w": "("}}, "--rules=T1w=.*not a regular expression"),
        ("bids", {}, "no sub-"),
        ("adni", {}, "no folders of ADNI subjects"),
        ("ixi", {}, "no files named as IXI012-HH-1211-T1.nii.gz"),
        ("brats", {}, "no files named as"),
        ("nifti", {}, "choose one of bids, pattern, dicom"),
    ],
)
def test_what_cannot_be_searched_is_refused(tmp_path, layout, options, words):
    nifti(tmp_path / "x/IXI001-T1.nii.gz")
    with pytest.raises(UserError, match=words) as caught:
        find_subjects(tmp_path, layout, ["T1w"], **options)
    assert "\n" not in str(caught.value)


def test_no_folder_and_an_empty_folder(tmp_path):
    for layout in LAYOUTS:
        with pytest.raises(UserError, match="no such folder"):
            find_subjects(tmp_path / "nowhere", layout, ["T1w"], pattern="{subject}_{contrast}.nii")
        with pytest.raises(UserError, match=str(tmp_path)):
            find_subjects(tmp_path, layout, ["T1w"], pattern="{subject}_{contrast}.nii")


def test_rules_are_read_from_flags():
    assert parse_rules(["T1w=MP-?RAGE", " PDw = a=b "]) == {"T1w": "MP-?RAGE", "PDw": "a=b"}
    for texts in (["T1w"], ["=x"], ["T1w="], ["T1w=a", "T1w=b"]):
        with pytest.raises(UserError, match="--rules="):
            parse_rules(texts)


# DICOM


def test_series_are_told_apart_by_their_descriptions(tmp_path):
    folder = tmp_path / "p1"
    write_series(folder / "1", te=9.0, tr=500.0, SeriesDescription="t1_se_tra", SeriesNumber=1)
    write_series(folder / "2", te=9.0, tr=500.0, SeriesDescription="t1_se_tra post GD", SeriesNumber=2)
    write_series(folder / "3", te=90.0, tr=9000.0, ti=2500.0, SeriesDescription="T2 FLAIR", SeriesNumber=3)
    write_series(folder / "4", te=99.0, SeriesDescription="T2 FSE AX", SeriesNumber=4)
    write_series(folder / "5", te=113.0, SeriesDescription="T2_TSE_FS", SeriesNumber=5)
    contrasts = "T1w,ce-gad_T1w,FLAIR,T2w,T2wFS"
    exams = found(tmp_path, "dicom", contrasts)
    assert names(exams["p1"]) == dict(zip(contrasts.split(","), ("p1#1", "p1#2", "p1#3", "p1#4", "p1#5"), strict=True))
    assert [read_scan(path)[1].te for path in exams["p1"].scans.values()] == [9, 9, 90, 99, 113]
    assert not exams["p1"].problems
    assert names(found(tmp_path, "dicom", "T2w", rules={"T2w": "^t2.flair$"})["p1"]) == {"T2w": "p1#3"}
    the_problem(found(tmp_path, "dicom", "PDw")["p1"], "has no PDw (it has #1 t1_se_tra (series 1, TE 9 ms", "--rules=")
    twice = found(tmp_path, "dicom", "T1w", rules={"T1w": "t1"})["p1"]
    the_problem(twice, "#1 t1_se_tra (", "and #2 t1_se_tra post GD", "all fit T1w", "--rules=")
    both = found(tmp_path, "dicom", "T1w,PDw", rules={"PDw": "tra$"})["p1"]
    the_problem(both, "fits PDw and another contrast too")


def test_what_a_series_is_must_be_certain_or_said(tmp_path):
    write_series(tmp_path / "p1/1", te=2.98, tr=2300.0, ti=900.0, SeriesDescription="T2 axial", SeriesNumber=1)
    write_series(tmp_path / "p1/2", te=10.0, tr=500.0, SeriesDescription="t1_tse_tra_KM", SeriesNumber=2)
    write_series(tmp_path / "p1/3", te=10.0, tr=500.0, SeriesDescription="T1 (C?)", SeriesNumber=3)
    exam = found(tmp_path, "dicom", "T2w,T1w")["p1"]
    t2, t1 = exam.problems
    assert "#1 T2 axial (series 1, TE 2.98 ms, 6 slices): TE 2.98 ms is too short for T2w; if it is" in t2
    assert t2.endswith("--rules=T2w='^T2 axial$'")
    assert t1.endswith(r"--rules=T1w='^T1 \(C\?\)$'")
    assert all(len(problem) < 200 for problem in exam.problems)
    assert names(found(tmp_path, "dicom", "ce-gad_T1w")["p1"]) == {"ce-gad_T1w": "p1#2"}
    ruled = found(tmp_path, "dicom", "T2w,T1w", rules={"T2w": "^T2 axial$", "T1w": r"^T1 \(C\?\)$"})["p1"]
    assert names(ruled) == {"T2w": "p1#1", "T1w": "p1#3"}
    assert ruled.ruled == {"T1w", "T2w"}


def test_headers_are_held_against_descriptions(tmp_path):
    headers = {
        "agent": {"ContrastBolusAgent": "Gadovist"},
        "phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
        "planar": {"ScanningSequence": ["EP", "SE"]},
        "good": {"ContrastBolusAgent": "NONE", "ScanningSequence": ["GR", "IR"], "SequenceName": "*tfl3d1_16ns"},
    }
    for name, header in headers.items():
        write_series(tmp_path / name, te=3.0, tr=2300.0, ti=900.0, SeriesDescription="t1 tra", **header)
    write_series(tmp_path / "echo", te=50.0, SeriesDescription="t2 tra", SequenceName="*me2d1r4")
    exams = found(tmp_path, "dicom", "T1w")
    the_problem(exams["agent"], "names a contrast agent")
    the_problem(exams["phase"], "phase images")
    the_problem(exams["planar"], "echo planar")
    assert not exams["good"].problems
    the_problem(found(tmp_path, "dicom", "T2w")["echo"], "gradient echo")


def test_a_long_list_of_series_is_cut(tmp_path):
    for number in range(12):
        write_series(
            tmp_path / "p1" / str(number), SeriesDescription=f"a long description, number {number}", SeriesNumber=number
        )
    problem = the_problem(found(tmp_path, "dicom", "T1w")["p1"], "#1 a long description, number 0", "and 11 more", "--rules=")
    assert len(problem) < 200


def test_both_echoes_are_told_apart_by_echo_time(tmp_path):
    pd, t2 = write_dual_echo(tmp_path / "p1/ses-1/a", description="PD/T2 AXIAL")
    write_enhanced(tmp_path / "p1/ses-2/b.dcm", {90.0: t2, 12.0: pd})
    rules = {"PDw": "PD/T2|enhanced", "T2w": "PD/T2|enhanced"}
    exams = found(tmp_path, "dicom", "T2w,PDw", rules=rules)
    assert list(exams) == ["p1_ses-1", "p1_ses-2"]
    for exam in exams.values():
        assert exam.subject == "p1"
        echo_times = {contrast: read_scan(path)[1].te for contrast, path in exam.scans.items()}
        assert echo_times["PDw"] <= 12
        assert echo_times["T2w"] >= 90
    write_series(tmp_path / "p1/ses-3", SeriesDescription="PD/T2")  # one echo alone: which one?
    the_problem(found(tmp_path, "dicom", "T2w,PDw", rules=rules)["p1_ses-3"], "fits PDw and another contrast too")


def test_one_bad_subject_does_not_stop_the_others(tmp_path):
    for subject in ("p1", "p2", "p3"):
        write_series(tmp_path / subject, SeriesDescription="T1 SE")
    broken = next((tmp_path / "p2").iterdir())
    broken.write_bytes(broken.read_bytes()[:300])
    (tmp_path / "p4").mkdir()
    exams = found(tmp_path, "dicom", "T1w")
    the_problem(exams["p2"], "p2: ", broken, "copy it again")
    the_problem(exams["p4"], "p4: ", "no DICOM images")
    assert not exams["p1"].problems
    assert not exams["p3"].problems


def test_a_subject_that_is_there_twice_is_found_by_its_series(tmp_path):
    write_series(tmp_path / "p1", SeriesDescription="T1 SE")
    write_series(tmp_path / "p2", SeriesDescription="T1 SE")
    shutil.copytree(tmp_path / "p1", tmp_path / "p3")
    exams = found(tmp_path, "dicom", "T1w")
    the_problem(exams["p1"], "p1: holds a DICOM series that p3 holds too")
    the_problem(exams["p3"], "p3: holds a DICOM series that p1 holds too")
    assert not exams["p2"].problems


@pytest.mark.parametrize(
    "name", ["t1_lesion", "t1_tumor", "T1_tumour", "t1_roi", "5_t1_mprage_gtv", "t1_seg", "t1_mask", "t1_label1"]
)
def test_a_file_named_as_a_mask_is_asked_about_unless_a_scan_or_a_rule_says_which(tmp_path, name):
    nifti(tmp_path / "p1" / f"{name}.nii.gz")
    nifti(tmp_path / "tumor_p2" / "tumor_p2_t1.nii.gz")
    for file in ("t1_mprage", name):
        nifti(tmp_path / "p3" / f"{file}.nii.gz")
    exams = found(tmp_path, "dicom", "T1w")
    the_problem(exams["p1"], f"p1: {name}.nii.gz: ", "--rules=T1w=")
    assert not exams["tumor_p2"].problems
    assert exams["p3"].scans["T1w"].name == "t1_mprage.nii.gz"
    nifti(tmp_path / "1" / "T1w.nii.gz")  # of which the folder's name is a part
    assert not found(tmp_path, "dicom", "T1w")["1"].problems
    assert found(tmp_path, "dicom", "T1w", rules={"T1w": f"^{name}"})["p1"].scans["T1w"].name == f"{name}.nii.gz"


@pytest.mark.parametrize("labels", [2, 5])
def test_a_volume_of_a_few_whole_numbers_is_a_mask_and_no_scan(tmp_path, labels):
    values = np.digitize(head(), np.quantile(head(), np.arange(1, labels) / labels)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(UserError, match=f"a.nii: holds {labels} different values alone, as a mask does"):
        read_scan(tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(values + head() // 100, np.eye(4)), tmp_path / "a.nii")
    read_scan(tmp_path / "a.nii")


def test_names_that_differ_in_case_alone_are_told(tmp_path):
    for subject in ("P1", "p1", "p2"):
        nifti(tmp_path / f"{subject}_T1w.nii")
    exams = found(tmp_path, "pattern", "T1w", pattern="{subject}_{contrast}.nii")
    assert [name for name, exam in exams.items() if exam.problems] == ["P1", "p1"]
    the_problem(exams["p1"], "another exam has this name")


def test_a_folder_that_cannot_be_read_is_one_problem(tmp_path, monkeypatch):
    for subject in ("sub-01", "sub-02"):
        write_scan(tmp_path, subject, "T1w")
    scandir, listdir = os.scandir, os.listdir
    locked = tmp_path / "sub-02/anat"

    def refuse(original, path):
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return original(path)

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(scandir, path))
    monkeypatch.setattr(os, "listdir", lambda path=".": refuse(listdir, path))
    for layout, contrast, name in (("bids", "T1w", "sub-02"), ("pattern", "T1w", "sub-02/anat"), ("dicom", "T1w", "sub-02")):
        exams = found(tmp_path, layout, contrast, pattern="*/anat/{subject}_{contrast}.nii.gz")
        assert not exams["sub-01"].problems
        the_problem(exams[name], tmp_path / "sub-02", "cannot be read (Permission denied)")


# Real scans


def linked(source, path):
    """A real scan under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(source.resolve())


def test_real_scans_in_their_layouts(tmp_path):
    exams = found(real_scans("open_ms/unregistered"), "bids", "T1w,T2w,FLAIR")
    assert list(exams) == ["sub-MSL01_ses-1", "sub-MSL01_ses-2", "sub-MSL03_ses-2", "sub-MSL04_ses-1"]
    assert not any(exam.problems for exam in exams.values())
    linked(real_scans("dicom_pd"), tmp_path / "p1")
    (exam,) = found(tmp_path, "dicom", "PDw").values()
    assert scan_times(exam.scans["PDw"], "PDw", {}) == (2300, 22, 0)


def test_real_scans_under_the_names_of_archives(tmp_path):
    suffixes = {"T1w": "t1", "ce-gad_T1w": "t1ce", "FLAIR": "flair"}
    for number, folder in enumerate(sorted(real_scans("lgg").glob("sub-CS494*")), 1):
        for contrast, suffix in suffixes.items():
            name = f"BraTS2021_{number:05d}"
            linked(folder / f"anat/{folder.name}_{contrast}.nii.gz", tmp_path / f"brats/{name}/{name}_{suffix}.nii.gz")
            linked(folder / f"anat/{folder.name}_{contrast}.nii.gz", tmp_path / f"own/{contrast}/{folder.name}.nii.gz")
    for layout, root, options in (("brats", "brats", {}), ("pattern", "own", {"pattern": "{contrast}/{subject}.nii.gz"})):
        exams = list(found(tmp_path / root, layout, ",".join(suffixes), **options).values())
        assert len(exams) == 4
        assert not any(exam.problems for exam in exams)
        assert read_scan(exams[0].scans["FLAIR"])[0].data.shape == (256, 256, 10)
    for session, number in (("ses-1", "001"), ("ses-2", "002")):  # their sidecars do not come along: IXI has none
        folder = real_scans("open_ms/unregistered") / f"sub-MSL01/{session}/anat"
        for contrast, suffix in (("T1w", "T1"), ("T2w", "T2")):
            linked(
                folder / f"sub-MSL01_{session}_{contrast}.nii.gz", tmp_path / f"ixi/IXI{number}-HH-0{number}-{suffix}.nii.gz"
            )
    exams = found(tmp_path / "ixi", "ixi", "T1w,T2w")
    assert list(exams) == ["IXI001", "IXI002"]
    assert scan_times(exams["IXI002"].scans["T2w"], "T2w", exams["IXI002"].times) == (5725.79, 100, 0)


def test_a_real_scan_written_as_adni_dicom_comes_back(tmp_path):
    image = nib.load(real_scans("open_ms/unregistered") / "sub-MSL01/ses-1/anat/sub-MSL01_ses-1_T1w.nii.gz").slicer[
        ::4, ::4, ::4
    ]
    pixels = np.asarray(image.dataobj).clip(0).round().astype(np.uint16)
    folder = tmp_path / "941_S_1194/MP-RAGE/2007-01-31_09_10_11.0/I38000"
    write_series(folder, pixels, image.affine, tr=2300.0, te=2.98, ti=900.0, SeriesDescription="MP-RAGE")
    (exam,) = found(tmp_path, "adni", "T1w").values()
    volume, times = read_scan(exam.scans["T1w"])
    data, affine = canonical(pixels, image.affine)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert times == (2300, 2.98, 900)
