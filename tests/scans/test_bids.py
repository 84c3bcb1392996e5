"""Scans on disk: what is read from a BIDS folder, and what is refused, in words that help."""

import json

import numpy as np
import pytest
from helpers.scans import SHAPE, TIMES, data_config, head, real_scans, refused, write_scan

from mrdiff_jax.data import datasets
from mrdiff_jax.data.training_data import TrainingData, describe_training
from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import slicing
from mrdiff_jax.preparation.splits import SPLITS
from mrdiff_jax.scans import volumes
from mrdiff_jax.scans.bids import find_exams
from mrdiff_jax.scans.sequence_times import SequenceTimes, sidecar_path

# Sequence times


def test_sidecar_seconds_become_milliseconds(root):
    path = root / "sub-01/anat/sub-01_FLAIR.nii.gz"
    np.testing.assert_allclose(volumes.read_scan_parameters(path), (9000, 120, 2500))
    assert volumes.read_scan_parameters(path.with_name("sub-01_other.nii.gz")) == (None, None, None)


@pytest.mark.parametrize("text", ["{", "[1]", '{"EchoTime": "10"}', '{"EchoTime": true}', '{"EchoTime": [0.01, 0.02]}'])
def test_a_corrupt_sidecar_is_refused_by_name(root, text):
    sidecar = root / "sub-01/anat/sub-01_T1w.json"
    sidecar.write_text(text)
    refused(data_config(root), sidecar)


def test_sidecars_win_over_the_config_which_fills_the_gaps(root):
    path = root / "sub-01/anat/sub-01_T1w.nii.gz"
    stated = {"T1w": SequenceTimes(tr=700.0, te=20.0)}
    assert volumes.scan_times(path, "T1w", stated) == (500, 10, 0)
    sidecar_path(path).write_text('{"EchoTime": 0.015}')
    assert volumes.scan_times(path, "T1w", stated) == (700, 15, 0)
    sidecar_path(path).unlink()
    assert volumes.scan_times(path, "T1w", stated) == (700, 20, 0)


@pytest.mark.parametrize(("changes", "field"), [({}, "tr"), ({"tr": "T1w=500"}, "te"), ({"te": "T1w=10"}, "tr")])
def test_missing_times_name_the_file_and_the_field(root, changes, field):
    (root / "sub-02/anat/sub-02_T1w.json").unlink()
    refused(data_config(root, **changes), root / "sub-02/anat/sub-02_T1w.nii.gz", f"--config.data.{field}=T1w=")


def test_the_target_needs_no_times(root):
    for sidecar in root.rglob("*_FLAIR.json"):
        sidecar.unlink()
    example = datasets.open_dataset(data_config(root)).split("train")[0]
    np.testing.assert_allclose(example["te"], [10, 100])


def test_stated_times_stand_in_for_sidecars(root):
    for sidecar in root.rglob("*_T1w.json"):
        sidecar.unlink()
    dataset = datasets.open_dataset(data_config(root, tr="T1w=510, T2w=1", te="T1w=11", ti="T1w=0"))
    example = dataset.split("train")[0]
    np.testing.assert_allclose([example["tr"], example["te"], example["ti"]], [[510, 4000], [11, 100], [0, 0]])


@pytest.mark.parametrize(
    "times",
    [
        {"RepetitionTime": 0.01, "EchoTime": 0.01},
        {"RepetitionTime": 0.5, "EchoTime": 0},
        {"RepetitionTime": -0.5, "EchoTime": -1},
        {"RepetitionTime": 0.5, "EchoTime": float("nan")},
        {"RepetitionTime": float("inf"), "EchoTime": 0.01},
        {"RepetitionTime": 500, "EchoTime": 10},
        {"RepetitionTime": 0.5, "EchoTime": 0.01, "InversionTime": -1},
    ],
)
def test_implausible_times_are_refused_by_name(root, times):
    path = write_scan(root, "sub-01", "T1w", sidecar=times)
    refused(data_config(root), path, "implausible")


@pytest.mark.parametrize(
    ("contrast", "fields", "words"),
    [
        ("T1w", {"ContrastBolusIngredient": "GADOLINIUM"}, "its sidecar names a contrast agent"),
        ("T2w", {"ScanningSequence": "GR"}, "gradient echo"),
        ("T2w", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "its ImageType says phase images"),
        ("T2w", {"ImageType": ["DERIVED", "PRIMARY", "ADC"]}, "diffusion"),
        ("T2w", {"ScanningSequence": "SE_EP"}, "its sidecar says echo planar"),
        ("FLAIR", {"DiffusionBValue": 1000}, "its sidecar says diffusion"),
    ],
)
def test_a_sidecar_that_contradicts_the_name_of_its_scan_is_refused(root, contrast, fields, words):
    sidecar = root / f"sub-01/anat/sub-01_{contrast}.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))
    text = refused(data_config(root), sidecar.with_name(f"sub-01_{contrast}.nii.gz"), words, "fix its name")
    assert len(text.replace(str(root), "")) < 200


@pytest.mark.parametrize(
    "fields",
    [
        {"ScanningSequence": "SE", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "SequenceName": "*tse2d1_16"},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"], "ContrastBolusIngredient": "GADOLINIUM"},  # hardly seen on a T2w
        {"ImageType": 5, "ScanningSequence": 5, "ScanOptions": None, "ContrastBolusAgentSequence": ["x"]},
    ],
)
def test_sidecars_that_do_not_contradict_pass(root, fields):
    sidecar = root / "sub-01/anat/sub-01_T2w.json"
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))
    datasets.open_dataset(data_config(root))


@pytest.mark.parametrize(
    ("contrast", "fields", "words"),
    [
        ("T2w", {"RepetitionTime": 4.0, "EchoTime": 0.025}, "TE 25 ms is too short for T2w"),
        ("FLAIR", {"RepetitionTime": 4.0, "EchoTime": 0.1}, "it has no inversion time"),
    ],
)
def test_times_that_a_contrast_hardly_has_are_warned_of_in_one_line(root, contrast, fields, words, caplog):
    for subject in ("sub-01", "sub-02"):
        (root / f"{subject}/anat/{subject}_{contrast}.json").write_text(json.dumps(fields))
    datasets.open_dataset(data_config(root))
    (line,) = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert f"sub-01_{contrast}.nii.gz" in line
    assert "(and 1 more such scans)" in line
    assert "fix its times" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        ('{"EchoTime": 0.01}'.encode("utf-16"), "encoding is not UTF-8"),
        ('{"EchoTime": 0.01}'.encode("utf-16-le"), "encoding is not UTF-8"),
        ('{"Site": "Köln"}'.encode("latin-1"), "encoding is not UTF-8"),
    ],
)
def test_a_sidecar_in_another_encoding_or_nested_without_end_is_refused(root, content, words):
    sidecar = root / "sub-01/anat/sub-01_T1w.json"
    sidecar.write_bytes(content)
    refused(data_config(root), sidecar, words)


@pytest.mark.parametrize("text", ["500", "T1w", "T1w=fast"])
def test_unreadable_stated_times_name_the_field(root, text):
    refused(data_config(root, tr=text), "--config.data.tr", text)


# Folders


def test_contrast_names_are_exact(root):
    for subject in ("sub-01", "sub-02", "sub-03"):
        write_scan(root, subject, "ce-gad_T1w", head(9))
    exams = find_exams(root, ("T1w", "ce-gad_T1w"))
    assert [path.name for path in exams[0].scans.values()] == ["sub-01_T1w.nii.gz", "sub-01_ce-gad_T1w.nii.gz"]
    (root / "sub-02/anat/sub-02_T1w.nii.gz").unlink()
    with pytest.raises(UserError, match=r"sub-02 has no T1w .*ce-gad_T1w"):
        find_exams(root, ("T1w", "ce-gad_T1w"))


def test_sessions_are_exams_of_one_subject(root):
    for session in ("ses-1", "ses-2"):
        for contrast in TIMES:
            write_scan(root, "sub-04", contrast, head(7), session=session)
    exams = find_exams(root, tuple(TIMES))
    assert [exam.name for exam in exams[3:]] == ["sub-04_ses-1", "sub-04_ses-2"]
    assert [exam.subject for exam in exams[3:]] == ["sub-04", "sub-04"]
    dataset = datasets.open_dataset(data_config(root, test_subjects="sub-04"))
    test = dataset.split("test")
    assert {test[i]["subject"] for i in range(len(test))} == {"sub-04_ses-1", "sub-04_ses-2"}


def test_the_case_of_a_suffix_does_not_matter(root):
    path = root / "sub-01/anat/sub-01_T1w.nii.gz"
    path.rename(path.with_name("sub-01_T1w.NII.GZ"))
    (root / "sub-02/anat/sub-02_T2star.gz").write_bytes(b"")  # no NIfTI by its name
    exams = find_exams(root, tuple(TIMES))
    assert exams[0].scans["T1w"].name == "sub-01_T1w.NII.GZ"
    assert "T2star" not in exams[1].found
    assert volumes.read_scan(exams[0].scans["T1w"])[1].te


def test_a_scan_that_two_subjects_have_is_refused(root):
    write_scan(root, "sub-03", "T2w", head(0))
    refused(data_config(root), "sub-03_T2w.nii.gz: is the same file as", "sub-01", "of another subject; remove the copy")


def test_plain_nifti_is_read_and_a_second_file_for_a_contrast_is_refused(root):
    path = root / "sub-01/anat/sub-01_T1w.nii.gz"
    plain = write_scan(root, "sub-01", "T1w", suffix=".nii")
    refused(data_config(root), path, "a second T1w", plain.name)
    path.unlink()
    assert find_exams(root, ("T1w",))[0].scans["T1w"].path == plain


def test_a_missing_contrast_names_subject_contrast_and_what_there_is(root):
    (root / "sub-03/anat/sub-03_FLAIR.nii.gz").unlink()
    refused(data_config(root), "sub-03 has no FLAIR", "T1w, T2w", "remove the subject")


@pytest.mark.parametrize("grid", [{"data": head(shape=(20, 24, 5))}, {"affine": np.diag([1, 1, 1.01, 1])}])
def test_different_grids_ask_for_registration_and_name_both_files(root, grid):
    path = write_scan(root, "sub-01", "T2w", **grid)
    refused(data_config(root), path, path.with_name("sub-01_T1w.nii.gz"), "mrdiff prepare")


def test_rounding_of_the_affine_is_no_different_grid(root):
    affine = np.eye(4)
    affine[:3, 3] = 1e-4
    write_scan(root, "sub-01", "T2w", affine=affine)
    datasets.open_dataset(data_config(root))


def test_wrong_roots_are_refused(tmp_path, root):
    refused(data_config(root, root=""), "--config.data.root")
    refused(data_config(root, root=str(tmp_path / "nowhere")), tmp_path / "nowhere", "no such folder")
    refused(data_config(root, root=str(tmp_path)), "no sub-*/anat")
    (root / "sub-05").mkdir()
    refused(data_config(root), root / "sub-05", "no anat folder")


def test_lesion_masks_are_optional_by_exam_and_lie_on_the_grid_of_the_scans(root):
    mask = np.zeros(SHAPE, np.float32)
    mask[4:10, 8:14, 2:4] = 1
    write_scan(root, "sub-01", "label-lesion_mask", mask)
    write_scan(root, "sub-02", "label-lesion_mask", 0 * mask)  # nothing found: no mistake
    config = data_config(root, image_size=24, lesions="label-lesion_mask")
    dataset = datasets.open_dataset(config)
    found = {}
    for split in ("train", "validation", "test"):
        examples = dataset.split(split)
        for example in map(examples.__getitem__, range(len(examples))):
            found.setdefault(example["subject"], {})[int(example["slice"])] = example["lesions"]
    assert {name: {z for z, m in masks.items() if m.any()} for name, masks in found.items()} == {
        "sub-01": {2, 3},
        "sub-02": set(),
        "sub-03": set(),
    }
    expected = np.pad(slicing.slice_image(mask[..., 2]), ((0, 0), (2, 2)))
    np.testing.assert_array_equal(found["sub-01"][2], expected)
    assert "lesions" not in datasets.open_dataset(data_config(root)).split("test")[0]
    refused(data_config(root, lesions="lesions"), "--config.data.lesions=lesions", "sub-*_lesions.nii.gz")
    write_scan(root, "sub-02", "label-lesion_mask", mask[1:])
    refused(config, "label-lesion_mask", "its grid differs")


# Real scans


def test_real_scans_without_sidecars(tmp_path):
    root = tmp_path / "scans"
    root.mkdir()
    for subject in sorted(real_scans("lgg").resolve().glob("sub-*"))[::20]:
        (root / subject.name).symlink_to(subject)
    changes = {"sources": "T1w,FLAIR", "target": "ce-gad_T1w", "image_size": 64}
    refused(data_config(root, **changes), "--config.data.tr=T1w=")
    times = {"tr": "T1w=500,FLAIR=9000,ce-gad_T1w=500", "te": "T1w=10,FLAIR=120,ce-gad_T1w=10", "ti": "FLAIR=2500"}
    dataset = datasets.open_dataset(data_config(root, **changes, **times))
    example = dataset.split("train")[0]
    assert 30 <= sum(len(dataset.split(split)) for split in SPLITS) <= 40
    np.testing.assert_allclose(example["ti"], [0, 2500])
    assert np.corrcoef(example["sources"][..., 0].ravel(), example["target"].ravel())[0, 1] > 0.5


def test_real_scans_on_their_own_grids_ask_for_registration(tmp_path):
    root = real_scans("open_ms/unregistered")
    config = data_config(root, sources="T1w,T2w", target="FLAIR", cache=str(tmp_path))
    refused(config, "mrdiff prepare")


def test_training_slices_are_described_for_synthesis(root):
    described = describe_training(datasets.open_dataset(data_config(root)))
    about = json.loads(json.dumps(described.to_json()))
    assert TrainingData.from_json(about) == described
    assert about["sources"] == {
        "T1w": {"tr": 500, "te": 10, "ti": 0},
        "T2w": {"tr": 4000, "te": 100, "ti": 0},
    }
    assert about["target"]["name"] == "FLAIR"
    low, high = np.percentile(head(0), (0.5, 99.5))
    assert about["target"]["offset"] == pytest.approx(low, abs=0.2)
    assert about["target"]["factor"] == pytest.approx(high - low, rel=0.02)
    assert about["pixel_mm"] == [24 / 16, 24 / 16]
    options = described.preparation
    assert (options.plane, options.mask, options.bias_correction, options.image_size) == ("axial", "none", False, 16)


def test_a_training_scan_without_the_inversion_time_it_needs_is_refused_by_name(root):
    (root / "sub-02" / "anat" / "sub-02_FLAIR.json").write_text('{"RepetitionTime": 9, "EchoTime": 0.12}')
    config = data_config(root, sources="T1w,FLAIR", target="T2w", test_subjects="sub-03", validation_fraction=0.0)
    dataset = datasets.open_dataset(config)
    described = describe_training(dataset, ())
    about = json.loads(json.dumps(described.to_json()))["sources"]
    assert (about["T1w"]["ti"], about["FLAIR"]["ti"]) == (0, 2500)  # of the scans that have one
    with pytest.raises(UserError, match=r"sub-02: its FLAIR has no inversion time.*--config\.data\.ti=FLAIR="):
        describe_training(dataset, ("FLAIR",))
