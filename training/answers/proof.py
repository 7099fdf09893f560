"""Proof of a map: whether the places that it names first are those that the probability of the class depends on.

The network's view of a photograph has 7 × 7 places. In an order, they are taken away (deletion: each is replaced by the
same place of a filled copy of the photograph) or put back into the filled copy (insertion), and the probability of the
class is followed (Petsiuk, Das and Saenko, 2018, RISE, section 4.1). The area under the curve is the mean probability
on the way: low for a good order of deletion, high for a good one of insertion.

A fill is no neutral thing, so there are two: a blur, which keeps the light and loses the detail, and the photograph's
mean colour. Regions stay those of the untouched photograph: the network looks at the same boxes all the way.

Orders that the map is compared with:

- ``random``: places in random order. Such an order put back is one taken away, read from its end; so each random curve
  is measured once and counts in both directions.
- ``centre``: nearest to the middle first, since photographers put things there.
- ``boxes``, of networks with regions: the regions laid back as the exact parts are, with equal parts. These are the
  same boxes with the same areas, on the same keypoints, as smooth as the map; only what each of them adds is missing.
  Boxes of the same area elsewhere would be an easier control: they would differ in what they show, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch

from ..machine.devices import Device, Pieces
from ..models.model import Model
from ..runs.checkpoints import check_finite
from ..samples.reading import Sample
from .contributions import Explained
from .predict import inputs_of, scores_of

SIDE = 7
PLACES = SIDE * SIDE
STEPS = 7  #: of a curve; as many places each
_BLUR = 1 / 12  # standard deviation of the blur as a fraction of height and of width

DELETION, INSERTION = "deletion", "insertion"
MAP, RANDOM, CENTRE, BOXES = "map", "random", "centre", "boxes"


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Blur uint8 RGB ``(H, W, 3)`` until no detail is left."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigmaX=width * _BLUR, sigmaY=height * _BLUR))


def mean_coloured(pixels: np.ndarray) -> np.ndarray:
    """Replace every pixel of uint8 RGB ``(H, W, 3)`` by the mean of all."""
    mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return np.broadcast_to(mean, pixels.shape)


FILLS = {"blur": blurred, "mean": mean_coloured}


@dataclass(frozen=True)
class Trials:
    """What is tried on every photograph.

    Args:
        random_orders: Number of random orders.
        fills: Names of fills, of `FILLS`.
        seed: Random seed, combined with the photograph's pixels: neither its name nor the others matter.
    """

    random_orders: int = 20
    fills: tuple[str, ...] = ("blur",)
    seed: int = 0

    def passes(self, with_boxes: bool) -> int:
        """Number of times that the network sees a photograph."""
        curves = self.random_orders + 2 * (3 if with_boxes else 2)
        return len(self.fills) * (curves * (STEPS - 1) + 2)


@dataclass(frozen=True)
class Curves:
    """Probability of the class along the orders: float64 ``(orders, STEPS + 1)`` by name of the order."""

    deletion: Mapping[str, np.ndarray]
    insertion: Mapping[str, np.ndarray]

    def areas(self, direction: str) -> dict[str, float]:
        """Area under the curve by name of the order, averaged over the random ones; in [0, 1]."""
        curves = self.deletion if direction == DELETION else self.insertion
        return {name: float(area(found).mean()) for name, found in curves.items()}

    def beaten(self) -> int:
        """Number of random orders whose deletion leaves more of the probability than that by the map."""
        return int((area(self.deletion[RANDOM]) > area(self.deletion[MAP])).sum())


def beats(curves: Curves) -> str:
    """In words, how deletion by the map compares with random orders.

    A map that knows nothing takes each rank among n random orders with the same probability, 1 / (n + 1), so that it
    beats at least k of them with the probability (n + 1 - k) / (n + 1).
    """
    beaten, orders = curves.beaten(), len(curves.deletion[RANDOM])
    said = f"beats {beaten} of {orders} random orders"
    if 2 * beaten <= orders:
        return f"{said}, no better than random here"
    return f"{said}; by chance as good in {(orders + 1 - beaten) / (orders + 1):.0%} of cases"


Proof = Mapping[str, Curves]
"""Curves of one photograph by name of the fill."""


def area(curves: np.ndarray) -> np.ndarray:
    """Area under curves of equal steps from 0 to 1 by the trapezoidal rule: ``(…, points)`` -> ``(…)``."""
    return np.asarray((curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2)


def prove(
    model: Model,
    sample: Sample,
    evidence: Explained,
    this: int,
    trials: Trials,
    device: Device,
    batch_size: int,
    say: Callable[[str], None] = lambda text: None,
    done: Callable[[int], None] = lambda passes: None,
) -> Proof:
    """Take places of a photograph away and put them back, by the map and by other orders.

    Args:
        model: Network, on the device, in evaluation mode.
        sample: Photograph with its regions, which stay the same.
        evidence: Explanation, whose map is put to the proof.
        this: Number of the class.
        trials: What is tried.
        device: Device; the computation is in single precision.
        batch_size: Number of copies of the photograph per batch.
        say: Function called with a line of text if memory does not suffice for a batch, which is then split.
        done: Function called with the number of passes after each batch.

    Returns: curves by name of the fill.
    """
    generator = np.random.default_rng([trials.seed, zlib.crc32(sample.pixels.tobytes())])
    orders = _orders(sample.boxes, evidence, trials.random_orders, generator)
    pieces = Pieces(device, say, called="copies")

    def probabilities(filled: np.ndarray, masks: np.ndarray) -> np.ndarray:
        found = []
        for at in range(0, len(masks), batch_size):
            part = masks[at : at + batch_size]
            found += pieces.of(len(part), partial(_probabilities, model, sample, filled, part, this, device))
            done(len(part))
        return np.concatenate(found)

    fills = {name: FILLS[name](sample.pixels) for name in trials.fills}
    return {name: curves_of(partial(probabilities, filled), orders) for name, filled in fills.items()}


def curves_of(probabilities: Callable[[np.ndarray], np.ndarray], orders: Mapping[str, np.ndarray]) -> Curves:
    """Follow a probability along orders.

    Args:
        probabilities: Function from masks, bool ``(n, PLACES)``, True where a place is filled, to probabilities
            ``(n,)``.
        orders: Orders ``(orders, PLACES)``, numbers of places, by name.
    """
    # What is put back last is what was taken away first: insertion is deletion in the reverse order, from its end.
    backwards = {name: found[:, ::-1] for name, found in orders.items() if name != RANDOM}
    chains = np.concatenate([*orders.values(), *backwards.values()])
    ranks = chains.argsort(axis=1)  # of each place in its order
    counts = np.arange(1, STEPS) * (PLACES // STEPS)
    masks = ranks[:, None] < counts[:, None]  # (chains, STEPS - 1, PLACES)
    ends = np.array([[False], [True]]).repeat(PLACES, axis=1)
    (untouched, filled), inner = np.split(probabilities(np.concatenate([ends, masks.reshape(-1, PLACES)])), [2])
    inner = inner.reshape(len(chains), STEPS - 1)
    curves = np.pad(inner.astype(np.float64), ((0, 0), (1, 1)))
    curves[:, 0], curves[:, -1] = untouched, filled
    parts = np.split(curves, np.cumsum([*map(len, orders.values()), *map(len, backwards.values())])[:-1])
    deletion = dict(zip(orders, parts, strict=False))
    insertion = dict(zip(backwards, parts[len(orders) :], strict=True)) | {RANDOM: deletion[RANDOM]}
    return Curves(deletion, {name: insertion[name][:, ::-1] for name in orders})


def highest_first(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Order the places of a map, highest first, and those that differ by rounding only in random order."""
    values = values.ravel() / max(float(np.abs(values).max()), 1e-30)
    return np.lexsort((generator.random(len(values)), -values.round(5)))


def _orders(
    boxes: np.ndarray | None, evidence: Explained, random_orders: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Orders ``(orders, PLACES)`` by name; ``boxes`` are the regions ``(R, 4)`` in fractions of the image."""
    row, column = np.divmod(np.arange(PLACES), SIDE) - np.array([[SIDE // 2]] * 2)
    values = {MAP: evidence.laid_back((SIDE, SIDE)), CENTRE: -np.hypot(row, column)}
    if boxes is not None and len(boxes):
        values[BOXES] = Explained(np.ones((len(boxes), SIDE, SIDE)), 0.0, boxes).laid_back((SIDE, SIDE))
    chance = np.stack([generator.permutation(PLACES) for _ in range(random_orders)])
    return {RANDOM: chance, **{name: highest_first(found, generator)[None] for name, found in values.items()}}


@torch.no_grad()
def _probabilities(
    model: Model, sample: Sample, filled: np.ndarray, masks: np.ndarray, this: int, device: Device, cut: slice
) -> np.ndarray:
    """Probability of a class for copies of a photograph with some places filled: masks ``(n, PLACES)`` -> ``(n,)``."""
    rows, columns = (np.arange(side) * SIDE // side for side in sample.pixels.shape[:2])
    hidden = masks[cut].reshape(-1, SIDE, SIDE)[:, rows][:, :, columns, None]  # (n, H, W, 1)
    copies = [replace(sample, pixels=np.where(one, filled, sample.pixels)) for one in hidden]
    output = model(*inputs_of(model, copies, device))
    check_finite(output)
    return np.asarray(scores_of(output).float().softmax(dim=1)[:, this].cpu().numpy())
