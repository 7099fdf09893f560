"""Accuracy of frames, clips and videos: three numbers from one evaluation.

A clip is a sample of T frames, as the network sees it: the segments of a whole video, or one of the windows that cover
it. Each video counts once, whatever its number of clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...data.sampling import SEGMENTS, Sampling
from ..aggregates import Aggregate
from ..titles import CLIP as CLIP
from ..titles import FRAME
from ..titles import VIDEO_ACCURACY as VIDEO_ACCURACY
from .statistics import Interval, Statistic, bootstrap, hull, percentile_interval, wilson_interval

if TYPE_CHECKING:  # PyTorch takes seconds to load
    from ..loop.engine import FrameScores

COUNTS = ("clips", "clips_right", "frames", "frames_right")  #: columns of the counts of a video
UNKNOWN = -1  #: number of right frames where the network answers once for a clip


def counted_as(of_videos: bool) -> str:
    """What the rows of a measurement are called: images, or videos, since a clip is only a part of one here."""
    return "videos" if of_videos else "images"


class Videos(NamedTuple):
    """Aggregated scores of n videos and K classes."""

    logits: np.ndarray  #: float32 ``(n, K)``
    labels: np.ndarray  #: int64 ``(n,)``
    rows: np.ndarray  #: int64 ``(n,)``, rows of the boxes file's usable clips
    counts: np.ndarray  #: int64 ``(n, 4)``: clips, right ones, valid frames, right ones among these or `UNKNOWN`


class VideoScores:
    """Collect the scores of frames and aggregate them by video; the clips of a video must follow each other."""

    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate
        self._clips: list[np.ndarray] = []  # logits of the clips of the current video
        self._row = -1
        self._logits: list[np.ndarray] = []
        self._labels: list[int] = []
        self._rows: list[int] = []
        self._counts: list[list[int]] = []

    def add(self, found: FrameScores) -> None:
        """Add the clips of a batch."""
        clips = np.split(found.logits, np.cumsum(found.counts)[:-1])
        for logits, label, row in zip(clips, found.labels.tolist(), found.rows.tolist(), strict=True):
            if row != self._row:
                self._close()
                self._row = row
                self._labels.append(label)
                self._rows.append(row)
                self._counts.append([0, 0, 0, 0])
            clip_is_right = int(self._aggregate.scores(logits).argmax()) == label
            right = int((logits.argmax(axis=1) == label).sum())
            count = self._counts[-1]
            count[:3] = count[0] + 1, count[1] + clip_is_right, count[2] + len(logits)
            count[3] = count[3] + right if found.by_frame else UNKNOWN
            self._clips.append(logits)

    def _close(self) -> None:
        if self._clips:
            self._logits.append(self._aggregate.scores(np.concatenate(self._clips)))
            self._clips = []

    def videos(self) -> Videos:
        """Return the videos in the order in which they came, one or more."""
        self._close()
        numbers = (np.array(found, dtype=np.int64) for found in (self._labels, self._rows, self._counts))
        return Videos(np.stack(self._logits), *numbers)


@dataclass(frozen=True)
class ClipMetrics:
    """What an evaluation of clips says besides `Metrics`, which are those of videos; shares are in [0, 1]."""

    aggregate: str  #: rule that makes the scores of a video from those of its frames: see `Aggregate`
    sampling: str  #: choice of the frames of a clip, in words
    videos: int
    clips: int
    frames: int  #: without padding; a frame in two clips counts twice
    video_accuracy: float  #: the same as top-1
    clip_accuracy: float  #: of each clip by itself; that of videos if each has one clip
    frame_accuracy: float | None  #: None for a network that answers once for a clip
    intervals: dict[str, Interval]  #: 95 % over videos, of clip and frame accuracy

    @property
    def values(self) -> dict[str, float]:
        """Clip and frame accuracy, by name, where they say more than video accuracy."""
        found = {CLIP: self.clip_accuracy} if self.clips > self.videos else {}
        return found | ({} if self.frame_accuracy is None else {FRAME: self.frame_accuracy})

    @property
    def notes(self) -> list[str]:
        """What the accuracies count, in sentences."""
        said = [f"video accuracy: each of {self.videos:,} videos once, by {self.aggregate} of its frames"]
        if self.clips > self.videos:
            said.append(f"clip accuracy: each of {self.clips:,} clips ({self.sampling}) by itself")
        else:
            said.append(f"each video is one clip ({self.sampling}), so that clip accuracy is video accuracy")
        if self.frame_accuracy is None:
            said.append("no frame accuracy: the network answers once for a clip")
        else:
            said.append(f"frame accuracy: each of {self.frames:,} frames by itself")
        return said


def measure_clips(counts: np.ndarray, video_accuracy: float, aggregate: Aggregate, sampling: Sampling) -> ClipMetrics:
    """Compute clip and frame accuracy from the ``counts`` of `Videos`.

    The frames of a video are alike, so that the intervals are over videos: a bootstrap of all frames, or clips, of the
    videos drawn, widened to Wilson's interval of a share of as many videos.
    """
    clips, clips_right, frames, frames_right = counts.astype(np.float64).T
    ratios = {CLIP: (clips_right, clips)} | ({} if (counts[:, 3] < 0).any() else {FRAME: (frames_right, frames)})
    values = {name: float(right.sum() / of.sum()) for name, (right, of) in ratios.items()}
    drawn = bootstrap([_ratio(*ratio) for ratio in ratios.values()], len(counts))
    intervals = {
        name: hull(percentile_interval(draws), wilson_interval(values[name], len(counts)))
        for name, draws in zip(ratios, drawn, strict=True)
    }
    return ClipMetrics(
        aggregate=str(aggregate),
        sampling=sampling_text(sampling),
        videos=len(counts),
        clips=int(clips.sum()),
        frames=int(frames.sum()),
        video_accuracy=video_accuracy,
        clip_accuracy=values[CLIP],
        frame_accuracy=values.get(FRAME),
        intervals=intervals,
    )


def sampling_text(sampling: Sampling) -> str:
    """Describe a sampling in words."""
    if sampling.mode == SEGMENTS:
        return f"{sampling.frames} frames, one of each part of the video"
    return f"a window of {sampling.frames} frames at {sampling.rate:g} a second"


def _ratio(right: np.ndarray, of: np.ndarray) -> Statistic:
    return lambda counts: (right @ counts) / (of @ counts)
