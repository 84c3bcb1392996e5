"""What the process has of its machine: cores, and memory.

XLA asks for the scratch of a step anew at every step, and the system clears every page of it: 359,000 pages of 4 KB a step of a
network that asks for 1.4 GB, a seventh of its time. In pages of 2 MB they are some 2,000.
"""

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path

RESTART = _SETTINGS, _RESTARTED = "GLIBC_TUNABLES", "MRDIFF_RESTARTED"  # variables that a restart leaves in the environment
_LARGE_PAGES = "glibc.malloc.hugetlb=1"
_CHOICE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def cores() -> int:
    """Of the machine, those that this process may use: a scheduler or `taskset` may have left it a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_large_pages() -> None:
    """Starts the program once more, with large blocks of memory in large pages, where the system leaves that to programs.

    For glibc reads its settings as a process starts. What does not stand in a file, as a notebook or a prompt, goes on.
    """
    settings = os.environ.get(_SETTINGS, "")
    stands_in_file = os.path.isfile(getattr(sys.modules["__main__"], "__file__", ""))
    if stands_in_file and large_pages_are_a_choice() and "hugetlb" not in settings and _RESTARTED not in os.environ:
        os.environ |= {_SETTINGS: f"{settings}:{_LARGE_PAGES}".lstrip(":"), _RESTARTED: "1"}
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def large_pages_are_a_choice() -> bool:
    """Whether a program may have them or not: Linux says so, and glibc can ask for them."""
    library, version = platform.libc_ver()
    can_ask = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return can_ask and _CHOICE.exists() and "[madvise]" in _CHOICE.read_text()


def return_freed_memory() -> None:
    """Hands what is free now back to the system, once; where the C library is not glibc, nothing happens."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
