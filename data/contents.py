"""Fingerprints of files, and of folders of frames, by their content."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from .listing import is_a_systems
from .regions import time_of_change

_DIGEST, _CHUNK = 8, 2**20  # bytes


def hash_of(path: Path) -> str:
    """Fingerprint of a file, equal to `content_hash` of its bytes, or of the frames of a folder by name and content.

    Files are read in pieces, since a video may be larger than memory.

    Raises: `OSError` if something cannot be read.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for place in [path / name for name in frame_files(path)] if path.is_dir() else [path]:
        if place is not path:
            digest.update(f"{place.name}\0{place.stat().st_size}\0".encode())
        with place.open("rb", buffering=0) as file:
            while piece := file.read(_CHUNK):
                digest.update(piece)
    return digest.hexdigest()


def checksum(path: Path, kind: str) -> str:
    """Checksum of a file as its publisher tells it, in hexadecimal digits.

    Args:
        kind: Name of a hash function, such as ``sha256``.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def stamp_of_folder(folder: str | Path) -> tuple[int, int] | None:
    """Total size in bytes and latest time of change, see `time_of_change`, of a folder's frames; None without any."""
    found = [os.stat(Path(folder) / name) for name in frame_files(Path(folder))]  # noqa: PTH116 - as for files
    if not found:
        return None
    return sum(one.st_size for one in found), time_of_change(max(one.st_mtime_ns for one in found))


def frame_files(folder: Path) -> list[str]:
    """Names of the images in a folder, by the numbers in them, then by name: frame2.jpg comes before frame10.jpg."""
    from .images import IMAGE_SUFFIXES

    names = [entry.name for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES]
    return sorted((name for name in names if not is_a_systems(name)), key=lambda name: (_numbers(name), name))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d{1,18}", name))
