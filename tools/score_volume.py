"""Holds a synthetic volume against the acquired one on the same grid.

    python tools/score_volume.py --synthetic=flair.nii.gz --truth=FLAIR.nii.gz --source=T1w=t1.nii.gz --picture=panel.png

Prints PSNR and SSIM, means over the slices that show enough of the body, and how much more neighbouring slices differ than
they should: against the truth at the pixels that the network sees. Both are taken to [0, 1]: the truth by its percentiles, the
synthesis as its sidecar says.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrdiff_jax import metrics
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import figures
from mrdiff_jax.preparation.intensity import percentile_scale
from mrdiff_jax.preparation.registration import grid_of
from mrdiff_jax.preparation.slices import choose_slices
from mrdiff_jax.preparation.slicing import PLANES, Slicing, slice_image
from mrdiff_jax.scans.sequence_times import sidecar_path
from mrdiff_jax.scans.volumes import Volume, read_nifti
from mrdiff_jax.storage import json_files

BODY_LEVEL = 0.1


def about(synthetic: Path) -> dict[str, Any]:
    """The sidecar of a synthetic volume."""
    return json_files.read(sidecar_path(synthetic), "--synthetic takes what mrdiff synthesize wrote")


def scaled(volume: Volume, offset: float, factor: float) -> np.ndarray:
    """A volume (X, Y, Z) in [0, 1]."""
    return np.clip((volume.data - offset) / factor, 0, 1).astype(np.float32)


def acquired(path: Path, percentiles: Sequence[float]) -> np.ndarray:
    """A scan in [0, 1], by its own percentiles."""
    volume = read_nifti(path)
    return scaled(volume, *percentile_scale(volume.data, percentiles))


def slicing_of(volume: Volume, slices: dict[str, Any], plane: str) -> Slicing:
    """How the network saw the volume."""
    axis, grid = PLANES.index(plane), grid_of(volume)
    return Slicing(grid.shape, axis, tuple(np.delete(grid.spacing, axis)[::-1]), slices["Pixels"], slices["PixelMillimetres"])


def steps(volume: np.ndarray, body: np.ndarray) -> np.ndarray:
    """(3,): the mean absolute difference of neighbouring voxels of the body, along each axis."""

    def step(axis: int) -> float:
        both = np.take(body, range(1, body.shape[axis]), axis) & np.take(body, range(body.shape[axis] - 1), axis)
        return float(np.abs(np.diff(volume, axis=axis))[both].mean())

    return np.array([step(axis) for axis in range(3)])


def banding(synthetic: np.ndarray, truth: np.ndarray, body: np.ndarray, axis: int) -> float:
    """Steps across slices, which cut `axis`, over those within, against the same of the truth: 1 where they are alike."""
    shares = []
    for volume in (synthetic, truth):
        across = steps(volume, body)
        shares.append(across[axis] / np.delete(across, axis).mean())
    return shares[0] / shares[1]


def main() -> None:
    """Reads the flags, and scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--source", action="append", default=[], help="NAME=PATH, for the picture")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    try:
        score(given)
    except UserError as error:
        parser.error(str(error))


def score(given: argparse.Namespace) -> None:
    """Reads, scores and draws what the flags name. Raises UserError where a file cannot be read."""
    scan, sidecar = read_nifti(given.synthetic), about(given.synthetic)
    synthetic = scaled(scan, sidecar["Intensities"]["Offset"], sidecar["Intensities"]["Factor"])
    percentiles = sidecar["Preparation"]["percentiles"]
    truth = acquired(given.truth, percentiles)
    slicing = slicing_of(scan, sidecar["Slices"], sidecar["Preparation"]["plane"])
    everything = np.arange(slicing.count)
    seen = slicing.volume(slicing.images(truth[None], everything)[..., 0])
    body, axis = truth > BODY_LEVEL, slicing.axis

    chosen = choose_slices(np.moveaxis(truth, axis, -1)[None])
    for name, each in (("synthetic", synthetic), ("truth as seen", seen)):
        pair = [np.moveaxis(volume.take(chosen, axis), axis, 0) for volume in (each, truth)]
        print(f"{len(chosen)} slices, {name}: PSNR {metrics.psnr(*pair).mean():.2f}, SSIM {metrics.ssim(*pair).mean():.4f}")
    for name, each in (("synthetic", synthetic), ("truth", truth), ("truth as seen", seen)):
        print(f"steps along the axes, {name}: {np.round(steps(each, body), 4).tolist()}")
    print(f"banding: {banding(synthetic, seen, body, axis):.3f} (1: as in the truth)")
    if given.picture:
        volumes = {name: acquired(Path(path), percentiles) for name, _, path in (text.partition("=") for text in given.source)}
        volumes |= {"true": truth, "synthetic": synthetic, "absolute error": np.abs(synthetic - truth)}
        middle = [int(np.median(np.nonzero(body)[each])) for each in range(3)]
        rows = [{name: slice_image(each.take(middle[cut], cut)) for name, each in volumes.items()} for cut in (2, 1, 0)]
        figures.sample_panel(rows, [PLANES[cut] for cut in (2, 1, 0)], given.picture)


if __name__ == "__main__":
    main()
