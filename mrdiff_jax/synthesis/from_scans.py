"""From a subject's scans to the scan that was not acquired: one grid, the scaling of training, every slice, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import nibabel as nib
import numpy as np
from tqdm import tqdm

from mrdiff_jax import parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import did_you_mean
from mrdiff_jax.log import logger
from mrdiff_jax.preparation import registration, slicing
from mrdiff_jax.preparation.common_grid import OneGrid, on_one_grid
from mrdiff_jax.preparation.intensity import percentile_scale
from mrdiff_jax.preparation.options import PLANES, Options
from mrdiff_jax.preparation.placement import misaligned
from mrdiff_jax.preparation.records import Placement
from mrdiff_jax.preparation.registration import Grid, grid_of
from mrdiff_jax.preparation.slices import blank, foreground
from mrdiff_jax.scans import contrasts
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.nifti_frame import NiftiFrame
from mrdiff_jax.scans.scan_path import ScanPath
from mrdiff_jax.scans.sequence_times import SequenceTimes, Stated, complete, merged, parse_stated, require
from mrdiff_jax.scans.volumes import Volume, read_scan
from mrdiff_jax.synthesis.synthesizer import Synthesizer

MAX_SHIFT_MM = 2.0  # between sources; more is warned of
SYNTHETIC, DEVIATION = "synthetic", "std"  # the names of the first two results; the rest are feature maps


class SynthesisOptions(NamedTuple):
    """How to synthesise a volume; None is as the model is configured.

    shared_noise: all slices start from the same noise; a slice has its own otherwise, whatever the batches.
    """

    steps: int | None = None
    sampler: str | None = None
    samples: int = 1
    seed: int = 0
    batch_size: int = 8
    shared_noise: bool = False
    maps: bool = False


@dataclass(frozen=True)
class Scans:
    """A subject's sources on one grid: all of the model, or those that were given where its method does without some.

    Attributes:
      paths: where they were read, by name, in the order of the model.
      volumes: (K, X, Y, Z) on RAS+ axes, in scanner units; outside of a scan its air.
      air: (K,) the level of air of each, in the same units.
      scale: (K, 2) offset and factor from [0, 1] to scanner units, of each on the grid of the first that was given.
      times: (K, 3) TR, TE, TI in ms.
      placements: how each came to lie on the first that was given, by name.
      padding: what of each was taken for air, in words.
      grid: of the volumes.
      frame: of the file that the grid is of.
      frame_path: that file.
    """

    paths: dict[str, ScanPath]
    volumes: np.ndarray
    air: np.ndarray
    scale: np.ndarray
    times: np.ndarray
    placements: dict[str, Placement]
    padding: dict[str, str]
    grid: Grid
    frame: NiftiFrame
    frame_path: ScanPath


def read_scans(
    synthesizer: Synthesizer, paths: Mapping[str, ScanPath | Path], grid: ScanPath | Path | None, stated: Stated
) -> Scans:
    """Reads the sources of a model, NIfTI or DICOM, and lays them on one grid.

    Args:
      synthesizer: of the model.
      paths: of the sources, by name, as `volumes.read_scan` takes them; the others are registered to the first.
      grid: a scan whose grid to take instead of that of the first source.
      stated: times of sources that are recorded nowhere.

    Raises:
      UserError: not the sources of the model, a scan cannot be read or lacks TR or TE, or fields of view do not overlap.
    """
    paths = {name: ScanPath.of(path) for name, path in paths.items()}
    _check_names(synthesizer, paths)
    read = {name: read_scan(path) for name, path in paths.items()}
    times = _times(synthesizer, paths, {name: recorded for name, (_, recorded) in read.items()}, stated)
    scans = {name: scan for name, (scan, _) in read.items()}
    first = next(iter(scans.values()))
    frame = read_scan(grid)[0] if grid else first
    for scan in (*scans.values(), frame):
        _check_overlap(first, scan)  # `prepare` does without: it shows what it made, and checks that too

    options = replace(synthesizer.trained.data.preparation, registration="auto")
    names = [name for name in synthesizer.sources if name in paths]
    aligned = on_one_grid({name: scans[name] for name in names}, first, options)
    _warn(scans, aligned, first)
    whole = list(aligned.volumes.values())  # scaled as a whole, whatever part of it another grid shows
    return Scans(
        paths={name: paths[name] for name in names},
        volumes=np.stack(whole if frame is first else _on_grid(grid_of(frame), scans, aligned, options)),
        air=np.array([air_level(np.moveaxis(one, PLANES.index(options.plane), -1)) for one in whole], np.float32),
        scale=np.array([percentile_scale(one, options.percentiles) for one in whole], np.float32),
        times=np.array(list(times.values()), np.float32),
        placements=aligned.placements,
        padding={name: scans[name].padding for name in names},
        grid=grid_of(frame),
        frame=NiftiFrame.of(frame),
        frame_path=frame.path,
    )


def _warn(scans: Mapping[str, Volume], aligned: OneGrid, first: Volume) -> None:
    """Warns of padding, and of scans that do not lie well on the first."""
    for name, placement in aligned.placements.items():
        path, padding = scans[name].path, scans[name].padding
        if padding:
            logger.warning("%s: %s", path, padding)
        what = misaligned(placement, first.path.name, aligned.grid.spacing, MAX_SHIFT_MM)
        if what:
            logger.warning("%s: %s %s; look at it before you trust the result", path, name, what)


def _on_grid(grid: Grid, scans: Mapping[str, Volume], aligned: OneGrid, options: Options) -> list[np.ndarray]:
    """The aligned scans on another grid; interpolated once, where nothing was corrected between."""
    corrected = options.bias_correction or options.mask != "none"
    found = []
    for name, data in aligned.volumes.items():
        scan, transform = scans[name], np.reshape(aligned.placements[name].transform, (4, 4))
        if corrected:
            scan, transform = Volume(data, aligned.grid.affine, scan.path), np.eye(4)
        found.append(registration.resample(scan, grid, transform, options.interpolation))
    return found


def _check_names(synthesizer: Synthesizer, paths: Mapping[str, ScanPath]) -> None:
    wrong, lacking = synthesizer.misfits(tuple(paths))
    makes = f"the model makes {synthesizer.target} from {', '.join(synthesizer.sources)}"
    if wrong:
        near = did_you_mean(wrong[0], synthesizer.sources)
        raise UserError(f"--source={wrong[0]}={paths[wrong[0]]}: {makes}{near}")
    if lacking:
        raise UserError(f"--source: no {lacking[0]}; {makes}; give --source={lacking[0]}=PATH")


def _times(
    synthesizer: Synthesizer, paths: Mapping[str, ScanPath], recorded: Mapping[str, SequenceTimes], stated: Stated
) -> dict[str, SequenceTimes]:
    """Times of the sources: as recorded with them, as stated, as stated in training; of TI, which many lack, training's median.

    Raises UserError for sources without TR or TE.
    """
    data = synthesizer.trained.config.data
    in_training = parse_stated(data.tr, data.te, data.ti, "--config.data.")
    usual = {name: SequenceTimes(ti=times.ti) for name, times in synthesizer.trained.data.sources.items()}
    known = merged(stated, in_training, usual)
    found = {}
    for name in (name for name in synthesizer.sources if name in paths):
        found[name] = complete(recorded[name], known[name], paths[name], name, required=False, flag="--")
        contradiction = contrasts.contradiction(name, found[name])
        if contradiction:
            logger.warning("%s: %s; is it the right scan, and are its times right?", paths[name], contradiction)
    require([(paths[name], name, times) for name, times in found.items()], "--")
    return found


def _check_overlap(fixed: Volume, moving: Volume) -> None:
    """Raises UserError where the boxes of two scans, in the scanner's coordinates, do not overlap."""
    (low, high), (other_low, other_high) = (_box(volume) for volume in (fixed, moving))
    if (low > other_high).any() or (other_low > high).any():
        raise UserError(
            f"{moving.path}: its field of view does not overlap with that of {fixed.path}; give scans of one session"
        )


def _box(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * np.array(volume.data.shape) - 0.5
    places = nib.affines.apply_affine(volume.affine, corners)
    return places.min(0), places.max(0)


def synthesize(synthesizer: Synthesizer, scans: Scans, settings: SynthesisOptions) -> dict[str, np.ndarray]:
    """Synthesises every slice of the training plane.

    Returns:
      'synthetic', the volume (X, Y, Z) on the grid of the scans, in the units of `intensities`; with several samples 'std',
      their standard deviation; with `maps` the method's feature maps, by name. All float32.

    Raises:
      UserError: a source has no contrast between its percentiles, or the settings do not fit the model.
    """
    scaled, air = _scaled(scans)
    _warn_of_blank(synthesizer, scans, scaled)
    cut = slicing_of(synthesizer, scans.grid)
    results: dict[str, list[np.ndarray]] = {}
    for numbers, filled in _batches(cut.count, settings.batch_size):
        images = cut.images(scaled, filled, air)
        tr, te, ti = (np.broadcast_to(time, images.shape[::3]) for time in scans.times.T)
        rng = parallel.keys_at(jax.random.key(settings.seed), 0 * filled if settings.shared_noise else filled)
        found = synthesizer(
            images,
            *(tr, te, ti),
            rng=rng,
            given=tuple(scans.paths),
            steps=settings.steps,
            samples=settings.samples,
            sampler=settings.sampler,
        )
        batch = dict(zip((SYNTHETIC, DEVIATION), found if settings.samples > 1 else (found,), strict=False))
        if settings.maps:
            batch |= synthesizer.maps(images, tr, te, ti, rng=rng)
        for name, values in batch.items():
            results.setdefault(name, []).append(values[: len(numbers)])
    volumes = {name: cut.volume(np.concatenate(values)) for name, values in results.items()}
    offset, factor = intensities(synthesizer)
    volumes[SYNTHETIC] = offset + factor * volumes[SYNTHETIC]
    if DEVIATION in volumes:
        volumes[DEVIATION] *= factor
    return volumes


def results(synthesizer: Synthesizer, settings: SynthesisOptions) -> list[str]:
    """Names of the volumes that `synthesize` makes."""
    return [SYNTHETIC, *[DEVIATION] * (settings.samples > 1), *synthesizer.method.described * settings.maps]


def intensities(synthesizer: Synthesizer) -> tuple[float, float]:
    """(offset, factor) from the network's scale to scanner units: the medians over the training scans of the target."""
    data = synthesizer.trained.data
    return data.offset, data.factor


def slicing_of(synthesizer: Synthesizer, grid: Grid) -> slicing.Slicing:
    """How volumes on a grid are cut for a model."""
    data, stride = synthesizer.trained.data, synthesizer.method.stride
    options = data.preparation
    return slicing.cut(grid.shape, grid.spacing, options.plane, options.image_size, data.pixel_mm, stride)


def _scaled(scans: Scans) -> tuple[np.ndarray, np.ndarray]:
    """The sources (K, X, Y, Z) in [0, 1] and their air (K,), by the percentiles of training, each from its own volume."""
    for path, volume, (_, factor) in zip(scans.paths.values(), scans.volumes, scans.scale, strict=True):
        if factor <= 0 or volume.min() == volume.max():
            raise UserError(f"{path}: no range between its percentiles on the grid; too little of it is in there")
    offset, factor = scans.scale.T
    air = np.clip((scans.air - offset) / factor, 0, 1)
    offset, factor = scans.scale.T[..., None, None, None]
    return np.clip((scans.volumes - offset) / factor, 0, 1), air


def _warn_of_blank(synthesizer: Synthesizer, scans: Scans, scaled: np.ndarray) -> None:
    """Warns of sources that show nothing in slices where others show the body: training had no such slices."""
    axis = PLANES.index(synthesizer.trained.data.preparation.plane)
    for (name, path), empty in zip(scans.paths.items(), blank(foreground(np.moveaxis(scaled, 1 + axis, -1))), strict=True):
        if empty.any():
            logger.warning("%s: %s is blank in %d slices; do not trust the result there", path, name, empty.sum())


def _batches(count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The slices' numbers in batches, and the same filled up to one size: a network is compiled for one alone."""
    with tqdm(total=count, desc="synthesising", unit="slice", disable=None) as progress:
        for start in range(0, count, size):
            numbers = np.arange(start, min(start + size, count))
            yield numbers, np.minimum(np.arange(start, start + size), count - 1)
            progress.update(len(numbers))
