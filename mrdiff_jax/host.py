"""What the process has of its machine: cores, and memory that it keeps.

XLA asks for the scratch of a step anew at every step. The C library hands blocks of that size back to the system as they are
freed, and the system clears every page that is asked for again: 70,000 of them a step of a small network, a sixth of its time.
"""

import ctypes
import os
import platform
from collections.abc import Mapping

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8  # of mallopt, as malloc.h has them


def cores() -> int:
    """Of the machine, those that this process may use: a scheduler or `taskset` may have left it a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Lets the process keep what it frees, for what it asks for next; where the C library is not glibc, nothing happens.

    One heap serves all threads, for only the main one can hold blocks of any size; threads that have a heap of their own keep
    it, so that this must come before they start.
    """
    _mallopt({_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26})


def return_large_blocks() -> None:
    """Lets blocks of 32 MB and more go back again as they are freed.

    Kept, they would pile up: a freed block seldom fits the next of its size, for XLA's are aligned.
    """
    _mallopt({_MMAP_MAX: 2**16, _MMAP_THRESHOLD: 2**25})


def return_freed_memory() -> None:
    """Hands what is free now back to the system, once."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(options: Mapping[int, int]) -> None:
    if _has_glibc():
        for option, value in options.items():
            ctypes.CDLL(None).mallopt(option, value)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
