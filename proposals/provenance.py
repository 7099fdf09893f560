"""Origin of a boxes file, and whether a new run would produce the same file."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import cv2
import h5py
import numpy as np
import PIL
import simplejpeg

from .. import __version__
from ..data.boxes.reader import Listing, Settings, read_listing
from ..data.boxes.verification import changed_images
from ..data.errors import MismatchError
from ..data.index import DatasetIndex
from .settings import NETWORKS, REVISIONS, ProposalSettings

REMEDY = "add --restart to start over, or name another file with --boxes"


def recorded_settings(index: DatasetIndex, settings: ProposalSettings) -> Settings:
    """All settings that affect a boxes file's content besides the images, in sections, as stored in the file."""
    versions: dict[str, object] = {
        "agnet": __version__,
        "opencv": cv2.__version__,
        "scikit-learn": version("scikit-learn"),  # importing it would take longer than everything else here
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "simplejpeg": simplejpeg.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        **revision_of(settings.method),
    }
    if settings.method in NETWORKS:
        versions |= {name: version(name) for name in ("torch", "torchvision")}
    return {
        "dataset": {"name": index.dataset, **index.opened_with},
        "proposals": dict(settings.to_dict()),
        "versions": versions,
    }


def revision_of(method: str) -> dict[str, int]:
    """The method's revision, recorded with the settings; empty for a method whose results have never changed."""
    return {f"agnet's {method}": REVISIONS[method]} if method in REVISIONS else {}


def digest(value: object) -> str:
    """Digest of a JSON value, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def refuse_other(boxes: Path, recorded: Settings, index: DatasetIndex) -> None:
    """Raise `MismatchError` if the finished file ``boxes`` differs from what this run would write."""
    listing = read_listing(boxes)
    refuse_difference(str(boxes), listing.settings, recorded)
    difference = _other_list(listing, index)
    if difference is None:
        name, how = next(changed_images(listing, index.root, trust_times=True), ("", ""))
        difference = f"{name} {how}" if name else None
    if difference:
        raise MismatchError(f"{boxes} was made from other images than are there now: {difference}; {REMEDY}")


def _other_list(listing: Listing, index: DatasetIndex) -> str | None:
    """How the data set's list of images differs from the file's, or None."""
    listed = [name.decode() for name in listing.names.tolist()]
    new, gone = set(index.names) - set(listed), set(listed) - set(index.names)
    if new or gone:
        changes = [
            f"{len(names):,} {how}, first {min(names)}" for names, how in ((new, "new"), (gone, "gone")) if names
        ]
        return " and ".join(changes)
    place = {name: row for row, name in enumerate(listed)}
    rows = [place[name] for name in index.names]
    if rows != sorted(rows):
        return "they come in another order"
    then = [listing.classes[label] for label in listing.labels.tolist()]
    for name, row, label, split in zip(index.names, rows, index.labels.tolist(), index.splits.tolist(), strict=True):
        if then[row] != index.classes[label]:
            return f"{name} was of class {then[row]!r} and is of class {index.classes[label]!r} now"
        if listing.splits[row] != split:
            return f"{name} was in {listing.splits[row]} and is in {split} now"
    return None


def refuse_difference(what: str, existing: Settings, recorded: Settings) -> None:
    """Raise `MismatchError`, which names the first setting of ``what`` that differs from this run's."""
    for section, values in json.loads(json.dumps(recorded)).items():
        found = existing.get(section, {})
        for name in sorted(set(values) | set(found)):
            if values.get(name) != found.get(name):
                raise MismatchError(
                    f"{what} was made with another {section} setting: {name} = {found.get(name)!r}, this run has "
                    f"{values.get(name)!r}; {REMEDY}"
                )
