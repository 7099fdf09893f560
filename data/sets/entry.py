"""Description of a named data set, apart from its files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..references import named_function

Rows = list[tuple[str, str, str]]  #: (name relative to the root, class, split) of every image


@dataclass(frozen=True)
class Options:
    """Options that affect an index besides the files."""

    split_seed: int = 0  #: of splits that are drawn
    list_file: Path | None = None  #: list of images for ``csv``
    leaked_frames: bool = True  #: keep AUC-V2's test frames that reportedly show a driver of train
    may_write: bool = True  #: extract pictures that a data set distributes inside another file
    say: Callable[[str], None] = lambda text: None  #: told before work that takes minutes


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
    ignored: str = ""  #: annotations that come with the images and are not read
    flaws: str = ""  #: known flaws

    @property
    def is_own(self) -> bool:
        """Whether it is a layout for the user's own files, of which nothing is published."""
        return not (self.folder or self.archives)

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
    classes: int, counts: Mapping[str, int], book_classes: int | None, book_counts: Mapping[str, int] | None
) -> tuple[str, ...]:
    """Describe how the numbers of classes, and of images per split, differ from the published counts, if known."""
    pairs = [(classes, book_classes, "classes")]
    pairs += [(counts.get(split, 0), wanted, f"{split} images") for split, wanted in (book_counts or {}).items()]
    return tuple(
        f"{found:,} {what} instead of {wanted:,}" for found, wanted, what in pairs if wanted not in (None, found)
    )
