"""Embeddings of the measured images, kept in half precision for searches of similar ones."""

from __future__ import annotations

import numpy as np

MOST = 4096  #: numbers of an embedding that is kept unless asked for; bilinear ones have up to 262,144


class KeptEmbeddings:
    """Collect embeddings of norm 1 as they are computed; the clips of a video must follow each other.

    Half precision halves the file: each number is rounded by at most one part in 2,000, and the cosine of two
    embeddings of 1,280 numbers by about 0.00001.

    Args:
        most: Largest number of numbers of an embedding; longer ones are not kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._vectors: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self.left_out = 0  #: number of numbers of the embeddings that are too long to be kept; 0 if none are

    def add(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        """Add the embeddings of a batch, float32 ``(B, E)``, and the rows ``(B,)`` of its images or videos."""
        if vectors.shape[1] > self._most:
            self.left_out = vectors.shape[1]
            return
        self._vectors.append(vectors.astype(np.float16))
        self._rows.append(rows)

    def vectors(self) -> np.ndarray | None:
        """Return one embedding for each row in the order in which they came, float16 ``(n, E)``; None if none was kept.

        That of a video of several clips is the direction of their mean.
        """
        if not self._vectors:
            return None
        found, rows = np.concatenate(self._vectors), np.concatenate(self._rows)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        if len(starts) == len(rows):
            return found
        sums = np.add.reduceat(found.astype(np.float32), starts)
        return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float16)
