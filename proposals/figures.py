"""Pictures that show how an image's regions are found, in the style of the paper's Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..data.drawing import (
    SLOT_COLOURS,
    draw_boxes,
    draw_tag,
    place_tags,
    spots_in_box,
    tag_size,
)
from ..data.fonts import draw_text, shortened, text_width, wrapped
from ..data.palette import BODY, FAINT, PAPER, RULE, SMALL, TEXT, WRONG
from ..data.regions import Regions
from .hulls import Groups

# Drawn at twice a panel's size, then reduced: smooth at every angle.
_FINE = 2
_MARGIN, _GAP, _CAPTION = 28, 24, 28
_TILE = 230
_PRINTED = 240  # pixels, width of a printed panel, a fifth of two columns of text: tags have 5 points
_TAG = 13 * _FINE
_SLIVER = 40  # minimum width and height of a panel
_PAIRS = 4  # number of secondary regions that remain distinguishable in one picture
_INK = "#101010"
_RING = "#ffe119"


class _Arrangement(NamedTuple):
    columns: int
    width: int  #: maximum of a panel, in pixels
    height: int


class _Panel(NamedTuple):
    caption: str
    picture: Image.Image


def draw_proposal(
    image: np.ndarray, regions: Regions, groups: Groups | None, title: str, facts: str, note: str = ""
) -> np.ndarray:
    """Draw the photograph, its keypoints, their clusters, the primary regions, and some of the boxes around pairs.

    Args:
        image: uint8 RGB array ``(H, W, 3)``.
        regions: Regions of the image; scaled to it if their frame has another size.
        groups: Keypoints of ``image`` in slot order (`in_slot_order`); None omits keypoints and clusters.
        title: First line of text.
        facts: Second line of text.
        note: Third line of text, in red.

    Returns: uint8 RGB.
    """
    arrangement = _arrange(image.shape[1] / image.shape[0])
    panels = _stages(_enlarge(image, arrangement), image.shape, regions, groups)
    reduced = [_Panel(caption, _frame(picture.reduce(_FINE))) for caption, picture in panels]
    reduced.append(_legend(regions, "points" if groups is None else "keypoints"))
    columns = 4 if len(reduced) == 4 and arrangement.columns == 3 else arrangement.columns
    return _page(reduced, columns, title, facts, note)


def draw_stages(image: np.ndarray, regions: Regions, groups: Groups | None) -> list[tuple[str, np.ndarray]]:
    """Draw the panels of `draw_proposal`, small and with large tags, each with its caption: for print.

    Args: as for `draw_proposal`.

    Returns: (caption, uint8 RGB) of each panel.
    """
    arrangement = _Arrangement(1, _PRINTED, round(1.4 * _PRINTED))
    panels = _stages(_enlarge(image, arrangement), image.shape, regions, groups)
    return [(caption, np.asarray(_frame(picture))) for caption, picture in panels]


def _stages(fine: Image.Image, shape: tuple[int, ...], regions: Regions, groups: Groups | None) -> list[_Panel]:
    """Draw every stage over ``fine``, the enlarged photograph, which had the height and width of ``shape``."""
    primary = regions.primary_xyxy * np.tile(np.divide(fine.size, regions.size_wh), 2)
    panels = [_Panel("photograph", fine)]
    if groups is not None:
        points = groups.points_xy * np.divide(fine.size, shape[1::-1])
        if len(points):
            panels.append(_Panel(_several(len(points), "keypoint"), _draw_rings(fine, points)))
        if (groups.labels >= 0).any():
            panels.append(_Panel("in clusters, with their hulls", _draw_clusters(fine, points, groups.labels)))
    slots = [str(slot) for slot in range(len(primary))]
    if not regions.enough_keypoints:
        whole = _draw_boxes(fine, primary[:1], [f"0 to {slots[-1]}"], 3 * _FINE)
        return [*panels, _Panel("every region is the whole image", whole)]
    panels.append(_Panel("primary regions", _draw_boxes(fine, primary, slots, 3 * _FINE)))
    around = regions.layout.secondary(primary)
    if chosen := choose_pairs(around, _PAIRS):
        caption = f"{len(chosen)} of {_several(len(around), 'secondary region')}"
        caption += ": the least alike" if len(chosen) < len(around) else ""
        panels.append(_Panel(caption, _draw_pairs(fine, around[chosen], regions.layout.pairs[chosen])))
    return panels


class Tile(NamedTuple):
    """An image of a contact sheet."""

    image: np.ndarray | None  #: uint8 RGB; None if it cannot be read
    regions: Regions | None  #: None if it has none
    class_name: str
    facts: str  #: line of text
    name: str
    reason: str = ""  #: why it cannot be read


def draw_sheet(tiles: Sequence[Tile]) -> np.ndarray:
    """Draw a contact sheet of images with their primary regions, each above its class, its facts and its name.

    An image that cannot be read becomes a grey tile with the reason. One whose regions all are the whole image is
    marked.
    """
    columns = max(1, min(len(tiles), round((len(tiles) * 1.5) ** 0.5)))
    drawn = [(_frame(_draw_tile(tile)), tile) for tile in tiles]
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    heights = [max(picture.height for picture, _ in row) for row in rows]
    width, text = _TILE + 18, 80
    page = Image.new("RGB", (columns * width + 2 * _MARGIN - 18, sum(heights) + len(rows) * text + _MARGIN), PAPER)
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, (picture, tile) in enumerate(row):
            left, middle = _MARGIN + column * width, _MARGIN + column * width + _TILE // 2
            page.paste(picture, (left + (_TILE - picture.width) // 2, top + height - picture.height))
            lines = ((tile.class_name, BODY, TEXT), (tile.facts, SMALL, FAINT), (tile.name, SMALL, FAINT))
            for number, (line, size, colour) in enumerate(lines):
                place = middle, top + height + 6 + 18 * number
                draw_text(page, place, shortened(line, size, _TILE), size, colour, "ma")
        top += height + text
    return np.asarray(page)


def choose_pairs(boxes_xyxy: np.ndarray, count: int) -> list[int]:
    """Indices of the ``count`` boxes that differ most from each other, increasing; fewer if all others repeat them.

    The smallest box comes first. Then the box with the least maximum intersection over union with the chosen ones is
    added repeatedly.
    """
    if not len(boxes_xyxy):
        return []
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    areas = sides.prod(axis=1)
    shared = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[:, 2:]) - np.maximum(
        boxes_xyxy[:, None, :2], boxes_xyxy[:, :2]
    )
    intersection = shared.clip(0).prod(axis=2)
    likeness = intersection / (areas[:, None] + areas - intersection)
    chosen = [int(areas.argmin())]
    while len(chosen) < count:
        nearest = likeness[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        if nearest.min() > 0.999:
            break
        chosen.append(int(nearest.argmin()))
    return sorted(chosen)


def _arrange(aspect: float) -> _Arrangement:
    """Panel arrangement with readable sizes for any aspect ratio."""
    if aspect > 4:
        return _Arrangement(1, 1200, 480)
    if aspect > 2:
        return _Arrangement(2, 720, 480)
    if aspect >= 0.5:
        return _Arrangement(3, 460, 580)
    return _Arrangement(6, 360, 720 if aspect > 0.25 else 1000)


def _enlarge(image: np.ndarray, arrangement: _Arrangement) -> Image.Image:
    """Scale the photograph to `_FINE` times the size of its panel."""
    height, width = image.shape[:2]
    scale = min(arrangement.width / width, arrangement.height / height)
    # Keep the pixels of a tiny image visible, and widen a sliver enough to be seen.
    method = Image.Resampling.NEAREST if scale > 6 else Image.Resampling.LANCZOS
    size = [max(_SLIVER, round(side * scale)) * _FINE for side in (width, height)]
    return Image.fromarray(image).resize((size[0], size[1]), method)


def _soften(photograph: Image.Image, share: float = 0.45) -> Image.Image:
    """Make a photograph paler and greyer, so that colours over it stand out."""
    grey = Image.blend(photograph, photograph.convert("L").convert("RGB"), 0.6)
    return Image.blend(grey, Image.new("RGB", grey.size, PAPER), share)


def _frame(picture: Image.Image) -> Image.Image:
    """Add a hairline border, which marks the edge of white photographs."""
    return ImageOps.expand(picture, 1, RULE)


def _colour(slot: int) -> str:
    return SLOT_COLOURS[slot % len(SLOT_COLOURS)]


def _draw_rings(photograph: Image.Image, points_xy: np.ndarray) -> Image.Image:
    picture = _soften(photograph, 0.2)
    pen = ImageDraw.Draw(picture)
    radius = 3.5 * _FINE
    for colour, wider, width in ((_INK, 1.5, 5), (_RING, 0, 3)):
        for x, y in points_xy.tolist():
            reach = radius + wider
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=width)
    return picture


def _draw_clusters(photograph: Image.Image, points_xy: np.ndarray, slots: np.ndarray) -> Image.Image:
    """Draw keypoints in the colour of their region, with each region's hull."""
    picture = _soften(photograph)
    veil = Image.new("RGBA", picture.size)
    hulls = {}
    for slot in np.unique(slots[slots >= 0]).tolist():
        hull = cv2.convexHull(points_xy[slots == slot].astype(np.float32)).reshape(-1, 2)
        hulls[slot] = [tuple(vertex) for vertex in hull.tolist()]
        if len(hull) > 2:
            pane = Image.new("RGBA", picture.size)
            ImageDraw.Draw(pane).polygon(hulls[slot], fill=_colour(slot) + "38")
            veil = Image.alpha_composite(veil, pane)
    picture = Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for slot, hull in hulls.items():
        pen.line([*hull, *hull[:2]], fill=_colour(slot), width=2 * _FINE, joint="curve")
    for (x, y), slot in zip(points_xy.tolist(), slots.tolist(), strict=True):
        reach = 2.6 * _FINE
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=_colour(slot), outline=_INK, width=1)
    sizes = [tag_size(str(slot), _TAG) for slot in hulls]
    centres = [
        points_xy[slots == slot].mean(axis=0) - np.divide(size, 2) for slot, size in zip(hulls, sizes, strict=True)
    ]
    spots = [
        [tuple(c), *spots_in_box((*(c - size), *(c + np.multiply(size, 2))), size)]
        for c, size in zip(centres, sizes, strict=True)
    ]
    for slot, place in zip(hulls, place_tags(spots, sizes, picture.size), strict=True):
        draw_tag(picture, place, [(str(slot), _colour(slot))], _TAG)
    return picture


def _draw_boxes(photograph: Image.Image, boxes_xyxy: np.ndarray, labels: Sequence[str], width: int) -> Image.Image:
    """Draw boxes in slot colours between thin dark lines, which keep them visible on a photograph of their colour."""
    outer = boxes_xyxy + np.array([-1, -1, 1, 1])
    picture = draw_boxes(np.asarray(photograph), outer, [""] * len(labels), [_INK], width + 2)
    return Image.fromarray(draw_boxes(picture, boxes_xyxy, labels, width=width, text_size=_TAG))


def _draw_pairs(photograph: Image.Image, boxes_xyxy: np.ndarray, pairs: np.ndarray) -> Image.Image:
    """Draw boxes around ``pairs`` of primaries, dashed in both of their colours."""
    picture = _soften(photograph, 0.25)
    pen = ImageDraw.Draw(picture)
    labels = [((str(first), _colour(first)), (f"+{second}", _colour(second))) for first, second in pairs.tolist()]
    boxes = boxes_xyxy.tolist()
    for box, ((_, first), (_, second)) in zip(_part_edges(boxes_xyxy), labels, strict=True):
        _draw_dashes(pen, box, (first, second))
    sizes = [tag_size("".join(text for text, _ in parts), _TAG) for parts in labels]
    spots = [spots_in_box(box, size) for box, size in zip(boxes, sizes, strict=True)]
    for place, parts in zip(place_tags(spots, sizes, picture.size), labels, strict=True):
        draw_tag(picture, place, parts, _TAG)
    return picture


def _part_edges(boxes_xyxy: np.ndarray) -> list[list[float]]:
    """Move edges that coincide with a larger box's edge inwards by a line width: pairs often share a primary."""
    parted = boxes_xyxy.copy()
    step = 3 * _FINE + 2
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    largest_first = np.argsort(-sides.prod(axis=1), kind="stable")
    for turn, number in enumerate(largest_first.tolist()):
        box, drawn = parted[number], parted[largest_first[:turn]]
        for edge, inwards in enumerate((step, step, -step, -step)):
            along = 1 - edge % 2
            beside = (drawn[:, along] < box[along + 2]) & (box[along] < drawn[:, along + 2])
            for _ in range(turn):
                if sides[number].min() > 8 * step and (np.abs(drawn[beside, edge] - box[edge]) < step).any():
                    box[edge] += inwards
    return parted.tolist()


def _draw_dashes(pen: ImageDraw.ImageDraw, box_xyxy: Sequence[float], colours: tuple[str, str]) -> None:
    """Draw a box's border inside the box, in alternating dashes of two colours."""
    x0, y0, x1, y1 = map(round, box_xyxy)
    pen.rectangle((x0 - 1, y0 - 1, max(x0, x1), max(y0, y1)), outline=_INK, width=3 * _FINE + 2)
    thick, dash = 3 * _FINE, 11 * _FINE
    thick = max(1, min(thick, x1 - x0, y1 - y0))
    for start in range(0, max(x1 - x0, 1), dash):
        left, right, colour = x0 + start, min(x0 + start + dash, x1) - 1, colours[start // dash % 2]
        pen.rectangle((left, y0, max(left, right), y0 + thick - 1), fill=colour)
        pen.rectangle((left, max(y0, y1 - thick), max(left, right), max(y0, y1 - 1)), fill=colour)
    for start in range(0, max(y1 - y0, 1), dash):
        top, low, colour = y0 + start, min(y0 + start + dash, y1) - 1, colours[start // dash % 2]
        pen.rectangle((x0, top, x0 + thick - 1, max(top, low)), fill=colour)
        pen.rectangle((max(x0, x1 - thick), top, max(x0, x1 - 1), max(top, low)), fill=colour)


def _draw_tile(tile: Tile) -> Image.Image:
    if tile.image is None:
        return _grey_tile(tile.reason)
    height, width = tile.image.shape[:2]
    scale = _TILE * _FINE / max(width, height)
    size = (max(_FINE, round(width * scale)), max(_FINE, round(height * scale)))
    photograph = Image.fromarray(tile.image).resize(size, Image.Resampling.LANCZOS)
    if tile.regions is None:
        return photograph.reduce(_FINE)
    if not tile.regions.enough_keypoints:
        whole = photograph.reduce(_FINE)
        draw_tag(whole, (0, 0), [("regions: the whole image", TEXT)], SMALL)
        return whole
    primary = tile.regions.primary_xyxy * np.tile(np.divide(size, tile.regions.size_wh), 2)
    return _draw_boxes(photograph, primary, [""] * len(primary), 2 * _FINE).reduce(_FINE)


def _grey_tile(reason: str) -> Image.Image:
    """A tile in place of an image that cannot be read, with the reason."""
    picture = Image.new("RGB", (_TILE, _TILE), RULE)
    for number, line in enumerate(wrapped(reason, SMALL, _TILE - 20, 10)):
        draw_text(picture, (10, 12 + 18 * number), line, SMALL, TEXT)
    return picture


def _legend(regions: Regions, points: str) -> _Panel:
    """The keypoints, weight and area of each primary region, as a table in the regions' colours."""
    if not regions.enough_keypoints:
        return _Panel("too few keypoints", _write_lines(_too_few(regions), 15))
    boxes = regions.primary_xyxy
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / np.prod(regions.size_wh)
    rows, row_height = len(boxes), 26 if len(boxes) <= 12 else 19
    picture = Image.new("RGB", (340, 24 + rows * row_height + 4), PAPER)
    columns = (140, 225, 325)
    for right, text in zip(columns, (points, "weight", "of the image"), strict=True):
        draw_text(picture, (right, 16), text, 13, FAINT, "rs")
    for slot in range(rows):
        base = 24 + slot * row_height + 17
        draw_tag(picture, (0, base - 12), [(str(slot), _colour(slot))], 13)
        cells = (f"{regions.keypoints[slot]:,}", f"{regions.weights[slot]:.1%}", f"{areas[slot]:.1%}")
        for right, text in zip(columns, cells, strict=True):
            draw_text(picture, (right, base), text, 15, TEXT, "rs")
    return _Panel("the primary regions in numbers", picture)


def _too_few(regions: Regions) -> list[str]:
    needed = regions.layout.primary
    return [
        f"{_several(regions.distinct_keypoints, 'keypoint')} at distinct places:",
        f"fewer than the {needed} that {needed} regions need.",
        "So every region is the whole image.",
    ]


def _write_lines(lines: Sequence[str], size: int) -> Image.Image:
    picture = Image.new("RGB", (340, 24 * len(lines) + 8), PAPER)
    for number, line in enumerate(lines):
        draw_text(picture, (0, 24 * number + 16), line, size, TEXT, "ls")
    return picture


def _page(panels: Sequence[_Panel], columns: int, title: str, facts: str, note: str) -> np.ndarray:
    """Lay out panels in rows below a heading; columns are as wide, and rows as high, as their largest panel."""
    columns = min(columns, len(panels))
    cells = [max(panel.picture.width, round(text_width(panel.caption, 16))) for panel in panels]
    widths = [max(cells[column::columns]) for column in range(columns)]
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [_CAPTION + max(panel.picture.height for panel in row) for row in rows]
    heading = [(title, TEXT, 24), (facts, FAINT, 16)] + ([(note, WRONG, 16)] if note else [])
    width = max(sum(widths) + _GAP * (columns - 1), 560) + 2 * _MARGIN
    top = _MARGIN + sum(size + 10 for *_, size in heading) + 10
    page = Image.new("RGB", (width, top + sum(heights) + _GAP * (len(rows) - 1) + _MARGIN), PAPER)
    y = _MARGIN
    for text, colour, size in heading:
        draw_text(page, (_MARGIN, y), shortened(text, size, width - 2 * _MARGIN), size, colour)
        y += size + 10
    for row, height in zip(rows, heights, strict=True):
        left = _MARGIN
        for panel, column in zip(row, widths, strict=False):
            draw_text(page, (left, top + 14), panel.caption, 16, FAINT, "ls")
            page.paste(panel.picture, (left, top + _CAPTION))
            left += column + _GAP
        top += height + _GAP
    return np.asarray(page)


def _several(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
