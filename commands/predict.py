"""`agnet predict`: photographs and videos that are in no data set."""

from __future__ import annotations

import io
import itertools
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from ..proposals.settings import ProposalSettings, name_of_weights
from . import options
from .prediction_lines import FORMATS, Lines, printable
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..data.regions import Regions
    from ..data.videos import Frame, Video, VideoWriter
    from ..training.checkpoints import Checkpoint
    from ..training.devices import Device
    from ..training.predict import Prediction
    from ..training.samples import Propose, Sample, Unreadable
    from ..training.video_labels import Label

# Fewer images than this are read where they are predicted: starting workers takes as long as twenty of them.
_HANDFUL = 20
_FRAMES_AHEAD_BYTES = 400_000_000
_LONGEST_STILL = 5.0  # seconds: a frame that is said to last longer is shown so long in a saved video

Passed = TypeVar("Passed")


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
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Of a video, only each Nth frame.")
@click.option(
    "--smooth",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Of a video, seconds over which probabilities are averaged (time constant of the exponential mean).",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Of what is printed.  [default: text]")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: one object a line.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A FILE instead of stdout.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for pictures (regions, evidence, prediction) and videos (weightiest regions, label).",
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
    from ..data.inputs import find_inputs
    from ..data.memory import keep_network_memory
    from ..training.checkpoints import load_checkpoint
    from ..training.devices import choose_device
    from ..training.run_folder import BEST

    if as_json and format_ not in (None, "json"):
        raise click.UsageError(f"--json and --format {format_} are two different formats")
    keep_network_memory()
    checkpoint = load_checkpoint(run / BEST)
    settings = ProposalSettings.from_dict(checkpoint.proposals)
    if checkpoint.regions and settings.weights != name_of_weights(proposal_weights):
        raise click.ClickException(
            f"the regions of {run} were proposed by {settings.method} with other weights; give that file with "
            "--proposal-weights"
        )
    if output and not output.parent.is_dir():
        raise ConfigurationError(f"{output}: there is no folder {output.parent}")
    inputs = list(find_inputs(images, sys.stdin.buffer))
    if save:
        _say_what_cannot_be_drawn(checkpoint.classes)
    format_ = format_ or ("json" if as_json else "text")
    names = [one.name for one in inputs if not one.problem]
    with _stream(output) as stream:
        session = _Session(
            checkpoint=checkpoint,
            propose=partial(_propose, settings=settings, weights=proposal_weights) if checkpoint.regions else None,
            device=choose_device(device),
            lines=Lines(stream, format_, min(top, len(checkpoint.classes)), names, checkpoint.classes),
            top=top,
            threshold=threshold,
            every=every,
            smooth=smooth,
            save=save,
            batch_size=batch_size,
            jobs=jobs,
            bars=sys.stderr.isatty() and (output is not None or not sys.stdout.isatty()),
        )
        for is_video, stretch in itertools.groupby(inputs, key=lambda one: one.is_video):
            if is_video:
                for one in stretch:
                    session.predict_video(one.name)
            else:
                session.predict_images(list(stretch))
    session.report()
    if session.failed:
        sys.exit(1)


@dataclass
class _Session:
    """One call of the command: what it was asked for, and what it has done so far."""

    checkpoint: Checkpoint
    propose: Propose | None
    device: Device
    lines: Lines
    top: int
    threshold: float
    every: int
    smooth: float
    save: Path | None
    batch_size: int
    jobs: int | None
    bars: bool  #: whether a person watches stderr, and stderr alone
    failed: int = 0
    predicted: int = 0
    waited: float = 0.0  #: seconds in which the network had nothing to do
    begun: float = field(default_factory=time.perf_counter)

    def predict_images(self, inputs: list[Input]) -> None:
        """Photographs, and arguments under which nothing was found, in their order."""
        from ..training.samples import Unreadable
        from ..training.video_labels import label_of

        jobs = self._jobs() if self.jobs is not None or len(inputs) >= _HANDFUL else 0
        with self._bar("predict", len(inputs)) as bar, self._cores(jobs), closing(self._samples(inputs, jobs)) as made:
            for result in self._predict(made, evidence=self.save is not None):
                if isinstance(result, Unreadable):
                    self._fail(result.name, result.reason)
                else:
                    self.predicted += 1
                    label = label_of(self.checkpoint.classes, result.distribution, self.threshold)
                    self.lines.image(result, label)
                    if self.save:
                        self._save_picture(result)
                bar.update()

    def predict_video(self, name: str) -> None:
        """One video: each frame's answer, then its segments."""
        from ..data.errors import ImageError
        from ..data.videos import Video

        try:
            with Video(name) as video, self._video_writer(name, video) as writer, self._cores(self._jobs()):
                self._predict_frames(name, video, writer)
        except ImageError as error:
            self._fail(name, str(error))
            return
        if writer is not None and writer.frames:
            click.echo(f"written: {writer.path}", err=True)

    def report(self) -> None:
        """How fast it went, on stderr."""
        if self.predicted < 2:
            return
        seconds = time.perf_counter() - self.begun
        click.echo(
            f"{self.predicted:,} images in {seconds:.1f} s: {self.predicted / seconds:.1f} images a second; "
            f"{min(self.waited / seconds, 1):.0%} of the time the network waited for images and their regions",
            err=True,
        )

    def _predict_frames(self, name: str, video: Video, writer: VideoWriter | None) -> None:
        from ..data.errors import ImageError
        from ..data.parallel import ahead_by_threads
        from ..training.samples import Unreadable
        from ..training.video_labels import VideoLabels

        labels = VideoLabels(self.checkpoint.classes, self.smooth, self.threshold)
        task = partial(_prepare_frame, name, self.checkpoint.preprocessing.size, self.propose, bool(self.save))
        room = _FRAMES_AHEAD_BYTES // (3 * video.size_wh[0] * video.size_wh[1] + 1)
        jobs = max(1, self._jobs())
        limit = max(jobs + 1, min(2 * self.batch_size, room))
        frames: deque[Frame] = deque()
        broken = ""

        def samples() -> Generator[Sample | Unreadable, None, None]:
            nonlocal broken
            with closing(ahead_by_threads(video.frames(self.every), task, jobs, limit)) as prepared:
                try:
                    for frame, sample in prepared:
                        frames.append(frame)
                        yield sample
                except ImageError as error:  # kept until the frames before it are predicted
                    broken = str(error)

        total = -(-video.announced_frames // self.every) if video.announced_frames else None
        predicted = 0
        with self._bar(Path(name).name, total) as bar, closing(samples()) as made:
            for result in self._predict(made, evidence=False):
                frame = frames.popleft()
                bar.update()
                if isinstance(result, Unreadable):
                    self._fail(name, result.reason)
                    continue
                predicted += 1
                label = labels.add(frame.seconds, result.distribution)
                self.lines.frame(result, frame, label)
                if writer is not None:
                    _write_frame(writer, frame, result, label)
        self.predicted += predicted
        if predicted:
            for line in self.lines.video(name, predicted, labels.segments()):
                click.echo(line, err=True)
        if broken:
            self._fail(name, broken)

    def _predict(self, samples: Iterator[Sample | Unreadable], evidence: bool) -> Iterator[Prediction | Unreadable]:
        from ..training.predict import predict_samples

        timed = self._timed(samples)
        return predict_samples(self.checkpoint, timed, self.device, self.top, evidence, self.batch_size)

    def _samples(self, inputs: list[Input], jobs: int) -> Generator[Sample | Unreadable, None, None]:
        from ..data.parallel import LOST, ahead_by_processes
        from ..training.samples import Unreadable

        task = partial(_prepare, side=self.checkpoint.preprocessing.size, propose=self.propose)
        if not jobs:
            yield from map(task, inputs)
            return
        limit = 2 * max(self.batch_size, jobs)
        with closing(
            ahead_by_processes(
                inputs, task, lambda one: Unreadable(one.name, f"{one.name}: {LOST}"), jobs=jobs, limit=limit
            )
        ) as results:
            yield from results

    def _timed(self, items: Iterable[Passed]) -> Iterator[Passed]:
        """The same items; the time they take to come is counted."""
        remaining, end = iter(items), object()
        while True:
            begun = time.perf_counter()
            item = next(remaining, end)
            self.waited += time.perf_counter() - begun
            if item is end:
                return
            yield item  # type: ignore[misc] # which it is not, if it is not the end

    def _jobs(self) -> int:
        if self.jobs is not None:
            return self.jobs
        import joblib

        return max(1, joblib.cpu_count() // (2 if self.device.device.type == "cpu" else 1))

    @contextmanager
    def _cores(self, jobs: int) -> Iterator[None]:
        """A network on the CPU leaves ``jobs`` cores alone: its threads wait for one another, and lose most by it."""
        import cv2
        import joblib
        import torch

        threads = torch.get_num_threads(), cv2.getNumThreads()
        if jobs:
            torch.set_num_threads(max(1, min(threads[0], joblib.cpu_count() - jobs)))
            cv2.setNumThreads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])

    @contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[_Counter]:
        if not self.bars or total == 1:
            yield _Counter()
            return
        with progress_bar(what, total) as bar:
            yield bar

    @contextmanager
    def _video_writer(self, name: str, video: Video) -> Iterator[VideoWriter | None]:
        from ..data.videos import VideoWriter

        if self.save is None:
            yield None
        else:
            self.save.mkdir(parents=True, exist_ok=True)
            with VideoWriter(_new_file(self.save, Path(name), ".mp4"), video.rate / self.every) as writer:
                yield writer

    def _save_picture(self, prediction: Prediction) -> None:
        from ..data.drawing import save_picture
        from ..data.errors import ImageError
        from ..data.images import read_image
        from ..training.figures import draw_prediction

        assert self.save is not None
        try:
            image = read_image(prediction.name)  # again: images are large, and many wait
        except ImageError as error:
            self._fail(prediction.name, str(error))
            return
        picture = draw_prediction(image, prediction)
        self.save.mkdir(parents=True, exist_ok=True)
        target = save_picture(picture, _new_file(self.save, Path(prediction.name), ".png"))
        click.echo(f"written: {target}", err=True)

    def _fail(self, name: str, reason: str) -> None:
        self.failed += 1
        self.lines.error(name, reason)
        click.echo(f"Error: {printable(reason)}", err=True)


class _Counter:
    """A progress bar that nobody sees."""

    def update(self) -> None:
        pass


def _propose(image: object, settings: ProposalSettings, weights: Path | None) -> Regions:
    from ..proposals.one_image import propose_regions

    return propose_regions(image, settings, weights)  # type: ignore[arg-type]


def _prepare(one: Input, side: int, propose: Propose | None) -> Sample | Unreadable:
    """A worker's task."""
    from ..training.samples import Unreadable, sample_of_file

    return Unreadable(one.name, one.problem) if one.problem else sample_of_file(one.name, side, propose)


def _prepare_frame(
    name: str, side: int, propose: Propose | None, keep: bool, frame: Frame
) -> tuple[Frame, Sample | Unreadable]:
    """A thread's task: a frame made ready for the network, and what remains of it until it is predicted."""
    from ..training.figures import small_frame
    from ..training.samples import sample_or_reason

    made = sample_or_reason(name, frame.pixels, side, propose)
    return replace(frame, pixels=small_frame(frame.pixels) if keep else frame.pixels[:0]), made


def _write_frame(writer: VideoWriter, frame: Frame, prediction: Prediction, label: Label) -> None:
    """Add a frame to a saved video, as often as its time asks for: the file's own frames may come unevenly."""
    from ..training.figures import draw_frame

    due = round(frame.seconds * writer.rate) + 1 - writer.frames
    if due > 0:
        picture = draw_frame(frame.pixels, prediction, label)
        for _ in range(min(due, max(1, round(_LONGEST_STILL * writer.rate)))):
            writer.write(picture)


@contextmanager
def _stream(output: Path | None) -> Iterator[TextIO]:
    """Where lines go. A file appears when all is said; what an interrupt cuts short is kept beside its place."""
    from ..data.atomic import atomic_file

    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
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


def _say_what_cannot_be_drawn(classes: Iterable[str]) -> None:
    from ..data.fonts import drawable

    for name in classes:
        if drawable(name) != name:
            click.echo(
                f"Note: no font on this machine has all letters of the class {printable(name)!r}; pictures call it "
                f"{drawable(name)!r}. Installing the DejaVu or Noto fonts may help",
                err=True,
            )
            return


def _new_file(folder: Path, image: Path, suffix: str) -> Path:
    """A name for an image's picture that is not taken: class-photo.png, class-photo-2.png, ..."""
    name = "-".join([*image.parts[-2:-1], image.stem]).lstrip(".-/") or "image"
    numbered = (folder / f"{name}-{number}{suffix}" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{name}{suffix}"], numbered) if not path.exists())
