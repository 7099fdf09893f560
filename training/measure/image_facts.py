"""What a boxes file says of each measured image, as columns of the table of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...data.boxes.reader import Boxes, Listing, read_listing
from ...data.errors import AgnetError
from ...data.places import follow_hint
from ..runs.folder import read_config
from ..runs.seen import EARLIER, UNKNOWN, names_by_content, read_seen

WITHOUT_NAME = "a training image whose name is unknown"


def image_facts(
    boxes: Boxes, rows: np.ndarray, trained_on: Mapping[str, str], top5: Sequence[str] | None = None
) -> dict[str, list[object]]:
    """Return columns of values for each image ``(n,)`` of these ``rows`` of the boxes file's usable images, by name.

    Args:
        boxes: Boxes file.
        rows: Rows of the images.
        trained_on: Names of training images by the hash of their content, as from `names_of_seen`.
        top5: Names of the likeliest classes of each image; no column if there are none.
    """
    images = boxes.usable[rows]
    widths, heights = boxes.sizes_wh[images].T
    contents = [content.decode(errors="replace") for content in boxes.contents[images].tolist()]
    return {
        "row": images.tolist(),
        "label": boxes.labels[images].tolist(),
        **({} if top5 is None else {"top5": list(top5)}),
        "width": widths.tolist(),
        "height": heights.tolist(),
        "status": boxes.status[images].tolist(),
        "keypoints": boxes.total_keypoints[images].tolist(),
        "copies_training_image": [trained_on.get(content, "") for content in contents],
    }


def names_of_seen(run: Path, boxes: Boxes, split: str) -> dict[str, str]:
    """Map the content hash of each image that the run has seen to a name, `WITHOUT_NAME` where it is unknown.

    These are the images that it, or the run that provided its initial weights, was trained on or selected by; for
    ``split`` val, those that it was trained on.
    """
    parts = ("train",) if split == "val" else ("train", "val")
    recorded = read_seen(run, [*parts, EARLIER])
    listing = _own_listing(run, boxes)
    named = names_by_content(listing, parts) if listing else {}
    if recorded is None:
        return named
    return {content: named.get(content, WITHOUT_NAME) for content in recorded - {UNKNOWN}}


def _own_listing(run: Path, boxes: Boxes) -> Listing | None:
    """The boxes file that the run was trained on, or one with the same images; None if it is gone."""
    try:
        recorded = read_config(run)["boxes"]
        if recorded.get("fingerprint") == boxes.fingerprint:
            return boxes
        file = follow_hint(recorded.get("file_relative_to_run"), run)
        listing = read_listing(file) if file else None
    except AgnetError:
        return None
    same = listing is not None and listing.attributes.get("fingerprint") == recorded.get("fingerprint")
    return listing if same else None
