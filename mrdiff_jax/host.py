"""What the process has of its machine: cores, and memory.

XLA asks for the scratch of a step anew at every step, and the system clears every page of it: 359,000 pages of 4 KB a step of a
network that asks for 1.4 GB, a seventh of its time. In pages of 2 MB they are 3,000.
"""

import ctypes
import os
import platform
import sys

_SETTINGS, _LARGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def cores() -> int:
    """Of the machine, those that this process may use: a scheduler or `taskset` may have left it a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_large_pages() -> None:
    """Starts the process again, with large blocks of memory in large pages; where the C library is not glibc, nothing happens.

    For glibc reads its settings as a process starts. One whose environment has any, as this one's will, just goes on.
    """
    if _has_glibc() and _SETTINGS not in os.environ:
        os.environ[_SETTINGS] = _LARGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_freed_memory() -> None:
    """Hands what is free now back to the system, once."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
