"""`agnet predict`: photographs and videos that are in no data set."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from . import options
from .pictures import say_what_cannot_be_drawn
from .prediction_lines import FORMATS, Lines
from .progress import progress_bar

if TYPE_CHECKING:
    from ..training.answers.annotated import AnnotatedFolder
    from ..training.answers.answer import Answer
    from ..training.answers.predict_files import FilePredictor
    from ..training.runs.checkpoint_header import CheckpointHeader


@click.command()
@options.run
@click.argument("images", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Say 'unsure' where the likeliest class is less likely than this.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Frames of a video from one that is looked at to the next.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Seconds of a video over which probabilities are averaged (time constant of the exponential mean).",
)
@click.option("--format", "format_", type=options.Choice(FORMATS), help="Form of what is printed.  [default: text]")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: one object a line.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A FILE instead of stdout.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for pictures and videos: the photograph, what speaks for and against the class, probabilities.",
)
@click.option(
    "--proposal-weights",
    type=click.Path(path_type=Path),
    help="The FILE given to propose --weights, where regions come from a network.",
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images at once.")
@click.option(
    "--jobs",
    type=click.IntRange(0),
    help="Processes that read images and propose regions ahead of the network; 0: the network's own.  "
    "[default: half the cores, all of them beside a GPU, 0 for a handful of images]",
)
@options.device
def predict(
    run: Path,
    images: tuple[str, ...],
    top: int,
    threshold: float,
    every: int,
    smooth: float,
    format_: str | None,
    as_json: bool,
    output: Path | None,
    save: Path | None,
    proposal_weights: Path | None,
    batch_size: int,
    jobs: int | None,
    device: str,
) -> None:
    """Classify photographs and videos, proposing their regions on the fly if the model looks at any.

    IMAGES are files, folders (with all in them), quoted patterns such as 'photos/**/*.jpg', or -, a list of these on
    stdin, one a line or as find -print0 writes it. Videos are known by their suffix. What cannot be read is reported
    and the rest go on; the exit code is then 1.
    """
    from ..data.errors import ConfigurationError
    from ..data.files import check_folder_writable, check_writable
    from ..data.images import pixel_limit
    from ..data.inputs import find_inputs
    from ..data.memory import keep_network_memory
    from ..data.text import printable, tally
    from ..predictor import proposer
    from ..training.answers.answer import Moment, Still
    from ..training.runs.checkpoint_header import read_header
    from ..training.runs.folder import checkpoint_of
    from ..training.samples.reading import Unreadable, some_can_be_read, unreadable_inputs

    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} are two different formats")
    header = read_header(checkpoint_of(run))
    propose, limit = proposer(header, proposal_weights), pixel_limit(header.proposals)
    if output and not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no folder {output.parent}")
    if output:
        check_writable(output, "name another file with --output")
    if save:
        check_folder_writable(save, "name another folder with --save")
    passed_over: Counter[str] = Counter()
    inputs = list(find_inputs(images, sys.stdin.buffer, passed_over))
    if passed_over:
        click.echo(f"passed over, as they are no images or videos: {tally(passed_over)}", err=True)
    saving: AbstractContextManager[AnnotatedFolder | None] = nullcontext()
    answers: Generator[Answer, None, None]
    predictor: FilePredictor | None = None
    if some_can_be_read(inputs, limit, decode=not jobs):
        # Not before something is found that a network can look at: it takes seconds.
        from ..training.answers.predict_files import FilePredictor
        from ..training.machine.devices import choose_device
        from ..training.runs.checkpoints import load_checkpoint

        keep_network_memory()
        if save:
            say_what_cannot_be_drawn([*header.classes, *(one.name for one in inputs), run.resolve().name])
            saving = _annotated(save, run, header, limit)
        predictor = FilePredictor(
            checkpoint=load_checkpoint(run),
            propose=propose,
            device=choose_device(device),
            top=top,
            threshold=threshold,
            every=every,
            smooth=smooth,
            batch_size=batch_size,
            jobs=jobs,
            say=partial(click.echo, err=True),
            pictures=save is not None,
        )
        answers = predictor.answers(inputs)
    else:
        answers = unreadable_inputs(inputs, limit)
    names = [one.name for one in inputs if not one.problem]
    predicted = failed = 0
    begun = time.perf_counter()
    with (
        _stream(output) as stream,
        _Bars(sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())) as bars,
        saving as folder,
        closing(answers),
    ):
        format_ = format_ or ("json" if as_json else "text")
        lines = Lines(stream, format_, min(top, len(header.classes)), names, header.classes, save is not None)
        for answer in answers:
            bars.tell(answer)
            saved = folder.save(answer) if folder else None
            for told in lines.tell(answer, saved.name if isinstance(saved, Path) else None):
                bars.say(told)
            if isinstance(saved, Path):
                bars.say(f"written: {printable(str(saved))}")
            elif saved:
                lines.tell(saved)
            for problem in (answer, saved):
                if isinstance(problem, Unreadable):
                    failed += 1
                    bars.say(f"Error: {printable(problem.reason)}")
            predicted += isinstance(answer, (Still, Moment))
    if predictor and predicted > 1:
        seconds = time.perf_counter() - begun
        click.echo(
            f"{predicted:,} images in {seconds:.1f} s: {predicted / seconds:.1f} images a second; "
            f"{min(predictor.waited / seconds, 1):.0%} of the time the network waited for images and their regions",
            err=True,
        )
    if failed:
        if predicted > 1:  # their lines may be far up
            click.echo(f"{failed:,} error{'s' if failed > 1 else ''}: see above", err=True)
        sys.exit(1)


class _Bars:
    """A progress bar on stderr for each video and for photographs in a row, and lines between; a context manager.

    Args:
        shown: whether a person watches stderr, and nothing but stderr.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self._bar: Any = None

    def tell(self, answer: Answer) -> None:
        """What comes next, or that one more is done."""
        from ..data.text import printable
        from ..training.answers.answer import Stretch, Summary

        if isinstance(answer, Stretch):
            self._close()
            if self.shown and answer.expected != 1:
                self._bar = progress_bar(printable(Path(answer.video).name) or "predict", answer.expected)
        elif self._bar is not None and not isinstance(answer, Summary):
            self._bar.update()

    def say(self, line: str) -> None:
        if self._bar is None:
            click.echo(line, err=True)
        else:
            self._bar.write(line, file=sys.stderr)

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _annotated(save: Path, run: Path, header: CheckpointHeader, limit: int) -> AnnotatedFolder:
    from ..training.answers.annotated import AnnotatedFolder
    from ..training.answers.truth import known_images

    folder = run if run.is_dir() else run.parent
    whose = f"by the run '{folder.resolve().name}', epoch {header.epoch}"
    return AnnotatedFolder(save, header.classes, whose, known_images(folder, header), limit)


@contextmanager
def _stream(output: Path | None) -> Iterator[TextIO]:
    """Where lines go. A file appears when all is said; what an interrupt cuts short is kept beside its place."""
    from ..data.files import atomic_file

    if output is None:
        yield sys.stdout
        return
    with atomic_file(output) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as stream:
        try:
            yield stream
        except KeyboardInterrupt:
            partial_ = output.with_name(f"{output.name}.partial")
            unfinished.replace(partial_)
            click.echo(f"\nwritten so far: {partial_}", err=True)
            raise
