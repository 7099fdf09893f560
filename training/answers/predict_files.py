"""Prediction of photographs and videos in order; reading and region proposal run ahead of the network."""

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

from ...data.clips import frames_at
from ...data.errors import ImageError
from ...data.images import pixel_limit
from ...data.inputs import Input
from ...data.videos import Frame, Video
from ...data.workers import ahead_by_processes, ahead_by_threads
from ..machine.devices import Device
from ..runs.checkpoints import Checkpoint
from ..samples.reading import (
    Propose,
    ProposeTubes,
    Sample,
    Unreadable,
    lost_sample,
    sample,
    sample_of_input,
    sample_or_reason,
)
from .answer import Answer, Moment, Still, Stretch, Summary
from .embedding import Embedding, embed_samples
from .pictures import small_frame
from .predict import BATCH_SIZE, Prediction, predict_samples
from .video_labels import VideoLabels, label_of
from .windows import Seen, predict_window, shown, sliding_windows, uses_windows

# Fewer photographs than this are read without workers, whose start takes as long as reading twenty.
_HANDFUL = 20
_FRAMES_AHEAD_BYTES = 400_000_000

Passed = TypeVar("Passed")


@dataclass
class FilePredictor:
    """Predictor of files, which measures the time that the network waits for them.

    Answers do not depend on ``batch_size`` and ``jobs``, except for rounding.
    """

    checkpoint: Checkpoint
    propose: Propose | None  #: picklable; None for a network without regions
    device: Device
    top: int = 5  #: number of classes per image
    threshold: float = 0.0  #: probability of the likeliest class below which the label is `video_labels.UNSURE`
    every: int = 1  #: every Nth frame of a video is predicted
    smooth: float = 0.5  #: time constant of `VideoLabels`, in seconds
    batch_size: int = BATCH_SIZE
    jobs: int | None = None  #: processes (threads for videos) that work ahead; 0: none; None: by cores and files
    say: Callable[[str], None] = lambda text: None  #: called with a line of text for the user
    pictures: bool = False  #: whether answers contain what pictures need: evidence, and frames' pixels
    propose_tubes: ProposeTubes | None = None  #: for a network with regions that was trained on clips
    waited: float = 0.0  #: seconds during which the network was idle

    def answers(self, inputs: Iterable[Input]) -> Generator[Answer, None, None]:
        """Yield the answers in the order of ``inputs``.

        A `Stretch` announces each video and each series of photographs. A photograph yields a `Still` or an
        `Unreadable`, as does an argument that matches nothing. A video yields its `Moment`s, a `Summary`, and an
        `Unreadable` if it is broken.
        """
        for is_video, stretch in itertools.groupby(inputs, key=lambda one: one.is_video):
            if is_video:
                for one in stretch:
                    yield from self._video(one.name)
            else:
                yield from self._photographs(list(stretch))

    def embeddings(self, inputs: Sequence[Input]) -> Generator[Embedding | Unreadable, None, None]:
        """Yield the embedding of each photograph in the order of ``inputs``. Raises as `embed_samples`."""
        with self._prepared(inputs) as samples:
            timed = self._timed(samples)
            yield from embed_samples(self.checkpoint, timed, self.device, self.batch_size, self.say)

    def _photographs(self, inputs: list[Input]) -> Iterator[Answer]:
        yield Stretch("", len(inputs))
        with self._prepared(inputs) as samples:
            for result in self._predict(samples, evidence=self.pictures):
                if isinstance(result, Unreadable):
                    yield result
                else:
                    yield Still(result, label_of(self.checkpoint.classes, result.distribution, self.threshold))

    @contextmanager
    def _prepared(self, inputs: Sequence[Input]) -> Iterator[Iterator[Sample | Unreadable]]:
        """Read the photographs and propose their regions ahead of the network."""
        jobs = self._jobs() if self.jobs is not None or len(inputs) >= _HANDFUL else 0
        with _cores_left(jobs), closing(self._samples(inputs, jobs)) as samples:
            yield samples

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
                if uses_windows(self.checkpoint):
                    yield from self._windows(name, video)
                    return
                expected = -(-video.announced_frames // self.every) if video.announced_frames else None
                yield Stretch(name, expected, video.rate / self.every)
                yield from self._moments(name, video)
        except ImageError as error:
            yield Unreadable(name, str(error))

    def _windows(self, name: str, video: Video) -> Iterator[Answer]:
        """Yield the answers for a video of a network of clips. Raises: as `_moments`."""
        sampling = self.checkpoint.sampling
        assert sampling is not None
        rate = min(sampling.rate, video.rate)
        seconds = video.announced_frames / video.rate if video.announced_frames else None
        yield Stretch(name, None if seconds is None else max(1, round(seconds * rate)), rate)
        labels = VideoLabels(self.checkpoint.classes, self.smooth, self.threshold)
        self.device.take(self.checkpoint.model)
        task = partial(_see_frame, name, self.checkpoint.size_hw)
        jobs = max(1, self._jobs())
        broken: list[ImageError] = []

        def frames() -> Generator[Seen, None, None]:
            times = (number / rate for number in itertools.count())
            limit = max(jobs + 1, sampling.frames)
            with closing(ahead_by_threads(frames_at(video, times), task, jobs, limit)) as prepared:
                try:
                    yield from prepared
                except ImageError as error:  # raised once the frames before it are predicted
                    broken.append(error)

        predicted = 0
        with closing(frames()) as made:
            for window, new in sliding_windows(self._timed(made), sampling.frames):
                found = predict_window(
                    self.checkpoint, window, self.device, self.propose_tubes, self.top, self.pictures
                )
                for seen, prediction in list(zip(window, found, strict=True))[-new:]:
                    frame = shown(seen) if self.pictures else replace(seen.frame, pixels=seen.frame.pixels[:0])
                    yield Moment(frame, prediction, labels.add(frame.seconds, prediction.distribution))
                    predicted += 1
        if predicted:
            yield Summary(name, predicted, labels.segments())
        if broken:
            raise broken[0]

    def _moments(self, name: str, video: Video) -> Iterator[Answer]:
        """Yield the answers for a video. Raises: `ImageError` if it is broken, after the answers before the fault."""
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
                except ImageError as error:  # raised once the frames before it are predicted
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
        """Yield the same items and add the time spent waiting for them to ``waited``."""
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
    """Leave ``jobs`` cores to the workers: a network's threads on the CPU wait for one another, so sharing slows it."""
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
    """Task of a thread: prepare a frame for the network, and reduce the frame to what is kept until its prediction."""
    made = sample_or_reason(name, frame.pixels, size_hw, propose)
    return replace(frame, pixels=small_frame(frame.pixels) if keep else frame.pixels[:0]), made


def _see_frame(name: str, size_hw: tuple[int, int], frame: Frame) -> Seen:
    """Task of a thread: resize a frame of a clip for the network. Its regions are found in its window."""
    return Seen(frame, sample(name, frame.pixels, size_hw, None))
