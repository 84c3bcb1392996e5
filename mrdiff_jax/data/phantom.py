"""Simulated brain scans, made on the spot.

Anatomy: the ICBM152 grey and white matter maps that nilearn ships, cerebrospinal fluid as the rest of the brain mask.
Each subject is an affine and a smooth random deformation of them, with tissue borders of its own; some carry a lesion.
T1, T2 and proton density are those of 3 T, with a spread between subjects and, smoothly, within a tissue:

- T1, T2 of grey and white matter: Stanisz et al., Magn Reson Med 54:507, 2005.
- T1, T2 of cerebrospinal fluid: Rooney et al., Magn Reson Med 57:308, 2007; Spijkerman et al., MAGMA 31:415, 2018.
- Proton density (water content): Neeb et al., NeuroImage 31:1156, 2006.
- Lesions: between grey matter and fluid, as multiple sclerosis lesions and oedema are.

Sequence times are drawn per subject, for T2w and PDw (a dual echo) from the ranges of the paper's ADNI scans. T1w is a
spin echo around the times of the paper's spine T1w (TR 450, TE 9.8 ms), because the signal of ADNI's MP-RAGE is not a
function of TR, TE and TI alone.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy

from mrdiff_jax import physics
from mrdiff_jax.data.study import ExamRef, Study
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import split_names
from mrdiff_jax.scans.exam import Exam

CONTRASTS = ("T1w", "T2w", "PDw", "FLAIR")
FIELD_MM = 200.0  # side of the square field of view
CENTRE_MM = np.array([0.0, -17.0, 15.0])  # of the brain, in MNI space
SUBVOXEL_MM = 1.6  # about; larger voxels are averages over such, which is their partial volume
SLICES_MM = (-15.0, 60.0)  # the part of the brain that is sliced, in MNI space
LESION_SHARE = 1 / 3
GAIN = 1000.0  # scanner units of a full signal

# Rows: grey matter, white matter, cerebrospinal fluid, lesion. Columns: T1 (ms), T2 (ms), proton density.
TISSUES = np.array([[1820, 99, 0.83], [1084, 69, 0.70], [4300, 2000, 1.00], [1600, 180, 0.87]])
SUBJECT_SPREAD = np.array([0.03, 0.03, 0.01])  # relative standard deviations of T1, T2 and proton density
WATER_SPREAD = np.array([0.04, 0.04, 0.015])  # within a tissue, moving together as the water content does
LOCAL_SPREAD = np.array([0.01, 0.02, 0.005])  # within a tissue, each by itself


class Subject(NamedTuple):
    """What sets a subject apart, beside its smooth fields."""

    turn: np.ndarray  # (3, 3): the linear part of its affine
    shift: np.ndarray  # (3,): mm
    lesions: np.ndarray  # (L, 4): centre in MNI space and radius, mm
    tissues: np.ndarray  # (4, 3): as TISSUES
    times: np.ndarray  # (C, 3): TR, TE, TI of CONTRASTS, ms
    noise: float  # standard deviation relative to the brightest signal


def draw_subject(rng: np.random.Generator) -> Subject:
    """A random subject; a share of LESION_SHARE has one tumour or several small lesions in the white matter."""
    angles = np.radians(rng.normal(0, 3, 3))
    skew = np.array([[0, -angles[2], angles[1]], [angles[2], 0, -angles[0]], [-angles[1], angles[0], 0]])
    tr_t2 = rng.uniform(2700, 5650)
    return Subject(
        turn=(np.eye(3) + skew) * rng.uniform(0.87, 0.97, 3),
        shift=rng.normal(0, 1.5, 3),
        lesions=_draw_lesions(rng) if rng.random() < LESION_SHARE else np.zeros((0, 4)),
        tissues=TISSUES * (1 + SUBJECT_SPREAD * rng.normal(size=TISSUES.shape)),
        times=np.array(
            [
                (rng.uniform(400, 600), rng.uniform(9, 15), 0),
                (tr_t2, rng.uniform(95.22, 101.84), 0),
                (tr_t2, rng.uniform(9.78, 11.016), 0),
                (rng.uniform(8800, 9200), rng.uniform(110, 130), rng.uniform(2440, 2520)),
            ]
        ),
        noise=rng.uniform(0.01, 0.02),
    )


def _draw_lesions(rng: np.random.Generator) -> np.ndarray:
    radii = rng.uniform(10, 18, 1) if rng.random() < 0.5 else rng.uniform(3, 7, rng.integers(3, 9))
    white = _template().white_matter
    return np.column_stack([white[rng.integers(len(white), size=len(radii))], radii])


class _Template(NamedTuple):
    maps: np.ndarray  # (3, X, Y, Z): grey matter, white matter and brain mask, 1 mm
    origin: np.ndarray  # (3,): MNI coordinates of the first voxel
    white_matter: np.ndarray  # (N, 3): MNI coordinates well inside the white matter and the slices


@cache
def _template() -> _Template:
    from nilearn import datasets  # takes seconds to import, and only preparation needs it

    images = (
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    )
    maps = np.stack([image.get_fdata(dtype=np.float32) for image in images])
    origin = images[0].affine[:3, 3]
    white = np.argwhere(maps[1] > 0.95) + origin
    inside = (white[:, 2] > SLICES_MM[0] + 10) & (white[:, 2] < SLICES_MM[1] - 10)
    return _Template(maps, origin, white[inside])


def _smooth_field(rng: np.random.Generator, axes: list[np.ndarray], length: float) -> np.ndarray:
    """A Gaussian random field of unit variance on a grid given by its axes (mm), smooth over `length` mm.

    The noise behind it lies on a lattice of its own, so that the field does not depend on the grid.
    """
    lattice = np.arange(-0.75 * FIELD_MM, 0.75 * FIELD_MM + length, length, np.float32)
    field = rng.standard_normal((lattice.size,) * 3, np.float32)
    for axis, centre in reversed(list(zip(axes, CENTRE_MM, strict=True))):  # the short axis first: less to carry
        weights = np.exp(-0.5 * ((axis - centre - lattice[:, None]) / length) ** 2).astype(np.float32)
        field = np.tensordot(weights / np.linalg.norm(weights, axis=0), field, (0, 2))
    return field


def displacement(rng: np.random.Generator, axes: list[np.ndarray]) -> np.ndarray:
    """(X, Y, Z): a random displacement along one axis, mm, gentle enough not to fold the anatomy."""
    return 2.5 * _smooth_field(rng, axes, 25) + _smooth_field(rng, axes, 12)


def _fractions(rng: np.random.Generator, subject: Subject, axes: list[np.ndarray]) -> np.ndarray:
    """(4, X, Y, Z): how much of each voxel each tissue fills, in the order of TISSUES; 0 outside the brain."""
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    centre = CENTRE_MM[:, None, None, None]
    template = np.tensordot(np.linalg.inv(subject.turn), points - centre - subject.shift[:, None, None, None], 1) + centre
    template += np.stack([displacement(rng, axes) for _ in range(3)])

    voxels = template - _template().origin[:, None, None, None]
    grey, white, brain = (scipy.ndimage.map_coordinates(m, voxels, order=1) for m in _template().maps)
    likelihood = np.stack([grey, white, np.clip(1 - grey - white, 0, 1)]) + 1e-3
    likelihood **= 2  # the maps average many brains: one brain has sharper borders, in places of its own
    likelihood *= np.exp([0.8 * _smooth_field(rng, axes, 4) for _ in likelihood])
    fractions = brain * likelihood / likelihood.sum(0)

    lesion = _lesion(rng, subject.lesions, template, axes) if subject.lesions.size else np.zeros_like(brain)
    solid = fractions[:2].sum(0)
    return np.concatenate([fractions[:2] * (1 - lesion), fractions[2:], (lesion * solid)[None]])


def _lesion(rng: np.random.Generator, lesions: np.ndarray, points: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """(X, Y, Z): the share of lesion at each point (3, X, Y, Z) of the template; balls with a wavy, soft border."""
    wobble = 1 + 0.2 * _smooth_field(rng, axes, 6)
    distances = (np.linalg.norm(points - np.reshape(place, (3, 1, 1, 1)), axis=0) for *place, _ in lesions)
    balls = [radius * wobble - distance for radius, distance in zip(lesions[:, 3], distances, strict=True)]
    return np.clip(np.max(balls, axis=0) / 2 + 0.5, 0, 1)


def _average_in_plane(fine: np.ndarray, factor: int) -> np.ndarray:
    """(K, X, Y, Z) -> (K, X / factor, Y / factor, Z): mean over blocks, the source of partial volume."""
    k, x, y, z = fine.shape
    return fine.reshape(k, x // factor, factor, y // factor, factor, z).mean((2, 4))


def signal(t1: np.ndarray, t2: np.ndarray, s0: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The noise-free signal at TR, TE, TI = `times` (ms): a spin echo, or with TI > 0 an inversion recovery."""
    tr, te, ti = times.tolist()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # the same bytes whatever the accelerator
        echo = physics.inversion_recovery(t1, t2, s0, tr, te, ti) if ti > 0 else physics.spin_echo(t1, t2, s0, tr, te)
    return np.asarray(echo)


def simulate_exam(seed: int, index: int, *, image_size: int, slice_count: int, contrasts: tuple[str, ...] = CONTRASTS) -> Exam:
    """The exam of one phantom subject, determined by (seed, index), with its true T1, T2 and S0 maps and lesions.

    Volumes (C, image_size, image_size, slice_count) in scanner units of about [0, 1000], on axes that run to the right,
    front and top; the slices spread evenly over the middle of the brain.
    """
    rng = np.random.default_rng([seed, index])
    subject = draw_subject(rng)
    fineness = max(1, round(FIELD_MM / image_size / SUBVOXEL_MM))
    fine, grid = _axes(image_size * fineness, slice_count), _axes(image_size, slice_count)
    fractions = _average_in_plane(_fractions(rng, subject, fine), fineness)
    t1, t2, density = _tissue_maps(rng, subject, grid)
    receive = _receive_field(rng, fractions.sum(0), grid)

    # every contrast has its own noise, whichever of them are asked for
    noises = dict(zip(CONTRASTS, rng.spawn(len(CONTRASTS)), strict=True))
    times = dict(zip(CONTRASTS, subject.times, strict=True))
    clean = {name: receive * (fractions * signal(t1, t2, GAIN * density, times[name])).sum(0) for name in contrasts}
    return Exam(
        name=subject_name(index),
        contrasts=contrasts,
        volumes=np.stack([_with_noise(clean[name], subject.noise, noises[name]) for name in contrasts]).astype(np.float32),
        spacing=(FIELD_MM / image_size, FIELD_MM / image_size, (SLICES_MM[1] - SLICES_MM[0]) / slice_count),
        times=np.array([times[name] for name in contrasts], np.float32),
        maps=_effective_maps(fractions, t1, t2, GAIN * density),
        lesions=fractions[3].astype(np.float32),
    )


def _axes(side: int, slice_count: int) -> list[np.ndarray]:
    """Where the voxels of a grid lie along x, y and z, mm in MNI space."""
    low, high = SLICES_MM
    plane = ((np.arange(side) + 0.5) / side - 0.5) * FIELD_MM
    return [plane + CENTRE_MM[0], plane + CENTRE_MM[1], low + (np.arange(slice_count) + 0.5) * (high - low) / slice_count]


def _tissue_maps(rng: np.random.Generator, subject: Subject, axes: list[np.ndarray]) -> np.ndarray:
    """(3, 4, X, Y, Z): T1 (ms), T2 (ms) and proton density of each tissue, wherever it may be."""
    water = _smooth_field(rng, axes, 15)
    local = np.stack([_smooth_field(rng, axes, 15) for _ in range(3)], -1)
    spread = 1 + WATER_SPREAD * water[..., None] + LOCAL_SPREAD * local
    return np.moveaxis(subject.tissues[:, None, None, None] * spread, -1, 0).astype(np.float32)


def _receive_field(rng: np.random.Generator, brain: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """(X, Y, Z): how sensitive the coil is, 1 on average over the brain."""
    field = 1 + 0.08 * _smooth_field(rng, axes, 50)
    field /= np.average(field, weights=brain)  # in place: single precision stays
    return field


def _with_noise(clean: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of a complex image, whose noise is Rician; `level` is relative to the brightest signal."""
    noise = level * np.percentile(clean, 99.5) * rng.standard_normal((2, *clean.shape))
    return np.hypot(clean + noise[0], noise[1])


def _effective_maps(fractions: np.ndarray, t1: np.ndarray, t2: np.ndarray, s0: np.ndarray) -> np.ndarray:
    """(X, Y, Z, 3): T1, T2 and S0 of the mixture in each voxel; the rates are averaged over its protons."""
    protons = fractions * s0
    total = protons.sum(0)
    present = total > 0
    t1, t2 = (np.where(present, total / np.where(present, (protons / t).sum(0), 1), 0) for t in (t1, t2))
    return np.stack([t1, t2, total], -1).astype(np.float32)


def subject_name(index: int) -> str:
    """The name of a phantom subject, as BIDS writes it."""
    return f"sub-{index + 1:04d}"


def study(config: Any, sources: tuple[str, ...], target: str) -> Study:
    """As many subjects as `config.subjects` says."""
    contrasts = split_names(config.contrasts) or CONTRASTS
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise UserError(f"--config.data.contrasts: the phantom has {', '.join(CONTRASTS)}, not {contrast!r}")
    size = {"image_size": config.image_size, "slice_count": config.subject_slices}
    exams = [
        ExamRef(subject_name(index), partial(simulate_exam, config.seed, index, contrasts=contrasts, **size))
        for index in range(config.subjects)
    ]
    return Study(contrasts, exams, [config.subjects, config.subject_slices, config.seed], ("maps", "lesions"))
