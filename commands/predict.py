"""`agnet predict`: classify photographs and videos."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .field_options import is_given, settings_from
from .pictures import say_what_cannot_be_drawn
from .prediction_lines import FORMATS, Lines, opened
from .progress import finish, progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..training.answers.annotated import AnnotatedFolder
    from ..training.answers.answer import Answer
    from ..training.answers.predict_files import FilePredictor
    from ..training.runs.checkpoint_header import CheckpointHeader
    from ..training.samples.reading import Propose


@dataclass(frozen=True)
class _Answering:
    """Options for prediction; the fields are those of `FilePredictor`, except that the device is a name."""

    top: int
    threshold: float
    every: int
    smooth: float
    batch_size: int
    jobs: int | None
    device: str


@dataclass(frozen=True)
class _Shown:
    """Options for the output."""

    format_: str | None
    as_json: bool
    output: Path | None
    save: Path | None

    @property
    def form(self) -> str:
        return self.format_ or ("json" if self.as_json else "text")

    def check(self) -> None:
        """Check the output paths. Raises: `ConfigurationError` if one cannot be written to."""
        from ..data.errors import ConfigurationError
        from ..data.files import check_folder_writable, check_writable

        if self.output and not self.output.parent.is_dir():
            raise ConfigurationError(f"{self.output}: there is no folder {self.output.parent}")
        if self.output:
            check_writable(self.output, "name another file with --output")
        if self.save:
            check_folder_writable(self.save, "name another folder with --save")


@click.command(short_help="Classify photographs and videos.")
@options.run
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Number of classes, or with --gallery of nearest images, listed for each image.",
)
@click.option(
    "--gallery",
    multiple=True,
    metavar="FOLDER",
    help="Folder or pattern of images to search in: the nearest of them by the network's embedding are listed for each "
    "photograph, instead of classes. May be repeated.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Probability of the most likely class below which the label is 'unsure'.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Frame interval of a video: every Nth frame is classified; not for networks trained on clips.",
)
@click.option(
    "--smooth",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Time constant in seconds of the exponential moving average of a video's probabilities.",
)
@click.option("--format", "format_", type=options.Choice(FORMATS), help="Output format.  [default: text]")
@click.option("--json", "as_json", is_flag=True, help="Same as --format json: one object per line.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write the predictions to.  [default: standard output]",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for annotated pictures and videos, with probabilities and the evidence for and against the class, or "
    "with --gallery for pictures of the photographs beside their nearest images.",
)
@options.proposal_weights
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Number of images per batch.")
@click.option(
    "--jobs",
    type=click.IntRange(0),
    help="Number of processes that read images and propose regions ahead of the network; 0: none.  "
    "[default: half of the cores, all cores with a GPU, 0 for a few images]",
)
@options.device
@click.pass_context
def predict(
    context: click.Context,
    run: Path,
    images: tuple[str, ...],
    gallery: tuple[str, ...],
    proposal_weights: Path | None,
    **_: Any,
) -> None:
    """Classify photographs and videos; regions are proposed on the fly if the model uses them.

    IMAGES are files, folders (searched recursively), quoted patterns such as 'photos/**/*.jpg', or - for a list of
    these on standard input, one per line or NUL-separated as written by find -print0. Videos are recognised by their
    suffix. Unreadable files are reported and skipped; the exit code is then 1.

    With --gallery, photographs are not classified: each is searched for among the images of a folder.
    """
    from ..data.images import pixel_limit
    from ..predictor import proposer
    from ..training.runs.checkpoint_header import read_header
    from ..training.runs.folder import checkpoint_of, display_name
    from ..training.samples.reading import some_can_be_read, unreadable_inputs

    answering, shown = settings_from(context, _Answering), settings_from(context, _Shown)
    if shown.as_json and shown.format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {shown.format_} are two different formats")
    if gallery:
        _check_search(context, [*images], [*gallery])
    header = read_header(checkpoint_of(run))
    propose, limit = proposer(header, proposal_weights), pixel_limit(header.proposals)
    shown.check()
    inputs = _inputs(images)
    if gallery:
        from .nearest_images import Search

        decode = not answering.jobs
        search = Search(run, header, limit, answering.top, decode, shown.form, shown.output, shown.save)
        search.answer(inputs, _inputs(gallery, "in the gallery"), partial(_predictor, run, propose, answering))
        return
    if not some_can_be_read(inputs, limit, decode=not answering.jobs):
        told = _tell(unreadable_inputs(inputs, limit), inputs, header, answering, shown, nullcontext())
        finish(*told, waited=None)
        return
    saving: AbstractContextManager[AnnotatedFolder | None] = nullcontext()
    if shown.save:
        say_what_cannot_be_drawn([*header.classes, *(one.name for one in inputs), display_name(run)])
        saving = _annotated(shown.save, run, header, limit)
    _say_if_classes_are_persons(run)
    predictor = _predictor(run, propose, answering, pictures=shown.save is not None)
    told = _tell(predictor.answers(inputs), inputs, header, answering, shown, saving)
    videos = all(one.is_video for one in inputs if not one.problem)
    finish(*told, waited=predictor.waited, called="frames" if videos else "images")


def _check_search(context: click.Context, images: list[str], gallery: list[str]) -> None:
    """Raise `click.UsageError` for options that mean nothing in a search."""
    from ..data.inputs import LIST

    for name in ("threshold", "every", "smooth"):
        if is_given(context, name):
            raise click.UsageError(f"--{name} changes nothing with --gallery, which compares images; leave it out")
    if LIST in images and LIST in gallery:
        raise click.UsageError("standard input can list the photographs or the gallery, not both")


def _say_if_classes_are_persons(run: Path) -> None:
    """Print a note if the run was trained for retrieval, as far as its configuration is beside it."""
    from ..data.errors import CheckpointError
    from ..training.runs.folder import read_config

    try:
        images = read_config(_folder(run))["boxes"].get("images")
    except CheckpointError:  # a checkpoint predicts without its configuration
        return
    if isinstance(images, dict) and images.get("query"):
        click.echo(
            "note: this run finds persons again, and the classes listed are persons it was trained on: to search for "
            "others, name a folder of images with --gallery",
            err=True,
        )


def _predictor(run: Path, propose: Propose | None, answering: _Answering, pictures: bool = False) -> FilePredictor:
    """Load the network. To be called only once an image can be read: PyTorch takes seconds to load."""
    from ..data.memory import keep_network_memory
    from ..predictor import tubes_proposer
    from ..training.answers.predict_files import FilePredictor
    from ..training.answers.windows import uses_windows
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint

    keep_network_memory()
    checkpoint = load_checkpoint(run)
    if checkpoint.sampling and uses_windows(checkpoint) and answering.every > 1:
        raise click.UsageError(
            "--every is for networks of images; this one looks at windows of videos, at "
            f"{checkpoint.sampling.rate:.3g} frames a second; leave it out"
        )
    return FilePredictor(
        checkpoint=checkpoint,
        propose=propose,
        propose_tubes=tubes_proposer(checkpoint),
        say=partial(click.echo, err=True),
        pictures=pictures,
        **{**asdict(answering), "device": choose_device(answering.device)},
    )


def _inputs(images: tuple[str, ...], where: str = "") -> list[Input]:
    """Find the inputs that the arguments name, and report skipped files; ``where`` says among which."""
    from ..data.inputs import find_inputs
    from ..data.text import tally

    passed_over: Counter[str] = Counter()
    inputs = list(find_inputs(images, sys.stdin.buffer, passed_over))
    if passed_over:
        click.echo(f"skipped{where and ' '}{where}, not images or videos: {tally(passed_over)}", err=True)
    return inputs


def _tell(
    answers: Generator[Answer, None, None],
    inputs: list[Input],
    header: CheckpointHeader,
    answering: _Answering,
    shown: _Shown,
    saving: AbstractContextManager[AnnotatedFolder | None],
) -> tuple[int, int, float]:
    """Write each answer as soon as it is available.

    Returns: numbers of classified and of failed images, and the seconds taken.
    """
    from ..data.text import printable
    from ..training.answers.answer import Moment, Still, Summary
    from ..training.samples.reading import Unreadable

    names = [one.name for one in inputs if not one.problem]
    predicted = failed = 0
    begun = time.perf_counter()
    with (
        opened(shown.output) as stream,
        _Bars(sys.stderr.isatty() and (shown.output is not None or not sys.stdout.isatty())) as bars,
        saving as folder,
        closing(answers),
    ):
        columns = min(answering.top, len(header.classes))
        lines = Lines(stream, shown.form, columns, names, header.classes, shown.save is not None)
        for answer in answers:
            bars.tell(answer)
            saved = folder.save(answer) if folder else None
            for told in lines.tell(answer, saved.name if isinstance(saved, Path) else None):
                bars.say(told)
            if isinstance(saved, Path):
                bars.say(f"written: {printable(str(saved))}")
                if folder and folder.strip and isinstance(answer, Summary):
                    bars.say(f"written: {printable(str(folder.strip))}")
            elif saved:
                lines.tell(saved)
            for problem in (answer, saved):
                if isinstance(problem, Unreadable):
                    failed += 1
                    bars.say(f"Error: {printable(problem.reason)}")
            predicted += isinstance(answer, (Still, Moment))
    return predicted, failed, time.perf_counter() - begun


class _Bars:
    """Progress bars on stderr, one for each video and each sequence of photographs, with messages between them.

    A context manager.

    Args:
        shown: Whether to draw bars: stderr is a terminal and the answers go elsewhere.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self._bar: Any = None

    def tell(self, answer: Answer) -> None:
        """Start a bar for the next stretch, or advance the current one."""
        from ..data.text import printable
        from ..training.answers.answer import Stretch, Summary

        if isinstance(answer, Stretch):
            self._close()
            if self.shown and answer.expected != 1:
                unit = "frame" if answer.video else "image"
                self._bar = progress_bar(printable(Path(answer.video).name) or "predict", answer.expected, unit)
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
    from ..training.runs.folder import display_name

    folder = _folder(run)
    whose = f"by the run '{display_name(run)}', epoch {header.epoch}"
    return AnnotatedFolder(save, header.classes, whose, known_images(folder, header), limit)


def _folder(run: Path) -> Path:
    """The folder of a run that may be named by its checkpoint."""
    return run if run.is_dir() else run.parent
