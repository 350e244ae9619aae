"""Keeping freed memory for the next step instead of giving it back to the system."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them, in malloc.h
LARGEST_ALLOCATION = 32 << 20  # more than this, glibc does not let be reused
KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Let the C library reuse what it frees, up to 1 GiB; False where it is not glibc, which changes nothing.

    By itself glibc returns large blocks to the system when they are freed, and the system clears every page before it
    hands it out again. An attack frees and takes the same blocks in every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_ALLOCATION)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
