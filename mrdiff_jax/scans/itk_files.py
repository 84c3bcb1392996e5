"""Volumes in MetaImage and NRRD files, which ITK reads: their voxels, their affine to mm, and what is refused of them."""

import re
from pathlib import Path

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.nifti import MAX_VOXELS, check_size
from mrdiff_jax.storage.files import require_file

SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")
_STATES_ORIENTATION = re.compile(
    rb"^\s*(?:TransformMatrix|Rotation|Orientation)\s*=|^space\s*:.*^space directions\s*:", re.MULTILINE | re.DOTALL
)
_HEADER_ENDS = re.compile(rb"^\s*ElementDataFile\s*=|^\r?\n", re.MULTILINE)  # of a MetaImage, of a NRRD file
_HEADER_BYTES = 2**16
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world has x to the left and y to the back


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels (X, Y, Z) float32 of a file in the order of its axes, and the affine (4, 4) to mm (RAS).

    Raises UserError for a missing, foreign or truncated file, more than one volume, colours, a header without an orientation,
    and sizes that no scan has.
    """
    import SimpleITK as sitk  # not above: training does without it

    require_file(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) < 3 or np.prod(size[3:]) != 1 or components != 1:
            values = f" of {components} values each" if components != 1 else ""
            raise UserError(f"{path}: holds an array of shape {size}{values}, not one volume; split it into single volumes")
        if np.prod(size) > MAX_VOXELS:
            raise UserError(f"{path}: its header declares {size} voxels; it is damaged, or crop it below {MAX_VOXELS}")
        image = reader.Execute()
        data = sitk.GetArrayFromImage(image).reshape(size[2::-1]).T  # ITK's arrays have x last
    except RuntimeError as error:
        why = " ".join(str(error).split()).rpartition("ERROR: ")[2] or "damaged"
        raise UserError(f"{path}: not a readable MetaImage or NRRD file ({why[:120]}); convert or copy it again") from None
    if data.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds {data.dtype} values; convert it to single real numbers")
    if not _states_orientation(path):
        raise UserError(f"{path}: states no orientation (TransformMatrix, or space and space directions); convert it again")
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (len(size), len(size)))[:3, :3]
    affine[:3, :3], affine[:3, 3] = directions * np.array(image.GetSpacing()[:3]), image.GetOrigin()[:3]
    check_size(size[:3], affine, path)
    return data.astype(np.float32), _LPS @ affine


def _states_orientation(path: Path) -> bool:
    """Whether the header says how the axes lie; ITK takes a header that does not for one of the axes of the patient."""
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    end = _HEADER_ENDS.search(start)
    return bool(_STATES_ORIENTATION.search(start[: end.start()] if end else start))
