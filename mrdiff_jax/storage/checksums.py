"""A folder's files and their SHA-256, in the format of the command sha256sum, kept in the folder: what is damaged is seen."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mrdiff_jax.storage.files import sha256, write_text

NAME = "SHA256SUMS"


def write(folder: Path, without: Collection[str] = ()) -> None:
    """Writes the checksums of all files in a folder, but for those of some names."""
    lines = (f"{digest}  {name}\n" for name, digest in _of(folder).items() if name not in without)
    write_text(folder / NAME, "".join(lines))


def kept(folder: Path) -> bool:
    """Whether a folder has checksums."""
    return (folder / NAME).is_file()


def damage(folder: Path) -> str:
    """What is not as it was when the checksums were written; '' where all is."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8").splitlines()
        written = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except ValueError:
        return f"{NAME} cannot be read"
    if not written:
        return f"{NAME} is empty"
    now = _of(folder)
    for name, digest in written.items():
        if now.get(name) != digest:
            room = name.partition("/")[0]
            return f"{'a file in ' * (room != name)}{room} is {'missing' if name not in now else 'not as it was written'}"
    return ""


def _of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    with ThreadPoolExecutor() as pool:
        return dict(zip((path.relative_to(folder).as_posix() for path in files), pool.map(sha256, files), strict=True))
