"""From exams to examples: which slices are kept, and what is written of them."""

import numpy as np
import pytest
from helpers.scans import SHAPE, TIMES, data_config, head, refused, write_scan

from mrdiff_jax.data import datasets
from mrdiff_jax.preparation import intensity, slicing
from mrdiff_jax.preparation.slices import choose_slices, exam_examples
from mrdiff_jax.scans.air import air_level
from mrdiff_jax.scans.exam import Exam


def test_slices_without_a_body_are_left_out(root):
    empty_top = head()
    empty_top[..., 4:] = 5
    for contrast in TIMES:
        write_scan(root, "sub-01", contrast, empty_top)
    dataset = datasets.open_dataset(data_config(root, test_subjects="sub-01"))
    test = dataset.split("test")
    assert [test[i]["slice"] for i in range(len(test))] == [0, 1, 2, 3]


def test_foreground_is_told_from_a_grey_background():
    scaled = np.full((1, 20, 20, 3), 0.4, np.float32)
    scaled[:, 5:15, 5:15, 1] = 0.9
    assert choose_slices(scaled).tolist() == [1]


def test_a_range_of_slices_is_taken_as_stated(root):
    dataset = datasets.open_dataset(data_config(root, slices="2:5"))
    test = dataset.split("test")
    assert [test[i]["slice"] for i in range(len(test))] == [2, 3, 4]
    refused(data_config(root, slices="9:12"), "range of slices, such as 40:120")
    refused(data_config(root, slices="some"), "slices 'some'")


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_a_plane_cuts_its_axis(plane, axis):
    data = np.random.default_rng(0).random((1, 8, 8, 8), np.float32)
    exam = Exam("sub-01", ("T1w",), data, (1.0, 1.0, 1.0), np.zeros((1, 3), np.float32))
    examples = list(exam_examples(exam, 8, (0, 100), "0:8", plane))
    assert len(examples) == 8
    offset, factor = examples[5].scale[0]
    image = offset + factor * intensity.dequantise(examples[5].image[..., 0])
    np.testing.assert_allclose(image, slicing.slice_image(data[0].take(5, axis)), atol=1e-4)


def test_voxels_that_are_not_cubes_keep_their_proportions():
    """8 x 4 voxels of 1 x 2 mm cover a square: in the plane each long voxel becomes two pixels."""
    data = np.repeat(np.random.default_rng(0).random((1, 8, 4, 1), np.float32), 3, axis=-1)
    exam = Exam("sub-01", ("T1w",), data, (1.0, 2.0, 5.0), np.zeros((1, 3), np.float32))
    example = next(iter(exam_examples(exam, 8, (0, 100), "0:3")))
    assert (example.image > 0).mean() > 0.9  # no padding on any side; the smallest value is 0


def test_values_return_to_scanner_units(root):
    dataset = datasets.open_dataset(data_config(root, image_size=24, percentiles=(0.0, 100.0), test_subjects="sub-02"))
    example = dataset.split("test")[3]
    offset, factor = example["scale"]
    scan = slicing.slice_image(head(1)[..., example["slice"]])
    np.testing.assert_allclose((offset + factor * example["target"])[:, 2:22], scan, atol=factor * 1e-5)
    air = (air_level(head(1)) - offset) / factor
    np.testing.assert_allclose(example["target"][:, :2], air, atol=1e-4)  # beyond the scan there is its air


def test_a_volume_without_a_range_is_refused(root):
    speck = np.zeros(SHAPE, np.float32)
    speck[10, 12] = range(1, 7)
    write_scan(root, "sub-01", "T1w", speck)
    refused(data_config(root), "sub-01 T1w", "widen the percentiles")


@pytest.mark.parametrize("slices", ["", "0:6"])
def test_slices_blank_in_one_contrast_are_left_out_and_told(root, slices, caplog):
    blank = head(0)
    blank[..., 4:] = 0
    write_scan(root, "sub-01", "FLAIR", blank)
    dataset = datasets.open_dataset(data_config(root, slices=slices, test_subjects="sub-01"))
    test = dataset.split("test")
    assert [test[i]["slice"] for i in range(len(test))] == [0, 1, 2, 3]
    assert "FLAIR being blank in them: 2 slices" in caplog.text
