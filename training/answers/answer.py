"""Answers for photographs and videos, in order. No torch is imported: a command may have nothing to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..samples.reading import Unreadable
from .video_labels import Label, Segment

if TYPE_CHECKING:
    from ...data.videos import Frame
    from .predict import Prediction


@dataclass(frozen=True)
class Stretch:
    """Announcement of the following answers: those of a video, or of consecutive photographs."""

    video: str  #: name of the video; "" for photographs
    expected: int | None  #: number of photographs, or of frames by the video's header; None if unknown
    rate: float = 0.0  #: predicted frames per second of a video


@dataclass(frozen=True)
class Still:
    """Answer for a photograph."""

    prediction: Prediction
    label: Label


@dataclass(frozen=True)
class Moment:
    """Answer for one frame of a video."""

    frame: Frame  #: with the pixels of `pictures.small_frame` if pictures are requested, else with none
    prediction: Prediction
    label: Label  #: smoothed with the preceding frames


@dataclass(frozen=True)
class Summary:
    """Summary after the last frame of a video; a video without readable frames has none."""

    video: str
    frames: int
    segments: list[Segment]


Answer = Stretch | Still | Moment | Summary | Unreadable
