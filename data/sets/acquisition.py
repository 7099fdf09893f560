"""A named data set, fetched and unpacked to where it is looked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import ConfigurationError, DatasetError
from .availability import COMPLETE, NOT_THERE, PARTLY, look_up
from .catalogue import CATALOGUE
from .extraction import extract
from .fetch import fetch, file_name

Progress = Callable[[str, int, "int | None"], None]  #: what is being done, bytes done, of how many if known


def acquire(dataset: str, root: Path, progress: Progress = lambda what, done, total: None) -> list[Path]:
    """Bring a data set under ``root``; returns the archives it came in, which stay. Nothing is done if it is there.

    Interrupted, it goes on where it was the next time. An archive that was fetched by hand is taken.

    Raises: `DatasetError` with instructions where no program may fetch it, before anything is fetched where a part of
    it or anything else is in the way, or where what was fetched is not what the book says; what `fetch` and `extract`
    raise.
    """
    entry = CATALOGUE[dataset]
    found = look_up(dataset, root)
    if found.state == COMPLETE:
        return []
    if not entry.downloads:
        if not entry.homepage:
            raise ConfigurationError(f"there is nothing to fetch for {dataset!r}: {entry.how}")
        if found.state != NOT_THERE:
            raise DatasetError(found.detail)
        raise DatasetError(f"{entry.title} is not given out to programs: {entry.how}, to {root / entry.folder}")
    if found.state == PARTLY:
        raise DatasetError(f"{found.detail}. To have all of it fetched, move away what is there")
    folder = root / entry.folder
    archives = [root / file_name(download) for download in entry.downloads]
    for target in archives:
        for name in (target.name, f"{target.name}.part", f"{target.name}.part.json"):
            if (folder / name).is_file() and not (root / name).exists():
                (folder / name).replace(root / name)  # the folder is to be made of what is in them
    _make_free(folder)
    for download, target in zip(entry.downloads, archives, strict=True):
        fetch(download, target, partial(progress, f"fetch {target.name}"))
    _make_free(folder)  # a Mac may have been there in the meantime
    extract(archives, folder, progress=progress)
    found = look_up(dataset, root)
    if found.state != COMPLETE:
        raise DatasetError(found.detail)
    return archives


def _make_free(folder: Path) -> None:
    """See to it that ``folder`` can be unpacked to: it is not there or empty, once what Macs leave there is deleted.

    Raises: `DatasetError` naming what else is in the way; nothing is then deleted.
    """
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    of_a_mac = [path for path in inside if path.is_file() and (path.name == ".DS_Store" or path.name.startswith("._"))]
    others = [path for path in inside if path not in of_a_mac]
    if others or (folder.exists() and not folder.is_dir()):
        in_the_way = others[0] if others else folder
        raise DatasetError(f"{in_the_way} is in the way of what is to be unpacked: delete it or move it away")
    for path in of_a_mac:
        path.unlink()
