"""What is exported: the usable images of a boxes file, with regions and predictions, in the file's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..boxes.reader import Boxes
from ..errors import ConfigurationError, DatasetError, MismatchError
from ..images import pixel_limit, read_image, read_orientation
from ..text import printable

UPRIGHT = 1  #: EXIF orientation of an image that is stored as it is seen
_DECIMALS = 3  # of a pixel, more than the files have

Progress = Callable[[int], None]  #: called with the number of images done


class Slot(NamedTuple):
    """A region's place in the order of the layout, the same in every image."""

    number: int  #: from 0
    kind: str  #: primary or secondary
    name: str  #: ``primary-3``, or ``secondary-0-3`` for the box around primaries 0 and 3


@dataclass(frozen=True)
class Predictions:
    """A network's answers for n images."""

    names: tuple[str, ...]  #: paths relative to the root of the data set
    contents: tuple[str, ...]  #: content hashes, 16 hexadecimal digits where they are known
    classes: tuple[str, ...]
    predicted: np.ndarray  #: int64 ``(n,)``, numbers of classes
    confidence: np.ndarray  #: float64 ``(n,)``, probabilities of the predicted classes


@dataclass(frozen=True)
class ExportedImage:
    """An image with all that is exported of it."""

    number: int  #: row of the table ``images``
    name: str  #: POSIX path relative to the root of the data set
    split: str
    label: int  #: number of its class
    size_wh: tuple[int, int]  #: of the upright photograph
    boxes_xyxy: np.ndarray  #: float64 ``(slots, 4)`` in pixels of the upright photograph, as `Selection.slots`
    weights: np.ndarray  #: float64 ``(κ,)``, share of each primary region in the mixture
    predicted: int | None  #: number of the predicted class
    confidence: float | None


@dataclass(frozen=True)
class Selection:
    """Images, regions and predictions to export. Iterating yields an `ExportedImage` for each image."""

    boxes: Boxes
    root: Path  #: folder of the images
    rows: np.ndarray  #: rows among the usable images, increasing
    regions: str  #: all, primary or secondary
    categories: str = "kind"  #: kind or slot
    predictions: tuple[np.ndarray, np.ndarray] | None = None  #: predicted class and its probability, of each row

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The exported regions of an image, in the layout's order."""
        layout = self.boxes.layout
        primary = [] if layout.kinds == "secondary" else list(range(layout.primary))
        slots = [Slot(k, "primary", f"primary-{k}") for k in primary]
        for pair in layout.pairs.tolist():
            slots.append(Slot(len(slots), "secondary", "secondary-{}-{}".format(*pair)))
        return tuple(slot for slot in slots if self.regions in ("all", slot.kind))

    @property
    def categories_of_slots(self) -> list[str]:
        """The category of each of the `slots`."""
        return [slot.name if self.categories == "slot" else slot.kind for slot in self.slots]

    @property
    def unreadable(self) -> int:
        """Number of images of the same splits that could not be read when regions were proposed."""
        boxes = self.boxes
        of_splits = np.isin(boxes.splits, np.unique(boxes.splits[self.images]))
        return int(of_splits.sum()) - len(self.rows)

    @property
    def images(self) -> np.ndarray:
        """Numbers of the images."""
        return self.boxes.usable[self.rows]

    def __iter__(self) -> Iterator[ExportedImage]:
        boxes, slots = self.boxes, [slot.number for slot in self.slots]
        for place, (row, number) in enumerate(zip(self.rows.tolist(), self.images.tolist(), strict=True)):
            primary = boxes.primary_xyxy[boxes.row_of(row, 0)] if boxes.layout.count else np.zeros((0, 4))
            found = boxes.layout.boxes(primary)[slots] if slots else np.zeros((0, 4))
            width, height = boxes.sizes_wh[number].tolist()
            predicted, confidence = self.predictions or (None, None)
            yield ExportedImage(
                number=number,
                name=boxes.names[number].decode(),
                split=str(boxes.splits[number]),
                label=int(boxes.labels[number]),
                size_wh=(width, height),
                boxes_xyxy=found.astype(np.float64).round(_DECIMALS),
                weights=boxes.weights[boxes.row_of(row, 0)].astype(np.float64).round(6) if slots else np.zeros(0),
                predicted=None if predicted is None else int(predicted[place]),
                confidence=None if confidence is None else float(confidence[place]),
            )

    def weight_of(self, image: ExportedImage, slot: Slot) -> float | None:
        """The mixture weight of a primary region, the share of the keypoints that it has; None for a pair."""
        return float(image.weights[slot.number]) if slot.kind == "primary" else None

    def pixels(self, image: ExportedImage) -> np.ndarray:
        """Read the upright photograph, uint8 RGB ``(H, W, 3)``.

        Raises: `ImageError` if it cannot be read, `MismatchError` if it has another size than in the boxes file.
        """
        found = read_image(self.root / image.name, pixel_limit(self.boxes.settings.get("proposals", {})))
        if found.shape[1::-1] != image.size_wh:
            raise MismatchError(
                f"{self.root / image.name} is {found.shape[1]} x {found.shape[0]} pixels, but {self.boxes.path} has "
                f"its boxes at {image.size_wh[0]} x {image.size_wh[1]}; propose again with --restart"
            )
        return found

    def orientation(self, image: ExportedImage) -> int:
        """EXIF orientation of the file, 1 to 8; other programs may show it lying unless it is `UPRIGHT`."""
        return read_orientation(self.root / image.name)


def select(
    boxes: Boxes,
    root: Path,
    split: str | None = None,
    regions: str = "all",
    categories: str = "kind",
    predictions: Predictions | None = None,
) -> Selection:
    """Select the usable images of a split, or of all, with their regions.

    Args:
        boxes: Boxes file of images.
        root: Folder of the images.
        split: Name of the split; None for all splits.
        regions: Which regions: all, primary or secondary.
        categories: Category of a region: its kind (primary or secondary) or its slot.
        predictions: Answers for exactly these images, in any order.

    Raises: `ConfigurationError` for a boxes file of clips, or regions that it does not have; `DatasetError` for a split
        without images; `MismatchError` for predictions of other images or classes.
    """
    if boxes.of_clips:
        raise ConfigurationError(
            f"the rows of {boxes.path} are clips, and these formats hold single images; save the frames as images, and "
            "propose their regions with --dataset folder"
        )
    rows = np.arange(len(boxes.usable)) if split is None else boxes.rows(split)
    if not len(rows):
        raise DatasetError(f"{boxes.path} has no usable images in {split}; it has {', '.join(_splits(boxes))}")
    found = Selection(boxes, root, rows, regions, categories)
    if regions != "all" and not found.slots:
        raise ConfigurationError(f"{boxes.path} has no {regions} regions (its regions: {boxes.layout.kinds})")
    if predictions is None:
        return found
    return Selection(boxes, root, rows, regions, categories, _aligned(found, predictions))


def _splits(boxes: Boxes) -> list[str]:
    return [str(split) for split in dict.fromkeys(boxes.splits[boxes.usable].tolist())] or ["none"]


def _aligned(selection: Selection, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes and their probabilities in the order of the selection."""
    boxes, place = selection.boxes, {name: k for k, name in enumerate(predictions.names)}
    if predictions.classes != boxes.classes:
        raise MismatchError(f"the predictions are for other classes than those of {boxes.path}")
    names = [boxes.names[number].decode() for number in selection.images.tolist()]
    lacking = [name for name in names if name not in place]
    if lacking or len(place) != len(names):
        first = f", first {printable(lacking[0])}" if lacking else ""
        raise MismatchError(
            f"the predictions are for {len(place):,} images, of which {len(names) - len(lacking):,} are among the "
            f"{len(names):,} of {boxes.path}{first}; name the boxes file that the run was evaluated on"
        )
    order = np.array([place[name] for name in names])
    known = boxes.contents[selection.images].tolist()
    for name, content, told in zip(names, known, (predictions.contents[k] for k in order.tolist()), strict=True):
        if len(content) == len(told) == 16 and content.decode() != told:
            raise MismatchError(
                f"{printable(name)} was another photograph when the run was evaluated; run agnet evaluate again"
            )
    return predictions.predicted[order], predictions.confidence[order]
