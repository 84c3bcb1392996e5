"""What is passed over in a DICOM folder, and what is refused, in words that help and without the patient's name."""

import pytest
from helpers.dicom_files import (
    SHAPE,
    change,
    counts,
    refused,
    save,
    write_dual_echo,
    write_enhanced,
    write_series,
)
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import EncapsulatedPDFStorage, JPEGLosslessSV1, SecondaryCaptureImageStorage

from mrdiff_jax.scans.volumes import read_scan


def test_other_files_are_passed_over(tmp_path):
    paths = write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name in ("._I000.dcm", ".hidden.dcm", "__MACOSX/I000.dcm", ".Trash/I000.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(paths[0].read_bytes()[:500])
    for name, kind, changes in (
        ("report.dcm", EncapsulatedPDFStorage, {"Modality": "DOC", "PixelData": None, "Rows": None, "Columns": None}),
        ("screen.dcm", SecondaryCaptureImageStorage, {"ImagePositionPatient": None}),
        ("ct.dcm", SecondaryCaptureImageStorage, {"Modality": "CT"}),
    ):
        dataset = dcmread(paths[0])
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
        save(dataset, tmp_path / name)
        change(tmp_path / name, **changes)
    assert read_scan(tmp_path)[0].data.shape == SHAPE
    for path in paths:
        path.unlink()
    refused(tmp_path, tmp_path, "no DICOM images of MR (3 DICOM files of other kinds)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "nothing but zeros"),
        (bytes(70_000), "nothing but zeros"),
        (b"<html>Not found</html>", "not DICOM"),
        (b"/annex/objects/MD5E-s1--0.dcm\n", "was not fetched"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "was not fetched"),
    ],
)
def test_a_slice_whose_content_is_lost_is_refused(tmp_path, content, words):
    path = write_series(tmp_path)[3]
    path.write_bytes(content)
    refused(tmp_path, path, words)


def test_a_lost_slice_without_an_extension_is_refused(tmp_path):
    for number, path in enumerate(write_series(tmp_path)):
        path.rename(tmp_path / f"1.2.840.{number}")
    (tmp_path / "README").write_text("of the disc")
    assert read_scan(tmp_path)[0].data.shape == SHAPE
    (tmp_path / "1.2.840.3").write_bytes(b"")
    refused(tmp_path, "1.2.840.3", "empty")


def test_a_link_to_itself_is_a_link_to_nothing(tmp_path):
    write_series(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    refused(tmp_path, "self", "a link to a file that is not there")


def test_a_folder_without_dicom_and_a_path_to_nowhere(tmp_path):
    (tmp_path / "notes.txt").write_text("not a scan")
    refused(tmp_path, tmp_path, "no DICOM images of MR;")
    refused(tmp_path / "nowhere", "no such file")


# What is refused


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda paths: paths[2].unlink(), ("lacks 1 slice at 17.0 mm", "between I037.dcm (14.0 mm) and I014.dcm (20.0 mm)")),
        (lambda paths: [path.unlink() for path in paths[1:3]], ("lacks 2 slices at 14.0 mm",)),
        (lambda paths: change(paths[5], ImagePositionPatient=[7, -5, 27]), ("unevenly spaced", "I051.dcm lies 0.80 mm off")),
        (lambda paths: change(paths[2], ImagePositionPatient=[9, -5, 17]), ("shifted", "I074.dcm")),
        (
            lambda paths: change(paths[1], ImagePositionPatient=[7, -5, 11]),
            ("two images in one place", "I000.dcm and I037.dcm"),
        ),
        (lambda paths: change(paths[3], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), ("several orientations", "I014.dcm")),
        (lambda paths: change(paths[3], Rows=5, Columns=24), ("several sizes", "I014.dcm")),
        (lambda paths: change(paths[3], PixelSpacing=[1, 1]), ("several sizes", "I014.dcm")),
        (lambda paths: [path.unlink() for path in paths[1:]], ("single slice",)),
        (lambda paths: change(paths[3], PixelSpacing=None), ("I014.dcm", "header lacks")),
        (lambda paths: change(paths[3], ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), ("I014.dcm", "header lacks")),
        (lambda paths: change(paths[3], ImagePositionPatient=None), ("I014.dcm", "lacks the place")),
        (lambda paths: change(paths[3], PixelData=None), ("I014.dcm", "truncated")),
        (lambda paths: [change(path, EchoTime=0.1) for path in paths], ("TE 0.1 ms is implausible", "seconds taken for")),
        (lambda paths: [change(path, EchoTime=3000) for path in paths], ("TE 3000 ms is implausible",)),
        (lambda paths: [change(path, RepetitionTime=9) for path in paths], ("TE 10 ms in a TR of 9 ms",)),
        (lambda paths: [change(path, PixelData=bytes(240)) for path in paths], ("all voxels are 0",)),
    ],
)
def test_what_makes_no_volume_is_refused_by_name(tmp_path, spoil, words):
    spoil(write_series(tmp_path))
    refused(tmp_path, tmp_path, *words)


def test_an_echo_that_lacks_a_slice_at_the_end_is_refused(tmp_path):
    write_dual_echo(tmp_path / "dual")
    (tmp_path / "dual/E96_088.dcm").unlink()
    refused(tmp_path / "dual#2", "TE 96 ms, 5 slices", "lacks the slice at 26.0 mm", "E10_088.dcm")


def test_a_multi_frame_file_that_lacks_frames_is_refused(tmp_path):
    path = tmp_path / "enhanced.dcm"
    write_enhanced(path, {12.0: counts()})
    change(path, NumberOfFrames=3, PixelData=counts()[..., :3].tobytes())
    refused(tmp_path, path, "fewer frames than its header says")


@pytest.mark.parametrize("length", [132, 140, 300, 500, 700, 900, -241, -100, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, length):
    path = write_series(tmp_path)[3]
    path.write_bytes(path.read_bytes()[:length])
    refused(tmp_path, path, "copy it again")


def test_unknown_compression_names_the_package(tmp_path):
    for path in write_series(tmp_path):
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].is_undefined_length = True
        save(dataset, path)
    refused(tmp_path, "JPEG Lossless", "pip install pylibjpeg pylibjpeg-libjpeg")
