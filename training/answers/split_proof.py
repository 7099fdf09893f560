"""The proof of a run's explanations over a split: `proof` on many photographs, with intervals, and its file.

The file, ``explanations-<split>.json`` in the run's folder, is what `agnet report` shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes.reader import Boxes
from ...data.files import write_text
from ...data.images import pixel_limit, read_image
from ...data.regions import Regions
from ..bootstrap import bootstrap, percentile_interval
from ..runs.checkpoints import Checkpoint
from ..samples.reading import Sample, sample
from .explain import Explanation
from .proof import BOXES, CENTRE, DELETION, INSERTION, MAP, PLACES, RANDOM

FORMAT, FORMAT_VERSION = "agnet explanations", 1
RANDOM_ORDERS = 8
FILLS = ("blur", "mean")
FEWEST = 10  #: images for which an interval is taken for evidence: fewer resample to themselves too often
_DIRECTIONS = (DELETION, INSERTION)
_CALLED = {RANDOM: "random orders", CENTRE: "the distance to the centre", BOXES: "its regions without what they add"}

Areas = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Areas under the curves of one photograph: direction -> fill -> order -> area."""


@dataclass(frozen=True)
class ProvenImage:
    """The proof of one photograph's explanation, without its curves."""

    name: str  #: path relative to the root of the data set
    this: str  #: the explained class
    against: str  #: the class that it is told from
    truth: str
    probability: float  #: of the explained class
    areas: Areas

    def to_dict(self) -> dict[str, object]:
        return {
            "image": self.name,
            "class": self.this,
            "against": self.against,
            "truth": self.truth,
            "probability": self.probability,
            **self.areas,
        }


@dataclass(frozen=True)
class Difference:
    """Mean of the areas by the map minus those by another order, over images, with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    better: bool | None  #: whether the map is; None where the interval holds zero or the images are too few


@dataclass(frozen=True)
class ProvenSplit:
    """The proof of a run's explanations over a split."""

    split: str
    dataset: str
    network: str  #: hash of the checkpoint's file, as in the predictions
    epoch: int  #: of the checkpoint
    method: str  #: of the explanations
    of: int  #: number of images of the split
    seed: int  #: of the choice of images and of the random orders
    images: tuple[ProvenImage, ...]

    @cached_property
    def fills(self) -> dict[str, dict[str, Any]]:
        """Mean areas, and differences from the other orders, by fill."""
        return {fill: _of_fill(self.images, fill) for fill in self.images[0].areas[DELETION]}

    @property
    def verdict(self) -> str:
        """One sentence on whether the maps are better than random orders, and than the other orders."""
        return _verdict(self.fills, len(self.images))

    def to_dict(self, pictures: Iterable[Mapping[str, str]] = ()) -> dict[str, object]:
        """Return what the file says.

        Args:
            pictures: Entries of the pictures: ``image``, ``why``, ``file`` (relative to the run), ``class`` and
                ``truth``.
        """
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **{name: getattr(self, name) for name in ("split", "dataset", "network", "epoch", "method")},
            "images": len(self.images),
            "of": self.of,
            "seed": self.seed,
            "places": PLACES,
            "random_orders": RANDOM_ORDERS,
            "fills": self.fills,
            "verdict": self.verdict,
            "rows": [one.to_dict() for one in self.images],
            "pictures": list(pictures),
        }

    def write(self, path: Path, pictures: Iterable[Mapping[str, str]] = ()) -> Path:
        """Write the file to ``path``; ``pictures`` as in `to_dict`. Returns ``path``."""
        write_text(path, json.dumps(self.to_dict(pictures), indent=1) + "\n")
        return path


def chosen_rows(boxes: Boxes, split: str, count: int, seed: int) -> np.ndarray:
    """Draw ``count`` rows of a split without replacement, increasing; all if there are no more."""
    rows = boxes.rows(split)
    if count >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def samples_of_rows(checkpoint: Checkpoint, boxes: Boxes, root: Path, rows: np.ndarray) -> Iterator[Sample]:
    """Read the photographs of some rows, with the regions that the boxes file has for them.

    Raises: `ImageError` for one that cannot be read.
    """
    limit = pixel_limit(boxes.settings.get("proposals", {}))
    for row in rows.tolist():
        name = boxes.names[boxes.usable[row]].decode()

        def regions_of_row(image: np.ndarray, row: int = row) -> Regions:
            return boxes.regions(row)

        propose = regions_of_row if checkpoint.regions else None
        yield sample(name, read_image(root / name, limit), checkpoint.size_hw, propose)


def proven_image(one: Explanation, truth: str) -> ProvenImage:
    """Keep of a proven explanation what is compared."""
    assert one.proof is not None
    areas = {
        direction: {
            fill: {order: round(found, 6) for order, found in curves.areas(direction).items()}
            for fill, curves in one.proof.items()
        }
        for direction in _DIRECTIONS
    }
    return ProvenImage(one.name, one.this, one.against, truth, round(one.probabilities[0], 6), areas)


def _of_fill(images: Sequence[ProvenImage], fill: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for direction in _DIRECTIONS:
        areas = {
            order: np.array([one.areas[direction][fill][order] for one in images])
            for order in (MAP, RANDOM, CENTRE, BOXES)
            if order in images[0].areas[direction][fill]
        }
        found[direction] = {order: round(float(values.mean()), 6) for order, values in areas.items()}
        found[f"{direction}_minus"] = {
            order: asdict(difference(areas[MAP] - values, better=-1 if direction == DELETION else 1))
            for order, values in areas.items()
            if order != MAP
        }
    return found


def difference(values: np.ndarray, better: int) -> Difference:
    """Mean of paired differences ``(n,)``; ``better`` is the sign of those that speak for the map."""
    mean = float(values.mean())
    drawn = bootstrap([lambda counts: values @ counts / len(values)], len(values))[0]
    interval = percentile_interval(drawn)
    sure = len(values) >= FEWEST and (interval.low > 0 or interval.high < 0)
    low, high = round(interval.low, 6), round(interval.high, 6)
    return Difference(round(mean, 6), low, high, better * mean > 0 if sure else None)


def _verdict(fills: Mapping[str, Mapping[str, Any]], images: int) -> str:
    trials = [(direction, fill) for fill in fills for direction in _DIRECTIONS]

    def answers(order: str) -> list[bool | None]:
        return [fills[fill][f"{direction}_minus"][order]["better"] for direction, fill in trials]

    over = f"over {images:,} image{'s' if images > 1 else ''}"
    if images < FEWEST:
        return f"Fewer than {FEWEST} images cannot show whether the maps are better than random: {over}."
    told = [f"{direction} with {fill}" for direction, fill in trials]
    by_chance = answers(RANDOM)
    unsure = [name for name, better in zip(told, by_chance, strict=True) if better is None]
    worse = [name for name, better in zip(told, by_chance, strict=True) if better is False]
    controls = [order for order in (CENTRE, BOXES) if order in next(iter(fills.values()))[f"{DELETION}_minus"]]
    others = " and ".join(f"{_CALLED[order]} in {answers(order).count(True)}" for order in controls)
    if by_chance.count(True) == len(trials):
        return f"Better than random orders in all {len(trials)} trials, than {others}, {over}."
    said = [f"no better than random here in {', '.join(unsure)}"] if unsure else []
    said += [f"worse than random in {', '.join(worse)}"] if worse else []
    sentence = "; ".join(said)
    return f"{sentence[0].upper()}{sentence[1:]}; better than {others} of {len(trials)} trials, {over}."
