import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from mrdiff_jax import host

_STEPS = """
import resource
import jax
import numpy as np
from mrdiff_jax import host, parallel

{change}
parallel.initialize(1)
step = parallel.pmap(lambda x: (x[:, :8] @ x[:8] @ x[:, :8]).sum(), jax.local_devices()[:1], once=True)
x = np.ones((1, 3000, 3000), np.float32)
counts = []
for _ in range(24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(step(x))
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*counts[16:])
"""

_HEAPS = """
import ctypes
import sys
import jax
import numpy as np
from mrdiff_jax import parallel

if {late}:
    jax.devices()
parallel.initialize(2)
step = parallel.pmap(lambda x: (x @ x).sum(), once=True)
jax.block_until_ready(step(np.ones((jax.local_device_count(), 1000, 1000), np.float32)))
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
output = ctypes.c_void_p(libc.fdopen(sys.stdout.fileno(), b"w"))
libc.malloc_info(0, output)
libc.fflush(output)
"""

_USES_BLOCKS_ANEW = """
import resource
import threading
from mrdiff_jax.host import keep_freed_memory

def use(rounds):
    for _ in range(rounds):
        b"x" * 2**26

if {keep}:
    keep_freed_memory()
for run in (lambda: use(10), lambda: [t.start() or t.join() for t in [threading.Thread(target=use, args=(10,))]]):
    use(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what is told to keep memory")
def test_memory_that_was_freed_is_used_again_without_asking_the_system_in_every_thread():
    pages = 2**26 // resource.getpagesize()

    def faults(keep: bool) -> list[int]:
        code = _USES_BLOCKS_ANEW.format(keep=keep)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return [int(line) for line in result.stdout.split()]

    assert max(faults(True)) < pages / 10
    assert min(faults(False)) > pages / 10  # otherwise the C library does it by itself


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what is told to keep memory")
def test_threads_of_xla_have_no_heap_of_their_own():
    """In one of their own large blocks are never kept."""

    def heaps(late: bool) -> int:
        code = _HEAPS.format(late=late)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.count(
            "<heap nr="
        )

    assert heaps(late=False) == 1
    assert heaps(late=True) > 1  # otherwise the order does not matter


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what is told to keep memory")
def test_the_scratch_of_a_step_is_used_again_unless_it_is_large():
    """What XLA asks for, its threads included: a matrix of 36 MB, each step."""
    pages = 4 * 3000**2 // resource.getpagesize()

    def faults(change: str = "") -> list[int]:
        code = _STEPS.format(change=change)
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return [int(count) for count in result.stdout.split()]

    assert np.median(faults()) < pages / 10
    assert min(faults("parallel._LITTLE = 0")) > pages / 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="where a process can be kept to some cores")
def test_cores_are_those_that_the_process_may_use():
    code = (
        "import os; from mrdiff_jax import host; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(host.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert 1 <= host.cores() <= os.cpu_count()
