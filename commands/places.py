"""The folder of the images: from an option, a boxes file or the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes, Listing


def root_of_dataset(dataset: str, root: Path | None, list_file: Path | None) -> Path:
    if (list_file is not None) != (dataset == "csv") and dataset != "clips":
        raise click.UsageError("the data set csv and --csv FILE need each other: give both or neither")
    root = root or (list_file.parent if list_file else root_of_environment())
    own = {"folder": "the folder of class folders", "reid-folder": "the folder with train, query and gallery"}
    own["clips"] = "the folder of class folders, or --csv, the list of clips"
    if root is None and dataset in own:
        raise click.UsageError(f"the data set {dataset} needs --root, {own[dataset]}")
    return root or Path("datasets")


def images_root(boxes: Listing, root: Path | None) -> Path:
    """Return the folder of a boxes file's images: ``root``, else the recorded folder, else $AGNET_ROOT or ./datasets.

    If none of these exists, the recorded folder is returned, so that the error names a place the user knows.
    """
    from ..data.places import follow_hint, hinted_place

    told = boxes.attributes.get("root_relative_to_this_file")
    found = root or follow_hint(told, boxes.path.parent) or root_of_environment()
    datasets = Path("datasets")
    return found or (None if datasets.exists() else hinted_place(told, boxes.path.parent)) or datasets


def root_of_environment() -> Path | None:
    return Path(os.environ["AGNET_ROOT"]) if os.environ.get("AGNET_ROOT") else None


def boxes_of(runs: list[Path], given: Path | None) -> dict[Path, Boxes]:
    """Map each run to the boxes file to measure it on; a file that several runs share is read once.

    Raises: `BoxesFileError` if the file of a run is not at its recorded place and none is ``given``.
    """
    from ..data.boxes.reader import read_boxes
    from ..data.errors import BoxesFileError
    from ..data.places import follow_hint
    from ..training.runs.folder import read_config

    files: dict[Path, Boxes] = {}
    found = {}
    for run in runs:
        path = given or follow_hint(read_config(run)["boxes"].get("file_relative_to_run"), run)
        if path is None:
            raise BoxesFileError(f"the boxes file of {run} is no longer where it was; give it with --boxes")
        if path not in files:
            files[path] = read_boxes(path)
        found[run] = files[path]
    return found
