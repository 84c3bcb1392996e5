"""Scans on disk: what is read from a BIDS folder, and what is refused, in words that help."""

import gzip
import json

import nibabel as nib
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
from mrdiff_jax.scans.nifti_frame import NiftiFrame
from mrdiff_jax.scans.sequence_times import SequenceTimes, sidecar_path

# Volumes


def test_a_volume_is_turned_to_canonical_axes(tmp_path):
    data = head()
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    turned = nib.Nifti1Image(data, affine).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nib.save(turned, tmp_path / "turned.nii.gz")
    volume = volumes.read_nifti(tmp_path / "turned.nii.gz")
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.data.dtype == np.float32


def test_a_series_of_one_volume_is_a_volume(tmp_path):
    nib.save(nib.Nifti1Image(head()[..., None], np.eye(4)), tmp_path / "one.nii")
    assert volumes.read_nifti(tmp_path / "one.nii").data.shape == SHAPE


def test_the_stored_slope_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.5, -3)
    nib.save(image, tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(volumes.read_nifti(tmp_path / "scaled.nii.gz").data.ravel(), 2.5 * np.arange(8) - 3)


def truncated(path):
    nib.save(nib.Nifti1Image(head(), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:-500])


def oversized(path):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    header = image.header.copy()
    header["dim"][1:4] = 30000
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(32)))


def with_data(data, affine=None):
    return lambda path: nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def singular(path):
    image = nib.Nifti1Image(head(), None)
    image.header.set_sform(np.diag([1.0, 0.0, 1.0, 1.0]), code=1)
    nib.save(image, path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("not a scan"), "not a readable NIfTI"),
        (lambda path: path.write_bytes(gzip.compress(b"neither " * 100)), "not a readable NIfTI"),
        (lambda path: path.write_bytes(b""), "not a readable NIfTI"),
        (truncated, "not a readable NIfTI"),
        (oversized, "header declares"),
        (with_data(np.ones((*SHAPE, 2), np.float32)), "not one volume"),
        (with_data(np.ones(SHAPE[:2], np.float32)), "not one volume"),
        (with_data(np.where(head() > 700, np.nan, head())), "not finite"),
        (with_data(np.where(head() > 500, np.inf, head())), "not finite"),
        (with_data(np.full(SHAPE, 7, np.float32)), "all voxels are 7"),
        (with_data(head().astype(np.complex64)), "real numbers"),
        (singular, "affine cannot be inverted"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, write, words):
    path = tmp_path / "scan.nii.gz"
    write(path)
    with pytest.raises(UserError, match=words) as caught:
        volumes.read_nifti(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


# What a scan's values and header may hide

WEDGE = np.add(*np.indices(SHAPE)[:2]) < 9


@pytest.mark.parametrize("value", [-32768, -1024, 32767, 65535, np.nan])
def test_padding_is_taken_for_air_with_a_word(tmp_path, value):
    path = tmp_path / "scan.nii.gz"
    with_data(np.where(WEDGE, np.float32(value), head()))(path)
    volume = volumes.read_nifti(path)
    assert volume.padding.startswith(f"padding {value:g} ")
    assert 0 <= volume.data[WEDGE].min() <= volume.data[WEDGE].max() <= 20
    np.testing.assert_array_equal(volume.data[~WEDGE], head()[~WEDGE])


def test_padding_of_many_scans_is_told_of_three_and_counted(tmp_path, caplog):
    root = tmp_path / "scans"
    for subject in range(3):
        for contrast in ("T1w", "T2w", "FLAIR"):
            write_scan(root, f"sub-{subject}", contrast, np.where(WEDGE, np.float32(-1024), head(subject)))
    datasets.open_dataset(data_config(root))
    said = [record.getMessage() for record in caplog.records]
    assert sum("padding -1024" in line for line in said) == 3
    assert "sub-0_T1w" in said[0]
    assert said[3:] == ["so in 6 more scans: padding and backgrounds are taken for air"]


@pytest.mark.parametrize("values", [(-2000, -1024), (65535, 65534), (-1024, 4095), (-32768, -2000, -1024), (np.nan, -1024)])
def test_several_paddings_of_one_scan_are_all_taken_for_air(tmp_path, values):
    path, padded = tmp_path / "scan.nii.gz", np.zeros(SHAPE, bool)
    data = head()
    for index in range(len(values)):
        part = (np.add(*np.indices(SHAPE)[:2]) < 9 - 2 * index) if index else WEDGE
        data = np.where(part, np.float32(values[-1 - index]), data)
        padded |= part
    with_data(data)(path)
    volume = volumes.read_nifti(path)
    assert volume.padding.startswith(f"padding {values[0]:g} ")
    assert 0 <= volume.data[padded].min() <= volume.data[padded].max() <= 20
    np.testing.assert_array_equal(volume.data[~padded], head()[~padded])


def test_the_grey_background_of_a_scan_with_z_scores_becomes_dark(tmp_path):
    brain = head() > 300
    scores = np.where(brain, (head() - head()[brain].mean()) / head()[brain].std(), 0).astype(np.float32)
    with_data(scores)(tmp_path / "scan.nii.gz")
    volume = volumes.read_nifti(tmp_path / "scan.nii.gz")
    assert volume.padding.startswith("background 0 (")
    np.testing.assert_array_equal(volume.data, np.where(brain, scores, scores.min()))


def test_grey_air_with_noise_stays_as_it_is(tmp_path):
    data = head() - 600
    data[~(head() > 300)] = np.random.default_rng(0).normal(0, 1, (~(head() > 300)).sum())
    with_data(data.astype(np.float32))(tmp_path / "scan.nii.gz")
    assert not volumes.read_nifti(tmp_path / "scan.nii.gz").padding


def test_values_of_every_other_kind_are_no_padding(tmp_path):
    brain = np.where(head() > 300, head(), 0)
    for data in (head(), -head(), head() - 1000, brain, (brain - 600) / 150, brain / 450 - 1, np.minimum(head(), 700)):
        with_data(data.astype(np.float32))(tmp_path / "scan.nii.gz")
        volume = volumes.read_nifti(tmp_path / "scan.nii.gz")
        assert not volume.padding
        np.testing.assert_array_equal(volume.data, data.astype(np.float32))


@pytest.mark.parametrize(
    "data", [(head() * 42).astype(np.int64).astype(np.int16), (head() - 6).astype(np.int64).astype(np.uint16)]
)
def test_values_that_wrapped_around_are_refused(tmp_path, data):
    with_data(data)(tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="wrapped around"):
        volumes.read_nifti(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(("code", "factor"), [(1, 0.001), (2, 1), (3, 1000), (0, 1)])
def test_units_of_length_become_mm(tmp_path, code, factor):
    image = nib.Nifti1Image(head(), np.diag([2 * factor] * 3 + [1]))
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = volumes.read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(volume.affine, np.diag([2, 2, 2, 1]), rtol=1e-5)
    NiftiFrame.of(volume).write(volume.data, tmp_path / "made.nii.gz")
    np.testing.assert_allclose(volumes.read_nifti(tmp_path / "made.nii.gz").affine, volume.affine, rtol=1e-5)


def without_orientation(path):
    image = nib.Nifti1Image(head(), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(nib.Nifti1Image(image.dataobj, None, image.header), path)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (without_orientation, "states no orientation"),
        (with_data(head(), np.diag([2000.0, 2000, 2000, 1])), "voxels of 2000"),
        (with_data(head(), np.diag([0.002, 0.002, 0.002, 1])), "voxels of 0.002"),
        (lambda path: path.symlink_to("nowhere"), "a link to a file that is not there.*datalad get"),
        (lambda path: path.write_text("/annex/objects/MD5E-s1--0"), "was not fetched"),
    ],
)
def test_what_no_scan_has_is_refused_with_the_remedy(tmp_path, write, words):
    test_a_bad_file_is_refused_by_name(tmp_path, write, words)


def test_pairs_of_files_are_told_what_they_are(tmp_path):
    for kind, words in ((nib.Nifti1Pair, "NIfTI pair.*nib-convert"), (nib.AnalyzeImage, "Analyze 7.5 pair")):
        nib.save(kind(head(), np.eye(4)), tmp_path / "scan.img")
        with pytest.raises(UserError, match=words):
            volumes.read_nifti(tmp_path / "scan.img")


@pytest.mark.parametrize(("shift", "words"), [(0.5, ""), (3.0, "qform and sform place it 3 voxels apart; the sform is taken")])
def test_a_qform_and_an_sform_that_contradict_each_other_are_warned_of(tmp_path, shift, words, caplog):
    image = nib.Nifti1Image(head(), np.eye(4))
    image.set_qform(nib.affines.from_matvec(np.eye(3), (shift, 0, 0)), 1)
    image.set_sform(np.eye(4), 1)
    nib.save(image, tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volumes.read_nifti(tmp_path / "scan.nii.gz").affine, np.eye(4))
    assert (words in caplog.text) if words else not caplog.text
    assert caplog.text.count("\n") == bool(words)
