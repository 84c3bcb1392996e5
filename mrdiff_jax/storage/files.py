"""Files that are there whole or not at all, those in a folder, and what says where they come from."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mrdiff_jax
from mrdiff_jax.errors import UserError

JUST_MADE_S = 60.0
_LOCK = ".lock"
_POINTERS = (b"/annex/objects/", b"version https://git-lfs")  # what stands in a file whose content was not fetched
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


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in `parent` that is removed at the end; those that killed processes left there are removed first."""
    for left in parent.glob(f"{prefix}*"):
        if not _in_use(left):
            shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder,
        open(Path(folder) / _LOCK, "w") as lock,
    ):
        with suppress(OSError):  # of a file system without locks, where nobody takes the folder for left
            fcntl.flock(lock, fcntl.LOCK_EX)  # which ends with the process
        yield Path(folder)


def _in_use(folder: Path) -> bool:
    """Whether a living process holds a scratch folder, or has just made it."""
    try:
        with open(folder / _LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return folder.exists() and time.time() - folder.stat().st_mtime < JUST_MADE_S
    except OSError:
        return True


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is there whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def replace_folder(new: Path, old: Path) -> None:
    """Puts a whole new folder in the place of another, which may not be there."""
    if old.exists():
        outdated = old.with_name(f".{old.name}-{uuid.uuid4().hex}")
        old.rename(outdated)
        new.rename(old)
        shutil.rmtree(outdated)
    else:
        new.rename(old)


def refuse_unreadable(error: OSError) -> None:
    """Raises UserError for a folder that the system does not let us list."""
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); fix its permissions") from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden by its name, as '._scan.dcm' and '.DS_Store'."""
    return name.startswith(".") or name in _NOT_SCANS


def walk_files(root: Path, onerror: Callable[[OSError], None] = refuse_unreadable) -> Iterator[Path]:
    """The files under a folder in the order of their names, links followed, hidden ones passed over; of a file, itself.

    A link back to a folder that it lies in is not followed. `onerror` is called with what a folder that cannot be listed
    raises.
    """
    if root.is_file():
        yield root
        return
    inside: dict[str, set[tuple[int, int]]] = {os.fspath(root): set()}
    for place, folders, names in os.walk(root, onerror=onerror, followlinks=True):
        here = inside.pop(place) | {_identity(place)}
        visible = [name for name in sorted(folders) if not is_hidden(name)]
        folders[:] = [name for name in visible if _identity(os.path.join(place, name)) not in here]
        inside |= {os.path.join(place, name): here for name in folders}
        yield from (Path(place, name) for name in sorted(names) if not is_hidden(name))


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def require_file(path: Path) -> None:
    """Raises UserError where a file is not there, or its content is not: a link or pointer of git-annex or git-lfs."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: a link to a file that is not there; fetch it, for one with datalad get or git annex get")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(32).startswith(_POINTERS):
            raise UserError(f"{path}: its content was not fetched; fetch it, with datalad get, git annex get or git lfs pull")


def sha256(path: Path) -> str:
    """The checksum of a file; of a folder that of its files' checksums, in the order of their names."""
    if path.is_dir():
        checksums = [sha256(file) for file in walk_files(path) if file.is_file()]
        return hashlib.sha256("".join(checksums).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str | None:
    """The commit of this package, and '-dirty' where files differ from it; None where it runs from no clone."""
    package = Path(mrdiff_jax.__file__).parent

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=False)

    try:
        tracked = git("ls-files", "--error-unmatch", "__init__.py").returncode == 0
        changed = git("status", "--porcelain", "--untracked-files=no").stdout.strip()
        return git("rev-parse", "HEAD").stdout.strip() + ("-dirty" if changed else "") if tracked else None
    except FileNotFoundError:  # no git
        return None
