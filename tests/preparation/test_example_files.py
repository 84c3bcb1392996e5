"""Examples on disk come back as they were, in their order, however many files they fill."""

import weakref

import numpy as np
import pytest

from mrdiff_jax.preparation import example_files

CONTRASTS, SIDE = ("T1w", "FLAIR"), 4


def example(index):
    image = np.random.default_rng(index).integers(0, 2**16, (SIDE, SIDE, 2), np.uint16)
    times = {name: np.array([index, 2.5], np.float32) for name in ("tr", "te", "ti")}
    spacing = {"spacing": 0.75, "slice_spacing": 3.0}
    lesions = np.eye(SIDE, dtype=np.uint8)
    scale = np.array([[0, 1], [2, 3]], np.float32)
    return times | spacing | {"image": image, "scale": scale, "subject": f"sub-{index}", "slice": index, "lesions": lesions}


@pytest.mark.parametrize("in_a_file", [100, 3])
def test_they_come_back(in_a_file, tmp_path, monkeypatch):
    monkeypatch.setattr(example_files, "_FILE_BYTES", in_a_file * 2 * 2 * SIDE**2)
    example_files.write(tmp_path, map(example, range(7)), CONTRASTS, SIDE, ["lesions"])
    files = [path for path in tmp_path.rglob("*array_record*") if path.is_file()]
    assert len(files) == -(-7 // in_a_file)
    read = example_files.read(tmp_path)
    assert len(read) == 7
    for index in (3, 0, 6, 2):
        for name, value in example(index).items():
            found = read[index][name]
            np.testing.assert_array_equal(found.decode() if name == "subject" else found, value)


def test_one_example_at_a_time_is_held(tmp_path, monkeypatch):
    """Whatever the size of a set: TFDS's own builder holds a gigabyte, and then asks for TensorFlow."""
    held, most, complete = weakref.WeakSet(), [], []

    class Image(np.ndarray):  # which, unlike an array, can be in a set
        __hash__ = object.__hash__

    def examples():
        for index in range(20):
            image = example(index)["image"].view(Image)
            held.add(image)
            yield example(index) | {"image": image}
            del image
            most.append(len(held))
            complete.append(len(list(tmp_path.rglob("*array_record*"))) - 1)

    monkeypatch.setattr(example_files, "_FILE_BYTES", 2 * 2 * SIDE**2 * 4)
    example_files.write(tmp_path, examples(), CONTRASTS, SIDE, ["lesions"])
    assert max(most) <= 2
    assert complete[-1] >= 3  # of its five files
