"""Reading a boxes file, which may come from a stranger or from a disk that failed.

Nothing but plain tables inside this very file is followed: external storage, links and virtual data sets
could read other files of this machine. Every size is checked before memory is taken for it. HDF5 itself is trusted
with neither: it inflates chunks without limit, reads past the end of those that come out short, and takes the length
of a variable-length text on trust. So chunks are decoded here, and such texts refused.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np

from . import boxes_schema as schema
from .errors import BoxesFileError, ConfigurationError
from .index import NOT_TEXT, SPLITS, leaves_root
from .regions import KINDS, Layout, Regions, boxes_of_hulls

# Ten times the largest data set in sight; a table of more rows is damage or malice.
MAX_ROWS = 1_000_000_000
MAX_BYTES = 16 * 2**30
# Real tables shrink 2 to 10-fold, deflate makes 1,000 of 1. Small ones may: equal rows shrink well.
MAX_SHRINKAGE, SMALL_BYTES = 100, 2**28
# HDF5's own choice of chunks ends at 1 MiB. Within this bound the sums of `_fletcher32` fit 64 bits.
MAX_CHUNK_BYTES = 16 * 2**20
MAX_CELL = 4096  # bytes of a text in a table; no system has longer paths
MAX_ATTRIBUTES, MAX_ATTRIBUTE_BYTES = 100, 2**20
MAX_MESSAGE = 500
# Files say coordinates to 0.1 pixel; a writer may have rounded boxes and hulls apart.
BOX_TOLERANCE = 0.15

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

Settings = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Listing:
    """What a boxes file says of its images, their regions aside. Row k of an array is image k of the data set."""

    path: Path
    dataset: str
    classes: tuple[str, ...]
    settings: Settings  #: everything that made the boxes, in sections: dataset, proposals, versions
    attributes: dict[str, object]  #: the other root attributes
    layout: Layout  #: which regions each image has
    names: np.ndarray  #: bytes ``(images,)``, POSIX paths relative to the data set's root
    splits: np.ndarray  #: ``U5 (images,)``
    labels: np.ndarray  #: int64 ``(images,)``
    sizes_wh: np.ndarray  #: int64 ``(images, 2)``
    status: np.ndarray  #: ``U (images,)``
    total_keypoints: np.ndarray  #: int32 ``(images,)``
    distinct_keypoints: np.ndarray  #: int32 ``(images,)``
    distinct_regions: np.ndarray  #: int16 ``(images,)``
    file_bytes: np.ndarray  #: int64 ``(images,)``
    modified_utc: np.ndarray  #: bytes ``(images,)``, see `schema.modified_text`
    contents: np.ndarray  #: bytes ``(images,)``, BLAKE2b of the files in hexadecimal


@dataclass(frozen=True)
class Boxes(Listing):
    """A boxes file in memory, flat arrays only, so that workers can share it.

    Rows of `primary_xyxy` and the hulls' columns are those of the images that could be used: image ``usable[u]``
    owns row u.
    """

    usable: np.ndarray  #: int64 ``(usable,)``, image numbers, rising
    primary_xyxy: np.ndarray  #: float32 ``(usable, κ, 4)``
    keypoints: np.ndarray  #: int32 ``(usable, κ)``
    weights: np.ndarray  #: float32 ``(usable, κ)``
    hull_xy: np.ndarray  #: float32 ``(vertices, 2)``
    hull_first: np.ndarray  #: int64 ``(usable,)``, first vertex of the image's first hull
    hull_counts: np.ndarray  #: int32 ``(usable, κ)``
    failures: tuple[tuple[str, str], ...]  #: (name, reason)

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
            layout=self.layout,
        )


def read_boxes(path: str | Path) -> Boxes:
    """Read a whole boxes file and check that it holds together.

    Raises: `BoxesFileError` naming what is wrong, for anything that is not a complete, consistent boxes
    file of this format version.
    """
    path = Path(path)
    with _opened(path) as file:
        return _read(path, file)


def read_listing(path: Path) -> Listing:
    """What the file says of its images, without reading their regions. Raises as `read_boxes`."""
    with _opened(path) as file:
        return _listing(path, file)


def refuse_to_replace_other(path: Path) -> None:
    """Raise `BoxesFileError` if there is something at ``path`` that is no boxes file, not even a damaged one."""
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
    raise BoxesFileError(f"{path} is no boxes file and will not be replaced; name another file with --boxes")


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; whatever goes wrong inside is a `BoxesFileError` of one line."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            raise BoxesFileError("not a file, but a folder or device")
        with h5py.File(path, "r") as file:
            yield file
    except BoxesFileError as error:
        raise BoxesFileError(f"{path}: {str(error)[:MAX_MESSAGE]}") from None
    except FileNotFoundError:
        if path.with_name(path.name + ".parts").is_dir():
            raise BoxesFileError(f"{path} is not finished: run the same agnet propose command again") from None
        raise BoxesFileError(f"there is no boxes file {path}; make one with: agnet propose --boxes {path}") from None
    except PermissionError:
        raise BoxesFileError(f"{path}: no permission to read it") from None
    except BlockingIOError:
        raise BoxesFileError(f"{path}: another program has it open for writing; close it there") from None
    # h5py reports damage as whatever its C library stumbled over.
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_MESSAGE]
        raise BoxesFileError(f"{path}: not an HDF5 file, or damaged ({reason})") from None


def _attributes(file: h5py.File) -> tuple[dict[str, object], Settings]:
    found: dict[str, object] = {}
    if len(file.attrs) > MAX_ATTRIBUTES:
        raise BoxesFileError(f"more than {MAX_ATTRIBUTES} root attributes")
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        kind = attribute.get_type()
        if _is_variable_text(kind):
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
    if found.get("format_version") != schema.FORMAT_VERSION:
        raise BoxesFileError(
            f"format version {found.get('format_version')!r}, this program reads {schema.FORMAT_VERSION}; make the "
            "file again with agnet propose --restart"
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
    layout = _layout(settings.get("proposals", {}))
    images, labels = _table(file, "images"), _table(file, "labels")
    status = _choices(images, "status", schema.STATUSES)
    splits = _choices(images, "split", SPLITS)
    names = _lines("images", images[schema.PATH])
    _check(not any(map(leaves_root, names)), "images: a path that leaves the data set's root")
    _check(len(set(names)) == len(names), "images: a path is listed twice")
    class_names = tuple(_lines("labels", labels[schema.CLASS]))
    _check(len(set(class_names)) == len(class_names), "labels: a class is listed twice")
    _check((labels["label"] == np.arange(len(labels))).all(), "labels: not numbered 0, 1, 2, ...")
    _check(((images["label"] >= 0) & (images["label"] < len(labels))).all(), "images: a label without a class")
    for table, rows in (("images", images), ("labels", labels)):
        for column in _COUNTS[table]:
            _check((rows[column] >= 0).all(), f"{table}: a number below 0 in column {column!r}")

    sizes_wh = np.stack([images["width"], images["height"]], axis=1).astype(np.int64)
    _check((sizes_wh[status != schema.STATUS_UNREADABLE] > 0).all(), "images: a width or height below 1")
    return Listing(
        path=path,
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
    )


def _read(path: Path, file: h5py.File) -> Boxes:
    listing = _listing(path, file)
    primaries, sizes_wh = listing.layout.primary, listing.sizes_wh
    usable = np.flatnonzero(listing.status != schema.STATUS_UNREADABLE)
    _check(len(usable) > 0, "images: none is usable")
    primary = _table(file, "primary", len(usable) * primaries, f"{primaries} for each usable image")
    _check((primary["image"] == np.repeat(usable, primaries)).all(), "primary: rows are not sorted by image")
    _check((primary["region"] == np.tile(np.arange(primaries), len(usable))).all(), "primary: regions out of order")

    boxes = np.stack([primary[name] for name in ("x0", "y0", "x1", "y1")], axis=-1)
    frame = sizes_wh[primary["image"]].astype(np.float32)
    in_order = (boxes[:, :2] < boxes[:, 2:]).all() and (boxes[:, :2] >= 0).all()
    _check(in_order and (boxes[:, 2:] <= frame).all(), "primary: a box that is empty, not finite or not in its image")

    _check((primary["keypoints"] >= 0).all(), "primary: fewer than 0 keypoints")
    weights = primary["weight"]
    _check(((weights >= 0) & (weights <= 1)).all(), "primary: a weight that is no share of 1")

    counts = primary["hull_count"].astype(np.int64)
    _check((counts >= 1).all(), "primary: a hull_count below 1")
    hulls = _table(file, "hulls", int(counts.sum()), "the sum of primary's hull_count")
    _check((primary["hull_first"] == np.cumsum(counts) - counts).all(), "primary: hull_first out of order")
    sorted_alike = [(hulls[name] == np.repeat(primary[name], counts)).all() for name in ("image", "region")]
    _check(all(sorted_alike), "hulls: rows are not sorted by image and region")
    hull_xy = np.stack([hulls["x"], hulls["y"]], axis=-1)
    highest = np.maximum.reduceat(hull_xy, primary["hull_first"], axis=0)
    _check((hull_xy >= 0).all() and (highest <= frame).all(), "hulls: a vertex outside its image")
    # Training moves hulls, people look at boxes: both must say the same.
    off = np.abs(boxes_of_hulls(hull_xy, counts, frame) - boxes).max()
    _check(off <= BOX_TOLERANCE, f"primary: a box is up to {off:.1f} pixels off the box of its hull")

    return Boxes(
        **{field.name: getattr(listing, field.name) for field in fields(Listing)},
        usable=usable,
        primary_xyxy=boxes.reshape(-1, primaries, 4),
        keypoints=primary["keypoints"].reshape(-1, primaries).copy(),
        weights=weights.reshape(-1, primaries).copy(),
        hull_xy=hull_xy,
        hull_first=primary["hull_first"].reshape(-1, primaries)[:, 0].astype(np.int64),
        hull_counts=counts.astype(np.int32).reshape(-1, primaries),
        failures=_failures(file, listing),
    )


def _failures(file: h5py.File, listing: Listing) -> tuple[tuple[str, str], ...]:
    unreadable = np.flatnonzero(listing.status == schema.STATUS_UNREADABLE)
    if not len(unreadable) and not file.id.links.exists(b"failures"):
        return ()
    failures = _table(file, "failures", len(unreadable), "one for each unreadable image")
    _check((failures["image"] == unreadable).all(), "failures: not the unreadable images, in order")
    names = _lines("failures", failures[schema.PATH])
    _check((failures[schema.PATH] == listing.names[unreadable]).all(), "failures: a path that is not its image's")
    return tuple(zip(names, _lines("failures", failures[schema.REASON]), strict=True))


_EXPECTED = {
    "images": schema.images_dtype(1),
    "labels": schema.labels_dtype(1),
    "primary": schema.PRIMARY,
    "hulls": schema.HULLS,
    "failures": schema.failures_dtype(1, 1),
}

# Columns that count something; those of the other tables are checked against each other.
_COUNTS = {
    "images": ("keypoints", "distinct_keypoints", "distinct_regions", "file_bytes"),
    "labels": tuple(f"images_in_{split}" for split in SPLITS),
}


def _table(file: h5py.File, name: str, rows_wanted: int | None = None, because: str = "") -> np.ndarray:
    """A table of the expected columns, read whole, after every check that can be made without reading it.

    Args:
        file: the open file.
        name: of the table.
        rows_wanted: how many rows it must have, where what was read before says so.
        because: what says so.
    """
    links, key = file.id.links, name.encode()
    if not links.exists(key) or links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise BoxesFileError(f"the table {name!r} is missing, or a link to another place")
    table = h5py.h5o.open(file.id, key)
    if not isinstance(table, h5py.h5d.DatasetID):
        raise BoxesFileError(f"{name!r} is not a one-dimensional table")
    # The type first: HDF5 looks up fill values of variable length. Then the storage: the shape of a virtual data set
    # is looked up in its source files.
    dtype = _dtype(name, table.get_type())
    creation = table.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise BoxesFileError(f"the table {name!r} takes its content from other files; refused")
    if table.rank != 1:
        raise BoxesFileError(f"{name!r} is not a one-dimensional table")
    (rows,), width = table.shape, dtype.itemsize
    small = max(SMALL_BYTES, MAX_SHRINKAGE * Path(file.filename).stat().st_size)
    if rows > MAX_ROWS or rows * width > min(MAX_BYTES, small):
        raise BoxesFileError(f"the table {name!r} announces {rows:,} rows of {width:,} bytes; refused")
    if rows_wanted is not None and rows != rows_wanted:
        raise BoxesFileError(f"{name}: {rows:,} rows, wanted {rows_wanted:,}, {because}")
    if creation.get_layout() == h5py.h5d.CHUNKED:
        return _read_chunks(name, table, creation, rows, dtype)
    if table.get_storage_size() != rows * width:
        raise BoxesFileError(f"the table {name!r} announces more rows than it holds; refused")
    found = np.empty(rows, dtype)
    table.read(h5py.h5s.ALL, h5py.h5s.ALL, found, table.get_type())
    return found


def _dtype(name: str, stored: h5py.h5t.TypeID) -> np.dtype:
    """The NumPy type of a table's rows as they are stored, once it is one of the expected columns and no other."""
    expected = _EXPECTED[name]
    wanted_names = expected.names or ()
    if not isinstance(stored, h5py.h5t.TypeCompoundID):
        raise BoxesFileError(f"the table {name!r} has no columns, wanted {wanted_names}")
    columns = range(stored.get_nmembers())
    names = tuple(stored.get_member_name(column).decode(errors="replace") for column in columns)
    if names != wanted_names:
        raise BoxesFileError(f"the table {name!r} has columns {names}, wanted {wanted_names}")
    formats = []
    for column in columns:
        wanted, member = expected[column], stored.get_member_type(column)
        is_text = isinstance(member, h5py.h5t.TypeStringID) and not _is_variable_text(member)
        if is_text and wanted.kind == "S" and member.get_size() <= MAX_CELL:
            formats.append(np.dtype(f"S{member.get_size()}"))
        elif wanted.kind != "S" and member == h5py.h5t.py_create(wanted):
            formats.append(wanted)
        else:
            got, numbers = _described(member), _described(h5py.h5t.py_create(wanted))
            raise BoxesFileError(f"the table {name!r} has {got} in column {names[column]!r}, wanted {numbers}")
    offsets = [stored.get_member_offset(column) for column in columns]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": stored.get_size()})


def _read_chunks(
    name: str, table: h5py.h5d.DatasetID, creation: h5py.h5p.PropDCID, rows: int, dtype: np.dtype
) -> np.ndarray:
    filters = [creation.get_filter(number) for number in range(creation.get_nfilters())]
    codes = [code for code, *_ in filters]
    if not schema.ALLOWED_FILTERS.issuperset(codes) or len(set(codes)) < len(codes):
        raise BoxesFileError(f"the table {name!r} needs filters other than gzip, shuffle and fletcher32; refused")
    (chunk_rows,), width = creation.get_chunk(), dtype.itemsize
    if any(code == h5py.h5z.FILTER_SHUFFLE and values != (width,) for code, _, values, _ in filters):
        raise BoxesFileError(f"the table {name!r} is shuffled by another width than its rows have")
    size = chunk_rows * width
    if size > MAX_CHUNK_BYTES:
        raise BoxesFileError(f"the table {name!r} is stored in chunks of {chunk_rows:,} rows; refused")
    found = np.empty(rows, dtype)
    content = found.view(np.uint8).reshape(rows, width)
    # What deflate cannot shrink grows by a thousandth at most. h5py refuses a chunk that does not fit.
    room = bytearray(size + size // 8 + 1024)
    for first in range(0, rows, chunk_rows):
        skipped, stored = table.read_direct_chunk((first,), out=room)
        try:
            chunk = _decoded(stored, codes, skipped, width, size)
        except (ValueError, zlib.error) as error:
            raise BoxesFileError(f"the table {name!r} is damaged at row {first:,} ({error})") from None
        here = content[first : first + chunk_rows]
        here[:] = np.frombuffer(chunk, np.uint8).reshape(chunk_rows, width)[: len(here)]
    return found


def _decoded(stored: memoryview, filters: Sequence[int], skipped: int, width: int, size: int) -> bytes | memoryview:
    """The ``size`` bytes a stored chunk stands for, in rows of ``width`` bytes.

    Args:
        stored: the chunk as it is in the file.
        filters: codes, in the order in which they were applied.
        skipped: bit k set: filter k was left out for this chunk.
        width: of a row.
        size: of the chunk.

    Raises: `ValueError` and `zlib.error` for a chunk that is not of this size, or damaged.
    """
    content: bytes | memoryview = stored
    for place in reversed(range(len(filters))):
        if skipped >> place & 1:
            continue
        if filters[place] == h5py.h5z.FILTER_DEFLATE:
            inflater = zlib.decompressobj()
            content = inflater.decompress(content, size + 5)  # a checksum of 4 bytes may be inside
            if not inflater.eof:
                raise ValueError("a chunk of another size")
        elif filters[place] == h5py.h5z.FILTER_FLETCHER32:
            content, sums = content[:-4], int.from_bytes(content[-4:], "little")
            if _fletcher32(content) != (sums % 2**16 % 65535, (sums >> 16) % 65535):
                raise ValueError("a wrong checksum")
        else:
            whole = len(content) // width * width
            columns = np.frombuffer(content, np.uint8, whole).reshape(width, -1)
            content = columns.T.tobytes() + bytes(content[whole:])
    if len(content) != size:
        raise ValueError("a chunk of another size")
    return content


def _fletcher32(content: bytes | memoryview) -> tuple[int, int]:
    """HDF5's checksum, both halves modulo 65,535: the sums of 16-bit words and of their running sums."""
    if len(content) % 2:
        content = bytes(content) + b"\0"
    words = np.frombuffer(content, ">u2").astype(np.uint64)
    return int(words.sum()) % 65535, int(words.cumsum().sum()) % 65535


def _is_variable_text(kind: h5py.h5t.TypeID) -> bool:
    return isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()


def _described(kind: h5py.h5t.TypeID) -> str:
    """A number's type as NumPy writes it, else what HDF5 calls its class."""
    if isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)):
        return kind.dtype.str
    return ("variable-length " if _is_variable_text(kind) else "") + type(kind).__name__


def _choices(images: np.ndarray, column: str, choices: Sequence[str]) -> np.ndarray:
    found = images[column].tolist()
    _check(set(found) <= {choice.encode() for choice in choices}, f"images: a {column} other than {', '.join(choices)}")
    return np.array(found, bytes).astype(str)


def _lines(table: str, column: np.ndarray) -> list[str]:
    """The texts of a column, each of one line: they end up in messages and on terminals."""
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
