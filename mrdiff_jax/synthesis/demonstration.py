"""A first look: the model that ships, on a simulated subject that it was not trained on, from scans on disk to scores."""

import csv
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

import mrdiff_jax
from mrdiff_jax.data import phantom
from mrdiff_jax.errors import UserError
from mrdiff_jax.evaluation import baselines, figures
from mrdiff_jax.evaluation.baselines import References
from mrdiff_jax.evaluation.scoring import Scorer
from mrdiff_jax.metrics.conventions import METRICS, body_mask
from mrdiff_jax.preparation.intensity import percentile_scale
from mrdiff_jax.preparation.slicing import Slicing
from mrdiff_jax.scans.exam import Exam
from mrdiff_jax.scans.sequence_times import SIDECAR_FIELDS, sidecar_path
from mrdiff_jax.storage.files import scratch_folder
from mrdiff_jax.synthesis import from_scans, nifti_output
from mrdiff_jax.synthesis.from_scans import DEVIATION, SYNTHETIC, Scans, SynthesisOptions
from mrdiff_jax.synthesis.synthesizer import Synthesizer

MODEL = Path(mrdiff_jax.__file__).with_name("models") / "phantom.safetensors"
SUBJECT = 1014  # of the phantom, of which models are trained on the first ones; it has a tumour
SAMPLES = 8
PICTURE, SCORES = "picture.png", "scores.csv"
CONVENTION = "default"
IN_TUMOUR = "tumour_rmse"
_FITTED = 8  # other simulated subjects, to which the linear regression is fitted
_SHOWN = 4

Scores = Mapping[str, Mapping[str, float]]


class Images(NamedTuple):
    """What is compared, as the network sees it: sources (S, H, W, K), the others (S, H, W), of the range [0, 1]."""

    sources: np.ndarray
    truth: np.ndarray
    tumour: np.ndarray
    synthesis: np.ndarray
    deviation: np.ndarray
    linear: np.ndarray


def run(synthesizer: Synthesizer, folder: Path, settings: SynthesisOptions) -> Scores:
    """Simulates a subject, synthesises the target from its sources, and compares it with the truth.

    Args:
      synthesizer: of a model of the phantom.
      folder: for the scans, the synthesis, and a picture and a table of the comparison; it must not be there.
      settings: of the synthesis, of several samples.

    Returns:
      The metrics, means over the slices, and the root mean squared error in the tumour: of the synthesis, of a linear
      regression, and of the sources as they are.

    Raises:
      UserError: the folder is there.
    """
    if folder.exists():
        raise UserError(f"--output={folder}: is there; remove it, or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent, f".{folder.name}-") as scratch:  # the folder is there whole, or not at all
        whole = scratch / folder.name
        whole.mkdir()
        scores = _fill(whole, synthesizer, settings)
        whole.rename(folder)
    return scores


def _fill(folder: Path, synthesizer: Synthesizer, settings: SynthesisOptions) -> Scores:
    exam = _simulate(synthesizer, SUBJECT)
    written = {name: _write_scan(exam, k, folder) for k, name in enumerate(exam.contrasts)}
    scans = from_scans.read_scans(synthesizer, {name: written[name] for name in synthesizer.sources}, None, {})
    volumes = from_scans.synthesize(synthesizer, scans, settings)
    nifti_output.write(
        volumes,
        scans,
        nifti_output.provenance(synthesizer, scans, settings),
        lambda result: folder / nifti_output.bids_name(exam.name, synthesizer.target, result),
    )
    images = _images(synthesizer, exam, scans, volumes)
    _draw(images, synthesizer, exam.name, folder / PICTURE)
    scores = _scores(images, synthesizer, exam.name)
    with (folder / SCORES).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["images", *METRICS, IN_TUMOUR], *([name, *row.values()] for name, row in scores.items())])
    return scores


def _simulate(synthesizer: Synthesizer, index: int) -> Exam:
    """A subject of the phantom that the model was trained on: its sources, and last its target."""
    data = synthesizer.trained.config.data
    size = {"image_size": data.image_size, "slice_count": data.subject_slices}
    return phantom.simulate_exam(data.seed, index, contrasts=(*synthesizer.sources, synthesizer.target), **size)


def _write_scan(exam: Exam, k: int, folder: Path) -> Path:
    """The k-th scan of an exam, as NIfTI with its sidecar."""
    path = folder / f"{exam.name}_{exam.contrasts[k]}.nii.gz"
    nib.save(nib.Nifti1Image(exam.volumes[k], np.diag([*exam.spacing, 1.0])), path)
    times = zip(SIDECAR_FIELDS.values(), exam.times[k].tolist(), strict=True)
    sidecar = {"Simulated": True} | {field: ms / 1000 for field, ms in times if ms}
    sidecar_path(path).write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    return path


def _images(synthesizer: Synthesizer, exam: Exam, scans: Scans, volumes: Mapping[str, np.ndarray]) -> Images:
    """All slices, scaled as in training: scans by their own percentiles, the synthesis as it was made."""
    sliced = partial(_sliced, from_scans.slicing_of(synthesizer, scans.grid))
    offset, factor = from_scans.intensities(synthesizer)
    linear = _linear(synthesizer, sliced)
    sources = np.stack(list(map(sliced, scans.volumes, *scans.scale.T)), -1)
    return Images(
        sources=sources,
        truth=sliced(exam.volumes[-1], *_scale(synthesizer, exam.volumes[-1])),
        tumour=sliced(exam.lesions) > 0.5,
        synthesis=sliced(volumes[SYNTHETIC], offset, factor),
        deviation=sliced(volumes[DEVIATION], 0, factor),
        linear=linear.predict(sources)["linear"],
    )


def _linear(synthesizer: Synthesizer, sliced: Callable[..., np.ndarray]) -> References:
    """The linear regression on the sources, fitted to some other simulated subjects."""

    def batch(index: int) -> dict[str, np.ndarray]:
        volumes = _simulate(synthesizer, index).volumes
        images = np.stack([sliced(volume, *_scale(synthesizer, volume)) for volume in volumes], -1)
        return {"sources": images[..., :-1], "target": images[..., -1], "valid": np.ones(len(images), bool)}

    return baselines.fit(map(batch, range(_FITTED)), len(synthesizer.sources))


def _scale(synthesizer: Synthesizer, volume: np.ndarray) -> tuple[float, float]:
    return percentile_scale(volume, synthesizer.trained.data.preparation.percentiles)


def _sliced(cut: Slicing, volume: np.ndarray, offset: float = 0, factor: float = 1) -> np.ndarray:
    """The slices (S, H, W) of a volume (X, Y, Z), from offset + factor * [0, 1] to [0, 1]."""
    return cut.images(np.clip((volume - offset) / factor, 0, 1).astype(np.float32)[None], np.arange(cut.count))[..., 0]


def _scores(images: Images, synthesizer: Synthesizer, subject: str) -> Scores:
    count = len(images.truth)
    batch = {
        "target": images.truth,
        "body": body_mask(np.concatenate([images.sources, images.truth[..., None]], -1)),
        **{"valid": np.ones(count, bool), "subject": [subject] * count, "slice": np.arange(count)},
    }
    compared = {"synthesis": images.synthesis, "linear regression": images.linear}
    compared |= {f"{name} as it is": images.sources[..., k] for k, name in enumerate(synthesizer.sources)}
    score = Scorer(CONVENTION)
    return {
        name: score(image, batch).means(METRICS, CONVENTION)
        | {IN_TUMOUR: float(np.sqrt(np.mean(np.square(image - images.truth)[images.tumour])))}
        for name, image in compared.items()
    }


def _draw(images: Images, synthesizer: Synthesizer, subject: str, path: Path) -> None:
    """Some slices, evenly spread: sources, truth, synthesis, its error, and its deviation scaled to the largest error."""
    chosen = np.linspace(0, len(images.truth) - 1, _SHOWN + 2).round().astype(int)[1:-1]
    errors = np.abs(images.synthesis - images.truth)
    brighter = max(1, round(float(errors.max() / max(images.deviation.max(), 1e-6))))
    rows = [
        {name: images.sources[i, ..., k] for k, name in enumerate(synthesizer.sources)}
        | {f"{synthesizer.target}, true": images.truth[i], f"{synthesizer.target}, synthetic": images.synthesis[i]}
        | {"absolute error": errors[i], f"standard deviation x {brighter}": brighter * images.deviation[i]}
        for i in chosen
    ]
    figures.sample_panel(rows, [f"{subject} / {i}" for i in chosen], path)
