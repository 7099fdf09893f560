"""Where images are, as told, as recorded, or as the environment says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..data.boxes.reader import Listing


def root_of_dataset(dataset: str, root: Path | None, list_file: Path | None) -> Path:
    if (list_file is not None) != (dataset == "csv"):
        raise click.UsageError("the data set csv and --csv FILE go together: one needs the other")
    root = root or (list_file.parent if list_file else root_of_environment())
    if root is None and dataset == "folder":
        raise click.UsageError("the data set folder needs --root, the folder of class folders")
    return root or Path("datasets")


def images_root(boxes: Listing, root: Path | None) -> Path:
    """Where a boxes file's images are: as told, else where they were when it was made, else as the environment says.

    Where there is nothing in any of these places, it is where they were: an error about it is one that people know.
    """
    from ..data.places import follow_hint, hinted_place

    told = boxes.attributes.get("root_relative_to_this_file")
    found = root or follow_hint(told, boxes.path.parent) or root_of_environment()
    datasets = Path("datasets")
    return found or (None if datasets.exists() else hinted_place(told, boxes.path.parent)) or datasets


def root_of_environment() -> Path | None:
    return Path(os.environ["AGNET_ROOT"]) if os.environ.get("AGNET_ROOT") else None
