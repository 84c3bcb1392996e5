"""Paths that a user gives, as folders and files of this machine."""

import os
import re
from pathlib import Path

from mrdiff_jax.errors import UserError

_UNREADABLE = r"[]\*?"  # orbax finds the files of a checkpoint by a pattern, in which these stand for others


def local_path(text: str | os.PathLike, name: str) -> Path:
    """The path that a flag or a field names, '~' taken for the home folder.

    Raises:
      UserError: it is a URL, or names a home folder that is not known; the message begins with `name`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(text)):
        raise UserError(f"{name}={text}: a URL; give a folder or file of this machine, say where the bucket is mounted")
    if not str(text):
        raise UserError(f"{name}=: is empty; name a folder or a file")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{name}={text}: the home folder is not known; write the path in full") from None


def check_workdir(workdir: Path, name: str = "--workdir") -> None:
    """Checks that a run can be kept in a folder, which need not be there yet.

    Raises:
      UserError: its path has characters that checkpoints do not bear, or nothing can be written there.
    """
    wrong = [character for character in _UNREADABLE if character in str(workdir.absolute())]
    if wrong:
        raise UserError(f"{name}={workdir}: no checkpoint can be read in a path with {' '.join(wrong)}; choose another")
    check_writable(workdir)


def check_writable(folder: Path) -> None:
    """Checks that files can be made in a folder, or the folder where it is not there yet.

    Raises:
      UserError: they cannot.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"{there}: a file stands where a folder is to be; name another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there}: is read-only, and results are to be written there; make it writable, or copy the run")


def cache_folder(stated: str = "") -> Path:
    """Where prepared data and compiled programs are kept: as stated, else $MRDIFF_CACHE or ~/.cache/mrdiff_jax.

    Raises:
      UserError: nothing is stated, and the home folder is not known.
    """
    name = "--config.data.cache" if stated else "MRDIFF_CACHE"
    return local_path(stated or os.environ.get("MRDIFF_CACHE") or "~/.cache/mrdiff_jax", name).resolve()
