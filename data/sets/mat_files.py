"""Reading of lists that are distributed as MATLAB files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ..errors import DatasetError


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """The named variables of a MATLAB file of version 7.2 or older, each as an array ``(items,)``.

    A cell array of texts becomes an array of str, and a structure array has a field for each of its fields.

    Raises: `DatasetError` if the file is damaged or of another kind, or a variable is missing or empty.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # SciPy lets damage through as whatever it leads to.
    damage = (MatReadError, ValueError, TypeError, LookupError, ArithmeticError, NameError, EOFError, MemoryError)
    try:
        content = loadmat(path, appendmat=False, variable_names=names, squeeze_me=True)
    except (*damage, NotImplementedError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; those about the content have no errno
            raise
        raise DatasetError(f"{path}: cannot be read as a MATLAB file ({_one_line(error)}); extract it again") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DatasetError(f"{path}: there is no variable {missing[0]!r}; it is not the list that its name says")
    lists = [np.atleast_1d(content[name]) for name in names]
    if not all(len(one) for one in lists):
        raise DatasetError(f"{path}: the list is empty; extract it again")
    return lists


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
