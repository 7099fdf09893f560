"""Bootstrap intervals over images, as pure functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
DRAWS = 1000
_BLOCK = 100  # draws per block: 10 MB of counts for 25,000 images

Statistic = Callable[[np.ndarray], np.ndarray]
"""A statistic of n weighted images: maps weights, float32 ``(n, D)``, to float64 ``(D,)``, one value per column.

Weights of 1 return the statistic of the images themselves. NaN where it is undefined for a draw."""


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval from ``low`` to ``high``."""

    low: float
    high: float


def resamples(n: int, draws: int = DRAWS, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw bootstrap resamples of n images, in blocks of D draws.

    Yields: counts of each image in each draw, float32 ``(n, D)``; deterministic for given n, draws and seed.
    """
    generator = np.random.default_rng(seed)
    for first in range(0, draws, _BLOCK):
        columns = min(_BLOCK, draws - first)
        drawn = generator.integers(0, n, (columns, n)) + n * np.arange(columns)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * columns).reshape(columns, n)
        yield np.ascontiguousarray(counts.T, dtype=np.float32)


def bootstrap(statistics: Sequence[Statistic], n: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Evaluate statistics on the same ``draws`` resamples of n images; returns float64 ``(statistics, draws)``."""
    blocks = [np.stack([statistic(counts) for statistic in statistics]) for counts in resamples(n, draws, seed)]
    return np.concatenate(blocks, axis=1)


def percentile_interval(drawn: np.ndarray) -> Interval:
    """Efron's percentile interval: the central 95 % of bootstrap draws ``(draws,)``."""
    low, high = np.nanquantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
