"""Volumes in MetaImage and NRRD files, which ITK reads: their voxels, their affine to mm, and what is refused of them."""

import math
import re
from pathlib import Path

import numpy as np

from mrdiff_jax.errors import UserError
from mrdiff_jax.scans.nifti import MAX_VOXELS, check_size
from mrdiff_jax.storage.files import require_file

_READERS = {".mha": "MetaImageIO", ".nrrd": "NrrdImageIO"}  # ITK's, by suffix
DETACHED = {".mhd": ".mha", ".nhdr": ".nrrd"}  # headers whose voxels lie in another file, and what holds both
_HEADER_ENDS = re.compile(rb"^\s*ElementDataFile\s*=.*$|^\r?\n", re.MULTILINE)  # of a MetaImage, of a NRRD file
_HEADER_BYTES = 2**16
_SPACES = ("right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps")
_BYTES = {"char": 1, "short": 2, "int": 4, "float": 4, "double": 8}  # of a voxel of MetaImage's MET_INT, MET_UINT and so on
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world has x to the left and y to the back


def is_itk(path: Path) -> bool:
    """Whether a file's name says that it is one of these."""
    return path.suffix.lower() in (*_READERS, *DETACHED)


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The voxels (X, Y, Z) float32 of a file in the order of its axes, and the affine (4, 4) to mm (RAS).

    Raises UserError for a missing, foreign or truncated file, voxels in another file, more than one volume, colours, a header
    without an orientation or a size of voxels, and sizes that no scan has.
    """
    import SimpleITK as sitk  # not above: training does without it

    require_file(path)
    _check_header(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[path.suffix.lower()])
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
        why = re.sub(r"\w+\(0x[0-9a-f]+\): ", "", why)  # the reader's address
        raise UserError(f"{path}: not a readable MetaImage or NRRD file ({why[:120]}); convert or copy it again") from None
    if data.dtype.kind not in "iuf":
        raise UserError(f"{path}: holds {data.dtype} values; convert it to single real numbers")
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (len(size), len(size)))[:3, :3]
    affine[:3, :3], affine[:3, 3] = directions * np.array(image.GetSpacing()[:3]), image.GetOrigin()[:3]
    check_size(size[:3], affine, path)
    return data.astype(np.float32), _LPS @ affine


def _check_header(path: Path) -> None:
    """Raises UserError for what ITK would fill in by itself: axes, spaces and sizes that a header does not state."""
    if path.suffix.lower() in DETACHED:
        whole = DETACHED[path.suffix.lower()]
        raise UserError(f"{path}: a header alone, its voxels lie in another file; write both as one {whole} file")
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    end = _HEADER_ENDS.search(start)
    if not end or (path.suffix.lower() == ".nrrd" and not start.startswith(b"NRRD")):
        raise UserError(f"{path}: not a readable MetaImage or NRRD file (it has no such header); convert or copy it again")
    lines = start[: end.end()].decode("latin-1").splitlines()
    split = [re.split("[:=]", line, maxsplit=1) for line in lines if re.search("[:=]", line)]
    fields = {name.strip().lower(): value.strip(" =") for name, value in split}
    if path.suffix.lower() == ".mha":
        _check_meta(path, fields, path.stat().st_size - end.end() - 1)
    else:
        _check_nrrd(path, fields)


def _check_meta(path: Path, fields: dict[str, str], there: int) -> None:
    """Of a MetaImage, of which `there` bytes follow its header; of a truncated one ITK would print lines of its own."""
    if fields.get("elementdatafile", "LOCAL").upper() != "LOCAL":
        raise UserError(f"{path}: its voxels lie in another file, {fields['elementdatafile']}; write both as one .mha file")
    if not fields.keys() & {"transformmatrix", "rotation", "orientation"}:
        raise UserError(f"{path}: states no orientation (TransformMatrix); convert it again")
    if not fields.keys() & {"elementspacing", "elementsize"}:
        raise UserError(f"{path}: states no size of its voxels (ElementSpacing); convert it again")
    if there < (declared := _declared_bytes(fields)):
        raise UserError(f"{path}: is truncated, {max(there, 0)} of {declared} bytes; copy it again")


def _declared_bytes(fields: dict[str, str]) -> int:
    """How many bytes a MetaImage's header says that its voxels take; 0 where it does not, as of voxels that are text."""
    if fields.get("binarydata", "").lower() != "true":
        return 0
    compressed = fields.get("compresseddata", "").lower() == "true"
    numbers = fields.get("compresseddatasize" if compressed else "dimsize", "0").split()
    kind = fields.get("elementtype", "").lower().removeprefix("met_").removeprefix("u")
    voxel = 1 if compressed else _BYTES.get(kind, 0)
    return voxel * math.prod(map(int, numbers)) if all(map(str.isdecimal, numbers)) else 0


def _check_nrrd(path: Path, fields: dict[str, str]) -> None:
    if there := fields.keys() & {"data file", "datafile"}:
        raise UserError(f"{path}: its voxels lie in another file, {fields[there.pop()]}; write both as one .nrrd file")
    if fields.get("space", "").lower() not in _SPACES or "space directions" not in fields:
        space = f"its space is {fields['space']!r}" if fields.get("space") else "no space"
        raise UserError(f"{path}: states no orientation of the patient ({space}; space directions); convert it again")
