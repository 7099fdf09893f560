"""Display of a boxes file's regions over their photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..data.boxes import schema
from ..data.boxes.reader import Boxes
from ..data.clips import frames_numbered
from ..data.drawing import captioned_sheet, draw_regions
from ..data.errors import ConfigurationError, ImageError
from ..data.images import pixel_limit, read_image
from ..data.regions import Regions
from .figures import Tile, draw_proposal, draw_sheet
from .hulls import Groups, in_slot_order, regions_of_groups
from .one_image import propose_groups
from .provenance import revision_of
from .settings import NETWORKS, SHUFFLES, ProposalSettings


def picture_image(boxes: Boxes, image: int, root: Path) -> tuple[np.ndarray, str]:
    """Draw how image number ``image`` got its regions. Returns uint8 RGB and a warning or an empty text.

    The regions come from the file. The keypoints, which it does not contain, are detected again.

    Raises: `ImageError` if the image could not be used, or cannot be read now.
    """
    name = boxes.names[image].decode()
    pixels, regions, groups, warning = find_groups(boxes, image, root)
    width, height = regions.size_wh
    points = f"{regions.total_keypoints:,} keypoints, {regions.distinct_keypoints:,} at distinct places"
    facts = [f"row {image}", f"class {boxes.classes[boxes.labels[image]]}", str(boxes.splits[image])]
    facts.append(f"{width:,} x {height:,} pixels")
    if groups is not None:
        facts.append(points)
    note = "The keypoints are as found now, the boxes as in the file: they differ" if warning else ""
    picture = draw_proposal(pixels, regions, groups, name, " · ".join(facts), note if groups is not None else "")
    return picture, warning


def find_groups(boxes: Boxes, image: int, root: Path) -> tuple[np.ndarray, Regions, Groups | None, str]:
    """Read image number ``image``, and detect the keypoints behind its regions again.

    Returns: its pixels, uint8 RGB; its regions, from the file; their keypoints in slot order, or None for methods other
    than SIFT; and a warning or an empty text.

    Raises: `ImageError` if the image could not be used, or cannot be read now.
    """
    name = boxes.names[image].decode()
    if boxes.status[image] == schema.STATUS_UNREADABLE:
        raise ImageError(f"{name} has no regions: {dict(boxes.failures).get(name, 'no reason is recorded')}")
    pixels = _read(boxes, image, root)
    regions = boxes.regions(int(np.searchsorted(boxes.usable, image)))
    groups, warning = _find_again(boxes, pixels, regions)
    return pixels, regions, groups, f"{name}: {warning}" if warning else ""


def picture_clip(boxes: Boxes, image: int, root: Path, count: int = 8) -> np.ndarray:
    """Draw up to ``count`` frames of clip number ``image`` with their regions, evenly spaced, as uint8 RGB.

    Raises: `ImageError` if the clip could not be used, or cannot be read now.
    """
    name = boxes.names[image].decode()
    if boxes.status[image] == schema.STATUS_UNREADABLE:
        raise ImageError(f"{name} has no regions: {dict(boxes.failures).get(name, 'no reason is recorded')}")
    row = int(np.searchsorted(boxes.usable, image))
    _check_there(boxes, image, root)
    assert boxes.clips is not None
    there = boxes.frames_of(row) if len(boxes.frames_of(row)) > 1 else np.arange(boxes.clips.frames[image])
    chosen = there[np.linspace(0, len(there) - 1, min(count, len(there))).round().astype(int)].tolist()
    tiles = []
    for frame in frames_numbered(root / name, chosen, pixel_limit(boxes.settings.get("proposals", {}))):
        regions = boxes.regions(row, frame.number)
        picture = draw_regions(frame.pixels, regions.primary_xyxy, boxes.layout, 480, regions.keypoints > 0)
        tiles.append((picture, f"frame {frame.number} · {frame.seconds:.2f} s"))
    facts = f"{name} · row {image} · class {boxes.classes[boxes.labels[image]]} · {boxes.splits[image]}"
    return captioned_sheet(tiles, 4, f"{facts} · white: around 0 and 1 · dashed: filled in")


def picture_sheet(boxes: Boxes, root: Path, count: int) -> tuple[np.ndarray, list[str]]:
    """Draw a contact sheet of up to ``count`` images, evenly over the classes, and last some that could not be used.

    Returns: the sheet, and the reasons for images that cannot be read now.
    Raises: `ImageError` if none can be read.
    """
    tiles, failures = [], []
    for row in rows_of_sheet(boxes, count).tolist():
        image = int(boxes.usable[row])
        try:
            pixels, reason = _read(boxes, image, root), ""
        except ImageError as error:
            failures.append(str(error))
            pixels, reason = None, str(error)
        tiles.append(_tile(boxes, image, pixels, boxes.regions(row), reason))
    if failures and len(failures) == len(tiles):
        raise ImageError(failures[0])
    reasons = dict(boxes.failures)
    for image in _unreadable(boxes, count):
        tiles.append(_tile(boxes, image, None, None, reasons.get(boxes.names[image].decode(), "no reason is recorded")))
    return draw_sheet(tiles), failures


def rows_of_sheet(boxes: Boxes, count: int) -> np.ndarray:
    """Choose the usable images of a sheet of ``count``, evenly over the classes: int64 rows."""
    by_class = np.argsort(boxes.labels[boxes.usable], kind="stable")
    count = min(count - len(_unreadable(boxes, count)), len(by_class))
    return by_class[np.linspace(0, len(by_class) - 1, count).round().astype(int)]


def _unreadable(boxes: Boxes, count: int) -> list[int]:
    """The first images that could not be used, at most a sixth of a sheet of ``count``."""
    return np.flatnonzero(boxes.status == schema.STATUS_UNREADABLE)[: count // 6].tolist()


def _tile(boxes: Boxes, image: int, pixels: np.ndarray | None, regions: Regions | None, reason: str) -> Tile:
    facts = f"row {image} · {boxes.splits[image]} · {boxes.status[image]}"
    return Tile(pixels, regions, boxes.classes[boxes.labels[image]], facts, boxes.names[image].decode(), reason)


def _read(boxes: Boxes, image: int, root: Path) -> np.ndarray:
    """Read an image, or the first frame with regions of a clip."""
    path = _check_there(boxes, image, root)
    limit = pixel_limit(boxes.settings.get("proposals", {}))
    if boxes.of_clips:
        first = int(boxes.frames_of(int(np.searchsorted(boxes.usable, image)))[0])
        return frames_numbered(path, [first], limit)[0].pixels
    return read_image(path, limit)


def _check_there(boxes: Boxes, image: int, root: Path) -> Path:
    path = root / boxes.names[image].decode()
    if not path.exists():
        if any((root / name.decode()).exists() for name in boxes.names.tolist()):
            raise ImageError(f"{path} is not there, though others are; restore it, or propose again with --restart")
        raise ImageError(f"{path} is not there; say where the images of {boxes.path} are with --root")
    return path


def _find_again(boxes: Boxes, pixels: np.ndarray, regions: Regions) -> tuple[Groups | None, str]:
    """Detect the keypoints behind ``regions``, in slot order, if no weights are needed. Also returns a warning.

    The keypoints are None for methods other than SIFT, whose points are the boxes' own corners, and for regions of
    another image or in other slots.
    """
    recorded = boxes.settings.get("proposals", {})
    if recorded.get("method") in (*NETWORKS, *SHUFFLES):
        return None, ""
    try:
        settings = ProposalSettings.from_dict(recorded)
    except ConfigurationError as error:
        return None, f"its keypoints cannot be found again ({error})"
    groups = propose_groups(pixels, settings)
    size_wh = (pixels.shape[1], pixels.shape[0])
    found = regions_of_groups(groups, settings.layout, settings.slot_order, size_wh)
    same = (
        found.size_wh == regions.size_wh
        and np.array_equal(found.hull_counts, regions.hull_counts)
        and np.array_equal(found.hull_xy, regions.hull_xy)
    )
    cause = "the image has changed (try --verify), or a library has"
    if not revision_of(settings.method).items() <= boxes.settings.get("versions", {}).items():
        cause = f"since then agnet's {settings.method} has changed (propose again with --restart)"
    warning = "" if same else f"other regions are found now than those in the file: {cause}"
    return (in_slot_order(groups, settings.slot_order) if settings.method == "sift" else None), warning
