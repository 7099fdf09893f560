"""Reading a boxes file, which may come from a stranger or from a disk that failed.

Nothing but plain tables inside this very file is followed: external storage, links and virtual data sets
could read other files of this machine. Every size is checked before memory is taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from . import boxes_schema as schema
from .errors import BoxesFileError
from .index import SPLITS, leaves_root
from .regions import Regions

# Ten times the largest data set in sight; a table of more rows is damage or malice.
MAX_ROWS = 1_000_000_000
MAX_BYTES = 16 * 2**30
MAX_TEXT = 2**20
# HDF5 takes memory for whole chunks, however few of their rows exist.
MAX_CHUNK_BYTES = 64 * 2**20

Settings = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Boxes:
    """A boxes file in memory, flat arrays only, so that workers can share it.

    Row k of the per-image arrays is image k of the data set; rows of `primary_xyxy` and the hulls' columns
    are those of the images that could be used: image ``usable[u]`` owns row u.
    """

    path: Path
    dataset: str
    classes: tuple[str, ...]
    settings: Settings  #: everything that made the boxes, in sections: dataset, proposals, versions
    attributes: dict[str, object]  #: the other root attributes
    names: np.ndarray  #: bytes ``(images,)``
    splits: np.ndarray  #: ``U5 (images,)``
    labels: np.ndarray  #: int64 ``(images,)``
    sizes_wh: np.ndarray  #: int64 ``(images, 2)``
    status: np.ndarray  #: ``U (images,)``
    usable: np.ndarray  #: int64 ``(usable,)``, image numbers, rising
    primary_xyxy: np.ndarray  #: float32 ``(usable, κ, 4)``
    keypoints: np.ndarray  #: int32 ``(usable, κ)``
    weights: np.ndarray  #: float32 ``(usable, κ)``
    hull_xy: np.ndarray  #: float32 ``(vertices, 2)``
    hull_first: np.ndarray  #: int64 ``(usable,)``, first vertex of the image's first hull
    hull_counts: np.ndarray  #: int32 ``(usable, κ)``
    total_keypoints: np.ndarray  #: int32 ``(images,)``
    distinct_keypoints: np.ndarray  #: int32 ``(images,)``
    failures: tuple[tuple[str, str], ...]  #: (name, reason)

    @property
    def primaries(self) -> int:
        return self.primary_xyxy.shape[1]

    @property
    def fingerprint(self) -> str:
        """What these boxes and their images are, in 32 hexadecimal digits."""
        return str(self.attributes["fingerprint"])

    def rows(self, split: str) -> np.ndarray:
        """Rows (of `usable`) whose image is in ``split``."""
        return np.flatnonzero(self.splits[self.usable] == split)

    def regions(self, row: int) -> Regions:
        """The regions of usable image ``row``."""
        image, counts = self.usable[row], self.hull_counts[row]
        first = self.hull_first[row]
        width, height = self.sizes_wh[image].tolist()
        return Regions(
            hull_xy=self.hull_xy[first : first + counts.sum()],
            hull_counts=counts,
            keypoints=self.keypoints[row],
            weights=self.weights[row],
            size_wh=(width, height),
            total_keypoints=int(self.total_keypoints[image]),
            distinct_keypoints=int(self.distinct_keypoints[image]),
        )


def read_boxes(path: str | Path) -> Boxes:
    """Read a whole boxes file and check that it holds together.

    Raises: `BoxesFileError` naming what is wrong, for anything that is not a complete, consistent boxes
    file of this format version.
    """
    path = Path(path)
    if not path.is_file():
        raise BoxesFileError(f"there is no boxes file {path}; make one with: agnet propose --boxes {path}")
    with _opened(path) as file:
        return _read(path, file)


def read_header(path: Path) -> tuple[dict[str, object], Settings]:
    """The root attributes and the settings alone: what made the file. Raises as `read_boxes`."""
    with _opened(path) as file:
        return _attributes(file)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; whatever goes wrong inside is a `BoxesFileError` of one line."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BoxesFileError as error:
        raise BoxesFileError(f"{path}: {error}") from None
    # h5py reports damage as whatever its C library stumbled over.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BoxesFileError(f"{path}: not an HDF5 file, or damaged ({reason})") from None


def _attributes(file: h5py.File) -> tuple[dict[str, object], Settings]:
    found: dict[str, object] = {}
    for name in file.attrs:
        info = file.attrs.get_id(name)
        if info.shape != () or info.get_storage_size() > MAX_TEXT:
            raise BoxesFileError(f"root attribute {name!r} is not a single value")
        value = file.attrs[name]
        if isinstance(value, bytes):
            value = value.decode()
        found[name] = value.item() if isinstance(value, np.generic) else value
    if found.get("format") != schema.FORMAT:
        raise BoxesFileError("an HDF5 file, but not a boxes file (no attribute format = 'agnet boxes')")
    if found.get("format_version") != schema.FORMAT_VERSION:
        raise BoxesFileError(
            f"format version {found.get('format_version')}, this program reads {schema.FORMAT_VERSION}; make the "
            "file again with agnet propose --restart"
        )
    if found.get("complete") != 1:
        raise BoxesFileError("incomplete: it has no mark 'complete'; run the same agnet propose command again")
    if not isinstance(found.get("fingerprint"), str):
        raise BoxesFileError("it has no attribute 'fingerprint'")
    try:
        settings = json.loads(str(found.pop("settings", None)))
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or not all(isinstance(section, dict) for section in settings.values()):
        raise BoxesFileError("the attribute settings is not a JSON object of sections")
    return found, settings


def _read(path: Path, file: h5py.File) -> Boxes:
    attributes, settings = _attributes(file)
    images, labels = _table(file, "images"), _table(file, "labels")
    primary, hulls = _table(file, "primary"), _table(file, "hulls")
    failures = _table(file, "failures") if "failures" in file else None

    primaries = settings.get("proposals", {}).get("primary")
    if not isinstance(primaries, int) or not 1 <= primaries <= 10_000:
        raise BoxesFileError(f"setting 'proposals: primary': wanted the number of primary regions, got {primaries!r}")
    status, splits = _texts(images["status"]), _texts(images["split"])
    _check(set(status.tolist()) <= set(schema.STATUSES), "images: a status other than " + ", ".join(schema.STATUSES))
    _check(set(splits.tolist()) <= set(SPLITS), "images: a split other than " + ", ".join(SPLITS))
    usable = np.flatnonzero(status != schema.STATUS_UNREADABLE)
    _check(len(usable) > 0, "images: none is usable")
    _check(len(primary) == len(usable) * primaries, f"primary: not {primaries} rows for each usable image")
    _check((primary["image"] == np.repeat(usable, primaries)).all(), "primary: rows are not sorted by image")
    _check((primary["region"] == np.tile(np.arange(primaries), len(usable))).all(), "primary: regions out of order")

    names = images[schema.PATH].tolist()
    _check(
        not any(b"\0" in name or leaves_root(name.decode()) for name in names),
        "images: a path that leaves the data set's root",
    )
    _check(len({name.decode() for name in names}) == len(names), "images: a path is listed twice")
    class_names = tuple(_texts(labels[schema.CLASS]).tolist())
    _check((labels["label"] == np.arange(len(labels))).all(), "labels: not numbered 0, 1, 2, ...")
    _check(((images["label"] >= 0) & (images["label"] < len(labels))).all(), "images: a label without a class")

    sizes_wh = np.stack([images["width"], images["height"]], axis=1).astype(np.int64)
    _check((sizes_wh[usable] > 0).all(), "images: a width or height below 1")
    boxes = np.stack([primary[name] for name in ("x0", "y0", "x1", "y1")], axis=-1).reshape(-1, primaries, 4)
    frame = sizes_wh[usable][:, None]
    in_order = (boxes[..., :2] < boxes[..., 2:]).all() and (boxes[..., :2] >= 0).all()
    _check(in_order and (boxes[..., 2:] <= frame).all(), "primary: a box that is empty, not finite or not in its image")

    _check((primary["keypoints"] >= 0).all(), "primary: fewer than 0 keypoints")
    weights = primary["weight"]
    _check(((weights >= 0) & (weights <= 1)).all(), "primary: a weight that is no share of 1")

    counts = primary["hull_count"].astype(np.int64)
    _check((counts >= 1).all() and counts.sum() == len(hulls), "primary: hull_count does not fit the table hulls")
    _check((primary["hull_first"] == np.cumsum(counts) - counts).all(), "primary: hull_first out of order")
    # A chunk that HDF5 no longer finds reads as zeros, without complaint.
    sorted_alike = [(hulls[name] == np.repeat(primary[name], counts)).all() for name in ("image", "region")]
    _check(all(sorted_alike), "hulls: rows are not sorted by image and region")
    hull_xy = np.stack([hulls["x"], hulls["y"]], axis=-1)
    vertex_frame = np.repeat(sizes_wh[primary["image"]], counts, axis=0)
    _check(((hull_xy >= 0) & (hull_xy <= vertex_frame)).all(), "hulls: a vertex outside its image")

    return Boxes(
        path=path,
        dataset=str(settings.get("dataset", {}).get("name")),
        classes=class_names,
        settings=settings,
        attributes=attributes,
        names=images[schema.PATH].copy(),
        splits=splits,
        labels=images["label"].astype(np.int64),
        sizes_wh=sizes_wh,
        status=status,
        usable=usable,
        primary_xyxy=boxes,
        keypoints=primary["keypoints"].reshape(-1, primaries).copy(),
        weights=weights.reshape(-1, primaries).copy(),
        hull_xy=hull_xy,
        hull_first=primary["hull_first"].reshape(-1, primaries)[:, 0].astype(np.int64),
        hull_counts=counts.astype(np.int32).reshape(-1, primaries),
        total_keypoints=images["keypoints"].copy(),
        distinct_keypoints=images["distinct_keypoints"].copy(),
        failures=()
        if failures is None
        else tuple(zip(_texts(failures[schema.PATH]), _texts(failures[schema.REASON]), strict=True)),
    )


_EXPECTED = {
    "images": schema.images_dtype(1),
    "labels": schema.labels_dtype(1),
    "primary": schema.PRIMARY,
    "hulls": schema.HULLS,
    "failures": schema.failures_dtype(1, 1),
}


def _table(file: h5py.File, name: str) -> np.ndarray:
    """A table of the expected columns, read whole, after every check that can be made without reading it."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise BoxesFileError(f"the table {name!r} is missing, or a link to another place")
    table = file[name]
    if not isinstance(table, h5py.Dataset) or table.ndim != 1:
        raise BoxesFileError(f"{name!r} is not a one-dimensional table")
    if table.external or table.is_virtual:
        raise BoxesFileError(f"the table {name!r} takes its content from other files; refused")
    creation = table.id.get_create_plist()
    filters = {creation.get_filter(number)[0] for number in range(creation.get_nfilters())}
    if not filters <= schema.ALLOWED_FILTERS:
        raise BoxesFileError(f"the table {name!r} needs filters other than gzip, shuffle and fletcher32; refused")
    expected = _EXPECTED[name]
    if table.dtype.names != expected.names:
        raise BoxesFileError(f"the table {name!r} has columns {table.dtype.names}, wanted {expected.names}")
    for column in expected.names or ():
        wanted, got = expected[column], table.dtype[column]
        if wanted.kind != got.kind or (wanted.kind != "S" and wanted != got) or got.itemsize > MAX_TEXT:
            raise BoxesFileError(f"the table {name!r} has {got} in column {column!r}, wanted {wanted}")
    rows, width = len(table), table.dtype.itemsize
    if rows > MAX_ROWS or rows * width > MAX_BYTES:
        raise BoxesFileError(f"the table {name!r} announces {rows:,} rows of {width:,} bytes; refused")
    if table.chunks and table.chunks[0] * width > MAX_CHUNK_BYTES:
        raise BoxesFileError(f"the table {name!r} is stored in chunks of {table.chunks[0]:,} rows; refused")
    # Stored bytes bound the content: deflate shrinks at most about 1,032-fold.
    if rows * width > 1100 * max(table.id.get_storage_size(), 1):
        raise BoxesFileError(f"the table {name!r} announces more rows than it holds; refused")
    return table[:]


def _texts(column: np.ndarray) -> np.ndarray:
    return np.array([value.decode() for value in column.tolist()], dtype=str)


def _check(condition: bool | np.bool_, complaint: str) -> None:
    if not condition:
        raise BoxesFileError(complaint)
