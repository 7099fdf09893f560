"""Controls of salient regions with all else the same: those of another image, or the image's own in other slots.

With those of another image, sizes, places and the order of the slots are as salient regions have them in this data
set; only that they belong to the image is lost. With other slots, only the order is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import numpy as np

from ..data.boxes import schema
from ..data.boxes.writer import Part, build_part
from ..data.errors import ConfigurationError
from ..data.index import DatasetIndex
from ..data.regions import Layout, Proposal, Regions
from .settings import ProposalSettings

Load = Callable[[], Part]


def shuffled(index: DatasetIndex, parts: Sequence[Load], settings: ProposalSettings) -> list[Load]:
    """Exchange the regions of images: each readable one gets those of another one of its split.

    Hulls are scaled with the image's width and height, so that a box covers the same share of it. What is recorded of
    keypoints is the other image's.

    Args:
        index: Data set.
        parts: Loaders of its parts, in order.
        settings: Settings with which the regions were proposed; their seed is that of the exchange, too.

    Returns: loaders of the new parts.
    Raises: `ConfigurationError` if a split has a single readable image.
    """
    tables = [load() for load in parts]
    giver = givers(index.splits, np.concatenate([part.images[schema.STATUS] for part in tables]), settings.seed)
    starts = [0, *accumulate(len(part.images) for part in tables)]

    def regions_of(image: int) -> Regions:
        number = int(np.searchsorted(starts, image, side="right")) - 1
        return _regions(tables[number], image - starts[number], settings.layout)

    return [
        partial(_exchanged, index, part, start, giver, regions_of) for part, start in zip(tables, starts, strict=False)
    ]


def givers(splits: np.ndarray, statuses: np.ndarray, seed: int) -> np.ndarray:
    """The image whose regions each image gets, int64 ``(n,)``; -1 for unreadable images.

    Within a split the readable images give to each other in one random circle: nobody keeps its own.
    """
    random, found = np.random.default_rng(seed), np.full(len(splits), -1)
    readable = statuses != schema.STATUS_UNREADABLE.encode()
    for split in sorted(set(splits.tolist())):
        circle = random.permutation(np.flatnonzero(readable & (splits == split)))
        if len(circle) == 1:
            raise ConfigurationError(f"method shuffled: {split} has one readable image: there is none to exchange with")
        found[circle] = np.roll(circle, 1)
    return found


def shuffled_slots(index: DatasetIndex, parts: Sequence[Load], settings: ProposalSettings) -> list[Load]:
    """Give every image's own primary regions other slots, in an order drawn for each image; empty slots move, too.

    The file and the network build the secondary regions from the primary ones, so that a slot for a pair gets the box
    around two regions drawn at random. The order depends on the seed and the content of the image. Arguments and
    return value are those of `shuffled`.
    """
    return [partial(_reordered, index, part, settings) for part in parts]


def _reordered(index: DatasetIndex, load: Load, settings: ProposalSettings) -> Part:
    part = load()
    found: list[Regions | None] = []
    for offset, row in enumerate(part.images):
        if row[schema.STATUS] == schema.STATUS_UNREADABLE.encode():
            found.append(None)
        else:
            random = np.random.default_rng([settings.seed, int(row["content_blake2b"], 16)])
            found.append(_permuted(_regions(part, offset, settings.layout), random.permutation(settings.primary)))
    return _replaced(index, part, int(part.images["image"][0]), found)


def _permuted(regions: Regions, order: np.ndarray) -> Regions:
    """The regions with slot k holding what slot ``order[k]`` held."""
    hulls = np.split(regions.hull_xy, np.cumsum(regions.hull_counts)[:-1])
    return replace(
        regions,
        hull_xy=np.concatenate([hulls[slot] for slot in order]),
        hull_counts=regions.hull_counts[order],
        keypoints=regions.keypoints[order],
        weights=regions.weights[order],
    )


def _exchanged(
    index: DatasetIndex, part: Part, start: int, giver: np.ndarray, regions_of: Callable[[int], Regions]
) -> Part:
    found: list[Regions | None] = []
    for image, row in enumerate(part.images, start):
        if giver[image] < 0:
            found.append(None)
        else:
            size_wh = int(row["width"]), int(row["height"])
            found.append(_scaled(regions_of(int(giver[image])), size_wh))
    return _replaced(index, part, start, found)


def _replaced(index: DatasetIndex, part: Part, start: int, regions: Sequence[Regions | None]) -> Part:
    """The part with other regions of its images; None for unreadable ones."""
    new = build_part(index, start, [Proposal(found) for found in regions])
    for column in ("file_bytes", "modified_utc", "content_blake2b"):
        new.images[column] = part.images[column]
    return Part(new.images, new.primary, new.hulls, part.failures)


def _regions(part: Part, offset: int, layout: Layout) -> Regions:
    """The regions of an image from its rows."""
    image = part.images[offset]
    first = int(image[schema.FIRST_ROW])
    rows = part.primary[first : first + layout.primary]
    hulls = part.hulls[int(rows["hull_first"][0]) :][: int(rows["hull_count"].sum())]
    return Regions(
        hull_xy=np.stack([hulls["x"], hulls["y"]], axis=-1),
        hull_counts=rows["hull_count"].astype(np.int32),
        keypoints=rows["keypoints"].astype(np.int32),
        weights=rows["weight"].astype(np.float32),
        size_wh=(int(image["width"]), int(image["height"])),
        total_keypoints=int(image["keypoints"]),
        distinct_keypoints=int(image["distinct_keypoints"]),
        layout=layout,
    )


def _scaled(regions: Regions, size_wh: tuple[int, int]) -> Regions:
    """The regions in an image of another size, rounded as in the file."""
    scale = np.divide(size_wh, regions.size_wh)
    points = np.minimum((regions.hull_xy * scale).round(1), size_wh).astype(np.float32)
    return replace(regions, hull_xy=points, size_wh=size_wh)
