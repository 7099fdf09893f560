"""Allocator settings for memory that is allocated and freed for every image."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MEGABYTE = 2**20


def keep_freed_memory(block_mb: int | None = 32, idle_mb: int = 256) -> bool:
    """Let this process keep freed memory for its next image. Only glibc (Linux) needs this.

    SIFT's pyramid allocates and frees about 12 MB per image, and AG-Net's head on a CPU ten times that per batch.
    Whether glibc returns this memory to the system each time depends on the block sizes and on the heap's layout. If
    it does, page faults double the time of SIFT (2,600 per image) and take a third of the head's.

    Args:
        block_mb: Block size in MB above which blocks are still taken from and returned to the system; None keeps all.
        idle_mb: Maximum of freed memory kept at the heap's end, in MB; below 2048.

    Returns: whether the settings were applied.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    told = mallopt(_M_MMAP_MAX, 0) if block_mb is None else mallopt(_M_MMAP_THRESHOLD, block_mb * _MEGABYTE)
    return bool(told and mallopt(_M_TRIM_THRESHOLD, idle_mb * _MEGABYTE))


def keep_network_memory() -> bool:
    """Let a process that runs a network and then ends keep all freed memory for the next batch."""
    return keep_freed_memory(block_mb=None, idle_mb=2047)


def give_back_memory() -> bool:
    """Return freed memory to the system now, regardless of what is kept otherwise. Returns whether any was released."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
