"""DICOM folders: what becomes of them."""

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import (
    AXIAL,
    OBLIQUE,
    PATIENT,
    SAGITTAL,
    SHAPE,
    canonical,
    change,
    counts,
    refused,
    save,
    turned,
    write_dual_echo,
    write_enhanced,
    write_series,
)
from helpers.scans import real_scans
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.uid import RLELossless, generate_uid

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import dicom_headers
from mrdiff_jax.scans.dicom import find_series
from mrdiff_jax.scans.image_types import part_of
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.scans.volumes import read_scan, read_scan_parameters, scan_times


@pytest.mark.parametrize("affine", [AXIAL, OBLIQUE, SAGITTAL, turned((0, 0, 0))], ids=["axial", "oblique", "sagittal", "plain"])
def test_a_series_comes_back_in_its_place(tmp_path, affine):
    pixels = counts()
    write_series(tmp_path / "series", pixels, affine, tr=2300.0, te=2.98, ti=900.0, RescaleSlope=0.5, RescaleIntercept=-7)
    volume, times = read_scan(tmp_path / "series")
    data, expected = canonical(0.5 * pixels.astype(np.float32) - 7, affine)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, expected, atol=1e-4)
    assert volume.data.dtype == np.float32
    assert times == (2300, 2.98, 900)
    assert times == read_scan_parameters(tmp_path / "series")


def test_both_echoes_of_a_series_can_be_chosen(tmp_path):
    folder = tmp_path / "dual"
    for te, (echo, pixels) in zip((10, 96), enumerate(write_dual_echo(folder, OBLIQUE), 1), strict=True):
        volume, times = read_scan(folder.with_name(f"dual#{echo}"))
        np.testing.assert_array_equal(volume.data, canonical(pixels, OBLIQUE)[0])
        assert times == (2500, te, None)
    refused(
        folder, "several series", "#1 Axial PD/T2 FSE (series 1, TE 10 ms, 6 slices)", "#2 Axial PD/T2 FSE (series 1, TE 96 ms"
    )
    refused(folder.with_name("dual#3"), "no series #3", "#1 Axial")


def test_a_multi_frame_file_is_read_like_a_series(tmp_path):
    pd, t2 = counts(seed=1), counts(seed=2)
    write_enhanced(tmp_path / "scan/enhanced.dcm", {12.0: pd, 90.0: t2}, SAGITTAL, ti=800.0, slopes=(1.0, 0.25))
    for path, pixels, te in (("scan#1", pd, 12), ("scan/enhanced.dcm#2", 0.25 * t2, 90)):
        volume, times = read_scan(tmp_path / path)
        data, affine = canonical(pixels - 3, SAGITTAL)
        np.testing.assert_array_equal(volume.data, data)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert times == (2500, te, 800)


def test_subfolders_are_searched_and_series_ordered(tmp_path):
    write_series(tmp_path / "a/late", SeriesNumber=12, SeriesDescription="T1 SE")
    write_series(tmp_path / "b", SeriesNumber=3, SeriesDescription="FLAIR")
    write_series(tmp_path / "c", SeriesNumber=None, SeriesDescription="")
    assert [series.number for series in find_series(tmp_path)] == [3, 12, None]
    assert "#3 no description (TE 10 ms, 6 slices)" in refused(tmp_path, "#1 FLAIR (series 3", "#2 T1 SE (series 12")


def test_run_length_compression_needs_no_package(tmp_path):
    pixels = counts()
    for path in write_series(tmp_path, pixels):
        dataset = dcmread(path)
        dataset.compress(RLELossless)
        save(dataset, path)
    np.testing.assert_array_equal(read_scan(tmp_path)[0].data, canonical(pixels, AXIAL)[0])


def test_sloppy_headers_are_read_in_silence(tmp_path, capfd):
    with disable_value_validation(), warnings.catch_warnings(action="ignore"):
        for path in write_series(tmp_path, SeriesInstanceUID="1.02.3", SeriesDescription="T1" * 40):
            change(path, SpecificCharacterSet=PATIENT[0], PatientBirthDate=PATIENT[0], InversionTime="1000.00000000000000001")
    capfd.readouterr()
    with warnings.catch_warnings(record=True, action="always") as told:
        assert read_scan(tmp_path)[1].ti == 1000
    assert not told
    assert capfd.readouterr() == ("", "")


def test_links_are_followed_and_loops_are_not(tmp_path):
    write_series(tmp_path / "store/T1")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/linked").symlink_to(tmp_path / "store")
    (tmp_path / "store/T1/loop").symlink_to(tmp_path / "store")
    (tmp_path / "scan/again").symlink_to(tmp_path / "store/T1")
    (series,) = find_series(tmp_path / "scan")
    assert len(series.frames) == SHAPE[2]
    (tmp_path / "scan/I999.dcm").symlink_to(tmp_path / "not fetched")
    refused(tmp_path / "scan", "I999.dcm", "a link to a file that is not there")


def test_a_file_without_a_preamble_is_read_if_it_is_dicom(tmp_path):
    pixels = counts()
    for number, path in enumerate(write_series(tmp_path, pixels)):
        dataset = dcmread(path)
        if number % 2:
            path.write_bytes(path.read_bytes()[132:])  # with its meta group
        else:
            dataset.preamble = None
            del dataset.file_meta
            dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
            assert path.read_bytes()[:2] == b"\x08\0"
    (tmp_path / "table").write_bytes(b"\x08\0" + bytes(1000))
    (tmp_path / "other").write_bytes(b"\x08\0\x05\0CS\x0a\0ISO_IR 100")
    volume, times = read_scan(tmp_path)
    np.testing.assert_array_equal(volume.data, canonical(pixels, AXIAL)[0])
    assert times == (2500, 10, None)
    np.testing.assert_array_equal([len(find_series(path)[0].frames) for path in tmp_path.glob("*.dcm")], 1)


# What one volume is made of


def write_raw_data_type(path, value):
    dataset = dcmread(path)
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x2F, "SS", value)
    save(dataset, path)


def test_what_ge_writes_of_magnitude_is_magnitude(tmp_path):
    for path in write_series(tmp_path):
        write_raw_data_type(path, 0)
    assert part_of(find_series(tmp_path)[0].header.image_type) == ""


def test_slices_that_are_there_as_another_part_are_named(tmp_path):
    paths = write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    for path in paths[2:4]:
        change(path, ImageType=["ORIGINAL", "PRIMARY", "R", "ND"])
    refused(tmp_path.with_name(f"{tmp_path.name}#1"), "lacks 2 slices at 17.0 mm", ".dcm is real")


def test_filters_make_no_other_series(tmp_path):
    paths = write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"])
    change(paths[2], ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    change(paths[4], ImageType=["ORIGINAL", "PRIMARY"])
    (series,) = find_series(tmp_path)
    assert len(series.frames) == SHAPE[2]
    assert read_scan(tmp_path)[0].data.shape == SHAPE


def test_two_filterings_of_the_same_slices_are_two_series(tmp_path):
    uid = generate_uid()
    for name in ("NORM", "ND"):
        write_series(tmp_path, name=name, SeriesInstanceUID=uid, ImageType=["ORIGINAL", "PRIMARY", "M", name])
    assert [len(series.frames) for series in find_series(tmp_path)] == [SHAPE[2]] * 2


@pytest.mark.parametrize(
    ("header", "agent"),
    [
        *(({"ContrastBolusAgent": text}, False) for text in ("NO CONTRAST", "none", "No", "NONE GIVEN", "0", "0 ml")),
        *(({"ContrastBolusAgent": text}, True) for text in ("Gadovist", "10 ml Dotarem", "Normal dose", "yes")),
        ({"ContrastBolusRoute": "IV"}, True),
        ({"ContrastBolusRoute": "NONE"}, None),
        ({"ContrastBolusTotalDose": 7.5}, True),
        ({"ContrastBolusStartTime": "101500"}, True),
        ({}, None),
    ],
)
def test_whether_an_agent_was_given(tmp_path, header, agent):
    write_series(tmp_path, **header)
    assert find_series(tmp_path)[0].header.agent is agent


def test_the_protocol_of_a_series_is_read(tmp_path):
    write_series(tmp_path, ProtocolName="t1_tse_KM")
    assert find_series(tmp_path)[0].header.protocol == "t1_tse_KM"


@pytest.mark.parametrize(
    "kind",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        {"ComplexImageComponent": "PHASE"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "R_SE"]},
        {"ImageType": ["DERIVED", "PRIMARY", "ADC"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "ge": 1},
        {"ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "ge": 2},
        {"ge": 3},
    ],
)
def test_another_kind_of_image_is_another_series(tmp_path, kind):
    paths = write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    for path in paths[2:4]:
        change(path, **{keyword: value for keyword, value in kind.items() if keyword != "ge"})
        if "ge" in kind:
            write_raw_data_type(path, kind["ge"])
    assert sorted(len(series.frames) for series in find_series(tmp_path)) == [2, 4]
    text = refused(tmp_path, "several series")
    number = text[text.index("4 slices") - 60 :].split("#")[1][0]
    refused(tmp_path.with_name(f"{tmp_path.name}#{number}"), "lacks 2 slices")


def test_a_slice_at_the_end_that_only_its_phase_has_is_missed(tmp_path):
    paths = write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "M"])
    change(paths[-1], ImageType=["ORIGINAL", "PRIMARY", "P"])
    refused(tmp_path.with_name(f"{tmp_path.name}#1"), "lacks the slice at 26.0 mm", "or as phase")


def test_slices_with_a_series_uid_each_are_one_series(tmp_path):
    pixels = counts()
    for path in write_series(tmp_path, pixels):
        change(path, SeriesInstanceUID=generate_uid())
    np.testing.assert_array_equal(read_scan(tmp_path)[0].data, canonical(pixels, AXIAL)[0])
    for number, path in enumerate(sorted(tmp_path.iterdir())):  # other numbers: nothing says that they belong together
        change(path, SeriesNumber=number)
    text = refused(tmp_path, "several series", "#1 T2 TSE", "more")
    assert len(text.replace(str(tmp_path), "")) < 200


def test_copies_of_slices_count_once_and_other_images_in_their_place_do_not(tmp_path):
    pixels = counts()
    paths = write_series(tmp_path, pixels)
    for path in paths:
        copy = tmp_path / "sent again" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
        change(copy, SOPInstanceUID=generate_uid())
    np.testing.assert_array_equal(read_scan(tmp_path)[0].data, canonical(pixels, AXIAL)[0])
    change(copy, PixelData=bytes(240))
    refused(tmp_path, "two images in one place", "several volumes", "folders of their own")


def test_several_volumes_in_one_file_are_exported_one_by_one(tmp_path):
    pd, t2 = counts(seed=1), counts(seed=2)
    write_enhanced(tmp_path / "enhanced.dcm", {12.0: pd, 12.5: t2})
    refused(tmp_path, "enhanced.dcm and enhanced.dcm frame 2", "export its volumes one by one")


def test_a_negative_comes_out_as_a_positive(tmp_path):
    pixels = counts()
    write_series(tmp_path / "negative", 4095 - pixels, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_scan(tmp_path / "negative")[0].data, canonical(pixels - pixels.min(), AXIAL)[0])


@pytest.mark.parametrize("attributes", [{}, {"PixelPaddingValue": 65535}])
def test_padding_of_a_negative_is_found_where_its_header_does_not_name_it(tmp_path, attributes):
    pixels = np.tile(counts(), (1, 1, 1))
    padded = (4095 - pixels).astype(np.uint16)
    padded[:, :1] = 65535
    write_series(tmp_path, padded, PhotometricInterpretation="MONOCHROME1", **attributes)
    real = pixels - pixels[:, 1:].min()
    real[:, :1] = 0
    volume, _ = read_scan(tmp_path)
    np.testing.assert_array_equal(volume.data, canonical(real, AXIAL)[0])
    assert volume.padding.startswith("padding 65535 (")


@pytest.mark.parametrize(
    "attributes", [{"PixelPaddingValue": 60000}, {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 50000}]
)
@pytest.mark.parametrize("monochrome", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_as_dark_as_the_darkest_part(tmp_path, attributes, monochrome):
    pixels = counts() + np.uint16(100)
    padded = pixels.copy()
    padded[:2], padded[2] = 60000, 55000 if len(attributes) == 2 else 60000
    options = {"PhotometricInterpretation": monochrome, "RescaleSlope": 2, "RescaleIntercept": -50}
    write_series(tmp_path, padded, **options, **attributes)
    real = 2.0 * pixels[3:] - 50
    shown = real.max() - real if monochrome == "MONOCHROME1" else real
    expected = np.concatenate([np.full((3, *SHAPE[1:]), shown.min()), shown])
    volume, _ = read_scan(tmp_path)
    np.testing.assert_array_equal(volume.data, canonical(expected, AXIAL)[0])
    first = attributes.get("PixelPaddingRangeLimit", 60000)
    assert volume.padding == f"padding {first} (30.0% of the voxels) taken for air"


def test_signed_padding_is_found_however_it_is_written(tmp_path):
    pixels = counts().astype(np.int16)
    pixels[:3] = -32768
    for path in write_series(tmp_path, pixels.view(np.uint16), PixelRepresentation=1):
        dataset = dcmread(path)
        dataset.add_new("PixelPaddingValue", "US", 32768)
        save(dataset, path)
    assert read_scan(tmp_path)[0].data.min() == pixels[3:].min()


def test_padding_of_0_is_air_and_stays(tmp_path):
    pixels = counts() + np.uint16(100)
    pixels[:3] = 0
    write_series(tmp_path, pixels, PixelPaddingValue=0)
    np.testing.assert_array_equal(read_scan(tmp_path)[0].data, canonical(pixels, AXIAL)[0])


# Times


def test_the_header_is_trusted_before_sidecar_and_flags(tmp_path):
    stated = {"T2w": SequenceTimes(tr=4000.0, te=80.0, ti=150.0)}
    write_series(tmp_path / "full")
    (tmp_path / "full.json").write_text('{"EchoTime": 0.09, "RepetitionTime": 5}')
    assert scan_times(tmp_path / "full", "T2w", stated) == (2500, 10, 150)
    write_series(tmp_path / "zero", te=0, tr=0, ti=0)
    assert scan_times(tmp_path / "zero", "T2w", stated) == (4000, 80, 150)
    paths = write_series(tmp_path / "bare", te=None, tr=None)
    (tmp_path / "bare.json").write_text('{"EchoTime": 0.09}')
    assert scan_times(tmp_path / "bare", "T2w", stated) == (4000, 90, 150)
    assert len(paths) == SHAPE[2]
    (tmp_path / "bare.json").unlink()
    told = r"bare: no RepetitionTime, no EchoTime .* --tr=T2w=MILLISECONDS --te=T2w=MILLISECONDS$"
    with pytest.raises(UserError, match=told):
        scan_times(tmp_path / "bare", "T2w", {}, flag="--")


# Real scans


def test_a_real_series():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume, times = read_scan(real_scans("dicom_pd"))
    assert times == (2300, 22, None)
    assert volume.data.shape == (256, 256, 20)
    assert volume.data.max() == 1059
    np.testing.assert_allclose(nib.affines.voxel_sizes(volume.affine), [0.859375, 0.859375, 7.0005], atol=1e-4)
    first = np.linalg.inv(volume.affine) @ [110.5, 78.3063, -72.7575, 1]  # its ImagePositionPatient: the right, back corner
    np.testing.assert_allclose(first[:3], [255, 255, 0], atol=1e-4)


def test_headers_of_a_folder_are_read_once_until_a_file_changes(tmp_path, monkeypatch):
    write_series(tmp_path / "T1")
    read, paths = dicom_headers.read_header, []
    monkeypatch.setattr(dicom_headers, "read_header", lambda path: paths.append(path) or read(path))
    scan_times(ScanPath(tmp_path / "T1"), "T1w", {}, required=False)
    read_scan(tmp_path / "T1")
    read_scan(tmp_path / "T1")
    assert len(paths) == SHAPE[2]
    write_series(tmp_path / "T1", te=20.0)
    assert read_scan(tmp_path / "T1")[1].te == 20
    assert len(paths) == 2 * SHAPE[2]


def test_a_path_may_choose_a_series_unless_that_is_its_name(tmp_path):
    (tmp_path / "named#2").mkdir()
    for written, path, series in (
        ("folder", "folder", None),
        ("folder#3", "folder", 3),
        ("named#2", "named#2", None),
        ("named#2#1", "named#2", 1),
        ("scan#b.nii", "scan#b.nii", None),
    ):
        scan = ScanPath.of(tmp_path / written)
        assert scan == ScanPath(tmp_path / path, series)
        assert (scan.name, str(scan)) == (written, str(tmp_path / written))
    assert ScanPath.of("#2") == ScanPath(Path(), 2)
