"""Reading of HDF5 tables from untrusted or damaged files without relying on HDF5's own checks.

Only plain tables inside the file itself are read: external storage, links and virtual data sets could read other files
on this machine. Every size is checked before memory is allocated. HDF5 itself inflates chunks without limit, reads past
the end of chunks that come out short, and trusts the lengths of variable-length texts. Chunks are therefore decoded
here, and such texts refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path

import h5py
import numpy as np

from ..errors import BoxesFileError
from . import schema

# Ten times the largest data set in use; a table with more rows is damaged or malicious.
MAX_ROWS = 1_000_000_000
MAX_BYTES = 16 * 2**30
# Real tables compress 2 to 10-fold, deflate up to 1,000-fold. Small ones may reach that: equal rows compress well.
MAX_SHRINKAGE, SMALL_BYTES = 100, 2**28
# HDF5's automatic chunks are at most 1 MiB. Within this bound, the sums of `_fletcher32` fit 64 bits.
MAX_CHUNK_BYTES = 16 * 2**20
MAX_CELL = 4096  # bytes of a text in a table; no system has longer paths


def read_table(
    file: h5py.File,
    name: str,
    expected: np.dtype,
    rows_wanted: int | None = None,
    because: str = "",
    optional: Collection[str] = (),
) -> np.ndarray:
    """Read a whole table with the expected columns, after every check that is possible without reading it.

    Args:
        file: Open file.
        name: Table name.
        expected: Expected columns, in order; texts may have another width.
        rows_wanted: Required number of rows, if already known.
        because: Reason for that number, for the message.
        optional: Columns that may be absent.

    Raises: `BoxesFileError` for anything other than a complete table of this form inside the file itself.
    """
    links, key = file.id.links, name.encode()
    if not links.exists(key) or links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise BoxesFileError(f"the table {name!r} is missing, or a link to another place")
    table = h5py.h5o.open(file.id, key)
    if not isinstance(table, h5py.h5d.DatasetID):
        raise BoxesFileError(f"{name!r} is not a one-dimensional table")
    # Check the type first: HDF5 reads fill values of variable length. Then the storage: HDF5 looks up the shape of a
    # virtual data set in its source files.
    dtype = _dtype(name, expected, optional, table.get_type())
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


def read_array(table: h5py.h5d.DatasetID, name: str, dtype: np.dtype, most_bytes: int) -> np.ndarray:
    """Read a whole array of numbers or references ``(...)``, after every check that is possible without reading it.

    Args:
        table: Array, of any number of axes.
        name: Its name, for messages.
        dtype: Required type of its elements.
        most_bytes: Largest permitted size.

    Raises: `BoxesFileError` for anything other than a complete array of this type inside the file itself.
    """
    if table.get_type() != h5py.h5t.py_create(dtype, logical=True):
        raise BoxesFileError(f"{name!r} has elements of another type than {dtype}")
    creation = table.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
        raise BoxesFileError(f"{name!r} takes its content from other files; refused")
    size = prod(table.shape) * dtype.itemsize
    if size > most_bytes:
        raise BoxesFileError(f"{name!r} announces {size:,} bytes; refused")
    if creation.get_layout() == h5py.h5d.CHUNKED:
        _check_chunks(name, table, creation, dtype.itemsize)
    elif table.get_storage_size() != size:
        raise BoxesFileError(f"{name!r} announces more than it holds; refused")
    found = np.empty(table.shape, dtype)
    if size:
        table.read(h5py.h5s.ALL, h5py.h5s.ALL, found)
    return found


def _check_chunks(name: str, table: h5py.h5d.DatasetID, creation: h5py.h5p.PropDCID, width: int) -> None:
    """Raise `BoxesFileError` unless every chunk exists and decodes to its size, so that HDF5 may read them itself."""
    codes = _filters(name, creation, width)
    size = prod(creation.get_chunk()) * width
    if size > MAX_CHUNK_BYTES:
        raise BoxesFileError(f"{name!r} is stored in chunks of {size:,} bytes; refused")
    chunks = prod(-(-side // step) for side, step in zip(table.shape, creation.get_chunk(), strict=True))
    if table.get_num_chunks() != chunks:
        raise BoxesFileError(f"{name!r} announces more than it holds; refused")
    room = bytearray(size + size // 8 + 1024)
    for number in range(chunks):
        try:
            skipped, stored = table.read_direct_chunk(table.get_chunk_info(number).chunk_offset, out=room)
            _decoded(stored, codes, skipped, width, size)
        except (ValueError, zlib.error) as error:
            raise BoxesFileError(f"{name!r} is damaged ({error})") from None


def _filters(name: str, creation: h5py.h5p.PropDCID, width: int) -> list[int]:
    """The codes of the filters of a chunked table, in the order in which they were applied."""
    filters = [creation.get_filter(number) for number in range(creation.get_nfilters())]
    codes = [code for code, *_ in filters]
    if not schema.ALLOWED_FILTERS.issuperset(codes) or len(set(codes)) < len(codes):
        raise BoxesFileError(f"the table {name!r} needs filters other than gzip, shuffle and fletcher32; refused")
    if any(code == h5py.h5z.FILTER_SHUFFLE and values != (width,) for code, _, values, _ in filters):
        raise BoxesFileError(f"the table {name!r} is shuffled by another width than its rows have")
    return codes


def _dtype(name: str, expected: np.dtype, optional: Collection[str], stored: h5py.h5t.TypeID) -> np.dtype:
    """The NumPy type of a table's stored rows, after a check that it has the expected columns and no other."""
    needed = tuple(column for column in expected.names or () if column not in optional)
    if not isinstance(stored, h5py.h5t.TypeCompoundID):
        raise BoxesFileError(f"the table {name!r} has no columns, wanted {needed}")
    columns = range(stored.get_nmembers())
    names = tuple(stored.get_member_name(column).decode(errors="replace") for column in columns)
    if names != tuple(column for column in expected.names or () if column in needed or column in names):
        raise BoxesFileError(f"the table {name!r} has columns {names}, wanted {needed}")
    formats = []
    for column in columns:
        wanted, member = expected[names[column]], stored.get_member_type(column)
        is_text = isinstance(member, h5py.h5t.TypeStringID) and not is_variable_text(member)
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
    (chunk_rows,), width = creation.get_chunk(), dtype.itemsize
    codes = _filters(name, creation, width)
    size = chunk_rows * width
    if size > MAX_CHUNK_BYTES:
        raise BoxesFileError(f"the table {name!r} is stored in chunks of {chunk_rows:,} rows; refused")
    found = np.empty(rows, dtype)
    content = found.view(np.uint8).reshape(rows, width)
    # Incompressible data grow under deflate by at most a thousandth. h5py refuses a chunk that does not fit.
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
    """Decode a stored chunk to ``size`` bytes, in rows of ``width`` bytes.

    Args:
        stored: Chunk as stored in the file.
        filters: Filter codes in the order in which they were applied.
        skipped: Bit mask; bit k set means that filter k was not applied to this chunk.
        width: Row width in bytes.
        size: Chunk size in bytes.

    Raises: `ValueError` or `zlib.error` for a chunk that has another size or is damaged.
    """
    content: bytes | memoryview = stored
    for place in reversed(range(len(filters))):
        if skipped >> place & 1:
            continue
        if filters[place] == h5py.h5z.FILTER_DEFLATE:
            inflater = zlib.decompressobj()
            content = inflater.decompress(content, size + 5)  # may include a checksum of 4 bytes
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
    """HDF5's checksum, both halves modulo 65,535: the sum of the 16-bit words and that of their running sums."""
    if len(content) % 2:
        content = bytes(content) + b"\0"
    words = np.frombuffer(content, ">u2").astype(np.uint64)
    return int(words.sum()) % 65535, int(words.cumsum().sum()) % 65535


def is_variable_text(kind: h5py.h5t.TypeID) -> bool:
    return isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()


def _described(kind: h5py.h5t.TypeID) -> str:
    """The NumPy name of a number's type, or HDF5's class name for other types."""
    if isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)):
        return kind.dtype.str
    return ("variable-length " if is_variable_text(kind) else "") + type(kind).__name__
