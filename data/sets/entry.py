"""What there is to know of a named data set, besides its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..references import named_function

Rows = list[tuple[str, str, str]]  #: (name relative to the root, class, split) of every image


@dataclass(frozen=True)
class Options:
    """What decides an index besides the files."""

    split_seed: int = 0  #: of the splits that are drawn
    list_file: Path | None = None  #: of ``csv``
    leaked_frames: bool = True  #: keep AUC-V2's test frames that reportedly show a driver of train


@dataclass(frozen=True)
class Download:
    """A file that the licence lets a program fetch."""

    url: str
    bytes: int | None = None
    md5: str | None = None  #: or sha256, as its makers publish or others have recorded
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """A named data set: what its makers say of it, and how its files become rows.

    Its ``layout`` is a function of this package, ``module:function``, imported when asked for; see `rows`.
    """

    name: str  #: the catalogue's
    title: str
    layout: str
    folder: str = ""  #: the folder under the root that it lives in and is extracted to
    classes: int | None = None  #: None: as many as there are
    counts: Mapping[str, int] | None = None  #: images by split (train, test) by the book, before validation is cut
    split: str = ""  #: how it is split, in words
    licence: str = ""
    size: str = ""  #: of what is to be fetched
    homepage: str = ""
    how: str = ""  #: how to get it by hand, in a sentence
    archives: tuple[str, ...] = ()  #: beginnings of the names of its archives, of what others distribute
    downloads: tuple[Download, ...] = ()  #: what ``agnet datasets --download`` may fetch
    flaws: str = ""  #: what is known to be wrong with it

    def rows(self, root: Path, left_out: Counter[str], options: Options) -> Rows:
        """Its images as they lie under ``root``; files left out are counted by kind.

        Raises: `DatasetError` naming what was looked for, where, and how to get it.
        """
        found: Rows = named_function(self.layout, __package__)(root, left_out, options)
        return found


def unlike_the_book(
    classes: int, counts: Mapping[str, int], book_classes: int | None, book_counts: Mapping[str, int] | None
) -> tuple[str, ...]:
    """What numbers of classes, and of images by split, are not those of the book; None where no book says."""
    pairs = [(classes, book_classes, "classes")]
    pairs += [(counts.get(split, 0), wanted, f"{split} images") for split, wanted in (book_counts or {}).items()]
    return tuple(
        f"{found:,} {what} instead of {wanted:,}" for found, wanted, what in pairs if wanted not in (None, found)
    )
