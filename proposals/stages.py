"""Figure of the stages from a photograph to its regions (paper, Figures 3 and 4): keypoints, mixture, boxes, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np

from ..data.boxes.reader import Boxes
from ..data.errors import ConfigurationError
from ..data.picture_rows import PictureRows, Row, Tile
from ..data.text import csv_text
from .figures import draw_stages
from .inspection import find_groups

_LETTERS = 20  # in a line below a picture
_COLUMNS = (
    *("image", "class", "split", "region", "first", "second", "x0", "y0", "x1", "y1"),
    *("keypoints", "weight", "width", "height"),
)


@dataclass(frozen=True)
class StagesFigure:
    """The stages of a few images, in rows."""

    pictures: PictureRows
    caption: str  #: one line
    warnings: list[str]  #: of images whose regions are found differently now
    table: list[list[object]]  #: a row for each region of each image

    def csv(self) -> str:
        """One row per region: its box in pixels, and of a primary region its keypoints and weight."""
        return csv_text([_COLUMNS, *self.table])


def stages_figure(boxes: Boxes, images: Sequence[int], root: Path) -> StagesFigure:
    """Draw the stages of images, given by their numbers, from their regions in the file.

    Raises: `ConfigurationError` for a file without regions or of clips, `ImageError` for an image that could not be
    used, or cannot be read now.
    """
    boxes.require_regions("a figure of regions")
    if boxes.of_clips:
        raise ConfigurationError(f"{boxes.path} holds clips: agnet inspect --image draws the regions of their frames")
    rows, warnings, table = [], [], list[list[object]]()
    for image in images:
        name, class_name = boxes.names[image].decode(), boxes.classes[boxes.labels[image]]
        pixels, regions, groups, warning = find_groups(boxes, image, root)
        stages = draw_stages(pixels, regions, groups)
        rows.append(
            Row([Tile(picture, tuple(wrap(said, _LETTERS))) for said, picture in stages], (class_name, Path(name).name))
        )
        warnings += [warning] if warning else []
        primary = regions.layout.kinds != "secondary"
        known = zip(regions.primary_xyxy, regions.keypoints.tolist(), regions.weights, strict=True)
        for slot, (box, keypoints, weight) in enumerate(known if primary else ()):
            found = [slot, "", "", *_rounded(box), keypoints, f"{weight:.4g}"]
            table.append([name, class_name, str(boxes.splits[image]), *found, *regions.size_wh])
        around = regions.layout.secondary(regions.primary_xyxy)
        for number, (box, pair) in enumerate(zip(around, regions.layout.pairs.tolist(), strict=True)):
            region = number + len(regions.primary_xyxy) * primary
            found = [region, *pair, *_rounded(box), "", ""]
            table.append([name, class_name, str(boxes.splits[image]), *found, *regions.size_wh])
    return StagesFigure(PictureRows(rows), _caption(boxes, len(rows)), warnings, table)


def _rounded(box: np.ndarray) -> list[float]:
    return [round(edge, 1) for edge in box.tolist()]


def _caption(boxes: Boxes, images: int) -> str:
    layout, settings = boxes.layout, boxes.settings.get("proposals", {})
    count = layout.count - len(layout.pairs)
    return (
        f"From photograph to regions, {images} of {len(boxes.names):,} images of {boxes.title}: method "
        f"{settings.get('method', 'unknown')}, {count} primary regions and {len(layout.pairs)} boxes around "
        "pairs of them, of which those are drawn that overlap least; keypoints are as found now, boxes as in the file."
    )
