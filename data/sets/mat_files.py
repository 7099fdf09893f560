"""Reading of lists that are distributed as MATLAB files."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

from ..errors import DatasetError

_MOST_BYTES = 4 * 2**20  # published lists are below 2 MB; compressed content may be a thousand times as large
# SciPy's reader ends the whole process for some damaged files, so that each is first read in a process of its own.
_TRIAL = "import sys; from scipy.io import loadmat; loadmat(sys.argv[1], appendmat=False)"


def read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """The named variables of a MATLAB file of version 7.2 or older, each as an array ``(items,)``.

    A cell array of texts becomes an array of str, and a structure array has a field for each of its fields.

    Raises: `DatasetError` if the file is damaged, too large or of another kind, or a variable is missing or empty.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # SciPy lets damage through as whatever it leads to.
    damage = (MatReadError, ValueError, TypeError, LookupError, ArithmeticError, NameError, EOFError, MemoryError)
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise DatasetError(
            f"{path}: its {size / 2**20:,.1f} MiB are too large for a list, which has at most {_MOST_BYTES // 2**20}; "
            "extract it again"
        )
    try:
        if subprocess.run([sys.executable, "-I", "-c", _TRIAL, path], capture_output=True, check=False).returncode < 0:
            raise ValueError("it crashes the reader")
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
