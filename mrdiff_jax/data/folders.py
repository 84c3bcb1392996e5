"""The files in a folder of scans: links are followed, loops are not, and hidden files are no scans."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mrdiff_jax.errors import UserError

_NOT_SCANS = ("__MACOSX",)  # where macOS puts what its archives hide


def refuse_unreadable(error: OSError) -> None:
    """Raises UserError for a folder that the system does not let us list."""
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); fix its permissions") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden by its name, as '._scan.dcm' and '.DS_Store'."""
    return name.startswith(".") or name in _NOT_SCANS


def files_in(root: Path, onerror: Callable[[OSError], None] = refuse_unreadable) -> Iterator[Path]:
    """The files in a folder and its subfolders, by name; of a file, itself. A folder that is linked twice comes once."""
    if not root.is_dir():
        yield root
        return
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, onerror=onerror, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        yield from (Path(folder, name) for name in sorted(names) if not is_hidden(name))
