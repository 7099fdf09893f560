"""Photographs and videos through a network, in their order: read, and their regions proposed, ahead of it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import cv2
import joblib
import torch

from ...data.errors import ImageError
from ...data.images import pixel_limit
from ...data.inputs import Input
from ...data.videos import Frame, Video
from ...data.workers import ahead_by_processes, ahead_by_threads
from ..machine.devices import Device
from ..runs.checkpoints import Checkpoint
from ..samples.reading import Propose, Sample, Unreadable, lost_sample, sample_of_input, sample_or_reason
from .answer import Answer, Moment, Still, Stretch, Summary
from .pictures import small_frame
from .predict import BATCH_SIZE, Prediction, predict_samples
from .video_labels import VideoLabels, label_of

# Fewer photographs than this are read where they are predicted: starting workers takes as long as twenty of them.
_HANDFUL = 20
_FRAMES_AHEAD_BYTES = 400_000_000

Passed = TypeVar("Passed")


@dataclass
class FilePredictor:
    """A network for files, and how long it has waited for them.

    Neither ``batch_size`` nor ``jobs`` changes an answer, but for rounding.
    """

    checkpoint: Checkpoint
    propose: Propose | None  #: picklable; None for a network that looks at no regions
    device: Device
    top: int = 5  #: classes to tell of each image
    threshold: float = 0.0  #: of the likeliest class' probability, below which the label is `video_labels.UNSURE`
    every: int = 1  #: of a video, each Nth frame
    smooth: float = 0.5  #: seconds, of `VideoLabels`
    batch_size: int = BATCH_SIZE
    jobs: int | None = None  #: processes (for videos threads) that work ahead, 0 none; None: as cores and files suggest
    say: Callable[[str], None] = lambda text: None  #: told in a line what a user should know
    pictures: bool = False  #: whether answers are to hold what pictures of them need: evidence, and frames' pixels
    waited: float = 0.0  #: seconds in which the network had nothing to do

    def answers(self, inputs: Iterable[Input]) -> Generator[Answer, None, None]:
        """One `Still`, or `Unreadable`, for each photograph and each argument that found nothing; for each video its
        `Moment`s, a `Summary`, and an `Unreadable` where it is broken. In the order of ``inputs``.
        """
        for is_video, stretch in itertools.groupby(inputs, key=lambda one: one.is_video):
            if is_video:
                for one in stretch:
                    yield from self._video(one.name)
            else:
                yield from self._photographs(list(stretch))

    def _photographs(self, inputs: list[Input]) -> Iterator[Answer]:
        yield Stretch("", len(inputs))
        jobs = self._jobs() if self.jobs is not None or len(inputs) >= _HANDFUL else 0
        with _cores_left(jobs), closing(self._samples(inputs, jobs)) as samples:
            for result in self._predict(samples, evidence=self.pictures):
                if isinstance(result, Unreadable):
                    yield result
                else:
                    yield Still(result, label_of(self.checkpoint.classes, result.distribution, self.threshold))

    def _samples(self, inputs: Sequence[Input], jobs: int) -> Generator[Sample | Unreadable, None, None]:
        limit = pixel_limit(self.checkpoint.proposals)
        size_hw = self.checkpoint.size_hw
        task = partial(sample_of_input, size_hw=size_hw, propose=self.propose, max_pixels=limit)
        if not jobs:
            yield from map(task, inputs)
            return
        limit = 2 * max(self.batch_size, jobs)
        with closing(ahead_by_processes(inputs, task, lost_sample, jobs=jobs, limit=limit)) as samples:
            yield from samples

    def _video(self, name: str) -> Iterator[Answer]:
        try:
            with Video(name, pixel_limit(self.checkpoint.proposals)) as video, _cores_left(max(1, self._jobs())):
                expected = -(-video.announced_frames // self.every) if video.announced_frames else None
                yield Stretch(name, expected, video.rate / self.every)
                yield from self._moments(name, video)
        except ImageError as error:
            yield Unreadable(name, str(error))

    def _moments(self, name: str, video: Video) -> Iterator[Answer]:
        """Raises `ImageError`, after the answers of the frames before it, where the video is broken."""
        labels = VideoLabels(self.checkpoint.classes, self.smooth, self.threshold)
        task = partial(_prepare_frame, name, self.checkpoint.size_hw, self.propose, self.pictures)
        jobs = max(1, self._jobs())
        room = _FRAMES_AHEAD_BYTES // (3 * video.size_wh[0] * video.size_wh[1] + 1)
        limit = max(jobs + 1, min(2 * self.batch_size, room))
        frames: deque[Frame] = deque()
        broken: list[ImageError] = []

        def samples() -> Generator[Sample | Unreadable, None, None]:
            with closing(ahead_by_threads(video.frames(self.every), task, jobs, limit)) as prepared:
                try:
                    for frame, sample in prepared:
                        frames.append(frame)
                        yield sample
                except ImageError as error:  # kept until the frames before it are predicted
                    broken.append(error)

        predicted = 0
        with closing(samples()) as made:
            for result in self._predict(made, evidence=self.pictures):
                frame = frames.popleft()
                if isinstance(result, Unreadable):
                    yield result
                    continue
                predicted += 1
                yield Moment(frame, result, labels.add(frame.seconds, result.distribution))
        if predicted:
            yield Summary(name, predicted, labels.segments())
        if broken:
            raise broken[0]

    def _predict(self, samples: Iterator[Sample | Unreadable], evidence: bool) -> Iterator[Prediction | Unreadable]:
        timed = self._timed(samples)
        return predict_samples(self.checkpoint, timed, self.device, self.top, evidence, self.batch_size, self.say)

    def _timed(self, items: Iterator[Passed]) -> Iterator[Passed]:
        """The same items; the time they take to come is counted."""
        while True:
            begun = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            yield item

    def _jobs(self) -> int:
        if self.jobs is not None:
            return self.jobs
        return max(1, joblib.cpu_count() // (2 if self.device.device.type == "cpu" else 1))


@contextmanager
def _cores_left(jobs: int) -> Iterator[None]:
    """A network on the CPU leaves ``jobs`` cores alone: its threads wait for one another, and lose most by it."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    if jobs:
        torch.set_num_threads(max(1, min(threads[0], joblib.cpu_count() - jobs)))
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _prepare_frame(
    name: str, size_hw: tuple[int, int], propose: Propose | None, keep: bool, frame: Frame
) -> tuple[Frame, Sample | Unreadable]:
    """A thread's task: a frame made ready for the network, and what remains of it until it is predicted."""
    made = sample_or_reason(name, frame.pixels, size_hw, propose)
    return replace(frame, pixels=small_frame(frame.pixels) if keep else frame.pixels[:0]), made
