"""Figure of the stages from a photograph to its regions (paper, Figures 3 and 4): keypoints, mixture, boxes, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from ..data.boxes.image_facts import image_facts
from ..data.boxes.reader import Boxes
from ..data.errors import ConfigurationError
from ..data.picture_rows import PictureRows, Row, Tile
from ..data.text import csv_text
from .figures import draw_stages
from .inspection import find_groups

_LETTERS = 20  # in a line below a picture
_COLUMNS = (
    *("image", "class", "split", "width", "height", "region", "first", "second"),
    *("x0", "y0", "x1", "y1", "keypoints", "weight"),
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
        facts = image_facts(boxes, image)
        pixels, regions, groups, warning = find_groups(boxes, image, root)
        tiles = [Tile(picture, tuple(wrap(said, _LETTERS))) for said, picture in draw_stages(pixels, regions, groups)]
        rows.append(Row(tiles, (facts.class_name, Path(facts.image).name)))
        warnings += [warning] if warning else []
        about = facts.image, facts.class_name, facts.split, facts.width, facts.height
        for one in facts.regions:
            table.append([*about, one.region, *(one.pair or ("", "")), *one.box_xyxy, one.keypoints, one.weight])
    return StagesFigure(PictureRows(rows), _caption(boxes, len(rows)), warnings, table)


def _caption(boxes: Boxes, images: int) -> str:
    layout, settings = boxes.layout, boxes.settings.get("proposals", {})
    pairs = f"; {len(layout.pairs)} boxes around pairs, of which those that overlap least" if len(layout.pairs) else ""
    return (
        f"From photograph to regions, {images} of {len(boxes.names):,} images of {boxes.title}: method "
        f"{settings.get('method', 'unknown')}, {layout.primary} primary regions{pairs}; keypoints are as found now, "
        "boxes as in the file."
    )
