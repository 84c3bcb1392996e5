"""Volumes written as NIfTI files in the frame of another scan: its shape, its order of axes and its affine."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from mrdiff_jax.scans import dicom, itk_files
from mrdiff_jax.scans.nifti import UNIT_MASK
from mrdiff_jax.scans.volumes import Volume

_GEOMETRY = (
    *("dim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class NiftiFrame:
    """Shape and place of a NIfTI file: of its header nothing but the geometry, for the rest may say whose scan it is."""

    header: nib.Nifti1Header  # or its subclass of NIfTI-2, in double precision

    @classmethod
    def of(cls, volume: Volume) -> "NiftiFrame":
        """The frame of the file that a volume was read from; of one that is no NIfTI file, the volume's own."""
        if itk_files.is_itk(volume.path.path) or dicom.is_dicom(volume.path.path):
            return cls(nib.Nifti1Image(np.zeros(volume.data.shape, np.uint8), volume.affine).header)
        read = nib.load(volume.path.path).header
        header = nib.Nifti2Header() if isinstance(read, nib.Nifti2Header) else nib.Nifti1Header()
        for name in _GEOMETRY:
            header[name] = read[name]
        header["pixdim"][:4] = read["pixdim"][:4]
        header["xyzt_units"] = int(read["xyzt_units"]) & UNIT_MASK or 2  # that of its affine; 2 is mm
        return cls(header)

    def write(self, data: np.ndarray, path: Path) -> None:
        """Writes float32 data (X, Y, Z), on the RAS+ axes that are closest to those of the frame."""
        own = nib.io_orientation(self.header.get_best_affine())
        back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), own)
        turned = nib.orientations.apply_orientation(data, back).astype(np.float32)
        header = self.header.copy()
        header.set_data_dtype(np.float32)
        image = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        nib.save(image(turned.reshape(header.get_data_shape()), None, header), path)
