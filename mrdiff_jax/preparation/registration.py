"""Rigid registration of two contrasts of one head or body, and resampling, with SimpleITK.

The measure is mutual information (Mattes et al., IEEE Trans Med Imaging 22:120, 2003). Everything runs in one thread with a
fixed seed: the same scans give the same bits, and subjects run side by side.
"""

from itertools import product
from typing import NamedTuple

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from mrdiff_jax.preparation.options import INTERPOLATIONS
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.volumes import Volume

SEED = 1
LEVELS_MM = (8.0, 4.0, 2.0, 1.0)  # voxel sizes from coarse to fine
COARSE_SAMPLES, FINE_SAMPLES = 10_000, 30_000  # of the fixed image, at most, in each evaluation of the measure
FINE_MM = 2.0  # voxels up to this size are fine
BINS = 40
SMOOTHING = 0.7  # standard deviation, in voxels of the level
START_TURNS = (-14.0, 0.0, 14.0)  # degrees about each axis
KEPT_STARTS = (8, 4, 2, 1)  # the best of them, followed on each level
INTERPOLATORS = dict(zip(INTERPOLATIONS, (sitk.sitkNearestNeighbor, sitk.sitkLinear, sitk.sitkBSpline), strict=True))
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world has x to the left and y to the back

sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


class Grid(NamedTuple):
    """Where the voxels of a volume lie: their number along each axis, and the affine from indices to mm (RAS)."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The voxel size in mm."""
        return tuple(nib.affines.voxel_sizes(self.affine).tolist())


class Registration(NamedTuple):
    """transform (4, 4): world mm of the fixed scan to world mm of the moving one; information: at the end, in nats."""

    transform: np.ndarray
    information: float


def grid_of(volume: Volume) -> Grid:
    """The grid that a volume lies on."""
    return Grid(volume.data.shape, volume.affine)


def resample(
    volume: Volume, grid: Grid, transform: np.ndarray, interpolation: str = "linear", outside: float | None = None
) -> np.ndarray:
    """The volume on a grid, float32 of its shape: interpolated once, at transform @ (world point of the grid).

    Interpolation is 'nearest', 'linear' or 'cubic' (B-spline; may overshoot at edges). What lies outside of the volume takes
    the value `outside`; None is the volume's own air.
    """
    outside = air_level(volume.data) if outside is None else outside
    reference = _image(np.zeros(grid.shape, np.uint8), grid.affine)
    moved = sitk.Resample(_image(volume.data, volume.affine), reference, _itk(transform), INTERPOLATORS[interpolation], outside)
    return np.ascontiguousarray(sitk.GetArrayFromImage(moved).T)


def field_of_view(volume: Volume, grid: Grid, transform: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the voxels of a grid that fall into the volume, as `resample` places it."""
    whole = Volume(np.ones(volume.data.shape, np.uint8), volume.affine, volume.path)
    return resample(whole, grid, transform, "nearest", outside=0.0) > 0


def register(fixed: Volume, moving: Volume, finest_mm: float = LEVELS_MM[-1], start: np.ndarray | None = None) -> Registration:
    """The rigid transform that lays `moving` on `fixed`, at the optimum near a `start`, if one is given.

    Otherwise the search begins from the scanner's coordinates, from centred fields of view and from centres of mass, each
    turned both ways and not at all about each axis (which finds moves of 15 degrees and 20 mm), and follows the best of them
    through LEVELS_MM down to `finest_mm`.
    """
    fixed_image, moving_image = _clipped(fixed), _clipped(moving)
    if start is not None:
        value, transform = _level(fixed_image, moving_image, finest_mm).optimise(_euler(start, fixed_image))
        return Registration(_matrix(transform), -value)
    coarse = _level(fixed_image, moving_image, LEVELS_MM[0])
    found = [(0.0, start) for start in sorted(_starts(fixed_image, moving_image), key=coarse.value)]
    for size, kept in zip(LEVELS_MM, KEPT_STARTS, strict=True):
        if size >= finest_mm:
            level = _level(fixed_image, moving_image, size)
            found = sorted((level.optimise(start) for _, start in found[:kept]), key=lambda each: each[0])
    value, transform = found[0]
    return Registration(_matrix(transform), -value)


class _Level(NamedTuple):
    """Both scans at one resolution."""

    fixed: sitk.Image
    moving: sitk.Image
    size: float

    def _method(self) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        samples = FINE_SAMPLES if self.size <= FINE_MM else COARSE_SAMPLES
        share = min(1.0, samples / self.fixed.GetNumberOfPixels())
        method.SetMetricSamplingPercentage(share, SEED)
        method.SetInterpolator(sitk.sitkLinear)
        return method

    def value(self, start: sitk.Euler3DTransform) -> float:
        """Minus the mutual information at a transform; 0 where the scans do not overlap."""
        method = self._method()
        method.SetInitialTransform(start)
        try:
            return method.MetricEvaluate(self.fixed, self.moving)
        except RuntimeError:  # too few samples fall into both
            return 0.0

    def optimise(self, start: sitk.Euler3DTransform) -> tuple[float, sitk.Euler3DTransform]:
        """Minus the mutual information, and the transform, at the optimum near a start."""
        method = self._method()
        found = sitk.Euler3DTransform(start)
        method.SetInitialTransform(found, inPlace=True)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=self.size / 2,
            minStep=self.size / 500,
            numberOfIterations=150,
            relaxationFactor=0.8,  # steps that shrink faster end short of the optimum
            gradientMagnitudeTolerance=1e-9,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError:
            return 0.0, start
        return method.GetMetricValue(), found


def _level(fixed: sitk.Image, moving: sitk.Image, size: float) -> _Level:
    return _Level(_cubes(fixed, size), _cubes(moving, size), size)


def _cubes(image: sitk.Image, size: float) -> sitk.Image:
    """The image in cubic voxels of `size` mm, a little smoothed.

    Thick slices become many thin ones by splines: with linear interpolation between thick slices the blur of half-way positions
    attracts the measure, by a millimetre in scans of 4 mm slices.
    """
    sides = zip(image.GetSize(), image.GetSpacing(), strict=True)
    image = sitk.BinShrink(image, [max(1, min(round(size / mm), n // 2)) for n, mm in sides])
    spans = [(n - 1) * mm / size for n, mm in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    reference = sitk.Image([max(4, int(span) + 1) for span in spans], sitk.sitkUInt8)
    reference.SetSpacing([size] * 3)
    reference.SetDirection(image.GetDirection())
    reference.SetOrigin(image.GetOrigin())
    cubes = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkBSpline, 0.0, sitk.sitkFloat32)
    return sitk.SmoothingRecursiveGaussian(cubes, SMOOTHING * size)


def _starts(fixed: sitk.Image, moving: sitk.Image) -> list[sitk.Euler3DTransform]:
    kind = sitk.CenteredTransformInitializerFilter
    centred = [
        sitk.Euler3DTransform(sitk.CenteredTransformInitializer(fixed, moving, sitk.Euler3DTransform(), where))
        for where in (kind.GEOMETRY, kind.MOMENTS)
    ]
    scanner = sitk.Euler3DTransform(centred[0])
    scanner.SetTranslation((0, 0, 0))
    starts = []
    for place in (scanner, *centred):
        for turn in product(np.radians(START_TURNS).tolist(), repeat=3):
            start = sitk.Euler3DTransform(place)
            start.SetRotation(*turn)
            starts.append(start)
    return starts


def _clipped(volume: Volume) -> sitk.Image:
    """The scan from 0, which centres of mass ask for, without its extreme values, which would leave few bins to the rest."""
    low, high = np.percentile(volume.data, (0.5, 99.5)).astype(np.float32)
    return _image(np.clip(volume.data, low, high) - low, volume.affine)


def _image(data: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    to_lps = _LPS @ affine
    spacing = nib.affines.voxel_sizes(affine)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    return image


def _itk(matrix: np.ndarray) -> sitk.AffineTransform:
    matrix = _LPS @ matrix @ _LPS
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def _euler(matrix: np.ndarray, fixed: sitk.Image) -> sitk.Euler3DTransform:
    """A rigid world matrix as a rotation about the middle of the fixed image."""
    matrix = _LPS @ matrix @ _LPS
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    euler = sitk.Euler3DTransform()
    euler.SetCenter(centre.tolist())
    euler.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    euler.SetTranslation((matrix[:3, 3] + matrix[:3, :3] @ centre - centre).tolist())
    return euler


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    turn, centre = np.reshape(transform.GetMatrix(), (3, 3)), np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre + transform.GetTranslation() - turn @ centre
    return _LPS @ matrix @ _LPS
