"""Memory that is taken and given back for every image, without asking the system for it each time."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MEGABYTE = 2**20


def keep_freed_memory(block_mb: int | None = 32, idle_mb: int = 256) -> bool:
    """Let this process keep memory it has freed, for its next image. Only glibc needs telling (Linux).

    SIFT's pyramid takes and frees about 12 MB an image, AG-Net's head on a CPU ten times that a batch. Whether glibc
    hands them back to the system each time depends on their size and on how the heap happens to lie; where it does,
    page faults double the time of SIFT (2,600 an image) and take a third of the head's.

    Args:
        block_mb: larger blocks still come from the system and go back to it; None keeps all.
        idle_mb: kept at most, at the heap's end; below 2048.

    Returns: whether there was something to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    told = mallopt(_M_MMAP_MAX, 0) if block_mb is None else mallopt(_M_MMAP_THRESHOLD, block_mb * _MEGABYTE)
    return bool(told and mallopt(_M_TRIM_THRESHOLD, idle_mb * _MEGABYTE))


def keep_network_memory() -> bool:
    """Let a process that runs a network and then ends keep what it has freed for the next batch."""
    return keep_freed_memory(block_mb=None, idle_mb=2047)


def give_back_memory() -> bool:
    """Hand freed memory back to the system now, whatever is kept otherwise. Returns whether there was some to give."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
