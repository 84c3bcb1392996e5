"""Headers of DICOM files: frames in space, and what is said of their contrast. Only what is named here is ever read."""

import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import same_patient
from mrdiff_jax.scans.dicom_stack import ORIENTATION_TOLERANCE, DicomSlice
from mrdiff_jax.scans.header_evidence import ELEMENTS, header_of, words
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.storage.files import require_file

_GROUPS = {  # where multi-frame files have what classic ones have at the top: sequence and name in it
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "ComplexImageComponent": ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    "InversionRecovery": ("MRModifierSequence", "InversionRecovery"),
    "SpectrallySelectedSuppression": ("MRModifierSequence", "SpectrallySelectedSuppression"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "AcquisitionContrast": ("MRImageFrameTypeSequence", "AcquisitionContrast"),
}
_GE_CREATOR, _GE_DATA_TYPE = 0x00430010, 0x0043102F  # who owns the private group, and GE's raw data type in it
_GE_PARTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
_PHILIPS_CREATOR, _PHILIPS_PART = 0x20050010, 0x20051011
_PHILIPS_PARTS = {"P": "PHASE", "R": "REAL", "I": "IMAGINARY"}
TAGS = [
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PatientID"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *ELEMENTS,
    *(_GE_CREATOR, _GE_DATA_TYPE, _PHILIPS_CREATOR, _PHILIPS_PART),
    *_GROUPS,
]
_MR_STORAGE = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
MALFORMED = (  # what a damaged file makes pydicom raise
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)
_MAGNITUDE = ("MAGNITUDE", "MIXED")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps pydicom's warnings back: they quote what a header says."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\.")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def has_preamble(path: Path) -> bool:
    """Whether a file begins as DICOM files on media do."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_bare(path: Path) -> bool:
    """Whether a file without a preamble is DICOM: it begins with its identifying group, and names its kind of image."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8 or start[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08"):
        return False
    try:
        with quiet():
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
            return str(found.get("SOPClassUID", "")).startswith("1.2.840.10008.5.1.")
    except MALFORMED:
        return False


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, with the preamble or without."""
    return has_preamble(path) or is_bare(path)


def read_header(path: Path) -> pydicom.Dataset:
    """The parts of a file's header that are named here.

    Raises:
      InvalidDicomError: it is not DICOM.
      UserError: it cannot be read, or its content was not fetched.
    """
    try:
        require_file(path)
        if not is_dicom_file(path):
            raise InvalidDicomError
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
    except InvalidDicomError:
        raise
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); fix its permissions") from None
    except MALFORMED:
        raise UserError(f"{path}: a damaged DICOM file; copy it again or remove it") from None


def has_slices(header: pydicom.Dataset, path: Path) -> bool:
    """Whether a file holds slices of MR: not other modalities, reports, screenshots or colours.

    Raises:
      UserError: it should, but its header is cut off.
    """
    placed = "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header
    whole = placed and "SeriesInstanceUID" in header and "Rows" in header and "Columns" in header
    kind = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    if kind is None or (kind in _MR_STORAGE and not whole):
        raise UserError(f"{path}: its DICOM header is cut off or lacks the place of the image; copy it again or remove it")
    return whole and header.get("Modality") == "MR" and header.get("SamplesPerPixel", 1) == 1


def frames(header: pydicom.Dataset, path: Path) -> Iterator[DicomSlice]:
    """The slices in a file. What is missing or garbled raises one of MALFORMED."""
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    for index, own in enumerate(header.get("PerFrameFunctionalGroupsSequence") or [None]):
        yield _frame(header, [own, shared[0]], path, index)


def _frame(header: pydicom.Dataset, groups: Sequence[pydicom.Dataset | None], path: Path, index: int) -> DicomSlice:
    def value(keyword: str) -> Any:
        """A header's value: of the frame, of all frames of the file, or of the file; None where there is none."""
        sequence, name = _GROUPS.get(keyword, ("", ""))
        for group in filter(None, groups):
            if sequence and group.get(sequence) and group[sequence][0].get(name) not in (None, ""):
                return group[sequence][0].get(name)
        top = header.get(keyword)
        return None if top == "" else top

    def number(keyword: str) -> float | None:
        found = value(keyword)
        if found is not None and not np.isscalar(found):
            found = found[0] if len(found) else None
        return None if found is None else float(found)

    def time(keyword: str) -> float | None:
        return number(keyword) or None  # 0 stands for unknown

    directions = np.array(value("ImageOrientationPatient"), float).reshape(2, 3)
    position = np.array(value("ImagePositionPatient"), float).reshape(3)
    spacing = np.array(value("PixelSpacing"), float).reshape(2)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=10 * ORIENTATION_TOLERANCE):
        raise ValueError("directions that are not perpendicular")
    if not (np.isfinite(position).all() and (spacing > 0).all() and np.isfinite(spacing).all()):
        raise ValueError("a place that is not finite")
    slope, intercept = number("RescaleSlope"), number("RescaleIntercept")
    times = SequenceTimes(time("RepetitionTime"), time("EchoTime"), time("InversionTime"))
    image_type = words(value("ImageType"))
    component = str(value("ComplexImageComponent") or "").upper() or _ge_part(header) or _philips_part(header)
    if component and component not in _MAGNITUDE and component not in image_type:
        image_type = (*image_type, *("",) * (2 - len(image_type)), component)
    return DicomSlice(
        path=path,
        index=index,
        shape=(int(header.Rows), int(header.Columns)),
        directions=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        spacing=(float(spacing[0]), float(spacing[1])),
        position=position,
        times=times,
        scale=(1.0 if slope is None else slope, intercept or 0.0),
        dark_is_high=header.get("PhotometricInterpretation") == "MONOCHROME1",
        header=header_of(value, image_type),
        patient=same_patient.mark(str(header.get("PatientID") or "")),
    )


def _ge_part(header: pydicom.Dataset) -> str:
    """The part of a complex image that GE writes, whatever its ImageType says; '' for magnitude, and where it says nothing."""
    if not str(header[_GE_CREATOR].value if _GE_CREATOR in header else "GEMS_PARM_01").startswith("GEMS"):
        return ""
    value = header[_GE_DATA_TYPE].value if _GE_DATA_TYPE in header else None
    if isinstance(value, bytes):  # of a private element that no dictionary knows
        value = int.from_bytes(value[:2], "little" if header.original_encoding[1] is not False else "big")
    return _GE_PARTS.get(value if isinstance(value, int) else (value or [0])[0], "")


def _philips_part(header: pydicom.Dataset) -> str:
    """The part of a complex image that Philips writes, whatever its ImageType says; '' as `_ge_part` has it."""
    if not str(header[_PHILIPS_CREATOR].value if _PHILIPS_CREATOR in header else "Philips").startswith("Philips"):
        return ""
    value = header[_PHILIPS_PART].value if _PHILIPS_PART in header else ""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return _PHILIPS_PARTS.get(text.strip(" \0").upper(), "")
