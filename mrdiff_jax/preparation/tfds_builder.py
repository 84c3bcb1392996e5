"""The prepared data set: a TFDS builder that needs no TensorFlow."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer

TRUTHS = ("maps", "lesions")
_BYTES = tfds.features.Encoding.BYTES


class MRSlices(tfds.core.GeneratorBasedBuilder):
    """Slices of multi-contrast exams, with C contrasts named in the metadata.

    image (H, W, C): uint16, [0, 1] times 65535; scale (C, 2): offset and factor to scanner units; tr, te, ti (C,): ms;
    spacing: side of a pixel, mm; slice_spacing: from one slice to the next, mm; subject and slice: where it comes from; and of
    TRUTHS what is known: maps (H, W, 3), true T1 (ms), T2 (ms) and S0; lesions (H, W), uint8, 1 in a lesion.
    """

    # part of the fingerprint: raise it whenever the same input gives other examples
    VERSION = tfds.core.Version("1.3.0")

    def __init__(
        self,
        *,
        examples: Mapping[str, Callable[[], Iterator[dict]]],
        contrasts: Sequence[str],
        image_size: int,
        truths: Sequence[str],
        **kwargs,
    ):
        """`examples` maps a split to a function that yields its examples; a split without examples stays out.

        `truths` are those of TRUTHS that every example has.
        """
        self._examples = examples
        self._contrasts = list(contrasts)
        self._image_size = image_size
        self._truths = truths
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        side, count = self._image_size, len(self._contrasts)
        features = {
            "image": tfds.features.Tensor(shape=(side, side, count), dtype=np.uint16, encoding=_BYTES),
            "scale": tfds.features.Tensor(shape=(count, 2), dtype=np.float32),
            "tr": tfds.features.Tensor(shape=(count,), dtype=np.float32),
            "te": tfds.features.Tensor(shape=(count,), dtype=np.float32),
            "ti": tfds.features.Tensor(shape=(count,), dtype=np.float32),
            "subject": tfds.features.Text(),
            "slice": np.int32,
            "spacing": np.float32,
            "slice_spacing": np.float32,
        }
        truths = {
            "maps": tfds.features.Tensor(shape=(side, side, 3), dtype=np.float32, encoding=_BYTES),
            "lesions": tfds.features.Tensor(shape=(side, side), dtype=np.uint8, encoding=_BYTES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features | {name: truths[name] for name in self._truths}),
            metadata=tfds.core.MetadataDict(contrasts=self._contrasts),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split):
        yield from enumerate(self._examples[split]())


EXAMPLES_FOLDER = Path("mr_slices", str(MRSlices.VERSION))  # where TFDS puts them in a data_dir


def write(folder: Path, **contents) -> None:
    """Writes what an MRSlices of these arguments holds under a folder that is not there yet."""
    with _quiet_tfds(), _deterministic_records():
        builder = MRSlices(data_dir=folder, **contents)
        builder.download_and_prepare(download_dir=folder.parent, file_format="array_record")


@contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silences TFDS, which would speak of downloads and draw bars of its own over ours."""
    tfds.display_progress_bar(False)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(True)


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
