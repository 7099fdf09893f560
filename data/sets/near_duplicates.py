"""Detection of photographs that look the same although their files differ.

It finds copies that were saved again, scaled, brightened, converted to grey or slightly cropped, and adjacent video
frames. It does not find mirrored, rotated or strongly cropped copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..resizing import resize

# Chosen on photographs of flowers and people by `benchmarks/near_duplicates.py`: all pairs found within each set are
# one photograph twice or one scene a moment later, and no flower matches a person.
DISTANCE = 10
LIKENESS = 0.8

_THUMBNAIL = 8
_FLAT = 2.0  # grey levels: below this standard deviation, the order of the frequencies is noise
_CANDIDATES = 1000  # maximum compared by thumbnail per image: a video has that many frames of one scene
_QUERIES = 64  # per batch: 64 x 100,000 distances are 50 MB


@dataclass(frozen=True)
class Looks:
    """Perceptual hashes and thumbnails of images, 73 bytes each."""

    hashes: np.ndarray  #: uint64 ``(images,)``
    thumbnails: np.ndarray  #: uint8 ``(images, 64)``
    flat: np.ndarray  #: bool ``(images,)``, of one colour or unreadable: similar to no other

    @classmethod
    def empty(cls, images: int) -> Looks:
        return cls(np.zeros(images, np.uint64), np.zeros((images, _THUMBNAIL**2), np.uint8), np.ones(images, np.bool_))

    def put(self, row: int, look: tuple[int, bytes]) -> None:
        """Set the look of a row, from `look_of`."""
        self.hashes[row], self.flat[row] = look[0], False
        self.thumbnails[row] = np.frombuffer(look[1], np.uint8)


def look_of(image: np.ndarray) -> tuple[int, bytes] | None:
    """Perceptual hash and grey thumbnail of an upright uint8 RGB image; None for an image of a single colour.

    The hash has one bit for each of the lowest 8 x 8 frequencies (DCT of the grey image, squashed to 32 x 32): whether
    it is above their median. The first, the image's mean, is left out: 63 bits.
    """
    whole = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = resize(whole, (32, 32))
    if grey.std() < _FLAT:
        return None
    lowest = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()[1:]
    bits = np.packbits(np.concatenate([[False], lowest > np.median(lowest)]))
    thumbnail = resize(whole, (_THUMBNAIL, _THUMBNAIL))
    return int.from_bytes(bits.tobytes(), "big"), thumbnail.tobytes()


def closest(
    looks: Looks, queries: np.ndarray, others: np.ndarray, distance: int = DISTANCE, likeness: float = LIKENESS
) -> Iterator[tuple[int, int, int, float]]:
    """For each of ``queries`` that looks like some of ``others``, yield its row and the most similar row, and of both
    the number of bits that differ and the correlation.

    Two images look the same if at most ``distance`` bits of their hashes differ and their thumbnails correlate by
    ``likeness`` or more. All pairs of hashes are compared; this is much slower with NumPy 1, which cannot count bits.
    """
    queries, others = queries[~looks.flat[queries]], others[~looks.flat[others]]
    theirs = looks.hashes[others]
    for first in range(0, len(queries), _QUERIES):
        some = queries[first : first + _QUERIES]
        differing = _bits_set(looks.hashes[some, None] ^ theirs)
        for number in np.flatnonzero((differing <= distance).any(axis=1)).tolist():
            row = int(some[number])
            near = np.flatnonzero(differing[number] <= distance)
            near = near[np.argsort(differing[number, near], kind="stable")[:_CANDIDATES]]
            alike = _normalised(looks.thumbnails[others[near]]) @ _normalised(looks.thumbnails[row])
            near, alike = near[alike >= likeness], alike[alike >= likeness]
            if len(near):
                first_of = np.lexsort((-alike, differing[number, near]))[0]
                best = near[first_of]
                yield row, int(others[best]), int(differing[number, best]), float(alike[first_of])


def _normalised(thumbnails: np.ndarray) -> np.ndarray:
    """Normalise each thumbnail to mean 0 and length 1, so that a product is a correlation."""
    centred = thumbnails.astype(np.float32)
    centred -= centred.mean(axis=-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6)


def _bits_set(numbers: np.ndarray) -> np.ndarray:
    """Number of bits set in each uint64, as uint8."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(numbers)
    halves = numbers[..., None].view(np.uint16)
    table = np.array([number.bit_count() for number in range(2**16)], np.uint8)
    return table[halves].sum(axis=-1, dtype=np.uint8)
