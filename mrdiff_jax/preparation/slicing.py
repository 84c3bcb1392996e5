"""Between volumes and the images of a network: slices of a plane, at the pixel size of training, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrdiff_jax.preparation.options import PLANES
from mrdiff_jax.scans.air import air_level

ROUNDING = 1e-6  # of weights that sum up to 1


def slice_image(plane: np.ndarray) -> np.ndarray:
    """A slice (..., A, B), axes two of right, front and top in this order, -> (..., rows, columns) as radiologists look at it.

    Axial: the front of the head is the top row, the patient's right on the left side. Coronal: top of the head, right on the
    left. Sagittal: top of the head, the front on the left.
    """
    return np.flip(np.swapaxes(plane, -1, -2), (-2, -1))


def slice_plane(images: np.ndarray) -> np.ndarray:
    """The inverse of `slice_image`: (..., rows, columns) -> (..., A, B)."""
    return np.swapaxes(np.flip(images, (-2, -1)), -1, -2)


def resize_in_plane(
    images: np.ndarray,
    spacing: Sequence[float],
    size: int,
    field: float = 0.0,
    centre: Sequence[float] = (0.0, 0.0),
    air: np.ndarray | float = 0.0,
) -> np.ndarray:
    """(..., H, W) with pixels of `spacing` mm, cut or padded with `air` (...) to a square, resampled to (..., size, size).

    The square is `field` mm wide (0: the longer side of the images) around `centre`, mm down and right of the images' own.
    Pixels that grow are averages over their area, pixels that shrink are interpolated linearly.
    """
    sides, pixel = images.shape[-2:], pixel_size(images.shape[-2:], spacing, size, field)
    rows, columns = (resampling(n, mm, size, pixel, middle) for n, mm, middle in zip(sides, spacing, centre, strict=True))
    return resampled(images, rows, columns, air)


def resampled(images: np.ndarray, rows: np.ndarray, columns: np.ndarray, air: np.ndarray | float) -> np.ndarray:
    """Images (..., H, W) by the weights of their rows and columns, as `resampling` gives them; `air` (...) lies around them."""
    outside = 1 - np.outer(rows.sum(1), columns.sum(1))
    outside[outside < ROUNDING] = 0
    filled = np.asarray(air, np.float32)[..., None, None] * outside.astype(np.float32)
    return rows @ np.ascontiguousarray(images, np.float32) @ columns.T + filled


def pixel_size(shape: Sequence[int], spacing: Sequence[float], size: int, field: float = 0.0) -> float:
    """Side, in mm, of the pixels of `resize_in_plane`."""
    return (field or float(max(n * mm for n, mm in zip(shape, spacing, strict=True)))) / size


def resampling(n: int, spacing: float, size: int, pixel: float, middle: float = 0.0) -> np.ndarray:
    """(size, n): the weight of each of n pixels of `spacing` mm in each of `size` pixels of `pixel` mm around `middle` mm."""
    position = (np.arange(n) - (n - 1) / 2) * spacing - middle
    distance = np.abs((np.arange(size)[:, None] - (size - 1) / 2) * pixel - position)
    if pixel < spacing:
        weights = np.clip(1 - distance / spacing, 0, 1)
    else:
        weights = np.clip((pixel + spacing) / 2 - distance, 0, spacing) / pixel
    return weights.astype(np.float32)


@dataclass(frozen=True)
class Slicing:
    """How volumes on one grid are cut.

    Attributes:
      shape: (X, Y, Z) of the volumes, on RAS+ axes.
      axis: that the slices cut.
      spacing: between rows and between columns of a slice, in mm.
      size: rows and columns of an image, on the same centre as the slice.
      pixel: side of its pixels, in mm.
    """

    shape: tuple[int, int, int]
    axis: int
    spacing: tuple[float, float]
    size: tuple[int, int]
    pixel: float

    @property
    def count(self) -> int:
        """How many slices there are."""
        return self.shape[self.axis]

    def images(self, volumes: np.ndarray, numbers: np.ndarray, air: np.ndarray | None = None) -> np.ndarray:
        """Slices of volumes (K, X, Y, Z), by number (B,), as images (B, rows, columns, K); `air` (K,), or their own, around."""
        air = [air_level(volume) for volume in np.moveaxis(volumes, 1 + self.axis, -1)] if air is None else air
        slices = slice_image(np.moveaxis(volumes.take(numbers, 1 + self.axis), 1 + self.axis, 1))
        rows, columns = (
            resampling(n, mm, size, self.pixel) for n, mm, size in zip(slices.shape[-2:], self.spacing, self.size, strict=True)
        )
        around = np.broadcast_to(np.reshape(air, (-1, 1)), slices.shape[:2])
        return np.moveaxis(resampled(slices, rows, columns, around), 0, -1)

    def volume(self, images: np.ndarray) -> np.ndarray:
        """The volume (X, Y, Z) of images (S, H, W) of all slices: of this size, or of another that shares the field."""
        sides = np.delete(self.shape, self.axis)[::-1]
        weights = []
        for n, mm, size, given in zip(sides, self.spacing, self.size, images.shape[1:], strict=True):
            inverse = resampling(given, self.pixel * size / given, n, mm)
            weights.append(inverse / inverse.sum(1, keepdims=True))  # no darker edge, where half of a pixel lies outside
        slices = weights[0] @ images @ weights[1].T
        return np.ascontiguousarray(np.moveaxis(slice_plane(slices), 0, self.axis))


def cut(
    shape: Sequence[int], spacing: Sequence[float], plane: str, image_size: int, pixel_mm: Sequence[float], stride: int
) -> Slicing:
    """How to cut volumes (X, Y, Z) with voxels of `spacing` mm for a network that was trained on images of `image_size`.

    A slice fills the image as in training, as long as the size of the pixels lies in the range `pixel_mm` of training; else
    the nearest size is taken, and the image is padded, or made larger, to a multiple of `stride`: nothing is cut off.
    """
    axis = PLANES.index(plane)
    sides, mm = np.delete(shape, axis)[::-1], np.delete(spacing, axis)[::-1]
    pixel = float(np.clip(pixel_size(sides, mm, image_size), *pixel_mm))
    needed = np.ceil(sides * mm / pixel / stride - 1e-3).astype(int) * stride
    size = np.maximum(needed, image_size)
    return Slicing(tuple(shape), axis, tuple(mm.tolist()), tuple(size.tolist()), pixel)
