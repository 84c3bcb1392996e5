"""Files that are there whole or not at all, those in a folder, and what tells where they come from."""

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mrdiff_jax
from mrdiff_jax.errors import UserError

_NOT_SCANS = ("__MACOSX",)  # where macOS puts what its archives hide


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` if all goes well, and is removed if not."""
    aside = path.with_name(f".partial-{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is there whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


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


def sha256(path: Path) -> str:
    """The checksum of a file; of a folder that of its files' checksums, in the order of their names."""
    if path.is_dir():
        checksums = [sha256(file) for file in sorted(files_in(path))]
        return hashlib.sha256("".join(checksums).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str | None:
    """The commit of this package, where it runs from a clone; None where it was installed."""
    package = Path(mrdiff_jax.__file__).parent

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=False)

    try:
        tracked = git("ls-files", "--error-unmatch", "__init__.py").returncode == 0
        return git("rev-parse", "HEAD").stdout.strip() if tracked else None
    except FileNotFoundError:  # no git
        return None
