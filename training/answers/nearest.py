"""The nearest images of a gallery for each of several photographs, by the cosine of their embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...data.errors import ConfigurationError
from ...data.persons import DISTRACTOR, JUNK, person_and_camera
from ..samples.reading import Unreadable
from .truth import KnownImages

if TYPE_CHECKING:
    from .embedding import Embedding

#: Reasons why images of a gallery are left out of a photograph's ranking.
ITSELF, SAME_CAMERA, OF_JUNK = "itself", "same_camera", "junk"

_LEFT_OUT = {
    ITSELF: "the photograph itself",
    SAME_CAMERA: "of the same person by the same camera",
    OF_JUNK: "junk (person -1)",
}
_AT_ONCE = 64  # gallery images that are compared with all photographs in one product


@dataclass(frozen=True)
class Subject:
    """What an image is known to show."""

    name: str  #: class, or person
    camera: str = ""  #: the camera that took it; empty if unknown
    part: str = ""  #: the image's split of the run's data set and what that means, for display
    is_person: bool = False

    @property
    def is_junk(self) -> bool:
        return self.is_person and self.name == JUNK

    @property
    def is_unknown(self) -> bool:
        """Whether nobody knows who is seen: junk, or a distractor, who may be anybody."""
        return self.is_person and self.name in (JUNK, DISTRACTOR)

    @property
    def text(self) -> str:
        """Description for display, such as ``0002, camera 1``."""
        if self.is_unknown:
            return "junk" if self.is_junk else "distractor"
        return f"{self.name}, camera {self.camera}" if self.camera else self.name

    def same(self, other: Subject | None) -> bool | None:
        """Whether ``other`` shows the same class or person; None if that is unknown."""
        if other is None or other.is_person != self.is_person or self.is_unknown:
            return None
        return other.name == self.name


@dataclass(frozen=True)
class Neighbour:
    """An image of the gallery in a photograph's ranking."""

    name: str
    similarity: float  #: cosine of the two embeddings, from -1 to 1
    subject: Subject | None  #: what it is known to show
    right: bool | None  #: whether it shows what the photograph shows; None if that is unknown


@dataclass(frozen=True)
class Nearest:
    """The nearest images of a photograph, most similar first."""

    name: str
    subject: Subject | None  #: what the photograph is known to show
    neighbours: tuple[Neighbour, ...]
    ranked: int  #: number of images of the gallery in the whole ranking
    left_out: dict[str, int]  #: number of images of the gallery that are not in it, by the reason


@dataclass(frozen=True)
class Subjects:
    """What images are known to show: by the boxes file of the run, or by a name in the form of Market-1501."""

    known: KnownImages | None

    def of(self, file: str) -> Subject | None:
        truth = self.known.truth(file) if self.known else None
        if self.known is not None and truth is not None:
            return Subject(truth.name, truth.camera, truth.part, self.known.listing.is_retrieval)
        found = person_and_camera(Path(file).name)
        return Subject(*found, is_person=True) if found else None


def find_nearest(
    photographs: Sequence[Embedding],
    gallery: Iterable[Embedding | Unreadable],
    top: int,
    subject_of: Callable[[str], Subject | None] = lambda name: None,
    lost: Callable[[Unreadable], None] = lambda one: None,
) -> list[Nearest]:
    """Find the nearest images of a gallery for each photograph.

    The gallery is read once and not kept: memory holds the photographs' embeddings. Images are ranked by the cosine of
    the embeddings; of equally similar ones, the first comes first. The photograph itself, junk and, where both cameras
    are known, images of the same person by the same camera are left out and counted.

    Args:
        photographs: Images to search for.
        gallery: Images to search in.
        top: Maximum number of images for each photograph.
        subject_of: Function from an image's name to what it shows, None if unknown.
        lost: Function called with each unreadable image of the gallery.

    Raises: `ConfigurationError` if no image of the gallery is readable.
    """
    if not photographs:
        return []
    ranking = _Ranking(photographs, top, subject_of)
    gallery = iter(gallery)
    while part := list(islice(gallery, _AT_ONCE)):
        readable = []
        for one in part:
            if isinstance(one, Unreadable):
                lost(one)
            else:
                readable.append(one)
        if readable:
            ranking.add(readable)
    if not ranking.images:
        raise nothing_to_search_in()
    return ranking.nearest()


def nothing_to_search_in() -> ConfigurationError:
    return ConfigurationError(
        "no image of the gallery can be read: there is nothing to search in; name another gallery"
    )


def left_out_text(left_out: dict[str, int]) -> str:
    """Describe what is not in a ranking, such as ``the photograph itself, 3 of the same person by the same camera``."""
    return ", ".join(
        text if reason == ITSELF and left_out[reason] == 1 else f"{left_out[reason]:,} {text}"
        for reason, text in _LEFT_OUT.items()
        if reason in left_out
    )


class _Ranking:
    """The nearest images so far of each of q photographs."""

    def __init__(self, photographs: Sequence[Embedding], top: int, subject_of: Callable[[str], Subject | None]) -> None:
        self.images: list[str] = []  #: names of the gallery's images so far
        self._names = [one.name for one in photographs]
        self._vectors = np.stack([one.vector for one in photographs])  # (q, E)
        self._top, self._subject_of = top, subject_of
        self._subjects = [subject_of(name) for name in self._names]
        self._found: list[Subject | None] = []
        self._similarities = np.zeros((len(photographs), 0), np.float32)  # (q, at most top), largest first
        self._numbers = np.zeros((len(photographs), 0), np.int64)
        self._left_out: list[dict[str, int]] = [{} for _ in photographs]
        self._by_file, self._by_camera = dict[str, list[int]](), dict[tuple[str, str], list[int]]()
        for row, (name, subject) in enumerate(zip(self._names, self._subjects, strict=True)):
            if place := _place(name):
                self._by_file.setdefault(place, []).append(row)
            if subject is not None and subject.is_person and subject.camera and not subject.is_unknown:
                self._by_camera.setdefault((subject.name, subject.camera), []).append(row)

    def add(self, images: Sequence[Embedding]) -> None:
        """Compare more images of the gallery with all photographs."""
        similarities = self._vectors @ np.stack([one.vector for one in images]).T  # (q, b)
        for column, one in enumerate(images):
            subject = self._subject_of(one.name)
            for row, reason in self._without(one.name, subject).items():
                similarities[row, column] = -np.inf
                self._left_out[row][reason] = self._left_out[row].get(reason, 0) + 1
            self._found.append(subject)
        numbers = np.arange(len(self.images), len(self.images) + len(images))
        self.images += [one.name for one in images]
        both = np.hstack([self._similarities, similarities])
        every = np.hstack([self._numbers, np.broadcast_to(numbers, similarities.shape)])
        order = np.argsort(-both, axis=1, kind="stable")[:, : self._top]
        self._similarities = np.take_along_axis(both, order, axis=1)
        self._numbers = np.take_along_axis(every, order, axis=1)

    def _without(self, image: str, subject: Subject | None) -> dict[int, str]:
        """The photographs in whose ranking an image of the gallery does not belong, with the reason."""
        rows: dict[int, str] = {}
        if subject is not None and subject.is_junk:
            rows = dict.fromkeys(range(len(self._names)), OF_JUNK)
        elif subject is not None and subject.is_person:
            rows = dict.fromkeys(self._by_camera.get((subject.name, subject.camera), ()), SAME_CAMERA)
        return rows | dict.fromkeys(self._by_file.get(_place(image), ()), ITSELF)

    def nearest(self) -> list[Nearest]:
        return [self._of_row(row) for row in range(len(self._names))]

    def _of_row(self, row: int) -> Nearest:
        subject, left_out = self._subjects[row], self._left_out[row]
        neighbours = tuple(self._neighbours(row, subject))
        return Nearest(self._names[row], subject, neighbours, len(self.images) - sum(left_out.values()), left_out)

    def _neighbours(self, row: int, subject: Subject | None) -> Iterator[Neighbour]:
        for number, similarity in zip(self._numbers[row].tolist(), self._similarities[row].tolist(), strict=True):
            if similarity > -np.inf:
                found = self._found[number]
                right = None if subject is None else subject.same(found)
                yield Neighbour(self.images[number], similarity, found, right)


def _place(name: str) -> str:
    """The file that a name leads to, through links; empty for an image that is no file."""
    return os.path.realpath(name) if os.path.exists(name) else ""  # noqa: PTH110 - False for impossible names
