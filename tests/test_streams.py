import jax
import jax.numpy as jnp
import numpy as np

from mrdiff_jax.streams import named, normal_like, steps_like, stream

KEYS = jax.random.split(jax.random.key(0), 3)


def test_names_indices_and_examples_have_numbers_of_their_own():
    x = jnp.zeros((3, 64))
    draws = [normal_like(x, stream(KEYS, name, index)) for name in ("a", "b") for index in (0, 1)]
    rows = np.concatenate(draws)
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 0.6
    np.testing.assert_array_equal(draws[0], normal_like(x, stream(KEYS, "a", 0)))


def test_an_example_keeps_its_numbers_in_another_batch():
    whole = normal_like(jnp.zeros((3, 5)), stream(KEYS, "noise"))
    np.testing.assert_array_equal(whole[1:], normal_like(jnp.zeros((2, 5)), stream(KEYS[1:], "noise")))


def test_a_key_alone_has_the_stream_that_it_has_among_others():
    for i, key in enumerate(stream(KEYS, "weights", 2)):
        assert key == named(KEYS[i], "weights", 2)
    assert named(KEYS[0], "weights") != named(KEYS[0], "steps")


def test_steps_cover_the_chain():
    steps = np.asarray(steps_like(jax.random.split(jax.random.key(1), 4000), 10))
    assert set(steps) == set(range(10))
    assert np.abs(np.bincount(steps) / 400 - 1).max() < 0.2
