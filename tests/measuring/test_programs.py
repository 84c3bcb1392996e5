"""FLOPs and memory of programs whose answer is known."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrdiff_jax import parallel
from mrdiff_jax.measuring.programs import compile_and_weigh, measure, peak_mib
from mrdiff_jax.networks import kernel_gradients
from mrdiff_jax.networks.kernel_gradients import convolve

SIDE = 64
A = np.ones((SIDE, SIDE), np.float32)
GFLOP = 2 * SIDE**3 / 1e9


@pytest.mark.parametrize("devices", [1, 2])
def test_what_is_weighed_is_what_the_program_computes(devices):
    arguments = np.stack([A] * devices)
    compiled, record = compile_and_weigh(jnp.matmul, (arguments, arguments), jax.local_devices()[:devices])
    assert record["devices"] == devices
    assert record["gflop"] == pytest.approx(devices * GFLOP, rel=1e-3)
    assert record["needs_mib"] >= 3 * A.nbytes / 2**20  # of a device: two arguments and the result
    assert record["compile_s"] > 0
    np.testing.assert_array_equal(compiled(arguments, arguments)[0], A @ A)


def test_operations_are_those_of_the_compiled_program_where_no_other_is_analysed(monkeypatch):
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)  # as on a GPU
    _, record = compile_and_weigh(jnp.matmul, (A[None], A[None]), jax.local_devices()[:1])
    assert record["gflop"] == pytest.approx(GFLOP, rel=1e-3)


def test_operations_count_whatever_way_a_gradient_is_summed(monkeypatch):
    monkeypatch.setattr(parallel, "few_cores", lambda: True)  # in blocks, in a loop
    monkeypatch.setattr(kernel_gradients, "_LARGE", 0)
    x, kernel = np.ones((1, 2, 32, 32, 32), np.float32), np.ones((1, 3, 3, 32, 8), np.float32)

    def gradient(x, kernel):
        return jax.grad(lambda kernel: convolve(x, kernel, 1).sum())(kernel)

    _, record = compile_and_weigh(gradient, (x, kernel), jax.local_devices()[:1])
    assert record["gflop"] == pytest.approx(2 * 9 * 32 * 8 * (2 * 32 * 32) / 1e9, rel=0.1)  # less at the borders


def test_what_does_not_fit_is_a_result(monkeypatch):
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 1000}

    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    compiled, record = compile_and_weigh(jnp.matmul, (A[None], A[None]), devices)
    assert compiled is None
    assert record["out_of_memory"]


def test_the_peak_is_that_of_the_process_where_the_device_does_not_tell():
    held = np.ones(2**24, np.float32)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert held.nbytes <= 2**20 * peak_mib() <= memory


def test_a_rate_is_what_was_computed_by_the_seconds_and_what_fails_leaves_the_others():
    def fails():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    saved = {}
    programs = {"fails": lambda: (fails, {"gflop": 1.0}), "none": lambda: (None, {"error": "not run"})}
    records = measure(
        lambda name, record: saved.update({name: dict(record)}), programs | {"runs": lambda: (lambda: A @ A, {"gflop": GFLOP})}
    )
    assert records == saved
    assert saved["fails"]["out_of_memory"]
    assert saved["none"] == {"error": "not run"}
    assert saved["runs"]["gflops"] == pytest.approx(GFLOP / saved["runs"]["seconds"])
    assert saved["runs"]["peak_mib"] > 0
