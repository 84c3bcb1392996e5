import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mrdiff_jax import host

_USES_BLOCKS_ANEW = """
import os, resource, sys
from mrdiff_jax.host import use_large_pages

if "large" in sys.argv:
    use_large_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, sys.argv[1:], os.environ["GLIBC_TUNABLES"])
"""
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def run(code: str, *arguments: str, **environment: str) -> str:
    others = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=others | environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(
    not _SETTING.exists() or "[madvise]" not in _SETTING.read_text(), reason="where programs choose large pages"
)
def test_large_blocks_lie_in_large_pages_once_the_process_has_begun_again():
    pages = 10 * 2**26 / resource.getpagesize()
    faults, given = run(_USES_BLOCKS_ANEW, "large", "--flag=a b").split(maxsplit=1)
    assert int(faults) < pages / 10
    assert given.strip() == "['large', '--flag=a b'] glibc.malloc.hugetlb=1"
    left_alone = run(_USES_BLOCKS_ANEW, "large", GLIBC_TUNABLES="glibc.malloc.perturb=0").split()
    assert int(left_alone[0]) > pages / 10
    assert left_alone[-1] == "glibc.malloc.perturb=0"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="where a process can be kept to some cores")
def test_cores_are_those_that_the_process_may_use():
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert run(f"import os; from mrdiff_jax import host; {one}; print(host.cores())") == "1\n"
    assert 1 <= host.cores() <= os.cpu_count()
