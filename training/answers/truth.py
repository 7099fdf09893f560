"""True classes of images that are in the boxes file with which a run was trained."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...data.boxes.reader import Listing, read_listing
from ...data.errors import AgnetError
from ...data.names import TRAIN_FOLD
from ...data.places import follow_hint
from ...data.regions import content_hash
from ..runs.checkpoint_header import CheckpointHeader
from ..runs.folder import read_config
from ..runs.seen import read_seen

TRAINED_ON = "the run was trained on this image"
_PARTS = {
    "train": TRAINED_ON,
    TRAIN_FOLD: "in the fold of train that the run left out",
    "val": "the run's epoch was selected with this image, too",
    "test": "in the test split",
    "query": "in the query split",
    "gallery": "in the gallery split",
}


@dataclass(frozen=True)
class Truth:
    """The true class of an image."""

    name: str  #: name of the class
    part: str  #: its split and what that means, for display
    camera: str = ""  #: the camera that took it; empty if unknown


@dataclass(frozen=True)
class KnownImages:
    """The images of a boxes file, found by path or by content."""

    listing: Listing
    root: Path | None  #: folder of the images; None if unknown

    def truth(self, file: str) -> Truth | None:
        """Look up the class of the image ``file``; None if it is not in the data set, or is in several classes."""
        rows = [self._by_name[name] for name in self._names_of(file) if name in self._by_name]
        rows = rows or self._by_content(file)
        if len({int(self.listing.labels[row]) for row in rows}) != 1:
            return None
        parts = {str(self.listing.splits[row]) for row in rows}
        part = next(part for part in _PARTS if part in parts)  # of several, the most important
        cameras = {self.listing.cameras[row] for row in rows} if self.listing.cameras else {""}
        name = self.listing.classes[self.listing.labels[rows[0]]]
        return Truth(name, _PARTS[part], cameras.pop() if len(cameras) == 1 else "")

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name.decode(): row for row, name in enumerate(self.listing.names.tolist())}

    @cached_property
    def _by_size(self) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for row, size in enumerate(self.listing.file_bytes.tolist()):
            rows.setdefault(size, []).append(row)
        return rows

    def _names_of(self, file: str) -> list[str]:
        if self.root is None:
            return []
        relative = os.path.relpath(os.path.realpath(file), os.path.realpath(self.root))
        return [Path(relative).as_posix()]

    def _by_content(self, file: str) -> list[int]:
        try:
            rows = self._by_size.get(Path(file).stat().st_size, [])
            content = content_hash(Path(file).read_bytes()).encode() if rows else b""
        except OSError:
            return []
        return [row for row in rows if self.listing.contents[row] == content]


def known_images(run: Path, checkpoint: CheckpointHeader) -> KnownImages | None:
    """The images of the boxes file with which the run in the folder ``run`` was trained; None if it is not found."""
    try:
        places = read_config(run)["boxes"]
        file = follow_hint(places.get("file_relative_to_run"), run)
        if file is None:
            return None
        listing = read_listing(file)
    except AgnetError:
        return None
    listing = _without_fold(run, listing)
    # A network for retrieval has the persons of train, who come first.
    classes = listing.classes[: len(checkpoint.classes)] if listing.is_retrieval else listing.classes
    if listing.attributes.get("fingerprint") != checkpoint.fingerprint or classes != checkpoint.classes:
        return None  # the file was replaced by another
    root = follow_hint(listing.attributes.get("root_relative_to_this_file"), file.parent)
    return KnownImages(listing, root or follow_hint(places.get("root_relative_to_run"), run))


def _without_fold(run: Path, listing: Listing) -> Listing:
    """Tell the images of the fold that a run left out from those that it was trained on, by the record of these."""
    seen = read_seen(run, ["train"]) if "fold" in read_config(run) else None
    if not seen:
        return listing
    new = [content.decode() not in seen for content in listing.contents.tolist()]
    left_out = np.array(new) & (listing.splits == "train")
    return replace(listing, splits=np.where(left_out, TRAIN_FOLD, listing.splits))
