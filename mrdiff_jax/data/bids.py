"""Data in BIDS layout: scans that share a grid, read as they lie."""

from functools import partial
from pathlib import Path
from typing import Any

from mrdiff_jax.data.identity import Checksums
from mrdiff_jax.data.study import ExamRef, Study
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.scans import volumes
from mrdiff_jax.scans.bids import find_exams
from mrdiff_jax.scans.sequence_times import parse_stated, require
from mrdiff_jax.storage.files import require_file
from mrdiff_jax.storage.paths import cache_folder, local_path


def study(config: Any, sources: tuple[str, ...], target: str) -> Study:
    """The scans under `config.root`."""
    contrasts = split_names(config.contrasts) or tuple(dict.fromkeys((*sources, target)))
    if not config.root:
        raise UserError("--config.data.root: is empty; set it to the folder of your scans")
    root = local_path(config.root, "--config.data.root")
    stated = parse_stated(config.tr, config.te, config.ti, "--config.data.")
    exams, identity, masked, timed, known = [], [], False, [], []
    owners: dict[str, tuple[str, Path]] = {}  # of scans, by their content
    checksums = Checksums(cache_folder(config.cache))
    for files in find_exams(root, contrasts, config.lesions):
        times = {name: volumes.scan_times(path, name, stated, required=False) for name, path in files.scans.items()}
        for name, path in files.scans.items():
            volumes.refuse_contradiction(path, name, times[name])
        known += [(path, name, times[name]) for name, path in files.scans.items()]
        timed += [(path, name, times[name]) for name, path in files.scans.items() if name in sources]
        exams.append(ExamRef(files.subject, partial(volumes.read_exam, files, times)))
        masks = {"lesions": files.lesions} if files.lesions else {}
        for name, path in {**{name: scan.path for name, scan in files.scans.items()}, **masks}.items():
            require_file(path)
            checksum = checksums.of(path)
            identity.append([path.relative_to(root).as_posix(), checksum, times.get(name)])
            subject, other = owners.setdefault(checksum, (files.subject, path))
            if name in files.scans and subject != files.subject:
                raise UserError(f"{path}: is the same file as {other}, of another subject; remove the copy")
        masked = masked or bool(masks)
    volumes.warn_of_odd_times(known)
    checksums.keep()
    require(timed, "--config.data.")
    if config.lesions and not masked:
        raise UserError(
            f"--config.data.lesions={config.lesions}: no exam under {root} has a file sub-*_{config.lesions}.nii.gz"
        )
    return Study(contrasts, exams, identity, ("lesions",) if masked else ())
