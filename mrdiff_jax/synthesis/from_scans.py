"""From a subject's scans to the scan that was not acquired: one grid, the scaling of training, every slice, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import nibabel as nib
import numpy as np
from tqdm import tqdm

from mrdiff_jax import parallel
from mrdiff_jax.errors import UserError
from mrdiff_jax.preparation import registration, slicing
from mrdiff_jax.preparation.intensity import percentile_scale
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.preparation.placement import correct, place
from mrdiff_jax.preparation.prepared_set import misaligned
from mrdiff_jax.preparation.registration import Grid, grid_of
from mrdiff_jax.preparation.slices import blank, foreground
from mrdiff_jax.preparation.slicing import PLANES
from mrdiff_jax.scans import contrasts
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.nifti_frame import Frame
from mrdiff_jax.scans.sequence_times import SequenceTimes, Stated, complete, merged, parse_stated, require
from mrdiff_jax.scans.volumes import Volume, read_scan
from mrdiff_jax.synthesis.synthesizer import Synthesizer
from mrdiff_jax.training.writer import logger

MAX_SHIFT_MM = 2.0  # between sources; more is warned of
SYNTHETIC, DEVIATION = "synthetic", "std"  # the names of the first two results; the rest are feature maps


class Settings(NamedTuple):
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
    """A subject's sources on one grid.

    Attributes:
      paths: where they were read, by name, in the order of the model.
      volumes: (K, X, Y, Z) on RAS+ axes, in scanner units; outside of a scan its air.
      air: (K,) the level of air of each, in the same units.
      scale: (K, 2) offset and factor from [0, 1] to scanner units, of each on the grid of the first that was given.
      times: (K, 3) TR, TE, TI in ms.
      placements: how each came to lie on the first that was given, by name, as `placement.place` tells it.
      grid: of the volumes.
      frame: of the file that the grid is of.
      frame_path: that file.
    """

    paths: dict[str, Path]
    volumes: np.ndarray
    air: np.ndarray
    scale: np.ndarray
    times: np.ndarray
    placements: dict[str, dict[str, Any]]
    grid: Grid
    frame: Frame
    frame_path: Path


def read_scans(synthesizer: Synthesizer, paths: Mapping[str, Path], grid: Path | None, stated: Stated) -> Scans:
    """Reads the sources of a model, NIfTI or DICOM, and lays them on one grid.

    Args:
      synthesizer: of the model.
      paths: of the sources, by name; the first is the one that the others are registered to.
      grid: a scan whose grid to take instead of that of the first source.
      stated: times of sources that are recorded nowhere.

    Raises:
      UserError: not the sources of the model, a scan cannot be read or lacks TR or TE, or fields of view do not overlap.
    """
    _check_names(synthesizer, paths)
    read = {name: read_scan(path) for name, path in paths.items()}
    times = [_times(synthesizer, name, read[name][1], paths[name], stated) for name in synthesizer.sources]
    require([(paths[name], name, known) for name, known in zip(synthesizer.sources, times, strict=True)], "--")
    for scan, _ in read.values():
        if scan.padding:
            logger.warning("%s: %s", scan.path, scan.padding)
    first = next(iter(read.values()))[0]
    reference = read_scan(grid)[0] if grid else first
    _check_overlap(first, reference)
    options = synthesizer.trained.data.preparation
    placed = {name: _place(first, read[name][0], name, options) for name in synthesizer.sources}
    data = {name: volume for name, (volume, _) in placed.items()}
    corrected = options.bias_correction or options.mask != "none"
    if corrected:
        data = correct(data, grid_of(first), options)[0]
    # of the whole scan, whatever part of it another grid shows
    scale = [percentile_scale(volume, options.percentiles) for volume in data.values()]
    air = [air_level(np.moveaxis(volume, PLANES.index(options.plane), -1)) for volume in data.values()]
    if reference is not first:
        for name, (original, _) in read.items():
            scan = Volume(data[name], first.affine, paths[name]) if corrected else original  # interpolated once where it can be
            transform = np.eye(4) if corrected else np.reshape(placed[name][1]["transform"], (4, 4))
            data[name] = registration.resample(scan, grid_of(reference), transform, options.interpolation)
    return Scans(
        paths={name: paths[name] for name in synthesizer.sources},
        volumes=np.stack(list(data.values())),
        air=np.array(air, np.float32),
        scale=np.array(scale, np.float32),
        times=np.array(times, np.float32),
        placements={name: placed[name][1] for name in synthesizer.sources},
        grid=grid_of(reference),
        frame=Frame.of(reference),
        frame_path=reference.path,
    )


def _check_names(synthesizer: Synthesizer, paths: Mapping[str, Path]) -> None:
    known = ", ".join(synthesizer.sources)
    for name in paths:
        if name not in synthesizer.sources:
            raise UserError(f"--source={name}={paths[name]}: the model makes {synthesizer.target} from {known}")
    for name in synthesizer.sources:
        if name not in paths:
            raise UserError(
                f"--source: no {name}; the model makes {synthesizer.target} from {known}; give --source={name}=PATH"
            )


def _times(synthesizer: Synthesizer, name: str, recorded: SequenceTimes, path: Path, stated: Stated) -> SequenceTimes:
    """Times of a source: as recorded with it, as stated, as stated in training; of TI, which many lack, training's median."""
    data = synthesizer.trained.config.data
    in_training = parse_stated(data.tr, data.te, data.ti, "config.data.")
    usual = SequenceTimes(ti=synthesizer.trained.data.sources[name].ti)
    known = merged(stated, in_training, {name: usual})
    times = complete(recorded, known[name], path, name, required=False, flag="--")
    contradiction = contrasts.contradiction(name, times)
    if contradiction:
        logger.warning("%s: %s; is it the right scan, and are its times right?", path, contradiction)
    return times


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


def _place(first: Volume, volume: Volume, name: str, options: Options) -> tuple[np.ndarray, dict[str, Any]]:
    """A scan on the grid of the first, registered unless it lies there, and how; warns where it does not lie well."""
    if volume is first:
        return volume.data, {"action": "reference", "transform": np.eye(4).ravel().tolist()}
    _check_overlap(first, volume)
    data, placement = place(first, volume, replace(options, registration="auto"))
    what = misaligned(placement, first.path.name, grid_of(first).spacing, MAX_SHIFT_MM)
    if what:
        logger.warning("%s: %s %s; look at it before you trust the result", volume.path, name, what)
    return data, placement


def synthesize(synthesizer: Synthesizer, scans: Scans, settings: Settings) -> dict[str, np.ndarray]:
    """Synthesises every slice of the training plane.

    Returns:
      'synthetic', the volume (X, Y, Z) on the grid of the scans, in the units of `intensities`; with several samples 'std',
      their standard deviation; with `maps` the method's feature maps, by name. All float32.

    Raises:
      UserError: a source has no contrast between its percentiles, or the settings do not fit the model.
    """
    scaled, air = _scaled(scans)
    _tell_blank(synthesizer, scans, scaled)
    cut = slicing_of(synthesizer, scans.grid)
    results: dict[str, list[np.ndarray]] = {}
    for numbers, filled in _batches(cut.count, settings.batch_size):
        images = cut.images(scaled, filled, air)
        tr, te, ti = (np.broadcast_to(time, images.shape[::3]) for time in scans.times.T)
        rng = parallel.keys_at(jax.random.key(settings.seed), 0 * filled if settings.shared_noise else filled)
        found = synthesizer(
            images, tr, te, ti, rng=rng, steps=settings.steps, samples=settings.samples, sampler=settings.sampler
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


def results(synthesizer: Synthesizer, settings: Settings) -> list[str]:
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


def _tell_blank(synthesizer: Synthesizer, scans: Scans, scaled: np.ndarray) -> None:
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
