"""The examples of a prepared set on disk: a TFDS data set of ArrayRecord files, written and read without TensorFlow."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.sequential_writer import SequentialWriter

# part of the fingerprint: raise it whenever the same input gives other examples
VERSION = tfds.core.Version("1.3.0")
EXAMPLES_FOLDER = Path("mr_slices", str(VERSION))  # in the folder of a set
TRUTHS = ("maps", "lesions")
_BYTES = tfds.features.Encoding.BYTES
_FILE_BYTES = 2**28  # of images in a file
_SPLIT = "slices"  # the one that is written


def features(contrasts: int, image_size: int, truths: Sequence[str]) -> tfds.features.FeaturesDict:
    """What an example of C contrasts holds.

    image (H, W, C): uint16, [0, 1] times 65535; scale (C, 2): offset and factor to scanner units; tr, te, ti (C,): ms;
    spacing: side of a pixel, mm; slice_spacing: from one slice to the next, mm; subject and slice: where it comes from; and of
    TRUTHS those named: maps (H, W, 3), true T1 (ms), T2 (ms) and S0; lesions (H, W), uint8, 1 in a lesion.
    """
    side = image_size
    always = {
        "image": tfds.features.Tensor(shape=(side, side, contrasts), dtype=np.uint16, encoding=_BYTES),
        "scale": tfds.features.Tensor(shape=(contrasts, 2), dtype=np.float32),
        "tr": tfds.features.Tensor(shape=(contrasts,), dtype=np.float32),
        "te": tfds.features.Tensor(shape=(contrasts,), dtype=np.float32),
        "ti": tfds.features.Tensor(shape=(contrasts,), dtype=np.float32),
        "subject": tfds.features.Text(),
        "slice": np.int32,
        "spacing": np.float32,
        "slice_spacing": np.float32,
    }
    known = {
        "maps": tfds.features.Tensor(shape=(side, side, 3), dtype=np.float32, encoding=_BYTES),
        "lesions": tfds.features.Tensor(shape=(side, side), dtype=np.uint8, encoding=_BYTES),
    }
    return tfds.features.FeaturesDict(always | {name: known[name] for name in truths})


def write(
    folder: Path, examples: Iterable[dict[str, Any]], contrasts: Sequence[str], image_size: int, truths: Sequence[str]
) -> None:
    """Writes examples, as `features` describes them, under a folder that is not there yet: in their order, one at a time."""
    place = folder / EXAMPLES_FOLDER
    place.mkdir(parents=True)
    about = tfds.core.DatasetInfo(
        builder=DatasetIdentity(EXAMPLES_FOLDER.parts[0], VERSION, str(place), __name__),
        features=features(len(contrasts), image_size, truths),
        metadata=tfds.core.MetadataDict(contrasts=list(contrasts)),
        disable_shuffling=True,
    )
    image_bytes = 2 * len(contrasts) * image_size**2
    with _deterministic_records():
        writer = SequentialWriter(about, max(1, _FILE_BYTES // image_bytes), file_format="array_record")
        writer.initialize_splits([_SPLIT])
        writer.add_examples({_SPLIT: examples})
        writer.close_all()


def read(folder: Path) -> Any:
    """Random access to the examples under a folder, as dictionaries of `features`."""
    return tfds.builder_from_directory(folder / EXAMPLES_FOLDER).as_data_source(_SPLIT)


@contextmanager
def _deterministic_records() -> Iterator[None]:
    """The same examples give the same bytes; TFDS would leave the order of their features to a hash seeded by chance."""
    theirs = ExampleSerializer.serialize_example
    ExampleSerializer.serialize_example = lambda self, example: self.get_tf_example(example).SerializeToString(
        deterministic=True
    )
    try:
        yield
    finally:
        ExampleSerializer.serialize_example = theirs
