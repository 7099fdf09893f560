"""What is said of photographs and videos, one after the other. No torch: a command may have nothing to ask it."""

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
    """What the answers after it are of: a video, or photographs that were named one after the other."""

    video: str  #: its name; "" of photographs
    expected: int | None  #: how many photographs, or frames by the video's header; None where it has none
    rate: float = 0.0  #: of a video: frames a second that are predicted


@dataclass(frozen=True)
class Still:
    """A photograph's answer."""

    prediction: Prediction
    label: Label


@dataclass(frozen=True)
class Moment:
    """The answer of one frame of a video."""

    frame: Frame  #: its pixels as `pictures.small_frame` makes them, or none of them unless they were asked for
    prediction: Prediction
    label: Label  #: with what was seen before it


@dataclass(frozen=True)
class Summary:
    """A video's end: what its frames made. There is none of a video without a readable frame."""

    video: str
    frames: int
    segments: list[Segment]


Answer = Stretch | Still | Moment | Summary | Unreadable
