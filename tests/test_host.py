import os
import resource
import subprocess
import sys

import pytest

from mrdiff_jax import host

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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="where a process can be kept to some cores")
def test_cores_are_those_that_the_process_may_use():
    code = (
        "import os; from mrdiff_jax import host; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(host.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert 1 <= host.cores() <= os.cpu_count()
