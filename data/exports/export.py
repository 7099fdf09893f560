"""Export of a selection to one file or folder, complete or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...extras import how_to_install
from ..boxes.reader import Boxes
from ..errors import ConfigurationError, MismatchError
from ..files import atomic_file, atomic_folder, check_writable
from ..references import named_function
from .coco import about
from .formats import DATA_FORMATS
from .selection import Progress, Selection

_MARK = "agnet.json"  #: file in every exported folder: what it holds, and that it may be replaced


@dataclass(frozen=True)
class ExportedData:
    """What was written."""

    path: Path
    format: str
    images: int
    regions: int
    unreadable: int  #: images of the split that the boxes file has no regions of
    turned: int  #: photographs whose metadata turn them, of the formats that name the original files

    def to_dict(self) -> dict[str, object]:
        return {**self.__dict__, "path": str(self.path)}


def check_data_export(format: str, output: Path, force: bool) -> None:
    """Check everything that can be checked before the boxes file is read.

    Raises: `ConfigurationError` for missing packages, a name that does not fit the format, or an ``output`` that exists
        without ``force``, that cannot be written, or that is not an export and must not be replaced.
    """
    chosen = DATA_FORMATS[format]
    missing = [package for package in chosen.packages if find_spec(package) is None]
    if missing:
        raise ConfigurationError(f"--format {format} needs {', '.join(missing)}: {how_to_install(*missing)}")
    if not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no folder {output.parent}")
    if chosen.suffix and output.suffix != chosen.suffix:
        raise ConfigurationError(f"{output}: a file of --format {format} must end in {chosen.suffix}; name another")
    if output.exists():
        _check_existing(output, folder=not chosen.suffix, force=force)
    check_writable(output, "name another with --output")


def check_regions(format: str, boxes: Boxes) -> None:
    """Raise `MismatchError` for a format that consists of regions and a boxes file without any."""
    if DATA_FORMATS[format].needs_regions and not boxes.layout.count:
        raise MismatchError(
            f"--format {format} needs regions, and {boxes.path} has none: make a file that has them with another "
            "--method of agnet propose"
        )


def _check_existing(output: Path, *, folder: bool, force: bool) -> None:
    if output.is_dir() != folder:
        raise ConfigurationError(f"{output} is a {'file' if folder else 'folder'}; name another with --output")
    if folder and any(output.iterdir()) and not (output / _MARK).is_file():
        raise ConfigurationError(f"{output} is a folder of other files and will not be replaced; name another")
    if not force and not (folder and not any(output.iterdir())):
        raise ConfigurationError(f"{output} exists; name another with --output, or replace it with --force")


def export_data(
    selection: Selection, format: str, output: Path, progress: Progress = lambda done: None, *, force: bool = False
) -> ExportedData:
    """Write a selection in one of `DATA_FORMATS`. The same selection gives the same bytes.

    Raises: as `check_data_export` and `check_regions`; `ImageError` for an image that cannot be read.
    """
    check_data_export(format, output, force)
    check_regions(format, selection.boxes)
    chosen = DATA_FORMATS[format]
    write = named_function(chosen.write, __package__)
    if chosen.suffix:
        with atomic_file(output) as unfinished:
            turned = write(selection, unfinished, progress)
    else:
        with atomic_folder(output) as unfinished:
            turned = write(selection, unfinished, progress)
            told = {"format": format, "images": len(selection), **about(selection.boxes)}
            (unfinished / _MARK).write_text(json.dumps(told, indent=1) + "\n", encoding="ascii", newline="\n")
    regions = len(selection) * len(selection.slots)
    return ExportedData(output, format, len(selection), regions, selection.unreadable, turned)
