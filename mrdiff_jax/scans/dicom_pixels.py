"""Pixels of DICOM files, in scanner units: dark is low, and what pads an image is as dark as its darkest part."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import get_decoder, pixel_array

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans import air
from mrdiff_jax.scans.dicom_headers import MALFORMED, quiet
from mrdiff_jax.scans.dicom_stack import DicomSlice


def volume(frames: Sequence[DicomSlice]) -> tuple[np.ndarray, str]:
    """The pixels of frames, (columns, rows, frames) float32, and what padded them, in words; '' where nothing did.

    MONOCHROME1, where low is bright, is turned over: its highest value becomes 0, padding apart, whether the header names it
    or not. Voxels of a padding value other than 0 take the lowest of the others.

    Raises:
      UserError: pixels that are damaged, missing, or compressed in a way that needs another package.
    """
    data = np.empty((*frames[0].shape[::-1], len(frames)), np.float32)
    padded = np.zeros(data.shape, bool)
    values: set[int] = set()
    places = sorted(range(len(frames)), key=lambda place: frames[place].path)
    for path, of_file in groupby(places, key=lambda place: frames[place].path):
        pixels, padding = _read(path)
        pixels = pixels.reshape(-1, *frames[0].shape)
        for place in of_file:
            index, (slope, intercept) = frames[place].index, frames[place].scale
            if index >= len(pixels):
                raise UserError(f"{path}: has fewer frames than its header says; copy it again")
            data[..., place] = pixels[index].T * np.float32(slope) + np.float32(intercept)
            if padding:
                padded[..., place] = ((padding[0] <= pixels[index]) & (pixels[index] <= padding[1])).T
                values.add(padding[0])
    real = data[~padded]
    if not len(real):
        return data, ""
    names = list(map(str, sorted(values)))
    if frames[0].dark_is_high:  # what pads it undeclared would become the darkest, and the rest bright
        far, more = air.far_off(data, padded)
        padded, names = padded | far, names + more
        highest = data[~padded].max()
        data, real = highest - data, highest - data[~padded]
    data[padded] = real.min()
    if not padded.any():
        return data, ""
    return data, f"padding {' and '.join(names)} ({padded.mean():.1%} of the voxels) taken for air"


def same(one: DicomSlice, other: DicomSlice) -> bool:
    """Whether two frames hold the same pixels. Raises UserError as `volume` does."""
    return one.scale == other.scale and np.array_equal(
        *(_read(frame.path)[0].reshape(-1, *frame.shape)[frame.index] for frame in (one, other))
    )


@quiet()
def _read(path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The stored values in a file, and the range of those that pad it."""
    try:
        header = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in header.file_meta:
            header.file_meta.TransferSyntaxUID = _plain_syntax(header)
        return pixel_array(header), _padding(header)
    except (RuntimeError, *MALFORMED):
        raise UserError(f"{path}: {_why_undecodable(path)}") from None


def _plain_syntax(header: pydicom.Dataset) -> pydicom.uid.UID:
    """Of a file without a preamble, as its elements are written."""
    implicit, little = header.original_encoding
    if not little:
        return pydicom.uid.ExplicitVRBigEndian
    return pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian


def _padding(header: pydicom.Dataset) -> tuple[int, int] | None:
    """The lowest and the highest stored value that pads an image; None where none does, or it is 0, as air."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = header.get("PixelPaddingRangeLimit")
    kind = np.dtype(f"{'iu'[header.PixelRepresentation == 0]}{header.BitsAllocated // 8}")
    # some write a signed value as unsigned, or the other way round
    ends = sorted(int(np.array([end], np.int64).astype(kind)[0]) for end in (value, limit if isinstance(limit, int) else value))
    return None if ends == [0, 0] else (ends[0], ends[1])


def _why_undecodable(path: Path) -> str:
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        available = not syntax.is_compressed or get_decoder(syntax).is_available
    except MALFORMED:
        return "its pixels cannot be decoded; export it again, uncompressed"
    if available:
        return "its pixels are truncated or damaged; copy it again"
    package = "pylibjpeg-openjpeg" if "2000" in syntax.name else "pylibjpeg-libjpeg"
    return f"its pixels are compressed ({syntax.name}); pip install pylibjpeg {package}, or export it uncompressed"
