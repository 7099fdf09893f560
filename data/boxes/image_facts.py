"""Facts about one image in a boxes file, and look-up of that image by what a user types."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..errors import ConfigurationError
from ..spelling import close_names
from ..text import printable, rows_called, table
from . import schema
from .reader import Boxes, Listing

_SHOWN = 3


@dataclass(frozen=True)
class Region:
    """A region in pixels of the upright original, numbered as in the file's tables."""

    region: int
    pair: tuple[int, int] | None  #: the two primaries that a secondary encloses
    box_xyxy: tuple[float, float, float, float]
    area: float  #: as a share of the image
    keypoints: int | None  #: None for a secondary, as is its weight
    weight: float | None


@dataclass(frozen=True)
class FrameFacts:
    """The regions of one frame of a clip."""

    frame: int  #: number in the clip
    regions: tuple[Region, ...]
    valid: tuple[bool, ...]  #: of each region, False if its box, or a member's, was filled in


@dataclass(frozen=True)
class ClipFacts:
    """What the file holds of a clip alone."""

    frames: int
    frames_a_second: float
    with_regions: tuple[FrameFacts, ...]


@dataclass(frozen=True)
class ImageFacts:
    """A row of the table ``images`` and the related rows of other tables; an unreadable image has no regions."""

    image: str
    row: int
    class_name: str
    split: str
    status: str
    reason: str  #: why it is unreadable, or empty
    width: int
    height: int
    file_bytes: int
    content_blake2b: str
    keypoints: int
    distinct_keypoints: int
    distinct_regions: int
    regions: tuple[Region, ...]  #: of a clip, those of the first frame that has some
    clip: ClipFacts | None  #: None for an image

    def to_dict(self) -> dict[str, object]:
        """The facts as a dictionary of numbers, texts, lists and dictionaries only."""
        return asdict(self)


def find_image(listing: Listing, name: str) -> int:
    """Find the row of the image called ``name``: its path, a unique ending of that path (``cat/001.jpg``), or its row.

    Raises: `ConfigurationError` if no image matches, with the closest names, or if several do.
    """
    names, called = [path.decode() for path in listing.names.tolist()], rows_called(listing.of_clips)
    if name in names:
        return names.index(name)
    found = [row for row, path in enumerate(names) if path.endswith("/" + name)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(names[row] for row in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise ConfigurationError(
            printable(f"{len(found)} {called} end in {name}: {shown}{more}; give more of the path")
        )
    if name.isascii() and name.isdigit():
        if int(name) < len(names):
            return int(name)
        raise ConfigurationError(f"{listing.path} has no {called[:-1]} {name}: its rows are 0 to {len(names) - 1}")
    # Compare only as many path components as were typed, so that further folders do not count as a difference.
    parts = name.count("/") + 1
    endings: dict[str, str] = {}
    for path in names:
        endings.setdefault("/".join(path.split("/")[-parts:]), path)
    close = [endings[ending] for ending in close_names(name, endings)]
    meant = f"; did you mean {' or '.join(close)}?" if close else f"; its {called} have names such as {names[0]}"
    raise ConfigurationError(printable(f"{listing.path} has no {called[:-1]} {name}{meant}"))


def image_facts(boxes: Boxes, row: int) -> ImageFacts:
    """Collect what ``boxes`` holds about the image in ``row`` of the table ``images``."""
    name = boxes.names[row].decode()
    usable = boxes.status[row] != schema.STATUS_UNREADABLE
    width, height = boxes.sizes_wh[row].tolist()
    at = int(np.searchsorted(boxes.usable, row))
    return ImageFacts(
        image=name,
        row=row,
        class_name=boxes.classes[boxes.labels[row]],
        split=str(boxes.splits[row]),
        status=str(boxes.status[row]),
        reason="" if usable else dict(boxes.failures).get(name, "no reason is recorded"),
        width=width,
        height=height,
        file_bytes=int(boxes.file_bytes[row]),
        content_blake2b=boxes.contents[row].decode(),
        keypoints=int(boxes.total_keypoints[row]),
        distinct_keypoints=int(boxes.distinct_keypoints[row]),
        distinct_regions=int(boxes.distinct_regions[row]),
        regions=_regions(boxes, at, int(boxes.frames_of(at)[0])) if usable else (),
        clip=_clip(boxes, row, at if usable else None),
    )


def facts_text(facts: ImageFacts) -> str:
    """The facts as readable text."""
    lines = [
        f"{facts.image} ({'clip' if facts.clip else 'image'} {facts.row})",
        f"  class      {facts.class_name}",
        f"  split      {facts.split}",
        f"  status     {facts.status}{': ' if facts.reason else ''}{facts.reason}",
        f"  file       {facts.file_bytes:,} bytes",
    ]
    if facts.width:
        lines.append(f"  size       {facts.width:,} x {facts.height:,} pixels")
    if facts.clip and facts.clip.frames:
        lines.append(f"  frames     {facts.clip.frames:,}, {facts.clip.frames_a_second:.3g} a second")
    if facts.regions:
        lines += [
            f"  keypoints  {facts.keypoints:,}, at {facts.distinct_keypoints:,} places",
            f"  regions    {len(facts.regions)}, {facts.distinct_regions} distinct",
            *(_frames_text(facts.clip) if facts.clip else []),
            "",
        ]
        rows = [("region", "x0", "y0", "x1", "y1", "area", "keypoints", "weight")]
        for region in facts.regions:
            label = f"{region.region}" + (f" = {region.pair[0]}+{region.pair[1]}" if region.pair else "")
            keypoints = "" if region.keypoints is None else f"{region.keypoints:,}"
            weight = "" if region.weight is None else f"{region.weight:.3f}"
            x0, y0, x1, y1 = (f"{value:.1f}" for value in region.box_xyxy)
            rows.append((label, x0, y0, x1, y1, f"{region.area:.1%}", keypoints, weight))
        lines += table(rows)
    return "\n".join(map(printable, lines))


def _frames_text(clip: ClipFacts) -> list[str]:
    """Which frames have regions, and which of them are shown."""
    numbers = ", ".join(f"{one.frame}" for one in clip.with_regions)
    filled_in = [number for number, valid in enumerate(clip.with_regions[0].valid) if not valid]
    note = f"; filled in: {', '.join(map(str, filled_in))}" if filled_in else ""
    return [
        f"  in frames  {numbers}",
        f"  here       those of frame {clip.with_regions[0].frame}{note}; --json has all",
    ]


def _clip(boxes: Boxes, row: int, usable: int | None) -> ClipFacts | None:
    """Collect what the file holds of the clip in ``row``, and of its regions if it is number ``usable`` of those."""
    if boxes.clips is None:
        return None
    with_regions = []
    for frame in [] if usable is None else boxes.frames_of(usable).tolist():
        assert usable is not None
        regions, primary = _regions(boxes, usable, frame), boxes.primary_valid[boxes.row_of(usable, frame)].tolist()
        valid = tuple(all(primary[member] for member in one.pair or (one.region,)) for one in regions)
        with_regions.append(FrameFacts(frame, regions, valid))
    rate = float(boxes.clips.frames_a_second[row])
    return ClipFacts(int(boxes.clips.frames[row]), round(rate, 4), tuple(with_regions))


def _regions(boxes: Boxes, usable: int, frame: int) -> tuple[Region, ...]:
    """The regions of usable image ``usable``, or of the frame of a clip."""
    regions, layout = boxes.regions(usable, frame), boxes.layout
    width, height = regions.size_wh
    primary = boxes.primary_xyxy[boxes.row_of(usable, frame)]
    # The file holds the primaries in every layout: secondaries are derived from them.
    pairs = [None] * layout.primary + [tuple(pair) for pair in layout.pairs.tolist()]
    all_boxes = np.concatenate([primary, layout.secondary(primary)]).astype(np.float64)
    rows = []
    for number, (pair, box) in enumerate(zip(pairs, all_boxes, strict=True)):
        x0, y0, x1, y1 = (round(value, 2) for value in box.tolist())
        rows.append(
            Region(
                region=number,
                pair=pair,
                box_xyxy=(x0, y0, x1, y1),
                area=float((box[2] - box[0]) * (box[3] - box[1]) / (width * height)),
                keypoints=None if pair else int(regions.keypoints[number]),
                weight=None if pair else round(float(regions.weights[number]), 6),
            )
        )
    return tuple(rows)
