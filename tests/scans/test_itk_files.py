"""MetaImage and NRRD files: the same volume as in NIfTI, and what is refused."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.scans import head

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import itk_files, layouts
from mrdiff_jax.scans.nifti_frame import NiftiFrame
from mrdiff_jax.scans.volumes import read_scan

OBLIQUE = np.array([[0.0, -1.2, 0.1, 20.0], [1.0, 0.05, 0.0, -30.0], [0.0, 0.1, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def nifti(tmp_path):
    path = tmp_path / "scan.nii.gz"
    turns, _ = np.linalg.qr(OBLIQUE[:3, :3])  # ITK takes right angles between axes alone
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turns * [1.0, 1.2, 2.0], OBLIQUE[:3, 3]
    nib.save(nib.Nifti1Image(head(), affine), path)
    return path


def written_as(nifti, suffix, image=None):
    path = nifti.with_name(f"other{suffix}")
    sitk.WriteImage(sitk.ReadImage(str(nifti)) if image is None else image, str(path))
    return path


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_the_volume_is_that_of_the_nifti_file(nifti, suffix):
    path = written_as(nifti, suffix)
    path.with_name("other.json").write_text(json.dumps({"RepetitionTime": 0.5, "EchoTime": 0.01}))
    (expected, _), (volume, times) = read_scan(nifti), read_scan(path)
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)
    assert times[:2] == (500, 10)
    frame = NiftiFrame.of(volume)
    frame.write(volume.data, nifti.with_name("back.nii"))
    back, _ = read_scan(nifti.with_name("back.nii"))
    np.testing.assert_array_equal(back.data, expected.data)
    np.testing.assert_allclose(back.affine, expected.affine, atol=1e-4)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("suffix", "words"), [(".mha", "is truncated"), (".nrrd", "not a readable MetaImage or NRRD file")])
def test_a_truncated_file_is_refused_in_our_words_alone(nifti, suffix, words, compressed, capfd):
    path = nifti.with_name(f"other{suffix}")
    sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[:-2000])
    capfd.readouterr()  # what ITK says of writing
    with pytest.raises(UserError, match=words) as caught:
        read_scan(path)
    assert "0x" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_voxels_that_are_text_are_read(nifti):
    path = nifti.with_name("text.mha")
    header = {"ObjectType": "Image", "NDims": 3, "BinaryData": False, "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0"}
    header |= {"ElementSpacing": "1 1 1", "DimSize": "2 2 2", "ElementType": "MET_FLOAT", "ElementDataFile": "LOCAL"}
    path.write_text("".join(f"{name} = {value}\n" for name, value in header.items()) + "0 1 2 3 4 5 6 7\n")
    np.testing.assert_array_equal(np.sort(read_scan(path)[0].data.ravel()), np.arange(8))


def test_a_text_named_nrrd_is_no_nrrd(tmp_path):
    path = tmp_path / "notes.nrrd"
    path.write_text("a note\n\nand more\n")
    with pytest.raises(UserError, match="not a readable MetaImage or NRRD file"):
        read_scan(path)


@pytest.mark.parametrize(
    ("suffix", "line", "instead", "words"),
    [
        (".mha", rb"TransformMatrix = [^\n]*\n", b"", "states no orientation"),
        (".mha", rb"ElementSpacing = [^\n]*\n", b"", "states no size of its voxels"),
        (".mha", rb"ElementDataFile = LOCAL", b"ElementDataFile = other.raw", r"lie in another file, other\.raw"),
        (".nrrd", rb"space: [^\n]*\n", b"space dimension: 3\n", "states no orientation.*no space"),
        (".nrrd", rb"space: [^\n]*\n", b"space: scanner-xyz\n", "'scanner-xyz'"),
        (".nrrd", rb"encoding: ", b"data file: other.raw\nencoding: ", r"lie in another file, other\.raw"),
    ],
)
def test_what_itk_would_fill_in_by_itself_is_refused(nifti, suffix, line, instead, words):
    path = written_as(nifti, suffix)
    text = path.read_bytes()
    path.write_bytes(re.sub(line, instead, text, count=1))
    assert path.read_bytes() != text
    with pytest.raises(UserError, match=rf"other{suffix}: .*{words}"):
        read_scan(path)


@pytest.mark.parametrize("space", ["right-anterior-superior", "left-anterior-superior", "LAS"])
def test_spaces_of_the_patient_are_told_apart(nifti, space):
    """The same numbers in another space are the mirrored place."""
    path = written_as(nifti, ".nrrd")
    _, there = itk_files.load(path)
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", space.encode()))
    flip = np.diag([-1.0 if space.startswith("right") else 1.0, -1.0, 1.0, 1.0])
    np.testing.assert_allclose(itk_files.load(path)[1], flip @ there, atol=1e-4)


@pytest.mark.parametrize(("suffix", "whole"), itk_files.DETACHED.items())
def test_a_header_alone_is_refused(nifti, suffix, whole):
    with pytest.raises(UserError, match=f"a header alone.*as one {whole} file"):
        read_scan(written_as(nifti, suffix))


def test_the_case_of_a_suffix_does_not_matter(nifti):
    path = written_as(nifti, ".mha")
    path = path.rename(path.with_suffix(".MHA"))
    np.testing.assert_array_equal(read_scan(path)[0].data, read_scan(nifti)[0].data)


def test_what_is_no_single_volume_is_refused(nifti):
    image = sitk.ReadImage(str(nifti))
    with pytest.raises(UserError, match="of 3 values each, not one volume"):
        read_scan(written_as(nifti, ".mha", sitk.Compose(image, image, image)))
    with pytest.raises(UserError, match="not one volume"):
        read_scan(written_as(nifti, ".mha", sitk.JoinSeries([image, image])))
    alone = written_as(nifti, ".mha", sitk.JoinSeries([image]))
    np.testing.assert_array_equal(read_scan(alone)[0].data, read_scan(nifti)[0].data)


def test_a_damaged_file_is_refused_by_name(nifti):
    path = written_as(nifti, ".mha")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"other\.mha: not a readable MetaImage or NRRD file"):
        read_scan(path)
    with pytest.raises(UserError, match=r"none\.nrrd: no such file"):
        read_scan(nifti.with_name("none.nrrd"))


def test_a_pattern_finds_them(nifti, tmp_path):
    root = tmp_path / "archive"
    root.mkdir()
    for name in ("a_T1w.mha", "a_FLAIR.nrrd", "b_T1w.nii.gz"):
        (root / name).touch()
    exams = layouts.find_subjects(root, "pattern", ("T1w", "FLAIR"), pattern="{subject}_{contrast}.*")
    assert {exam.subject: sorted(exam.scans) for exam in exams} == {"a": ["FLAIR", "T1w"], "b": ["T1w"]}
