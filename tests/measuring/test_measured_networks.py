"""What the programs of a network are given; tests/tools/test_benchmark.py runs them."""

from conftest import make_batch

from mrdiff_jax.config import resolve
from mrdiff_jax.measuring.networks import random_batch


def test_random_batches_are_as_training_sees_them(tiny_config):
    found, other = random_batch(resolve(tiny_config), 3), make_batch(3)
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {name: (a.shape, a.dtype) for name, a in other.items()}
