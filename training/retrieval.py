"""Image retrieval: ranking of a gallery for each query, and the measures of a ranking. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

JUNK = -1  #: person of an image that is in no ranking
UNKNOWN = -1  #: camera of an image without a known camera

_SIMILARITIES = 2**24  # per chunk of queries: 64 MB


class Embedded(NamedTuple):
    """The embeddings of n images, with the person that each shows and the camera that took it."""

    vectors: np.ndarray  #: float32 ``(n, E)``, of norm 1
    persons: np.ndarray  #: int64 ``(n,)``; `JUNK`: in no ranking
    cameras: np.ndarray  #: int64 ``(n,)``, or `UNKNOWN`


@dataclass(frozen=True)
class Retrieval:
    """The result of q queries. A query without a match in its ranking does not count."""

    average_precisions: np.ndarray  #: float64 ``(q,)``: mean of the precision at each match's rank; NaN without a match
    first_match: np.ndarray  #: int64 ``(q,)``, rank of the first match, from 0; -1 without a match
    nearest: np.ndarray  #: int64 ``(q,)``, number of the first image of the ranking; -1 if the ranking is empty

    @property
    def counted(self) -> np.ndarray:
        """Whether each query has a match, bool ``(q,)``."""
        return self.first_match >= 0

    def hits(self, k: int) -> np.ndarray:
        """Whether each counted query has a match among its first ``k`` images, bool ``(counted,)``."""
        return self.first_match[self.counted] < k

    def cmc(self, k: int) -> float:
        """Cumulative matching characteristic: fraction of counted queries with a match among their first ``k`` images.

        NaN if no query counts.
        """
        return _mean(self.hits(k))

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precisions of counted queries; NaN if no query counts."""
        return _mean(self.average_precisions[self.counted])


def retrieve(query: Embedded, gallery: Embedded | None = None) -> Retrieval:
    """Rank the gallery for each query by cosine similarity, and look for images of the same person.

    As in the protocol of Market-1501 (Zheng et al., 2015), junk and images of the query's person by the query's own
    camera are left out of its ranking; everything else stays, also persons who are in no query. Equal similarities are
    ranked in the order of the gallery.

    Args:
        query: Images to search for.
        gallery: Images to search in; None: each query image is searched for among all others.
    """
    among_themselves = gallery is None
    gallery = query if gallery is None else gallery
    found = [
        _of_one(similarities, kept, gallery.persons == query.persons[number])
        for number, similarities, kept in _candidates(query, gallery, among_themselves)
    ]
    precisions, firsts, nearest = zip(*found, strict=True) if found else ((), (), ())
    return Retrieval(
        np.array(precisions, dtype=np.float64), np.array(firsts, dtype=np.int64), np.array(nearest, dtype=np.int64)
    )


def _candidates(
    query: Embedded, gallery: Embedded, among_themselves: bool
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each query's number, its similarities ``(n,)`` and the numbers of the gallery images in its ranking."""
    chunk = max(1, _SIMILARITIES // max(1, len(gallery.persons)))
    for start in range(0, len(query.persons), chunk):
        similarities = query.vectors[start : start + chunk] @ gallery.vectors.T
        for number, row in enumerate(similarities, start):
            own = (gallery.persons == query.persons[number]) & (gallery.cameras == query.cameras[number])
            left_out = (own & (gallery.cameras != UNKNOWN)) | (gallery.persons == JUNK)
            if among_themselves:
                left_out[number] = True
            yield number, row, np.flatnonzero(~left_out)


def _of_one(similarities: np.ndarray, kept: np.ndarray, same_person: np.ndarray) -> tuple[float, int, int]:
    """Return a query's average precision, the rank of its first match, and the number of its nearest image."""
    order = kept[np.argsort(-similarities[kept], kind="stable")]
    matches = np.flatnonzero(same_person[order])
    nearest = int(order[0]) if len(order) else -1
    if not len(matches):
        return np.nan, -1, nearest
    return float((np.arange(1, len(matches) + 1) / (matches + 1)).mean()), int(matches[0]), nearest


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
