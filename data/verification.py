"""Whether the images on disk are still those that a boxes file was made from."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from . import boxes_schema as schema
from .boxes_reader import Listing
from .regions import NOT_THERE

_THREADS = 8  # reading and hashing leave Python's lock


def changed_images(
    listing: Listing, root: Path, *, trust_times: bool, progress: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[str, str]]:
    """The images that are not what they were when their regions were found: (name, what is different), in order.

    Args:
        listing: of the boxes file.
        root: where the images are now.
        trust_times: take a file of the same size and time of change for the same, as version control does, and read
            only the others. Without it every file is read.
        progress: called with the number of images looked at.
    """
    names = [name.decode() for name in listing.names.tolist()]
    sizes, times = stamps_of(root, names)
    there, was_read = times != NOT_THERE, listing.contents != b""
    same_size = sizes == listing.file_bytes
    same_stamp = same_size & (schema.modified_text(times) == listing.modified_utc)
    known = np.where(was_read, same_stamp & trust_times, ~there)

    def judge(row: int) -> str | None:
        if not was_read[row]:
            return "could not be opened then and can be now" if os.access(root / names[row], os.R_OK) else None
        if not there[row]:
            return "is gone"
        if not same_size[row]:
            return f"had {listing.file_bytes[row]:,} bytes and has {sizes[row]:,} now"
        return _other_content(root / names[row], listing.contents[row])

    suspects = np.flatnonzero(~known).tolist()
    with ThreadPoolExecutor(_THREADS) as pool:
        for row, difference in zip(suspects, pool.map(judge, suspects), strict=True):
            progress(row)
            if difference:
                yield names[row], difference
    progress(len(names))


def stamps_of(root: Path, names: list[str] | tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Size in bytes and time of change in nanoseconds since 1970 of each file, int64.

    What is not there, or is no file but a folder or device, has the time `NOT_THERE`.
    """
    stamps = np.tile(np.array([0, NOT_THERE], dtype=np.int64), (len(names), 1))
    folder = str(root)
    for row, name in enumerate(names):
        try:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - a hundred thousand times
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            stamps[row] = status.st_size, status.st_mtime_ns
    return stamps[:, 0], stamps[:, 1]


def _other_content(path: Path, digest: bytes) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if hashlib.blake2b(content, digest_size=8).hexdigest().encode() == digest else "has other content"
