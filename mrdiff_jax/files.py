"""Files that are there whole or not at all, and what tells where they come from."""

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mrdiff_jax


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


def sha256(path: Path) -> str:
    """The checksum of a file; of a folder that of its files' checksums, in the order of their names."""
    if path.is_dir():
        checksums = [sha256(file) for file in sorted(path.rglob("*")) if file.is_file()]
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
