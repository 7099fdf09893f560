"""`agnet predict --gallery`: the nearest images of a folder for each photograph."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from .pictures import say_what_cannot_be_drawn
from .prediction_lines import Written, digits, opened
from .progress import finish, progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..training.answers.embedding import Embedding
    from ..training.answers.nearest import Nearest, Neighbour
    from ..training.answers.predict_files import FilePredictor
    from ..training.runs.checkpoint_header import CheckpointHeader
    from ..training.samples.reading import Unreadable

_MARKS = {True: "✓", False: "✗", None: " "}
_COLUMNS = ("image", "rank", "nearest", "similarity", "right")


@dataclass(frozen=True)
class Search:
    """A search for photographs in a gallery, and where its answers go."""

    run: Path  #: folder of the run, or its checkpoint
    header: CheckpointHeader
    max_pixels: int  #: maximum number of pixels of an image
    top: int  #: number of nearest images for each photograph
    decode: bool  #: whether to see first, in this process, whether anything can be read
    form: str  #: one of `prediction_lines.FORMATS`
    output: Path | None
    save: Path | None

    def answer(self, photographs: Sequence[Input], gallery: Sequence[Input], load: Callable[[], FilePredictor]) -> None:
        """Write the nearest images of each photograph, and exit with 1 if an image is unreadable.

        Args:
            photographs: Images to search for; a video is reported as unreadable.
            gallery: Images to search in; videos are skipped and counted.
            load: Function that loads the network, called only if there is something to search for and in.
        """
        photographs, gallery = [*map(_no_video, photographs)], _images_of(gallery)
        begun, failures = time.perf_counter(), _Failures()
        predictor = load() if self._is_possible(photographs, gallery, failures) else None
        if predictor:
            answers = self._found(predictor, photographs, gallery, failures)
        else:
            answers = iter(self._unreadable(photographs))
        save = self._pictures([*photographs, *gallery]) if predictor and self.save else lambda answer: None
        with opened(self.output) as stream:
            lines = NearestLines(stream, self.form, self.save is not None)
            for one in answers:
                picture = save(one)
                lines.tell(one, picture)
                failures.look_at(one)
                failures.look_at(picture)
        searched = len(photographs) + len(gallery) - failures.count if predictor else 0
        waited = predictor.waited if predictor else None
        finish(searched, failures.count, time.perf_counter() - begun, waited)

    def _is_possible(self, photographs: Sequence[Input], gallery: Sequence[Input], failures: _Failures) -> bool:
        """Whether a photograph can be read. Raises: `ConfigurationError` if one can, but none of the gallery."""
        from ..training.answers.nearest import nothing_to_search_in
        from ..training.samples.reading import some_can_be_read

        if not some_can_be_read(photographs, self.max_pixels, decode=self.decode):
            return False
        if not some_can_be_read(gallery, self.max_pixels, decode=self.decode):
            for lost in self._unreadable(gallery):
                failures.look_at(lost)
            raise nothing_to_search_in()
        return True

    def _unreadable(self, images: Sequence[Input]) -> Iterator[Unreadable]:
        from ..training.samples.reading import unreadable_inputs

        return unreadable_inputs(images, self.max_pixels)

    def _found(
        self, predictor: FilePredictor, photographs: Sequence[Input], gallery: Sequence[Input], failures: _Failures
    ) -> Iterator[Nearest | Unreadable]:
        """Yield the answer for each photograph, in order."""
        from ..training.answers.nearest import Subjects, find_nearest
        from ..training.answers.truth import known_images
        from ..training.samples.reading import Unreadable

        queries = [*_with_bar(predictor, "photographs", photographs, failures)]
        subjects = Subjects(known_images(self._folder, self.header))
        images = _with_bar(predictor, "gallery", gallery, failures)
        readable = [one for one in queries if not isinstance(one, Unreadable)]
        found = iter(find_nearest(readable, images, self.top, subjects.of, failures.look_at))
        for one in queries:
            yield one if isinstance(one, Unreadable) else next(found)

    def _pictures(self, inputs: Sequence[Input]) -> Callable[[Nearest | Unreadable], Path | Unreadable | None]:
        """Return the function that saves the picture of an answer."""
        from ..training.answers.nearest import Nearest
        from ..training.answers.nearest_pictures import save_nearest

        assert self.save is not None
        name = self._folder.resolve().name
        say_what_cannot_be_drawn([*self.header.classes, *(one.name for one in inputs), name])
        draw = partial(
            save_nearest, self.save, run=f"by the run '{name}', epoch {self.header.epoch}", max_pixels=self.max_pixels
        )
        return lambda answer: draw(answer) if isinstance(answer, Nearest) else None

    @property
    def _folder(self) -> Path:
        return self.run if self.run.is_dir() else self.run.parent


class NearestLines(Written):
    """Write the nearest images of each photograph, in whole lines.

    Args:
        stream: Output stream.
        format_: One of `FORMATS`.
        pictures: Whether CSV has a column with the pictures.
    """

    def __init__(self, stream: TextIO, format_: str, pictures: bool) -> None:
        super().__init__(stream, format_)
        self._pictures = pictures
        if format_ == "csv":
            self._row([*_COLUMNS, *(["picture"] if pictures else []), "error"])

    def tell(self, answer: Nearest | Unreadable, picture: Path | Unreadable | None = None) -> None:
        """Write an answer, with its picture, if there is one."""
        from ..training.answers.nearest import Nearest
        from ..training.samples.reading import Unreadable

        name = picture.name if isinstance(picture, Path) else None
        if isinstance(answer, Nearest):
            if self.format == "json":
                self._as_json(answer, name)
            elif self.format == "csv":
                self._as_csv(answer, name)
            else:
                self._as_text(answer)
        for one in (answer, picture):
            if isinstance(one, Unreadable):
                self._unreadable(one)

    def _as_json(self, answer: Nearest, picture: str | None) -> None:
        values: dict[str, Any] = {"image": answer.name}
        if answer.subject is not None:
            values["truth"] = answer.subject.name
        values |= {"nearest": [*map(_values, answer.neighbours)], "ranked": answer.ranked, "left_out": answer.left_out}
        self._json(values if picture is None else values | {"picture": picture})

    def _as_csv(self, answer: Nearest, picture: str | None) -> None:
        for rank, one in enumerate(answer.neighbours, 1):
            right = "" if one.right is None else str(one.right).lower()
            self._row([answer.name, rank, one.name, digits(one.similarity), right, *self._cell(picture), ""])

    def _as_text(self, answer: Nearest) -> None:
        from ..data.text import printable
        from ..training.answers.nearest import left_out_text

        told = left_out_text(answer.left_out)
        self._line(f"{printable(answer.name)}:{told and f' (left out: {told})'}")
        known = any(one.right is not None for one in answer.neighbours)
        for rank, one in enumerate(answer.neighbours, 1):
            mark = f"{_MARKS[one.right]} " if known else ""
            self._line(f"{rank:>4}  {one.similarity:6.3f}  {mark}{printable(one.name)}")

    def _unreadable(self, answer: Unreadable) -> None:
        """Write an error, except as text, where it appears only on stderr."""
        if self.format == "json":
            self._json({"image": answer.name, "error": answer.reason})
        elif self.format == "csv":
            self._row([answer.name, "", "", "", "", *self._cell(None), answer.reason])

    def _cell(self, picture: str | None) -> list[str]:
        return [picture or ""] if self._pictures else []


def _values(one: Neighbour) -> dict[str, Any]:
    values: dict[str, Any] = {"image": one.name, "similarity": digits(one.similarity)}
    if one.subject is not None:
        values["truth"] = one.subject.name
    return values if one.right is None else values | {"right": one.right}


class _Failures:
    """Messages about unreadable images on stderr, and their number."""

    def __init__(self) -> None:
        self.count = 0
        self.write: Callable[[str], None] = partial(
            click.echo, err=True
        )  #: between the lines of a bar, if there is one

    def look_at(self, answer: object) -> None:
        """Print the reason if ``answer`` is `Unreadable`, or where a picture was written."""
        from ..data.text import printable
        from ..training.samples.reading import Unreadable

        if isinstance(answer, Unreadable):
            self.count += 1
            self.write(f"Error: {printable(answer.reason)}")
        elif isinstance(answer, Path):
            self.write(f"written: {printable(str(answer))}")


def _with_bar(
    predictor: FilePredictor, what: str, inputs: Sequence[Input], failures: _Failures
) -> Iterator[Embedding | Unreadable]:
    """Yield the embeddings of the images, with a progress bar on stderr."""
    said = failures.write
    bar = progress_bar(what, len(inputs))
    failures.write = lambda line: bar.write(line, file=sys.stderr)
    try:
        with closing(predictor.embeddings(inputs)) as found:
            for one in found:
                yield one
                bar.update()
    finally:
        failures.write = said
        bar.close()


def _no_video(one: Input) -> Input:
    return replace(one, problem=f"{one.name} is a video: --gallery searches for photographs") if one.is_video else one


def _images_of(gallery: Sequence[Input]) -> list[Input]:
    """Leave out the videos, and say how many."""
    from ..data.listing import suffix_of
    from ..data.text import tally

    if videos := Counter(suffix_of(one.name) for one in gallery if one.is_video):
        click.echo(f"skipped in the gallery, videos: {tally(videos)}", err=True)
    return [one for one in gallery if not one.is_video]
