"""NIfTI files: how they are read, what their values and headers may hide, and what is refused, in words that help."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from helpers.scans import SHAPE, data_config, head, write_scan

from mrdiff_jax.data import datasets
from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import volumes
from mrdiff_jax.scans.nifti_frame import NiftiFrame


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
