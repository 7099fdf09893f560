"""A data set defined by a CSV file: one row per image or clip, with the columns path, label and, optionally, split."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path

from ..errors import DatasetError
from ..images import IMAGE_SUFFIXES
from ..index import NOT_TEXT, leaves_root
from ..listing import OnDisk, suffix_of
from ..spelling import did_you_mean
from ..text import rows_called
from .entry import Options, Rows
from .folder import SPLIT_NAMES, held_out


def csv_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read the rows of ``options.list_file``, whose paths are relative to ``root``, in their order.

    The first line names the columns, in any order and letter case; others than path, label and split are ignored.
    The separator is a comma, semicolon or tab, as in the first line. The encoding is UTF-8, or Excel's Unicode text.
    Splits may have any name in `SPLIT_NAMES`. Without the column split, every image is train, and `open_dataset` cuts
    the test split.

    Raises: `DatasetError`, which names the line of an invalid entry, or the number of missing images.
    """
    return _listed(root, options, of_clips=False)


def listed_clips(root: Path, options: Options) -> Rows:
    """Read a list of clips: as `csv_rows`, with paths of videos or of folders of frames.

    The column group, which is optional, fills ``options.groups``; a clip without one is a group of its own.
    """
    return _listed(root, options, of_clips=True)


def _listed(root: Path, options: Options, of_clips: bool) -> Rows:
    if options.list_file is None:
        raise DatasetError("the data set csv needs --csv, the file that lists its images")
    path = options.list_file
    called = rows_called(of_clips)
    table = _table(path)
    columns = [name.strip().casefold() for name in table[0][1]]
    if missing := [name for name in ("path", "label") if columns.count(name) != 1]:
        meant = did_you_mean(missing[0], columns)
        raise DatasetError(
            f"{path}: the first line must name a column {' and a column '.join(missing)} "
            f"(path,label or path,label,split), got {', '.join(columns)!r}{meant}"
        )
    disk = OnDisk(root)
    rows: Rows = []
    absent = []
    line_of: dict[str, int] = {}
    for line, cells in table[1:]:
        if len(cells) != len(columns):
            raise DatasetError(f"{path}, line {line}: expected {len(columns)} cells, got {len(cells)}: {cells}")
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        name = _relative(row["path"], root, f"{path}, line {line}")
        label, split = row["label"], SPLIT_NAMES.get(row.get("split", "train").casefold())
        if not label or NOT_TEXT.search(label):
            raise DatasetError(f"{path}, line {line}: the label {label!r} is not a valid class name")
        if split is None:
            known = ", ".join(SPLIT_NAMES)
            raise DatasetError(f"{path}, line {line}: the split {row['split']!r} is not one of {known}")
        on_disk = disk.file(name) or (name if os.path.isfile(root / name) else None)  # noqa: PTH113 - hidden, but named
        if of_clips:
            on_disk = _clip(disk, on_disk or disk.folder(name.rstrip("/")), f"{path}, line {line}")
        if on_disk is None:
            absent.append(name)
        elif on_disk in line_of:
            raise DatasetError(f"{path}, line {line}: {on_disk!r} is listed twice, first in line {line_of[on_disk]}")
        else:
            line_of[on_disk] = line
            rows.append((on_disk, label, split))
            if of_clips and row.get("group"):
                options.groups[on_disk] = _group(row["group"], f"{path}, line {line}")
    if absent:
        raise DatasetError(
            f"{len(absent):,} of the {len(table) - 1:,} {called} that {path} names do not exist, first "
            f"{root / absent[0]}; paths in it are relative to --root"
        )
    return held_out(rows, str(path), of_clips) if rows else rows


def _clip(disk: OnDisk, name: str | None, where: str) -> str | None:
    """The name on disk. Raises: `DatasetError` if it is neither a video nor a folder of frames, by the files' names."""
    if name is not None and disk.folder(name) is None:
        if suffix_of(name) in IMAGE_SUFFIXES:
            raise DatasetError(f"{where}: {name!r} is an image; expected a video or a folder of numbered frames")
    elif name is not None and not any(suffix_of(file) in IMAGE_SUFFIXES for file in disk.files(name)):
        raise DatasetError(f"{where}: the folder {name!r} holds no frames")
    return name


def _group(text: str, where: str) -> str:
    if NOT_TEXT.search(text):
        raise DatasetError(f"{where}: the group {text!r} is not valid text")
    return text


def _table(path: Path) -> list[tuple[int, list[str]]]:
    """Read (line number, cells) of every non-empty line, the header first."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"there is no file {path}; name the list of images with --csv") from None
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise DatasetError(
                f"{path} is not text (a photograph? a spreadsheet?); name a folder with a folder of photographs for "
                "each class, or a table saved as CSV UTF-8"
            ) from None
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path} is not UTF-8; save it as CSV UTF-8 (line {line} is something else)") from None
    if "\0" in text:  # UTF-16 without a byte order mark
        raise DatasetError(f"{path} is not UTF-8; save it as CSV UTF-8")
    header = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        table = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from None
    if len(table) < 2:
        raise DatasetError(f"{path} lists no images: expected a first line path,label,split and a line for each image")
    return table


def _relative(name: str, root: Path, where: str) -> str:
    """Convert the path of a row to a POSIX path relative to the root."""
    for place in (root.absolute(), root.resolve()):
        if Path(name).is_absolute() and Path(name).is_relative_to(place):
            name = Path(name).relative_to(place).as_posix()
    name = name.replace("\\", "/").removeprefix("./")
    if leaves_root(name) or NOT_TEXT.search(name):
        raise DatasetError(
            f"{where}: the path {name!r} does not lead below {root}; name the folder above it with --root"
        )
    return name
