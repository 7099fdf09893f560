"""The proof of a run's explanations over a split: `proof` on many photographs, with intervals, and its file.

The file, ``explanations-<split>.json`` in the run's folder, is what `agnet report` shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes.reader import Boxes
from ...data.files import write_text
from ...data.images import pixel_limit, read_image
from ...data.regions import Regions
from ..bootstrap import bootstrap, percentile_interval
from ..machine.devices import Device
from ..runs.checkpoints import Checkpoint
from ..samples.reading import Sample, sample
from .explain import Explanation, Question, explain_samples
from .proof import BOXES, CENTRE, DELETION, FILLS, INSERTION, MAP, PLACES, RANDOM, Trials

FORMAT, FORMAT_VERSION = "agnet explanations", 1
FEWEST = 10  #: images for which an interval is taken for evidence: fewer resample to themselves too often
_PICTURES = 6
_DIRECTIONS = (DELETION, INSERTION)
_CALLED = {CENTRE: "the distance to the centre", BOXES: "the same regions with equal parts"}

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

    @property
    def right(self) -> bool:
        return self.this == self.truth

    @property
    def gain(self) -> float:
        """How much better the map is than random orders, as a mean over directions and fills."""
        gains = [
            (orders[MAP] - orders[RANDOM]) * (-1 if direction == DELETION else 1)
            for direction, fills in self.areas.items()
            for orders in fills.values()
        ]
        return sum(gains) / len(gains)

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
    random_orders: int
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
            "random_orders": self.random_orders,
            "fills": self.fills,
            "verdict": self.verdict,
            "rows": [one.to_dict() for one in self.images],
            "pictures": list(pictures),
        }

    def is_better(self, direction: str, fill: str) -> bool | None:
        """Whether the maps are better than random orders; None where the interval holds zero."""
        found = self.fills[fill][f"{direction}_minus"][RANDOM]["better"]
        return None if found is None else bool(found)

    def write(self, path: Path, pictures: Iterable[Mapping[str, str]] = ()) -> Path:
        """Write the file to ``path``; ``pictures`` as in `to_dict`. Returns ``path``."""
        write_text(path, json.dumps(self.to_dict(pictures), indent=1) + "\n")
        return path


@dataclass(frozen=True)
class SplitImages:
    """Some photographs of a split, drawn at random without replacement; all of them if there are no more."""

    boxes: Boxes
    root: Path  #: folder of the photographs
    split: str
    count: int  #: largest number of photographs
    seed: int

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows among the usable images of the boxes file, increasing."""
        rows = self.boxes.rows(self.split)
        if self.count >= len(rows):
            return rows
        return np.sort(np.random.default_rng(self.seed).choice(rows, self.count, replace=False))

    @property
    def truths(self) -> list[str]:
        """Name of each photograph's class."""
        return [self.boxes.classes[label] for label in self.boxes.labels[self.boxes.usable[self.rows]].tolist()]

    def read(self, name: str) -> np.ndarray:
        """Read a photograph by its name, uint8 RGB. Raises: `ImageError`."""
        return read_image(self.root / name, pixel_limit(self.boxes.settings.get("proposals", {})))

    def samples(self, size_hw: tuple[int, int], regions: bool) -> Iterator[Sample]:
        """Read the photographs, with the regions that the boxes file has for them. Raises: `ImageError`."""
        for row in self.rows.tolist():
            name = self.boxes.names[self.boxes.usable[row]].decode()
            found = self.boxes.regions(row) if regions else None
            yield sample(name, self.read(name), size_hw, None if found is None else partial(_known, found))


def _known(regions: Regions, image: np.ndarray) -> Regions:
    return regions


def prove_split(
    checkpoint: Checkpoint,
    network: str,
    images: SplitImages,
    question: Question,
    random_orders: int,
    device: Device,
    say: Callable[[str], None] = lambda text: None,
    done: Callable[[int], None] = lambda passes: None,
) -> tuple[ProvenSplit, list[Explanation]]:
    """Explain photographs of a split and prove their maps.

    Args:
        checkpoint: Loaded checkpoint, whose network is moved to the device.
        network: Hash of the checkpoint's file.
        images: Photographs.
        question: What is asked of every photograph.
        random_orders: Number of random orders.
        device: Device.
        say: As in `explain_samples`.
        done: As in `explain_samples`.

    Raises: as `explain_samples`, and `ImageError` for a photograph that cannot be read.
    """
    samples = images.samples(checkpoint.size_hw, checkpoint.regions > 0)
    trials = Trials(random_orders, tuple(FILLS), images.seed)
    found = explain_samples(checkpoint, samples, device, question, say=say, trials=trials, done=done)
    explained = [one for one in found if isinstance(one, Explanation)]  # all: an unreadable one raises
    proven = ProvenSplit(
        split=images.split,
        dataset=images.boxes.dataset,
        network=network,
        epoch=checkpoint.epoch,
        method=question.method,
        of=len(images.boxes.rows(images.split)),
        seed=images.seed,
        random_orders=random_orders,
        images=tuple(map(proven_image, explained, images.truths)),
    )
    return proven, explained


def worth_seeing(images: Sequence[ProvenImage]) -> list[tuple[int, str]]:
    """Choose about six photographs to look at: their numbers, each with the reason.

    The two surest mistakes, the photograph whose map is worst compared with random orders, and as many right answers
    of middling probability as make up six.
    """
    sure = sorted(range(len(images)), key=lambda number: -images[number].probability)
    chosen = {number: "a sure mistake" for number in sure if not images[number].right}
    chosen = dict(list(chosen.items())[:2])
    left = [number for number in sure if number not in chosen]
    if left:
        worst = min(left, key=lambda number: images[number].gain)
        failed = images[worst].gain <= 0
        chosen[worst] = "a failure of the explanation" if failed else "the weakest explanation"
    right = [number for number in left if images[number].right and number not in chosen]
    middle = max(0, (len(right) - (_PICTURES - len(chosen))) // 2)
    typical = right[middle : middle + _PICTURES - len(chosen)]
    return [*chosen.items(), *((number, "a typical right answer") for number in typical)]


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
    if images < FEWEST:
        return f"Fewer than {FEWEST} images cannot show whether the maps are better than random orders."
    trials = [(f"{way} ({fill})", found[f"{way}_minus"]) for fill, found in fills.items() for way in _DIRECTIONS]
    answers = {name: minus[RANDOM]["better"] for name, minus in trials}
    sure, unsure, worse = ([name for name, better in answers.items() if better is kind] for kind in (True, None, False))
    said = [f"better than random orders in {', '.join(sure) if unsure or worse else 'every trial'}"] if sure else []
    said += [f"no better than random here in {', '.join(unsure)}"] if unsure else []
    said += [f"worse than random orders in {', '.join(worse)}"] if worse else []
    for order in (CENTRE, BOXES):
        if order in trials[0][1]:
            better, worse_in = ([minus[order]["better"] for _, minus in trials].count(kind) for kind in (True, False))
            known = f"better than {_CALLED[order]} in {better} of {len(trials)}"
            said.append(f"{known} and worse in {worse_in}" if worse_in else known)
    return f"The maps are {'; '.join(said)}; {images:,} images."
