"""Reading of boxes files, which may be untrusted, with a check of their consistency.

`hdf5_tables` reads the tables; this module checks them against each other.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import BoxesFileError, ConfigurationError, MismatchError
from ..index import ALL_SPLITS, NOT_TEXT, SPLITS, Clips, leaves_root
from ..names import KINDS
from ..regions import Layout, Regions, boxes_of_hulls
from ..text import composed, composed_all, first_line, printable
from . import schema
from .hdf5_tables import is_variable_text, read_table

MAX_ATTRIBUTES, MAX_ATTRIBUTE_BYTES = 100, 2**20
MAX_MESSAGE = 500
# Files store coordinates to 0.1 pixel, and a writer may round boxes and hulls separately.
BOX_TOLERANCE = 0.15

IMAGES, CLIPS, SEARCHED = "images", "clips", "searched images"  #: what rows are

_TITLE = 255  # letters; no folder name is longer
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

Settings = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Listing:
    """The content of a boxes file except the regions. Row k of an array belongs to image k of the data set."""

    path: Path
    format_version: int
    dataset: str
    classes: tuple[str, ...]
    settings: Settings  #: the settings that made the boxes, in sections: dataset, proposals, versions
    attributes: dict[str, object]  #: the other root attributes
    layout: Layout  #: which regions each image has
    names: np.ndarray  #: bytes ``(images,)``, POSIX paths relative to the data set's root
    splits: np.ndarray  #: ``U (images,)``
    labels: np.ndarray  #: int64 ``(images,)``
    sizes_wh: np.ndarray  #: int64 ``(images, 2)``
    status: np.ndarray  #: ``U (images,)``
    total_keypoints: np.ndarray  #: int32 ``(images,)``
    distinct_keypoints: np.ndarray  #: int32 ``(images,)``
    distinct_regions: np.ndarray  #: int16 ``(images,)``
    file_bytes: np.ndarray  #: int64 ``(images,)``
    modified_utc: np.ndarray  #: bytes ``(images,)``, see `schema.modified_text`
    contents: np.ndarray  #: bytes ``(images,)``, BLAKE2b of the files in hexadecimal
    groups: tuple[str, ...]  #: group of each image that no split may divide; empty if the file has none
    cameras: tuple[str, ...]  #: camera of each image; empty if the file has none
    clips: Clips | None  #: video frames of each row, if rows are clips rather than images

    @property
    def title(self) -> str:
        """The data set's common name on one line; for the user's own data, the name of a folder or list."""
        return printable(str(self.attributes.get("title") or self.dataset)[:_TITLE])

    @property
    def camera_numbers(self) -> np.ndarray:
        """The camera of each image as a number, int64 ``(images,)``; -1 where it is unknown."""
        names = np.array(self.cameras or [""] * len(self.names))
        numbers = np.unique(names, return_inverse=True)[1].astype(np.int64)
        return np.where(names == "", -1, numbers)

    @property
    def is_retrieval(self) -> bool:
        """Whether the data set is searched: it has queries, and its test classes are not those of train."""
        return bool((self.splits == "query").any())

    @property
    def of_clips(self) -> bool:
        """Whether rows are clips rather than images."""
        return self.clips is not None

    @property
    def val_is_test(self) -> bool:
        """Whether the data set's authors call the test split val."""
        return self.attributes.get("val_is_test") == 1


@dataclass(frozen=True)
class Boxes(Listing):
    """A boxes file in memory, as flat arrays that workers can share.

    `primary_xyxy` and the hulls' columns have one row per frame with regions. An image is one frame, and its row u
    belongs to image ``usable[u]``; the frames of clip ``usable[u]`` begin at row ``frame_first[u]``.
    """

    usable: np.ndarray  #: int64 ``(usable,)``, image numbers, increasing
    frame_first: np.ndarray  #: int64 ``(usable + 1,)``, first row of each image or clip, and the number of rows
    frame_numbers: np.ndarray  #: int32 ``(rows,)``, number of the frame in its clip, increasing within a clip
    primary_xyxy: np.ndarray  #: float32 ``(rows, κ, 4)``
    primary_valid: np.ndarray  #: bool ``(rows, κ)``, False for a box filled in where a frame has no keypoints
    keypoints: np.ndarray  #: int32 ``(rows, κ)``
    weights: np.ndarray  #: float32 ``(rows, κ)``
    hull_xy: np.ndarray  #: float32 ``(vertices, 2)``
    hull_first: np.ndarray  #: int64 ``(rows,)``, first vertex of the frame's first hull
    hull_counts: np.ndarray  #: int32 ``(rows, κ)``
    failures: tuple[tuple[str, str], ...]  #: (name, reason)
    faults: tuple[str, ...]  #: fault of each failure in two or three words; empty for version 2

    @property
    def fingerprint(self) -> str:
        """Identifier of these boxes and their images, 32 hexadecimal digits."""
        return str(self.attributes["fingerprint"])

    def require_regions(self, who: str) -> None:
        """Raise `MismatchError` if the file has no regions. ``who`` names what needs them."""
        if not self.layout.count:
            raise MismatchError(
                f"{who} needs regions, and {self.path} has none: make a file that has them with another --method of "
                "agnet propose, or train a model that uses none, such as --model plain"
            )

    def rows(self, split: str) -> np.ndarray:
        """Rows (of `usable`) whose image is in ``split``."""
        return np.flatnonzero(self.splits[self.usable] == split)

    def frames_of(self, row: int) -> np.ndarray:
        """Numbers of the frames of usable clip ``row`` that have regions, int32 ``(F,)``; 0 for an image."""
        return self.frame_numbers[self.frame_first[row] : self.frame_first[row + 1]]

    def regions(self, row: int, frame: int = 0) -> Regions:
        """The regions of usable image ``row``, or of the frame of a clip that is nearest to ``frame``."""
        image, at = self.usable[row], self.row_of(row, frame)
        counts, first = self.hull_counts[at], self.hull_first[at]
        width, height = self.sizes_wh[image].tolist()
        return Regions(
            hull_xy=self.hull_xy[first : first + counts.sum()],
            hull_counts=counts,
            keypoints=self.keypoints[at],
            weights=self.weights[at],
            size_wh=(width, height),
            total_keypoints=int(self.total_keypoints[image]),
            distinct_keypoints=int(self.distinct_keypoints[image]),
            layout=self.layout,
        )

    def region_valid(self, row: int, frame: int = 0) -> np.ndarray:
        """Whether each of the `regions` is around keypoints of its frame rather than filled in, bool ``(R,)``.

        A pair is if both of its members are.
        """
        primary, layout = self.primary_valid[self.row_of(row, frame)], self.layout
        pairs = primary[layout.pairs].all(axis=1)
        return pairs if layout.kinds == "secondary" else np.concatenate([primary, pairs])

    def row_of(self, row: int, frame: int) -> int:
        """The row of the frame with regions that is nearest to ``frame``, of usable image or clip ``row``."""
        first, numbers = int(self.frame_first[row]), self.frames_of(row)
        return first + int(np.abs(numbers - frame).argmin())


def read_boxes(path: str | Path) -> Boxes:
    """Read a whole boxes file and check its consistency.

    Raises: `BoxesFileError`, which names the problem, for anything other than a complete, consistent boxes file of one
    of `schema.VERSIONS`.
    """
    path = Path(path)
    with _opened(path) as file:
        return _read(path, file)


def read_listing(path: Path) -> Listing:
    """Read the file's content except the regions. Raises as `read_boxes`."""
    with _opened(path) as file:
        return _listing(path, file)


def embedded_photographs(path: Path) -> int:
    """Number of photographs embedded in the file as previews. Raises as `read_boxes`."""
    with _opened(path) as file:
        pictures = _group(file, schema.PREVIEW)
        return sum(not schema.is_sheet(name) for name in pictures) if pictures else 0


def kind_of_rows(path: Path) -> str:
    """What the rows of a boxes file are, `IMAGES`, `CLIPS` or `SEARCHED` images, by the columns of its tables.

    A quick look, before the whole file is read and checked; `IMAGES` if it is unreadable.
    """
    try:
        with h5py.File(path, "r") as file:
            columns = {name: _columns(file, name) for name in ("images", "labels")}
    except (OSError, RuntimeError, TypeError, ValueError, KeyError):
        return IMAGES
    if "images_in_query" in columns["labels"]:
        return SEARCHED
    return CLIPS if schema.CLIPS[0] in columns["images"] else IMAGES


def _columns(file: h5py.File, name: str) -> tuple[str, ...]:
    """Names of the columns of a table; none for anything else."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        return ()
    return file[name].dtype.names or ()


@dataclass(frozen=True)
class Sizes:
    """Size of a boxes file in bytes, and the stored sizes of its tables and pictures."""

    file: int
    tables: int
    previews: int


def sizes_of(path: Path) -> Sizes:
    """Measure the file at ``path`` and its content. Raises as `read_boxes`."""
    with _opened(path) as file:
        pictures = _group(file, schema.PREVIEW)
        return Sizes(
            file=path.stat().st_size,
            tables=sum(_stored_bytes(file, name) for name in schema.TABLES),
            previews=sum(_stored_bytes(pictures, name) for name in pictures) if pictures else 0,
        )


def _group(file: h5py.File, name: str) -> h5py.Group | None:
    """The group of this name; None if it is something else or a link, which is never followed."""
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    return found if isinstance(found, h5py.Group) else None


def _stored_bytes(group: h5py.Group, name: str) -> int:
    """Stored size of a table or picture inside the file itself."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return 0
    found = h5py.h5o.open(group.id, name.encode())
    if not isinstance(found, h5py.h5d.DatasetID):
        return 0
    creation = found.get_create_plist()
    elsewhere = creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count()
    return 0 if elsewhere else int(found.get_storage_size())


def refuse_to_replace_other(path: Path) -> None:
    """Raise `BoxesFileError` if ``path`` exists and is not a boxes file, not even a damaged one."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
        if not start:
            return
        if start == _HDF5_SIGNATURE:
            try:
                with h5py.File(path, "r") as content:
                    kind = content.attrs.get("format", b"")
            except (OSError, RuntimeError, ValueError, TypeError):
                return  # damaged
            if kind in (schema.FORMAT, schema.FORMAT.encode()):
                return
    raise BoxesFileError(f"{path} is not a boxes file and will not be replaced; name another file with --boxes")


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open the file for reading; any error inside becomes a `BoxesFileError` of one line."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            raise BoxesFileError(
                "not a file, but a folder or device; --boxes takes the file that agnet propose PHOTOS wrote"
            )
        with h5py.File(path, "r") as file:
            yield file
    except BoxesFileError as error:
        raise BoxesFileError(f"{path}: {str(error)[:MAX_MESSAGE]}") from None
    except FileNotFoundError:
        if path.with_name(path.name + ".parts").is_dir():
            raise BoxesFileError(f"{path} is not finished: run the same agnet propose command again") from None
        raise BoxesFileError(
            f"there is no boxes file {path}; make one with: agnet propose PHOTOS --boxes {shlex.quote(str(path))}"
        ) from None
    except PermissionError:
        raise BoxesFileError(f"{path}: no permission to read it") from None
    except BlockingIOError:
        raise BoxesFileError(f"{path}: another program has it open for writing; close it there") from None
    # h5py reports damage with whichever error its C library met.
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        raise BoxesFileError(f"{path}: not an HDF5 file, or damaged ({first_line(error)})") from None


def _attributes(file: h5py.File) -> tuple[dict[str, object], Settings]:
    found: dict[str, object] = {}
    if len(file.attrs) > MAX_ATTRIBUTES:
        raise BoxesFileError(f"more than {MAX_ATTRIBUTES} root attributes")
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        kind = attribute.get_type()
        if is_variable_text(kind):
            raise BoxesFileError(f"root attribute {name!r} is text of variable length; write it with a fixed length")
        if (
            not isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeStringID))
            or attribute.shape != ()
            or attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES
        ):
            raise BoxesFileError(f"root attribute {name!r} is not a single number or text")
        value = file.attrs[name].item()
        found[name] = _decoded_text(f"root attribute {name!r}", value) if isinstance(value, bytes) else value
    if found.get("format") != schema.FORMAT:
        raise BoxesFileError("an HDF5 file, but not a boxes file (no attribute format = 'agnet boxes')")
    if found.get("format_version") not in schema.VERSIONS:
        raise BoxesFileError(
            f"format version {found.get('format_version')!r}, this program reads "
            f"{' and '.join(map(str, schema.VERSIONS))}; make the file again with the agnet propose command that made "
            "it, and --restart"
        )
    if found.get("complete") != 1:
        raise BoxesFileError("incomplete: it has no mark 'complete'; run the same agnet propose command again")
    if not isinstance(found.get("fingerprint"), str):
        raise BoxesFileError("it has no attribute 'fingerprint'")
    try:
        settings = json.loads(str(found.pop("settings", None)))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict) or not all(isinstance(section, dict) for section in settings.values()):
        raise BoxesFileError("the attribute settings is not a JSON object of sections")
    return found, settings


def _layout(proposals: dict[str, object]) -> Layout:
    primary, kinds = proposals.get("primary"), proposals.get("kinds", KINDS[0])
    if type(primary) is not int:
        raise BoxesFileError(f"setting 'proposals: primary': wanted the number of primary regions, got {primary!r}")
    if not isinstance(kinds, str):
        raise BoxesFileError(f"setting 'proposals: kinds': wanted text, got {kinds!r}")
    try:
        return Layout(primary, kinds)
    except ConfigurationError as error:
        raise BoxesFileError(str(error)) from None


def _listing(path: Path, file: h5py.File) -> Listing:
    attributes, settings = _attributes(file)
    version = next(version for version in schema.VERSIONS if version == attributes["format_version"])
    layout = _layout(settings.get("proposals", {}))
    images, labels = _table(file, version, "images"), _table(file, version, "labels")
    status = _choices(images, schema.STATUS, schema.STATUSES)
    splits = _choices(images, "split", SPLITS if version == 2 else ALL_SPLITS)
    names = _lines("images", images[schema.PATH])
    _check(not any(map(leaves_root, names)), "images: a path that leaves the data set's root")
    _check(len(set(names)) == len(names), "images: a path is listed twice")
    class_names = composed_all(_lines("labels", labels[schema.CLASS]))
    _check(len(set(class_names)) == len(class_names), "labels: a class is listed twice")
    _check((labels["label"] == np.arange(len(labels))).all(), "labels: not numbered 0, 1, 2, ...")
    _check(((images["label"] >= 0) & (images["label"] < len(labels))).all(), "images: a label without a class")
    for table, rows in (("images", images), ("labels", labels)):
        for column in _COUNTS[table]:
            if column in (rows.dtype.names or ()):
                _check((rows[column] >= 0).all(), f"{table}: a number below 0 in column {column!r}")
    if version > 2:
        _check((images["image"] == np.arange(len(images))).all(), "images: not numbered 0, 1, 2, ...")
        files = _lines("images", images[schema.FILE])
        _check(files == [name.rpartition("/")[2] for name in names], "images: a file name that is not its path's")
        pairs = sorted(set(zip(images["label"].tolist(), images[schema.CLASS_OF].tolist(), strict=True)))
        said = _lines("images", np.array([name for _, name in pairs], bytes))
        alike = [composed(name) == composed(class_names[label]) for (label, _), name in zip(pairs, said, strict=True)]
        _check(all(alike), "images: a class that is not its label's")
        has_rows = (status != schema.STATUS_UNREADABLE) & (layout.primary > 0)
        firsts = images[schema.FIRST_ROW]
        if not _are_clips(images):
            wanted = np.where(has_rows, (np.cumsum(has_rows) - 1) * layout.primary, -1)
            _check((firsts == wanted).all(), "images: a first_row_in_primary that is not its first")
        _check((firsts[~has_rows] == -1).all(), "images: a first_row_in_primary without regions")

    sizes_wh = np.stack([images["width"], images["height"]], axis=1).astype(np.int64)
    _check((sizes_wh[status != schema.STATUS_UNREADABLE] > 0).all(), "images: a width or height below 1")
    return Listing(
        path=path,
        format_version=version,
        dataset=str(settings.get("dataset", {}).get("name")),
        classes=class_names,
        settings=settings,
        attributes=attributes,
        layout=layout,
        names=images[schema.PATH].copy(),
        splits=splits,
        labels=images["label"].astype(np.int64),
        sizes_wh=sizes_wh,
        status=status,
        total_keypoints=images["keypoints"].copy(),
        distinct_keypoints=images["distinct_keypoints"].copy(),
        distinct_regions=images["distinct_regions"].copy(),
        file_bytes=images["file_bytes"].copy(),
        modified_utc=images["modified_utc"].copy(),
        contents=images["content_blake2b"].copy(),
        groups=_texts(images, "group"),
        cameras=_texts(images, "camera"),
        clips=_clips(images, status),
    )


def _texts(images: np.ndarray, column: str) -> tuple[str, ...]:
    return tuple(_lines("images", images[column])) if column in (images.dtype.names or ()) else ()


def _are_clips(images: np.ndarray) -> bool:
    return any(column in (images.dtype.names or ()) for column in schema.CLIPS)


def _clips(images: np.ndarray, status: np.ndarray) -> Clips | None:
    if not _are_clips(images):
        return None
    there = [column in (images.dtype.names or ()) for column in schema.CLIPS]
    _check(all(there), f"images: clips have the columns {', '.join(schema.CLIPS)}, or none")
    clips = Clips(*(images[column].copy() for column in schema.CLIPS))
    usable = status != schema.STATUS_UNREADABLE
    _check((clips.first_frame >= 0).all() and (clips.frames[usable] >= 1).all(), "images: a clip without frames")
    rates = clips.frames_a_second[usable]
    _check((np.isfinite(rates) & (rates > 0)).all(), "images: a frames_a_second that is not a number above 0")
    return clips


def _read(path: Path, file: h5py.File) -> Boxes:
    listing = _listing(path, file)
    usable = np.flatnonzero(listing.status != schema.STATUS_UNREADABLE)
    _check(len(usable) > 0, "images: none is usable")
    failures, faults = _failures(file, listing)
    return Boxes(
        **{field.name: getattr(listing, field.name) for field in fields(Listing)},
        usable=usable,
        **(_regions(file, listing, usable) if listing.layout.primary else _no_regions(file, len(usable))),
        failures=failures,
        faults=faults,
    )


def _no_regions(file: h5py.File, usable: int) -> dict[str, Any]:
    """Empty values for the fields of `Boxes` that `_regions` reads."""
    for name in ("primary", "hulls"):
        _check(not file.id.links.exists(name.encode()), f"{name}: exists, though the settings say primary = 0")
    return {
        **_one_frame_each(usable),
        "primary_xyxy": np.zeros((usable, 0, 4), np.float32),
        "primary_valid": np.zeros((usable, 0), bool),
        "keypoints": np.zeros((usable, 0), np.int32),
        "weights": np.zeros((usable, 0), np.float32),
        "hull_xy": np.zeros((0, 2), np.float32),
        "hull_first": np.zeros(usable, np.int64),
        "hull_counts": np.zeros((usable, 0), np.int32),
    }


def _one_frame_each(usable: int) -> dict[str, np.ndarray]:
    return {"frame_first": np.arange(usable + 1), "frame_numbers": np.zeros(usable, np.int32)}


def _frames(primary: np.ndarray, listing: Listing, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Check which frames the rows of ``primary`` belong to; see `Boxes`."""
    if listing.clips is None:
        for column, value in (("frame", 0), ("valid", 1)):
            if column in (primary.dtype.names or ()):
                _check((primary[column] == value).all(), f"primary: a {column} other than {value} in a file of images")
        _check((primary["image"][:: listing.layout.primary] == usable).all(), "primary: rows are not sorted by image")
        return _one_frame_each(len(usable))
    for column in ("frame", "valid"):
        _check(column in (primary.dtype.names or ()), f"primary: clips need the column {column!r}")
    _check(len(primary) % listing.layout.primary == 0, "primary: a frame without all of its regions")
    first_of_frame = primary[:: listing.layout.primary]
    images, frames = first_of_frame["image"], first_of_frame["frame"].astype(np.int32)
    counts = np.bincount(np.searchsorted(usable, images).clip(max=len(usable) - 1), minlength=len(usable))
    _check((images == np.repeat(usable, counts)).all() and (counts > 0).all(), "primary: rows are not sorted by image")
    again = images[1:] == images[:-1]
    _check((frames >= 0).all() and (frames < listing.clips.frames[images]).all(), "primary: a frame that no clip has")
    _check((frames[1:] > frames[:-1])[again].all(), "primary: rows of a clip are not sorted by frame")
    _check(np.isin(primary["valid"], (0, 1)).all(), "primary: a valid other than 0 and 1")
    _check((primary["frame"] == np.repeat(frames, listing.layout.primary)).all(), "primary: frames out of order")
    return {"frame_first": np.concatenate([[0], np.cumsum(counts)]), "frame_numbers": frames}


def _regions(file: h5py.File, listing: Listing, usable: np.ndarray) -> dict[str, Any]:
    """Read and check the regions of usable images. Returns the corresponding fields of `Boxes`."""
    version, primaries, sizes_wh = listing.format_version, listing.layout.primary, listing.sizes_wh
    wanted = None if listing.of_clips else len(usable) * primaries
    primary = _table(file, version, "primary", wanted, f"{primaries} for each usable image")
    frames = _frames(primary, listing, usable)
    of_frame = np.repeat(usable, np.diff(frames["frame_first"]))
    if listing.of_clips:  # how many rows a clip has is known only now
        firsts = _table(file, version, "images")[schema.FIRST_ROW][usable]
        wanted_firsts = frames["frame_first"][:-1] * primaries
        _check((firsts == wanted_firsts).all(), "images: a first_row_in_primary that is not its first")
    _check((primary["image"] == np.repeat(of_frame, primaries)).all(), "primary: rows are not sorted by image")
    _check((primary["region"] == np.tile(np.arange(primaries), len(of_frame))).all(), "primary: regions out of order")

    boxes = np.stack([primary[name] for name in ("x0", "y0", "x1", "y1")], axis=-1)
    frame = sizes_wh[primary["image"]].astype(np.float32)
    in_order = (boxes[:, :2] < boxes[:, 2:]).all() and (boxes[:, :2] >= 0).all()
    _check(in_order and (boxes[:, 2:] <= frame).all(), "primary: a box that is empty, not finite or not in its image")

    _check((primary["keypoints"] >= 0).all(), "primary: fewer than 0 keypoints")
    weights = primary["weight"]
    _check(((weights >= 0) & (weights <= 1)).all(), "primary: a weight outside 0 to 1")

    counts = primary["hull_count"].astype(np.int64)
    _check((counts >= 1).all(), "primary: a hull_count below 1")
    hulls = _table(file, version, "hulls", int(counts.sum()), "the sum of primary's hull_count")
    _check((primary["hull_first"] == np.cumsum(counts) - counts).all(), "primary: hull_first out of order")
    sorted_alike = [(hulls[name] == np.repeat(primary[name], counts)).all() for name in ("image", "region")]
    _check(all(sorted_alike), "hulls: rows are not sorted by image and region")
    hull_xy = np.stack([hulls["x"], hulls["y"]], axis=-1)
    highest = np.maximum.reduceat(hull_xy, primary["hull_first"], axis=0)
    _check((hull_xy >= 0).all() and (highest <= frame).all(), "hulls: a vertex outside its image")
    # Training transforms hulls, while boxes are displayed: both must agree.
    off = np.abs(boxes_of_hulls(hull_xy, counts, frame) - boxes).max()
    _check(off <= BOX_TOLERANCE, f"primary: a box is up to {off:.1f} pixels off the box of its hull")
    valid = primary["valid"].astype(bool) if listing.of_clips else np.ones(len(primary), bool)
    return {
        **frames,
        "primary_xyxy": boxes.reshape(-1, primaries, 4),
        "primary_valid": valid.reshape(-1, primaries),
        "keypoints": primary["keypoints"].reshape(-1, primaries).copy(),
        "weights": weights.reshape(-1, primaries).copy(),
        "hull_xy": hull_xy,
        "hull_first": primary["hull_first"].reshape(-1, primaries)[:, 0].astype(np.int64),
        "hull_counts": counts.astype(np.int32).reshape(-1, primaries),
    }


def _failures(file: h5py.File, listing: Listing) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Name and reason of each failure, and its fault in two or three words."""
    unreadable = np.flatnonzero(listing.status == schema.STATUS_UNREADABLE)
    if not len(unreadable) and not file.id.links.exists(b"failures"):
        return (), ()
    wanted = len(unreadable), "one for each unreadable image"
    failures = _table(file, listing.format_version, "failures", *wanted)
    _check((failures["image"] == unreadable).all(), "failures: not the unreadable images, in order")
    names = [name.decode() for name in listing.names[unreadable].tolist()]
    if listing.format_version == 2:
        said, faults = _lines("failures", failures[schema.PATH]), []
        _check(said == names, "failures: a path that is not its image's")
    else:
        said, faults = (_lines("failures", failures[name]) for name in (schema.FAILED_FILE, schema.FAULT))
        _check(said == [name.rpartition("/")[2] for name in names], "failures: a file that is not its image's")
    return tuple(zip(names, _lines("failures", failures[schema.REASON]), strict=True)), tuple(faults)


def _table(file: h5py.File, version: int, name: str, rows_wanted: int | None = None, because: str = "") -> np.ndarray:
    """Read a table of any supported version, with the column names of the newest."""
    if version > 2:
        return read_table(file, name, schema.COLUMNS[name], rows_wanted, because, schema.OPTIONAL)
    found = read_table(file, name, schema.COLUMNS_2[name], rows_wanted, because)
    found.dtype.names = tuple(schema.RENAMED.get(column, column) for column in found.dtype.names or ())
    return found


# Columns of counts; the columns of other tables are checked against each other.
_COUNTS = {
    "images": ("keypoints", "distinct_keypoints", "distinct_regions", "file_bytes"),
    "labels": tuple(f"images_in_{split}" for split in ALL_SPLITS),
}


def _choices(images: np.ndarray, column: str, choices: Sequence[str]) -> np.ndarray:
    found = images[column].tolist()
    _check(set(found) <= {choice.encode() for choice in choices}, f"images: a {column} other than {', '.join(choices)}")
    return np.array(found, bytes).astype(str)


def _lines(table: str, column: np.ndarray) -> list[str]:
    """The texts of a column, each of which must be one line: they are shown in messages and on terminals."""
    if not len(column):
        return []
    together = _decoded_text(table, b"\n".join(column.tolist()))
    lines = together.split("\n")
    one_each = len(lines) == len(column) and not NOT_TEXT.search(together.replace("\n", ""))
    _check(one_each, f"{table}: a text with control characters")
    return lines


def _decoded_text(where: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BoxesFileError(f"{where}: a text that is not UTF-8") from None


def _check(condition: bool | np.bool_, complaint: str) -> None:
    if not condition:
        raise BoxesFileError(complaint)
