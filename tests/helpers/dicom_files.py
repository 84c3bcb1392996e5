"""Synthetic DICOM files for the tests, written from arrays (columns, rows, slices) and their affines to RAS+ mm."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.volumes import read_scan

PATIENT = ("Doe^Jane", "SECRET42")  # must be in no output
SHAPE = (10, 12, 6)


def turned(degrees=(0, 0, 0), spacing=(1.5, 1.25, 3.0), origin=(-7.0, 5.0, 11.0)):
    """An affine whose axes are turned about x, y and z."""
    affine = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(4)
        rotation[[i, j, i, j], [i, j, j, i]] = np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)
        affine = rotation @ affine
    affine[:3, :3] *= spacing
    affine[:3, 3] = origin
    return affine


AXIAL = turned(spacing=(-1.5, -1.25, 3.0))  # columns run to the left, rows to the back, as scanners store them
OBLIQUE = turned((20, -12, 7), spacing=(-1.5, -1.25, 3.0))
SAGITTAL = np.array([[0, 0, 1.2, -4], [-1, 0, 0, 6], [0, -1, 0, 9], [0, 0, 0, 1]])  # columns to the back, rows down


def counts(shape=SHAPE, seed=0):
    """Stored pixel values, all different in kind."""
    return np.random.default_rng(seed).integers(0, 2000, shape).astype(np.uint16)


def write_series(folder, pixels=None, affine=AXIAL, *, te=10.0, tr=2500.0, ti=None, name="I", **attributes):
    """A classic series, a file for each slice, in another order than they lie. Attributes go into every file's header.

    Returns the paths in the order of the slices.
    """
    pixels = counts() if pixels is None else pixels
    folder.mkdir(parents=True, exist_ok=True)
    common = {"SeriesInstanceUID": generate_uid(), "SeriesNumber": 1, "SeriesDescription": "T2 TSE"} | attributes
    paths = []
    for index in range(pixels.shape[2]):
        dataset = _dataset(MRImageStorage, pixels[..., index].T)
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing = _plane(affine, index)
        dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = tr, te, ti
        for keyword, value in common.items():
            setattr(dataset, keyword, value)
        paths.append(folder / f"{name}{37 * index % 97:03d}.dcm")
        save(dataset, paths[-1])
    return paths


def write_dual_echo(folder, affine=AXIAL, description="Axial PD/T2 FSE", **attributes):
    """One series with both echoes, PD at 10 ms and T2 at 96 ms; their pixels."""
    attributes = {"SeriesInstanceUID": generate_uid(), "SeriesDescription": description} | attributes
    echoes = counts(seed=1), counts(seed=2)
    for te, pixels in zip((10.0, 96.0), echoes, strict=True):
        write_series(folder, pixels, affine, te=te, name=f"E{te:.0f}_", **attributes)
    return echoes


def write_enhanced(path, volumes, affine=AXIAL, *, tr=2500.0, ti=None, slopes=(1.0,)):
    """A multi-frame file with the frames of each {echo time: pixels}, echoes in turn at each place."""
    times, pixels = list(volumes), list(volumes.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [(index, echo) for index in range(pixels[0].shape[2]) for echo in range(len(times))]
    dataset = _dataset(EnhancedMRImageStorage, np.stack([pixels[echo][..., index].T for index, echo in frames]))
    dataset.NumberOfFrames = len(frames)
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.SeriesDescription = generate_uid(), 4, "enhanced"
    _, orientation, spacing = _plane(affine, 0)
    shared = {"PlaneOrientationSequence": {"ImageOrientationPatient": orientation}}
    shared |= {"PixelMeasuresSequence": {"PixelSpacing": spacing, "SliceThickness": 1.0}}
    shared |= {"MRTimingAndRelatedParametersSequence": {"RepetitionTime": tr}}
    if ti is not None:
        shared |= {"MRModifierSequence": {"InversionTimes": [ti]}}
    dataset.SharedFunctionalGroupsSequence = Sequence([_group(shared)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        _group(
            {
                "PlanePositionSequence": {"ImagePositionPatient": _plane(affine, index)[0]},
                "MREchoSequence": {"EffectiveEchoTime": times[echo]},
                "PixelValueTransformationSequence": {"RescaleSlope": slopes[echo % len(slopes)], "RescaleIntercept": -3.0},
            }
        )
        for index, echo in frames
    )
    save(dataset, path)


def save(dataset, path):
    """Writes a file with its preamble."""
    dataset.save_as(path, enforce_file_format=True)


def change(path, **attributes):
    """Changes a file's header; None removes."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    save(dataset, path)


def _group(sequences):
    group = Dataset()
    for keyword, values in sequences.items():
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        setattr(group, keyword, Sequence([item]))
    return group


def _plane(affine, index):
    """ImagePositionPatient, ImageOrientationPatient and PixelSpacing of a slice; DICOM's axes run to the left and back."""
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = (lps[:3, :3] / spacing)[:, :2].T
    return [*_decimals((lps @ [0, 0, index, 1])[:3])], [*_decimals(directions.ravel())], [*_decimals(spacing[[1, 0]])]


def _decimals(values):
    return [f"{value:.9f}"[:16] for value in values]  # a DICOM number has at most 16 characters


def _dataset(kind, pixels):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = kind
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = PATIENT
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "MR", 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


def canonical(pixels, affine):
    """What a reader should make of it: voxels and affine on axes to the right, front and top."""
    image = nib.as_closest_canonical(nib.Nifti1Image(pixels.astype(np.float32), affine))
    return np.asarray(image.dataobj), image.affine


def refused(path, *words):
    """The one line with which a scan is refused."""
    with pytest.raises(UserError) as caught:
        read_scan(path)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text
    for secret in PATIENT:
        assert secret not in text
    return text
