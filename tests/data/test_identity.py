"""Scans are known by their content."""

import json
import os
import shutil
import time

import pytest

from mrdiff_jax.data.datasets import open_dataset
from mrdiff_jax.data.identity import Checksums
from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.files import sha256


@pytest.fixture
def scans(tiny_config, root, tmp_path):
    """Configuration of a data set of scans, with a cache of its own."""
    data = tiny_config.data
    data.update(name="bids", root=str(root), sources="T1w,T2w", target="FLAIR", cache=str(tmp_path / "cache"))
    return data


def test_a_copy_of_the_scans_is_the_same_data_set_and_another_voxel_is_not(scans, root, tmp_path):
    fingerprint = open_dataset(scans).fingerprint
    copied = shutil.copytree(root, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    scans.root = str(copied)
    assert open_dataset(scans).fingerprint == fingerprint

    changed = next(copied.rglob("*.nii.gz"))
    times = changed.stat().st_mtime_ns
    content = bytearray(changed.read_bytes())
    content[4] ^= 1  # the date in the header of gzip: the same size, and below the same time
    changed.write_bytes(content)
    os.utime(changed, ns=(times, times))
    assert open_dataset(scans).fingerprint != fingerprint


def test_what_nobody_touched_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "scan.nii"
    path.write_bytes(b"voxels")
    expected, now = sha256(path), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    first = Checksums(tmp_path / "cache")
    assert first.of(path) == expected
    first.keep()
    (kept,) = json.loads((tmp_path / "cache" / "checksums.json").read_text()).values()
    assert kept[1] == expected
    monkeypatch.setattr("mrdiff_jax.data.identity.sha256", lambda path: pytest.fail("read again"))
    assert Checksums(tmp_path / "cache").of(path) == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="none: cannot be read"):
        Checksums(tmp_path).of(tmp_path / "none")
