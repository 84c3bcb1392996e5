import os
import resource
import subprocess
import sys

import pytest

from mrdiff_jax import host

_USES_BLOCKS_ANEW = """
import os, resource, sys
from mrdiff_jax.host import use_large_pages

print("started")
sys.stdout.flush()
if "large" in sys.argv:
    use_large_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, sys.argv[1:], os.environ.get("GLIBC_TUNABLES"))
"""
PAGES = 10 * 2**26 / resource.getpagesize()


def run(*words: str, given: str | None = None, **environment: str) -> str:
    """What Python prints, in an environment in which nothing was started again."""
    others = {name: value for name, value in os.environ.items() if name not in host.RESTART}
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, input=given, env=others | environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(_USES_BLOCKS_ANEW)
    return str(path)


@pytest.mark.skipif(not host.large_pages_are_a_choice(), reason="where programs choose whether their pages are large")
@pytest.mark.parametrize("settings", ["", "glibc.malloc.perturb=0"])
def test_large_blocks_lie_in_large_pages_once_a_program_has_started_again(script, settings):
    *started, last = run(script, "large", "--flag=a b", **({"GLIBC_TUNABLES": settings} if settings else {})).splitlines()
    faults, given = last.split(maxsplit=1)
    assert started == ["started", "started"]
    assert int(faults) < PAGES / 10
    assert given == f"['large', '--flag=a b'] {':'.join(filter(None, (settings, 'glibc.malloc.hugetlb=1')))}"


@pytest.mark.skipif(not host.large_pages_are_a_choice(), reason="where programs choose whether their pages are large")
def test_pages_are_small_otherwise(script):
    _, last = run(script).splitlines()
    assert int(last.split()[0]) > PAGES / 10


@pytest.mark.parametrize("settings", ["glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"])
def test_a_choice_that_was_made_is_left(script, settings):
    _, last = run(script, "large", GLIBC_TUNABLES=settings).splitlines()
    assert last.endswith(settings)


def test_a_program_that_does_not_stand_in_a_file_goes_on():
    assert len(run("-", "large", given=_USES_BLOCKS_ANEW).splitlines()) == 2
    assert len(run("-c", _USES_BLOCKS_ANEW, "large").splitlines()) == 2


def test_it_is_started_again_only_once_even_where_its_settings_are_lost(script):
    _, last = run(script, "large", MRDIFF_RESTARTED="1").splitlines()
    assert last.endswith("None")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="where a process can be kept to some cores")
def test_cores_are_those_that_the_process_may_use():
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert run("-c", f"import os; from mrdiff_jax import host; {one}; print(host.cores())") == "1\n"
    assert 1 <= host.cores() <= os.cpu_count()
