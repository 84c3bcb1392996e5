"""A smooth head on any grid, and a model that answers with its first source."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from helpers.models import tiny
from mrdiff_jax.config import resolve
from mrdiff_jax.data.training_data import TrainingData
from mrdiff_jax.methods.contract import Method, Variables
from mrdiff_jax.preparation.options import Options
from mrdiff_jax.scans.sequence_times import SequenceTimes
from mrdiff_jax.synthesis.model_files import Trained
from mrdiff_jax.synthesis.synthesizer import Synthesizer

SHAPE, SPACING = (26, 30, 14), (2.0, 2.0, 3.0)
TIMES = {"T2w": SequenceTimes(4000.0, 100.0), "PDw": SequenceTimes(2000.0, 10.0)}
OPTIONS = Options(("T2w", "PDw", "T1w"), "T2w", bias_correction=False, mask="none", image_size=32)
DATA = TrainingData(dict.fromkeys(TIMES, SequenceTimes(4000.0, 100.0, 0.0)), "T1w", 10.0, 200.0, (2.0, 2.0), OPTIONS)


class Copy(Synthesizer):
    """Answers with its first source, and counts its calls."""

    def __init__(self, **changes):
        data = replace(DATA, preparation=replace(OPTIONS, **changes))
        self.trained = Trained(resolve(tiny()), data, 1, Variables({}))
        self.method = SimpleNamespace(stride=4, described=("T1 features",), any_sources=False, sampling=Method.sampling)
        self.calls = []

    def __call__(self, sources, tr, te, ti, *, rng, given, steps, samples, sampler):
        self.calls.append({"shape": sources.shape, "tr": tr, "rng": jax.random.key_data(rng)})
        return (sources[..., 0], 0 * sources[..., 0] + 0.5) if samples > 1 else sources[..., 0]

    def maps(self, sources, *times, rng):
        return {"T1 features": sources[:, ::2, ::2, 0]}


def head(places):
    """A smooth head of 400 to 1000 at world places (..., 3) in mm, with a mark on its right, in front and above."""
    x, y, z = np.moveaxis(places, -1, 0)
    inside = 1 / (1 + np.exp(np.clip(((x / 18) ** 2 + (y / 22) ** 2 + (z / 15) ** 2 - 1) * 6, -50, 50)))
    return inside * (600 + 400 * np.exp(-((x - 8) ** 2 + (y - 9) ** 2 + (z - 4) ** 2) / 60))


def affine_of(turn=(0, 0, 0), spacing=SPACING, shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def save(path, affine, shape=SHAPE, codes=(1, 1), private=b"", kind=nib.Nifti1Image):
    places = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    image = kind(head(places).astype(np.float32), affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    image.header["descrip"] = private
    nib.save(image, path)
    return path


def reordered(affine, axes, flips, shape=SHAPE):
    """Affine and shape of the same grid, stored with other axes first, some of them backwards."""
    ornt = np.stack([axes, flips], 1)
    return affine @ nib.orientations.inv_ornt_aff(ornt, shape), tuple(np.array(shape)[np.argsort(axes)])


FRAMES = {
    "axial": (affine_of(), SHAPE),
    "LPS": reordered(affine_of(), (0, 1, 2), (-1, -1, 1)),
    "sagittal": reordered(affine_of(), (2, 0, 1), (1, -1, -1)),
    "coronal": reordered(affine_of(), (0, 2, 1), (-1, 1, 1)),
    "oblique": (affine_of((14, -9, 21)), SHAPE),
    "oblique sagittal": reordered(affine_of((-12, 17, 8)), (2, 0, 1), (-1, 1, -1)),
}
