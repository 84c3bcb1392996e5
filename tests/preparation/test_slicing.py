"""Slices of volumes as the network sees them, and volumes from them."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from mrdiff_jax.preparation.options import PLANES
from mrdiff_jax.preparation.slices import exam_examples
from mrdiff_jax.preparation.slicing import cut, resize_in_plane, slice_image
from mrdiff_jax.scans.exam import Exam

SHAPE, SPACING = (20, 24, 12), (1.0, 1.5, 2.0)


def smooth(shape, spacing):
    """A volume that changes slowly in mm, is brightest off the centre and dark at its border."""
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    return np.exp(-(((x - 1) / 4) ** 2) - ((y + 3) / 7) ** 2 - ((z - 1) / 5) ** 2).astype(np.float32)


def everything(slicing):
    return np.arange(slicing.count)


@pytest.mark.parametrize("plane", PLANES)
def test_images_are_those_of_training(plane):
    rng = np.random.default_rng(0)
    volumes = rng.random((2, *SHAPE), np.float32)
    exam = Exam("sub-01", ("T1w", "T2w"), volumes, SPACING, np.ones((2, 3), np.float32))
    examples = list(exam_examples(exam, 16, (0, 100), "0:99", plane))
    slicing = cut(SHAPE, SPACING, plane, 16, (0.1, 100.0), 8)
    low, high = volumes.min((1, 2, 3), keepdims=True), volumes.max((1, 2, 3), keepdims=True)
    images = slicing.images((volumes - low) / (high - low), everything(slicing))
    assert slicing.pixel == pytest.approx(examples[0].spacing)
    np.testing.assert_allclose(images, [example.image / 65535 for example in examples], atol=1e-5)


@pytest.mark.parametrize("plane", PLANES)
def test_at_the_pixel_size_of_the_volume_the_way_back_is_exact(plane):
    volume = np.random.default_rng(0).random((20, 20, 20), np.float32)
    for pixel, size in ((1.5, 20), (1.5, 24), (1.5, 8)):  # as it is, padded, and an image that grows
        slicing = cut(volume.shape, (1.5, 1.5, 1.5), plane, size, (pixel, pixel), 4)
        assert slicing.size == (max(size, 20), max(size, 20))
        images = slicing.images(volume[None], everything(slicing))
        np.testing.assert_allclose(slicing.volume(images[..., 0]), volume, atol=1e-6)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("pixel", [0.7, 1.0, 1.9])
def test_at_another_pixel_size_all_comes_back_in_place(plane, pixel):
    volume = smooth(SHAPE, SPACING)
    slicing = cut(SHAPE, SPACING, plane, 16, (pixel, pixel), 8)
    images = slicing.images(volume[None], everything(slicing))
    back = slicing.volume(images[..., 0])
    coarse = images[..., 0].reshape(len(images), slicing.size[0] // 2, 2, slicing.size[1] // 2, 2).mean((2, 4))
    for found, error in ((back, 0.1), (slicing.volume(coarse), 0.35)):  # feature maps have fewer pixels
        np.testing.assert_allclose(found, volume, atol=error)
        np.testing.assert_allclose(center_of_mass(found), center_of_mass(volume), atol=0.05)


def test_the_pixels_are_those_of_training_where_they_can_be():
    def sizes(sides, spacing, pixel_mm):
        slicing = cut((*sides, 5), (*spacing, 1.0), "axial", 64, pixel_mm, 8)
        return slicing.pixel, slicing.size

    assert sizes((64, 64), (3.0, 3.0), (2.0, 4.0)) == (3.0, (64, 64))
    assert sizes((64, 32), (3.0, 3.0), (2.0, 4.0)) == (3.0, (64, 64))  # padded to a square, as in training
    assert sizes((64, 64), (1.0, 1.0), (2.0, 4.0)) == (2.0, (64, 64))  # a small field: padded
    assert sizes((90, 64), (4.0, 4.0), (2.0, 4.0)) == (4.0, (64, 96))  # a large one: rows run along the second axis


def test_a_slice_stands_upright_with_the_right_side_on_the_left():
    volume = np.zeros((4, 5), np.float32)  # X to the patient's right, Y to the front
    volume[3, 4] = 1
    volume[0, 4] = 2
    image = slice_image(volume)
    assert image.shape == (5, 4)
    assert image[0, 0] == 1  # right, front
    assert image[0, 3] == 2  # left, front


def test_resizing_pads_to_a_square_in_millimetres_and_keeps_the_mean():
    image = np.ones((10, 10), np.float32)
    resized = resize_in_plane(image, (1.0, 2.0), 10)  # 10 mm high, 20 mm wide
    np.testing.assert_allclose(resized.mean(axis=1), [0, 0, 0.5, 1, 1, 1, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(resize_in_plane(image, (1.0, 1.0), 4), 1, atol=1e-6)
    np.testing.assert_allclose(resize_in_plane(image, (1.0, 1.0), 25)[3:-3, 3:-3], 1, atol=1e-6)


def test_resizing_to_the_same_grid_changes_nothing_and_to_half_averages():
    image = np.random.default_rng(0).random((3, 8, 8), np.float32)
    np.testing.assert_allclose(resize_in_plane(image, (1.5, 1.5), 8), image, atol=1e-6)
    half = image.reshape(3, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(resize_in_plane(image, (1.5, 1.5), 4), half, atol=1e-6)


def test_enlarging_interpolates_linearly():
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    enlarged = resize_in_plane(ramp, (1.0, 1.0), 16)
    np.testing.assert_allclose(np.diff(enlarged[8, 2:-2]), 0.5, atol=1e-5)
