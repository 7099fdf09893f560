"""Description of a named data set, apart from its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..names import OFFICIAL, TUTORIAL
from ..references import named_function
from ..text import counted, rows_called

Rows = list[tuple[str, str, str]]  #: (name relative to the root, class, split) of every image or clip


@dataclass(frozen=True)
class Options:
    """Options that affect an index besides the files, and the groups that a layout finds."""

    split_seed: int = 0  #: of splits that are drawn
    list_file: Path | None = None  #: list of images or clips for ``csv`` and ``clips``
    leaked_frames: bool = True  #: keep AUC-V2's test frames that reportedly show a driver of train
    may_write: bool = True  #: extract pictures that a data set distributes inside another file
    split_number: int = 1  #: of several official splits
    protocol: str = OFFICIAL  #: one of `names.PROTOCOLS`
    group_pattern: str = ""  #: regular expression whose first group names the group of a clip from its path
    #: Told warnings, and what takes minutes before it begins.
    say: Callable[[str], None] = lambda text: None
    groups: dict[str, str] = field(default_factory=dict)  #: filled by the layout: group by name, where it is known


@dataclass(frozen=True)
class Download:
    """A file whose licence permits automatic download."""

    url: str
    bytes: int | None = None
    md5: str | None = None  #: or sha256, as published by its authors or recorded by others
    sha256: str | None = None
    name: str = ""  #: file name on disk, if the last part of the URL does not say which data set it is of


def published_name(download: Download) -> str:
    """The name under which a download is distributed: the last component of its URL."""
    return urlsplit(download.url).path.rsplit("/", 1)[-1]


def file_name(download: Download) -> str:
    """The name of a download on disk."""
    return download.name or published_name(download)


@dataclass(frozen=True)
class Entry:
    """A named data set: facts from its authors, and how its files become rows.

    ``layout`` is a function of this package, ``module:function``, imported on first use; see `rows`.
    """

    name: str  #: key in the catalogue
    title: str
    layout: str
    folder: str = ""  #: folder under the root where it is kept and extracted to
    classes: int | None = None  #: None: any number
    counts: Mapping[str, int] | None = None  #: published images per split, before validation is cut
    more_counts: tuple[Mapping[str, int], ...] = ()  #: those of the other official splits, the second and so on
    of_clips: bool = False  #: whether rows are clips rather than images
    split: str = ""  #: description of the split
    licence: str = ""
    size: str = ""  #: size of the download
    homepage: str = ""
    how: str = ""  #: how to get it manually, in a sentence
    archives: tuple[str, ...] = ()  #: prefixes of its archives' names, if others distribute it
    downloads: tuple[Download, ...] = ()  #: files that ``agnet datasets --download`` may download
    #: Regular expression whose groups, joined by hyphens, name the camera of an image from its path. Only for data sets
    #: for retrieval, whose classes are persons and whose images are train, query or gallery.
    camera: str = ""
    tutorial_counts: Mapping[str, int] | None = None  #: numbers of the protocol `TUTORIAL`, where it exists
    ignored: str = ""  #: annotations that come with the images and are not read
    flaws: str = ""  #: known flaws

    @property
    def is_own(self) -> bool:
        """Whether it is a layout for the user's own files, of which nothing is published."""
        return not (self.folder or self.archives)

    @property
    def official_splits(self) -> int:
        """Number of official splits of train and test."""
        return 1 + len(self.more_counts)

    def counts_of(self, split_number: int = 1, protocol: str = OFFICIAL) -> Mapping[str, int] | None:
        """Published numbers per split."""
        return self.tutorial_counts if protocol == TUTORIAL else (self.counts, *self.more_counts)[split_number - 1]

    def camera_of(self, name: str) -> str:
        """The camera that took an image, from its path; empty if the path does not say."""
        found = re.search(self.camera, name)
        return "-".join(filter(None, found.groups())) if found else ""

    def rows(self, root: Path, left_out: Counter[str], options: Options) -> Rows:
        """Its images as found under ``root``; files left out are counted by kind.

        Raises: `DatasetError`, which names what was searched for, where, and how to get it.
        """
        found: Rows = named_function(self.layout, __package__)(root, left_out, options)
        return found


def unlike_the_book(
    classes: int,
    counts: Mapping[str, int],
    book_classes: int | None,
    book_counts: Mapping[str, int] | None,
    of_clips: bool = False,
) -> tuple[str, ...]:
    """Describe how the numbers of classes, and of images per split, differ from the published counts, if known."""
    called = rows_called(of_clips)
    pairs = [(classes, book_classes, "classes")]
    pairs += [(counts.get(split, 0), wanted, f"{split} {called}") for split, wanted in (book_counts or {}).items()]
    return tuple(
        f"{counted(found, what)} instead of {wanted:,}" for found, wanted, what in pairs if wanted not in (None, found)
    )
