"""Randomness that belongs to an image."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(seed: int, content: np.ndarray) -> int:
    """A 31-bit seed for one image, from the run's seed and what was seen in the image.

    Content rather than a name: a renamed file keeps its regions, and an image gets the same ones when it is
    predicted as when it was in the data set.
    """
    digest = hashlib.blake2b(content.tobytes(), digest_size=4, salt=seed.to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF
