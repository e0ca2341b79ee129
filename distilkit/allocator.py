"""The C library's memory: kept for the next step instead of given back to the system after each."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Let glibc hold on to large blocks of memory that are freed; returns whether it does.

    By default it hands a block over 32 MB back at once and gets it anew, page by page and zeroed, when the next tensor
    of that size is made, which costs a training step on a CPU much of its time. Only on Linux with glibc,
    and not where the environment already sets MALLOC_… variables.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**28}
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in wanted.items())
