"""The class of an image that a run knows: it is in the boxes file that the run learnt from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...data.boxes.reader import Listing, read_listing
from ...data.errors import AgnetError
from ...data.places import follow_hint
from ...data.regions import content_hash
from ..runs.checkpoint_header import CheckpointHeader
from ..runs.folder import read_config

_PARTS = {
    "train": "the run was trained on this image",
    "val": "the run's epoch was chosen by this image, too",
    "test": "of the test part",
}


@dataclass(frozen=True)
class Truth:
    """What an image shows."""

    name: str  #: of the class
    part: str  #: of the data set it is in, and what that means, for people


@dataclass(frozen=True)
class KnownImages:
    """The images of a boxes file, found by their place or by what is in them."""

    listing: Listing
    root: Path | None  #: where they are; None where nobody knows

    def truth(self, file: str) -> Truth | None:
        """The class of the image ``file``; None of one that is not of the data set, or is there in several classes."""
        rows = [self._by_name[name] for name in self._names_of(file) if name in self._by_name]
        rows = rows or self._by_content(file)
        if len({int(self.listing.labels[row]) for row in rows}) != 1:
            return None
        parts = {str(self.listing.splits[row]) for row in rows}
        part = next(part for part in _PARTS if part in parts)  # of copies, the one that says most
        return Truth(self.listing.classes[self.listing.labels[rows[0]]], _PARTS[part])

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
    """The images that the run ``run`` (its folder) learnt from; None where its boxes file is not to be found."""
    try:
        places = read_config(run)["boxes"]
        file = follow_hint(places.get("file_relative_to_run"), run)
        if file is None:
            return None
        listing = read_listing(file)
    except AgnetError:
        return None
    if listing.attributes.get("fingerprint") != checkpoint.fingerprint or listing.classes != checkpoint.classes:
        return None  # another file is there now
    root = follow_hint(listing.attributes.get("root_relative_to_this_file"), file.parent)
    return KnownImages(listing, root or follow_hint(places.get("root_relative_to_run"), run))
