"""What scans are, by their content: a copy is the same, wherever it lies and whenever it was made."""

import json
import time
from pathlib import Path

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.files import sha256, write_text

_FILE = "checksums.json"
_SETTLED = 2_000_000_000  # ns: a file that was changed within so short a time may change again without its times telling


class Checksums:
    """SHA-256 of files; kept in a folder, so that a file that nobody touched is read only once."""

    def __init__(self, folder: Path):
        self._path, self._new = folder / _FILE, False
        try:
            self._kept = dict(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._kept = {}

    def of(self, path: Path) -> str:
        """The checksum of a file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            status = path.stat()
            state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            kept = self._kept.get(str(path.resolve()))
            if kept and kept[0] == state:
                return kept[1]
            checksum = sha256(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if time.time_ns() - max(state[1:3]) > _SETTLED:
            self._kept[str(path.resolve())], self._new = [state, checksum], True
        return checksum

    def keep(self) -> None:
        """Keeps what was computed; where that cannot be written it is computed again the next time."""
        if self._new:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._path, json.dumps(self._kept))
            except OSError:
                pass
