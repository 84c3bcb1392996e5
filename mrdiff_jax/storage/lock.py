"""A folder that one process at a time writes to.

The lock is the system's, on a file that stays behind: it ends with the process, however that ends.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger

_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def hold(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Holds the lock file at `path`; the folder of it must be there.

    Args:
      path: of the file.
      what: what holders of this lock do, as 'trains': for the message to others.
      wait: until another process is through, rather than to give up.

    Raises:
      UserError: another process holds it, which the message names.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                logger.warning("%s: no locks here (%s); start nothing else in this folder", path, error.strerror)
            elif wait:
                logger.info("waiting for %s, which %s in %s", _holder(file), what, path.parent)
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                raise UserError(f"{path.parent}: {_holder(file)} {what} here; wait for it, or choose another") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read(200).strip() or "another process"
