"""The path of a scan: of a file, of a folder, or of one of the series in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NIFTI = r"(?i:\.nii(\.gz)?)"  # how the names of NIfTI files end


@dataclass(frozen=True)
class ScanPath:
    """A NIfTI file, a DICOM file or a folder of them; of a folder with several series also which one, from 1.

    Written as 'FOLDER' or 'FOLDER#2'.
    """

    path: Path
    series: int | None = None

    @classmethod
    def of(cls, written: ScanPath | str | os.PathLike) -> ScanPath:
        """From what a user writes. A file or folder whose own name ends in '#2' is meant as it is."""
        if isinstance(written, cls):
            return written
        path = Path(written)
        base, hash_sign, number = path.name.rpartition("#")
        if hash_sign and number.isdecimal() and not path.exists():
            return cls(path.with_name(base) if base else path.parent, int(number))
        return cls(path)

    @property
    def name(self) -> str:
        """The last part of the path, with the series."""
        return self.path.name if self.series is None else f"{self.path.name}#{self.series}"

    @property
    def written(self) -> Path:
        """As a user writes it, as a path: there beside lies the sidecar."""
        return self.path if self.series is None else self.path.parent / self.name

    def __str__(self) -> str:
        return os.fspath(self.written)
