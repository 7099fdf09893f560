"""A table of the named data sets: facts about each, and what is on this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten

from ..errors import AbsentError, DatasetError
from ..index import ALL_SPLITS
from ..text import printable, rows_called, table
from .catalogue import CATALOGUE, difference_from_book
from .entry import Download, Entry, Options
from .on_disk import leftover

COMPLETE = "complete"
PARTLY = "partly there"
NOT_EXTRACTED = "not extracted"
HALF_A_DOWNLOAD = "half a download"
NOT_THERE = "not there"
OWN = "your own files"
MADE = "made on first use"


@dataclass(frozen=True)
class Availability:
    """A named data set and its state under a root."""

    dataset: str
    entry: Entry
    root: Path
    state: str  #: one of the texts above
    detail: str  #: what was searched for and what to do, in a sentence; empty if the data set is complete

    def to_dict(self) -> dict[str, object]:
        """The facts for JSON, without functions."""
        entry = self.entry
        return {
            "name": self.dataset,
            "title": entry.title,
            "images": dict(entry.counts) if entry.counts else None,
            "of_clips": entry.of_clips,
            "classes": entry.classes,
            "split": entry.split,
            "licence": entry.licence,
            "size": entry.size,
            "homepage": entry.homepage,
            "how_to_get_it": entry.how,
            "downloads": [asdict(download) for download in entry.downloads],
            "ignored": entry.ignored,
            "flaws": entry.flaws,
            "root": str(self.root),
            "state": self.state,
            "detail": self.detail,
        }


def look_up(dataset: str, root: Path) -> Availability:
    """Find out what exists under ``root`` of a data set, from names and counts alone; no image is opened or written."""
    entry = CATALOGUE[dataset]
    state, detail = _state(dataset, entry, root)
    return Availability(dataset, entry, root, state, detail)


def table_text(found: list[Availability]) -> str:
    """A table with one line per data set."""
    header = ("name", *ALL_SPLITS, "classes", "size", "on this machine", "fetch", "licence")
    return "\n".join(table([header, *map(_cells, found)], right=set(range(1, 7))))


def details_text(found: Availability) -> str:
    """All facts about one data set, one line each."""
    entry = found.entry
    told = {
        "name": f"{found.dataset}: {entry.title}",
        rows_called(entry.of_clips): ", ".join(f"{count:,} {split}" for split, count in (entry.counts or {}).items()),
        "persons" if entry.camera else "classes": "" if entry.classes is None else f"{entry.classes:,}",
        "split": entry.split,
        "ignored": entry.ignored,
        "flaws": entry.flaws,
        "licence": entry.licence,
        "size": entry.size,
        "homepage": entry.homepage,
        "how": "" if found.detail else entry.how,  # `detail` includes it
        "folder": str(found.root / entry.folder) if entry.folder else "",
        "state": f"{found.state}: {found.detail}" if found.detail else found.state,
    }
    lines = [f"{name:9} {printable(text)}" for name, text in told.items() if text]
    lines[-1:-1] = [f"{'fetched':9} {download.url} ({_checked(download)})" for download in entry.downloads]
    return "\n".join(lines)


def _state(dataset: str, entry: Entry, root: Path) -> tuple[str, str]:
    if not entry.archives:
        made = bool(entry.folder) and (root / entry.folder).is_dir()
        return (COMPLETE if made else MADE if entry.folder else OWN), ""
    left_out: Counter[str] = Counter()
    try:
        options = Options(may_write=False)
        difference = difference_from_book(entry, entry.rows(root, left_out, options), left_out, options)
    except AbsentError as error:
        found = leftover(entry, root)
        return (NOT_THERE if found is None else NOT_EXTRACTED if found[1] else HALF_A_DOWNLOAD), str(error)
    except DatasetError as error:
        return PARTLY, str(error)
    return (PARTLY, f"{entry.title} is not as distributed: {difference}") if difference else (COMPLETE, "")


def _cells(found: Availability) -> tuple[str, ...]:
    entry = found.entry
    counts = entry.counts or {}
    fetch = "" if not entry.archives else "--download" if entry.downloads else "by hand"
    return (
        found.dataset,
        *(f"{counts[split]:,}" if split in counts else "" for split in ALL_SPLITS),
        "" if entry.classes is None else f"{entry.classes:,}",
        entry.size.partition(",")[0],
        found.state,
        fetch,
        shorten(entry.licence, 30, placeholder=" …"),
    )


def _checked(download: Download) -> str:
    """How a download is verified to be the published file."""
    known = [name for name in ("sha256", "md5") if getattr(download, name)]
    size = f"{download.bytes:,} bytes, " if download.bytes else ""
    return f"{size}checked by {known[0]}" if known else f"{size}no checksum is known: the archive's own are checked"
