"""Reading of ``cuhk-03.mat``, the file in which CUHK03 is distributed: HDF5, as MATLAB 7.3 writes it.

MATLAB stores a cell array as a table of references to its cells, and every array with its axes in reverse order.
Variables are ``labeled`` and ``detected``, ``{5 x 1}`` cells of ``{persons x 10}`` cells of pictures ``(H, W, 3)``,
some empty, and ``testsets``, ``{20 x 1}`` cells of ``(100, 2)`` camera pairs and persons, from 1.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from ..boxes.hdf5_tables import read_array
from ..errors import BoxesFileError, DatasetError

CAMERA_PAIRS, VIEWS = 5, 2
_PICTURES_OF_A_PERSON = 10  # the first half are of view 1, the second half of view 2
_MOST_PERSONS = 10_000  # of a pair of cameras; published are 843 at most
_LONGEST_SIDE = 2_000
_TOLD = 2_000  # pictures between two lines of progress
_MOST_BYTES = 8 * 2**30  # of all pictures of one kind of boxes, as pixels
_MOST_TESTED = 10_000


def read_test_sets(path: Path, count: int) -> list[list[tuple[int, int]]]:
    """The ``count`` test sets, each a list of (camera pair, person), from 1.

    Raises: `DatasetError` if the file is damaged or of another kind.
    """
    with _opened(path) as file:
        sets = []
        for cell in _cells(file, _variable(file, "testsets"), count, 1)[:, 0]:
            table = _target(file, cell)
            if table.dtype.kind not in "fiu":
                raise BoxesFileError("a test set is not of numbers")
            persons = read_array(table, "testsets", table.dtype, 16 * _MOST_TESTED)
            if persons.ndim != 2 or persons.shape[0] != 2 or not np.isin(persons, np.arange(1, _MOST_PERSONS)).all():
                raise BoxesFileError("a test set is no list of camera pairs and persons")
            sets.append([(pair, person) for pair, person in persons.T.astype(int).tolist()])
    return sets


def extract_pictures(path: Path, boxes: str, folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
    """Write the pictures of ``boxes``, ``labeled`` or ``detected``, as PNG files; ``folder`` appears once all exist.

    Args:
        path: ``cuhk-03.mat``.
        boxes: Variable of it.
        folder: Folder to make.
        say: Function called with a line of text now and then.

    Raises: `DatasetError` if the file is damaged or of another kind, or the folder cannot be written.
    """
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for count, (name, pixels) in enumerate(_pictures(path, boxes), 1):
                Image.fromarray(pixels).save(unfinished / name, compress_level=1)
                if count % _TOLD == 0:
                    say(f"{count:,} pictures so far, of about 14,000")
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if folder.is_dir():  # another process finished first
            return
        raise DatasetError(f"cannot extract the pictures of {path} to {folder}: {error.strerror or error}") from None


def _pictures(path: Path, boxes: str) -> Iterator[tuple[str, np.ndarray]]:
    """File name and pixels, uint8 RGB ``(H, W, 3)``, of every picture."""
    left = _MOST_BYTES
    with _opened(path) as file:
        for pair, of_pair in enumerate(_cells(file, _variable(file, boxes), CAMERA_PAIRS, 1)[:, 0], 1):
            persons = _cells(file, _target(file, of_pair), None, _PICTURES_OF_A_PERSON)
            for (person, number), cell in np.ndenumerate(persons):
                pixels = _pixels(file, boxes, cell)
                if pixels is None:
                    continue
                left -= pixels.nbytes
                if left < 0:
                    raise BoxesFileError("the pictures are too large")
                view = 1 + number * VIEWS // _PICTURES_OF_A_PERSON
                yield f"{pair}_{person + 1:03d}_{view}_{number + 1:02d}.png", pixels


def _pixels(file: h5py.File, boxes: str, cell: h5py.Reference) -> np.ndarray | None:
    """A picture; None for an empty cell."""
    table = _target(file, cell)
    if table.rank < 3:
        return None
    stored = read_array(table, boxes, np.dtype("u1"), 3 * _LONGEST_SIDE**2)
    if stored.ndim != 3 or stored.shape[0] != 3 or not 1 <= min(stored.shape) <= max(stored.shape) <= _LONGEST_SIDE:
        raise BoxesFileError(f"a picture of {boxes!r} has the shape {stored.shape}")
    return np.ascontiguousarray(stored.T)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The open file. HDF5's errors and those of `read_array` become a `DatasetError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (BoxesFileError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise DatasetError(_refused(path, error)) from None
    except OSError as error:
        if error.errno is not None:  # of the disk; those about the content have no errno
            raise
        raise DatasetError(_refused(path, error)) from None


def _refused(path: Path, error: Exception) -> str:
    return f"{path}: cannot be read as CUHK03's file ({' '.join(str(error).split())}); extract it again"


def _variable(file: h5py.File, name: str) -> h5py.h5d.DatasetID:
    links, key = file.id.links, name.encode()
    if not links.exists(key) or links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise BoxesFileError(f"the variable {name!r} is missing, or a link to another place")
    return _table(h5py.h5o.open(file.id, key))


def _target(file: h5py.File, cell: h5py.Reference) -> h5py.h5d.DatasetID:
    if not cell:
        raise BoxesFileError("a cell refers to nothing")
    return _table(h5py.h5r.dereference(cell, file.id))


def _table(found: object) -> h5py.h5d.DatasetID:
    if not isinstance(found, h5py.h5d.DatasetID):
        raise BoxesFileError("a cell is not an array")
    return found


def _cells(file: h5py.File, table: h5py.h5d.DatasetID, rows: int | None, columns: int) -> np.ndarray:
    """The references of a cell array, ``(rows, columns)`` as in MATLAB."""
    cells = read_array(table, "cells", h5py.ref_dtype, 8 * columns * _MOST_PERSONS).T
    if cells.ndim != 2 or cells.shape[1] != columns or rows not in (None, cells.shape[0]):
        raise BoxesFileError(f"a cell array has the shape {cells.shape}")
    return cells
