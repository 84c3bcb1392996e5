"""Small scans in BIDS layout for the tests, and where the real ones are."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrdiff_jax import config as configuration
from mrdiff_jax.data import datasets
from mrdiff_jax.errors import UserError

SHAPE = (20, 24, 6)
TIMES = {"T1w": (0.5, 0.01, None), "T2w": (4.0, 0.1, None), "FLAIR": (9.0, 0.12, 2.5)}  # TR, TE, TI in seconds


def head(seed=0, shape=SHAPE):
    """A bright ellipsoid in faint noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 1.5) ** 2 < 1
    rng = np.random.default_rng(seed)
    return (inside * (600 + 200 * x + 100 * y) + rng.uniform(0, 20, shape)).astype(np.float32)


def write_scan(root, subject, contrast, data=None, affine=None, session=None, sidecar="default", suffix=".nii.gz"):
    folder = root / subject / (session or "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(filter(None, (subject, session, contrast)))
    path = folder / f"{stem}{suffix}"
    nib.save(nib.Nifti1Image(head() if data is None else data, np.eye(4) if affine is None else affine), path)
    if sidecar == "default":
        names = ("RepetitionTime", "EchoTime", "InversionTime")
        values = TIMES.get(contrast, TIMES["T1w"])
        sidecar = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    if sidecar is not None:
        (folder / f"{stem}.json").write_text(json.dumps(sidecar))
    return path


def write_subjects(root):
    """Three subjects with T1w, T2w and FLAIR."""
    for index in range(3):
        for contrast in TIMES:
            write_scan(root, f"sub-{index + 1:02d}", contrast, head(index))
    return root


def data_config(root, /, **changes):
    config = configuration.default(None).data
    defaults = {"sources": "T1w,T2w", "target": "FLAIR", "image_size": 16}
    config.update({"name": "bids", "root": str(root), "cache": str(Path(root).parent / "cache")} | defaults | changes)
    return config


def refused(config, *words):
    """The text of the UserError: one line that contains all the words."""
    with pytest.raises(UserError) as caught:
        datasets.open_dataset(config)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text
    return text


def real_scans(name):
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("MRDIFF_TEST_DATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}; set MRDIFF_TEST_DATA to their folder")
    return folder
