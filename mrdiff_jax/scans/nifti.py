"""NIfTI files as they are: their voxels, their affine to mm, and what is refused of them."""

import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.storage.files import require_file

MAX_VOXELS = 2**28  # a gigabyte of float32; a header that declares more is taken for damaged
MM_OF_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the code in xyzt_units: metre, mm, micron; unknown is taken for mm
UNIT_MASK = 7  # of xyzt_units: the bits that say the unit of length
VOXEL_MM = (0.01, 50.0)
FIELD_MM = (1.0, 2000.0)  # of the longest side
_UNREADABLE = (  # what a damaged file makes nibabel raise
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    OSError,
    EOFError,
    OverflowError,
    ValueError,
    zlib.error,
)


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels (X, Y, Z) float32 of a NIfTI file in the order of its axes, and the affine (4, 4) to mm.

    Raises UserError for a missing, foreign or truncated file, more than one volume, an affine that cannot be inverted or
    states no orientation, and sizes that no scan has.
    """
    require_file(path)
    try:
        image = nib.load(path)
        affine = _checked_affine(image, path)
        with np.errstate(over="ignore", invalid="ignore"):
            data = image.get_fdata(dtype=np.float32, caching="unchanged")
    except _UNREADABLE as error:
        raise UserError(f"{path}: not a readable NIfTI file ({_one_line(error)}); convert or copy it again") from None
    return data.reshape(data.shape[:3]), affine


def _checked_affine(image: nib.spatialimages.SpatialImage, path: Path) -> np.ndarray:
    """The affine to mm. Raises UserError for what `load` does not take."""
    if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is one as well
        raise UserError(f"{path}: {_foreign(image, path)}")
    shape, affine, header = image.shape, image.affine.copy(), image.header
    if len(shape) < 3 or math.prod(shape[3:]) != 1:
        raise UserError(f"{path}: holds an array of shape {shape}, not one volume; split it into single volumes")
    if min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise UserError(f"{path}: its header declares {shape} voxels; it is damaged, or crop it below {MAX_VOXELS}")
    if image.get_data_dtype().kind not in "iuf":
        raise UserError(f"{path}: holds {image.get_data_dtype()} values; convert it to single real numbers")
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        raise UserError(
            f"{path}: states no orientation (qform_code and sform_code are 0); convert it again, copy it from a scan of its "
            "grid (fslcpgeom), or see docs/data.md"
        )
    affine[:3] *= MM_OF_UNIT.get(int(header["xyzt_units"]) & UNIT_MASK, 1.0)
    check_size(shape[:3], affine, path)
    if not np.isfinite(affine).all() or np.linalg.cond(affine[:3, :3]) > 1e6:
        raise UserError(f"{path}: its affine cannot be inverted; set the orientation (sform or qform) right")
    _warn_of_contradiction(image, path)
    return affine


def _warn_of_contradiction(image: nib.Nifti1Image, path: Path) -> None:
    """Warns where the header places the volume twice, in places more than a voxel apart."""
    if not (image.header["qform_code"] and image.header["sform_code"]):
        return
    try:
        forms = image.header.get_qform(), image.header.get_sform()
    except nib.spatialimages.HeaderDataError:  # a quaternion that is none; the sform is what counts
        return
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(image.shape[:3]) - 1)
    qform, sform = (nib.affines.apply_affine(form, corners) for form in forms)
    voxels = np.linalg.norm(qform - sform, axis=-1).max() / nib.affines.voxel_sizes(forms[1]).max()
    if voxels > 1:
        how = "the sform is taken; if that is the wrong one, set sform_code to 0"
        logger.warning("%s: its qform and sform place it %.3g voxels apart; %s", path, voxels, how)


def check_size(shape: tuple[int, ...], affine: np.ndarray, path: Path) -> None:
    """Raises UserError for voxels or a field of view that no MR scan has: mostly a mistaken unit."""
    voxel = nib.affines.voxel_sizes(affine)
    field = float((voxel * shape).max())
    if not (voxel > 0).all():
        return  # the affine cannot be inverted, as is said then
    if not (VOXEL_MM[0] <= voxel.min() and voxel.max() <= VOXEL_MM[1] and FIELD_MM[0] <= field <= FIELD_MM[1]):
        sizes = " x ".join(f"{mm:.4g}" for mm in voxel)
        raise UserError(
            f"{path}: voxels of {sizes} mm, {field:.4g} mm in all, are no MR scan's; mend its affine, or its unit (xyzt_units)"
        )


def _foreign(image: nib.spatialimages.SpatialImage, path: Path) -> str:
    """What an image is that is no single NIfTI file, and what to do with it."""
    if isinstance(image, nib.Nifti1Pair):
        return f"a NIfTI pair (.hdr and .img); make it one file: nib-convert {path.name} {path.stem}.nii.gz"
    if isinstance(image, nib.AnalyzeImage):
        return "an Analyze 7.5 pair (.hdr and .img), which states no left and right; convert the scanner's files to NIfTI"
    return f"holds {type(image).__name__}, not NIfTI; convert it, for one with nib-convert {path.name} OUTPUT.nii.gz"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
