"""What the process has of its machine: cores, and memory that it keeps.

XLA asks for the scratch of a step anew at every step. The C library hands blocks of that size back to the system as they are
freed, and the system clears every page that is asked for again: 70,000 of them a step of a small network, a sixth of its time.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of mallopt, as malloc.h numbers them


def cores() -> int:
    """Of the machine, those that this process may use: a scheduler or `taskset` may have left it a few."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Lets the process keep what it frees, for what it asks for next; where the C library is not glibc, nothing happens.

    One heap serves all threads, for only the main one can hold blocks of any size. Memory goes back when the process ends.
    """
    if _has_glibc():
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(option, value)


def return_freed_memory() -> None:
    """Hands what is free now back to the system, once."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
