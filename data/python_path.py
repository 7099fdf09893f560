"""Module search path of the Python processes started here: it excludes the current folder, which is the user's."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import all_suffixes
from pathlib import Path

_VARIABLE = "PYTHONSAFEPATH"  # Python 3.10 does not know it
_KNOWS_VARIABLE = sys.version_info >= (3, 11)

_lock = threading.Lock()
_before: list[str | None] = []  # the variable's earlier values, one per active context


@contextmanager
def current_folder_hidden() -> Iterator[None]:
    """Start Python processes that do not search the current folder for modules while this context is active.

    joblib and multiprocessing start theirs by ``python -m`` and ``python -c``, which search that folder first: a user's
    own random.py would crash each of them. Workers still inherit this process's ``sys.path``.
    """
    with _lock:
        _before.append(os.environ.get(_VARIABLE))
        os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        with _lock:
            # Contexts may end in any order: the last one restores the original value.
            value = _before.pop() if len(_before) == 1 else _before.pop(1)
            if not _before and value is None:
                os.environ.pop(_VARIABLE, None)
            elif not _before and value is not None:
                os.environ[_VARIABLE] = value


def strange_modules() -> Iterator[Path]:
    """Files that a new process would import instead of a standard library module or one that is loaded here."""
    library = sysconfig.get_path("stdlib")
    folders = [*([] if _KNOWS_VARIABLE else [os.curdir]), *sys.path, library]
    loaded = {name for name in sys.modules if "." not in name and not name.startswith("__")}
    for folder in folders[: folders.index(library)]:
        for name in sorted((sys.stdlib_module_names | loaded) - set(sys.builtin_module_names)):
            for file in (f"{name}/__init__.py", *(name + suffix for suffix in all_suffixes())):
                path = Path(folder, file)
                if path.is_file() and not _is_loaded(name, path):
                    yield path.absolute()


def usurper(error: ImportError | AttributeError) -> str | None:
    """The file that shadows a standard library module, if that explains the error; else None."""
    if isinstance(error, ImportError):
        name, file = error.name, error.path
    else:
        name, file = (getattr(error.obj, attribute, None) for attribute in ("__name__", "__file__"))
    if not file or not isinstance(name, str) or name.partition(".")[0] not in sys.stdlib_module_names:
        return None
    own = [sysconfig.get_path(where) for where in ("stdlib", "platstdlib")]
    return None if any(Path(file).is_relative_to(folder) for folder in own) else file


def _is_loaded(name: str, path: Path) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return file is not None and path.samefile(file)
    except OSError:
        return False
