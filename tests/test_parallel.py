"""One replica a device: what each is given, what they average, what they return."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mrdiff_jax import parallel


def test_each_device_has_its_share_and_the_average_is_over_all():
    scaled = parallel.pmap(lambda x, factor: (x * factor["by"], parallel.mean(x), parallel.mean(1.0) * parallel.devices()))
    images = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    products, average, count = scaled(images, {"by": np.array([1, 10], np.float32)})
    np.testing.assert_array_equal(products, images * np.array([1, 10]).reshape(2, 1, 1))
    np.testing.assert_array_equal(average, np.broadcast_to(images.mean(0), (2, 3, 2)))
    np.testing.assert_array_equal(count, [2, 2])


def test_the_devices_that_are_named_run_it():
    last = jax.devices()[-1:]
    assert parallel.pmap(lambda x: x + 1, last)(np.zeros((1, 2))).devices() == set(last)


def test_a_batch_of_any_size_is_filled_up_for_the_devices():
    compiled = parallel.pmap(lambda weight, x: weight * x)
    weight = parallel.replicate(np.float32(3))
    np.testing.assert_array_equal(parallel.on_batch(compiled, np.arange(5.0), weight), 3 * np.arange(5.0))


def test_what_is_compiled_once_is_for_the_shapes_of_its_first_call():
    double = parallel.pmap(lambda x: 2 * x, once=True)
    for value in (1.0, 2.0):
        np.testing.assert_array_equal(double(np.full((2, 3), value)), np.full((2, 3), 2 * value))
    with pytest.raises(TypeError, match="compiled"):
        double(np.ones((2, 4)))


def test_what_is_lean_is_compiled_in_another_way_on_cpus():
    program = (
        "import jax; from mrdiff_jax import parallel\n"
        "def wrapped(lean):\n"
        "    program = parallel.pmap(lambda x: x * x, lean=lean)\n"
        "    return 'wrapped_' in program.lower(jax.numpy.ones((1, 4))).compile().as_text()\n"
        "print([wrapped(False), wrapped(True)])\n"
        "parallel.on_cpu = lambda: False\n"
        "print(wrapped(True))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[True, False]", "True"]


def test_the_environment_comes_before_what_is_lean(monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=true"})  # XLA reads another
    assert parallel._lean_options() is None
    monkeypatch.setattr(os, "environ", {})
    assert parallel._lean_options() == {"xla_cpu_use_fusion_emitters": False}


def test_an_xla_that_does_not_know_of_lean_compiles_as_it_does(monkeypatch):
    monkeypatch.setattr(parallel, "_LEAN", "xla_cpu_of_the_future")
    double = parallel.pmap(lambda x: 2 * x, once=True, lean=True)
    np.testing.assert_array_equal(double(np.ones((2, 3))), np.full((2, 3), 2))


def test_donated_memory_is_taken():
    state = parallel.replicate(np.zeros(4, np.float32))
    parallel.pmap(lambda x: x + 1, donate=(0,))(state)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(state)
