"""From a data set to batches, for training and for evaluation."""

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np

from mrdiff_jax.data.augmentation import augment
from mrdiff_jax.data.datasets import Dataset

TRAINING_KEYS = ("sources", "target", "tr", "te", "ti")
READ_OPTIONS = grain.ReadOptions(num_threads=4, prefetch_buffer_size=64)


def train_iterator(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    *,
    mirror: bool = False,
    intensity: float = 0.0,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless shuffled batches of this process's share of the training slices; its state can be saved and restored.

    A batch: sources (B, H, W, K) and target (B, H, W), float32 in [0, 1]; tr, te, ti (B, K), ms. Processes see disjoint
    slices in each pass over the data. `mirror` and `intensity` are those of `augmentation.augment`.
    """
    slices = grain.MapDataset.source(dataset.split("train")).seed(seed).shuffle()
    share = len(slices) // process_count * process_count
    slices = slices[process_index:share:process_count].repeat().map(_training_part)
    slices = augment(slices, mirror=mirror, intensity=intensity)
    return iter(slices.batch(batch_size, drop_remainder=True).to_iter_dataset(READ_OPTIONS))


def _training_part(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {key: example[key] for key in TRAINING_KEYS}


def evaluation_batches(
    dataset: Dataset, split: str, batch_size: int, indices: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Slices of a split once each, in a fixed order, as batches with all that an example has; `indices` default to all.

    The last batch is filled by repeating its last example; `valid` (B,) says which are slices, not filling. `index` (B,)
    is a slice's place in the split, `subject` a list of B names, all else arrays with a leading B.
    """
    examples = dataset.split(split)
    indices = np.arange(len(examples)) if indices is None else indices
    for start in range(0, len(indices), batch_size):
        rows = np.arange(start, start + batch_size)
        index = indices[np.minimum(rows, len(indices) - 1)]
        chosen = [examples[int(i)] for i in index]
        batch = {key: np.stack([example[key] for example in chosen]) for key in chosen[0] if key != "subject"}
        batch["subject"] = [example["subject"] for example in chosen]
        yield batch | {"index": index, "valid": rows < len(indices)}
