"""Measures of retrieval, CMC and mAP, with confidence intervals over queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from ..titles import RANKS
from ..titles import SEARCH_MEASURES as SEARCH_MEASURES
from .intervals import measure_intervals
from .statistics import Interval, Statistic, bootstrap

_PRECISION = "the average precision is the mean of the precision at the rank of each match"


class Searches:
    """The results of n ≥ 1 queries with a match, in the form that intervals and comparisons take (see `Scores`).

    Args:
        average_precisions: Average precision of each query ``(n,)``.
        first_match: Rank of its first match ``(n,)``, from 0.
    """

    titles: ClassVar = SEARCH_MEASURES
    tested: ClassVar = "cmc1"
    classes: ClassVar = 0

    def __init__(self, average_precisions: np.ndarray, first_match: np.ndarray) -> None:
        self.average_precisions, self.first_match = average_precisions, first_match

    def __len__(self) -> int:
        return len(self.first_match)

    @property
    def right(self) -> np.ndarray:
        """1.0 where the nearest image is a match, else 0.0; ``(n,)``."""
        return (self.first_match < 1).astype(np.float64)

    def shares(self) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """All measures, as the value of each query ``(n,)`` in [0, 1]."""
        hits = {f"cmc{k}": ((self.first_match < k).astype(np.float64), None) for k in RANKS}
        return {"map": (self.average_precisions, None), **hits}

    def statistics(self) -> dict[str, Statistic]:
        return {name: _mean_of(values) for name, (values, _) in self.shares().items()}

    def is_certain(self, measure: str) -> bool:
        """Whether every query counts as right for a measure, whatever the network."""
        return False

    def same_as(self, other: object) -> bool:
        """Whether two networks gave the same results."""
        return isinstance(other, Searches) and np.array_equal(self.average_precisions, other.average_precisions)


@dataclass(frozen=True)
class SearchMetrics:
    """Metrics of a search for queries in a gallery; shares are in [0, 1]."""

    queries: int  #: queries that count: those with a match in their ranking
    queries_left_out: int  #: queries without a match
    gallery_images: int
    distractors: int  #: gallery images of persons in no query
    persons: int  #: persons in queries
    cameras: int  #: known cameras of queries and gallery
    map: float
    cmc1: float
    cmc5: float
    cmc10: float
    cmc20: float
    intervals: dict[str, Interval]  #: 95 % over queries, seed fixed; by the names above
    cmc: list[float]  #: CMC at ranks 1 to 50
    protocol: str  #: what is searched for in what, and which average precision is meant

    @property
    def images(self) -> int:
        return self.queries

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def protocol(split: str, *, cameras: bool) -> str:
    """Describe in a sentence how images of ``split`` are searched for, with or without known ``cameras``."""
    searched = "each query by itself in the gallery" if split == "query" else f"each {split} image among all others"
    left_out = "; images of its person by its own camera are left out" if cameras else ""
    return f"{searched}{left_out}; {_PRECISION}"


def measure_searches(
    searches: Searches,
    left_out: int,
    gallery_images: int,
    distractors: int,
    persons: int,
    cameras: int,
    protocol: str,
) -> SearchMetrics:
    """Compute the metrics of the queries that count. The other arguments are fields of `SearchMetrics`."""
    statistics = searches.statistics()
    once = np.ones((len(searches), 1))
    values: dict[str, Any] = {name: float(statistic(once)[0]) for name, statistic in statistics.items()}
    drawn = bootstrap(list(statistics.values()), len(searches))
    return SearchMetrics(
        queries=len(searches),
        queries_left_out=left_out,
        gallery_images=gallery_images,
        distractors=distractors,
        persons=persons,
        cameras=cameras,
        **values,
        intervals=measure_intervals([searches], np.array([list(values.values())]), drawn[None]),
        cmc=[float((searches.first_match < k).mean()) for k in range(1, 51)],
        protocol=protocol,
    )


def _mean_of(values: np.ndarray) -> Statistic:
    return lambda counts: values @ counts / counts.sum(axis=0, dtype=np.float64)
