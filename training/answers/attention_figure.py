"""Figure of attention: photographs, or frames of videos, above the same with what the network weighs in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ...data.errors import ConfigurationError, ImageError
from ...data.images import pixel_limit, read_image
from ...data.inputs import Input
from ...data.picture_rows import PictureRows, Row, Tile
from ...data.regions import Regions
from ...data.text import csv_text
from ...data.videos import Frame, Video
from ..machine.devices import Device
from ..runs.checkpoints import Checkpoint
from ..samples.reading import Propose, ProposeTubes, Unreadable, sample
from .answer import Answer, Moment
from .pictures import attention_scale, draw_attention, full_attention, small_frame
from .predict import Attention, Prediction
from .predict_files import FilePredictor
from .windows import Seen, predict_window, uses_windows

_COLUMNS = 8  # most pictures beside each other

Kept = TypeVar("Kept")


class Look(NamedTuple):
    """A photograph, or a frame of a video, and where the network looks in it."""

    title: str  #: file name of a photograph, time of a frame
    pixels: np.ndarray  #: uint8 RGB
    prediction: Prediction

    @property
    def attention(self) -> Attention:
        assert self.prediction.attention is not None
        return self.prediction.attention


@dataclass(frozen=True)
class AttentionFigure:
    """Looks at the photographs, then at the frames of each video."""

    blocks: list[tuple[str, list[Look]]]  #: name of the video, "" for photographs; at most `_COLUMNS` looks
    run: str  #: name of the run

    @property
    def pictures(self) -> PictureRows:
        """Two rows for each block."""
        rows = []
        for video, looks in self.blocks:
            rows.append(Row([Tile(one.pixels, (one.title,)) for one in looks], (Path(video).name,) if video else ()))
            rows.append(Row([Tile(draw_attention(one.pixels, one.prediction), _answer(one)) for one in looks]))
        highest = f"{full_attention([one.attention for _, looks in self.blocks for one in looks])} times the mean"
        return PictureRows(rows, key=(attention_scale(), "attention: the mean or less", highest))

    @property
    def caption(self) -> str:
        """One line."""
        looks = [one for _, looks in self.blocks for one in looks]
        videos = len({video for video, _ in self.blocks if video})
        frames = sum(len(looks) for video, looks in self.blocks if video)
        counted = [_several(len(looks) - frames, "photograph")] if len(looks) > frames else []
        counted += [f"{_several(frames, 'frame')} of {_several(videos, 'video')}"] if videos else []
        highest = full_attention([one.attention for one in looks])
        return (
            f"Attention of {self.run} in {' and '.join(counted)}, drawn over the grey picture where it is above its "
            f"mean and in its highest fifth: full colour at {highest} times the mean, the highest in the "
            "photographs, or in the frames shown of a video; it is what the network weighs, not "
            "evidence for its answer."
        )

    def csv(self) -> str:
        """One row per position of each map."""
        rows: list[list[object]] = []
        for video, looks in self.blocks:
            for one in looks:
                about = [video or one.prediction.name, one.title if video else "", one.prediction.classes[0]]
                for (row, column), weight in np.ndenumerate(one.attention.weights):
                    share = f"{one.prediction.probabilities[0]:.4f}"
                    rows.append([*about, share, row, column, f"{weight:.4g}"])
        names = ("image", "time", "answer", "probability", "row", "column", "attention_by_its_mean")
        return csv_text([names, *rows])


def attention_figure(
    checkpoint: Checkpoint,
    inputs: Sequence[Input],
    device: Device,
    propose: Propose | None,
    propose_tubes: ProposeTubes | None,
    frames: int,
    run: str,
) -> AttentionFigure:
    """Look at photographs and videos.

    Args:
        checkpoint: Loaded checkpoint, whose network is moved to the device.
        inputs: Files.
        device: Device and precision.
        propose: Stage 1 for a photograph; None for a network without regions.
        propose_tubes: Stage 1 for the frames of a clip; None for a network of images.
        frames: Number of frames shown of each video.
        run: Name of the run.

    Raises: `ImageError` for a file that cannot be read, `ConfigurationError` for a network without attention.
    """
    device.take(checkpoint.model)
    looker = _Looker(checkpoint, device, propose, propose_tubes)
    photographs = looker.photographs([one for one in inputs if not one.is_video])
    blocks = [("", part) for part in _parts(photographs)]
    for one in inputs:
        if one.is_video:
            blocks += [(one.name, part) for part in _parts(looker.video(one, frames))]
    return AttentionFigure(blocks, run)


def _parts(looks: list[Look]) -> list[list[Look]]:
    """Divide looks into rows of about equal length, as few as possible."""
    rows = -(-len(looks) // _COLUMNS)
    length = -(-len(looks) // max(rows, 1))
    return [looks[row * length : (row + 1) * length] for row in range(rows)]


@dataclass(frozen=True)
class _Looker:
    """What is needed to look; the network is on the device."""

    checkpoint: Checkpoint
    device: Device
    propose: Propose | None
    propose_tubes: ProposeTubes | None

    def photographs(self, inputs: Sequence[Input]) -> list[Look]:
        """Look at photographs, which share a scale of colours."""
        limit, found = pixel_limit(self.checkpoint.proposals), []
        for one in inputs:
            if one.problem:
                raise ImageError(one.problem)
            found.append(self._look(one.name, Path(one.name).name, read_image(one.name, limit)))
        return _on_one_scale(found)

    def video(self, one: Input, count: int) -> list[Look]:
        """Look at ``count`` frames of a video, evenly spaced."""
        if not uses_windows(self.checkpoint):
            with Video(one.name, pixel_limit(self.checkpoint.proposals)) as video:
                chosen = evenly(video.frames(1), count)
            return _on_one_scale([self._look(one.name, _time(frame), frame.pixels) for frame in chosen])
        predictor = FilePredictor(
            self.checkpoint, self.propose, self.device, pictures=True, propose_tubes=self.propose_tubes
        )
        moments = evenly(_moments(predictor.answers([one])), count)
        looks = [Look(_time(one.frame), one.frame.pixels, self._checked(one.prediction)) for one in moments]
        return _on_one_scale(looks)

    def _look(self, name: str, title: str, pixels: np.ndarray) -> Look:
        """Look at a photograph: the window of one frame."""
        seen = Seen(Frame(0, 0.0, pixels), sample(name, pixels, self.checkpoint.size_hw, None))
        tubes = None if self.propose is None else self._regions
        (prediction,) = predict_window(self.checkpoint, [seen], self.device, tubes, top=1, pictures=True)
        return Look(title, small_frame(pixels), self._checked(prediction))

    def _regions(self, frames: Sequence[np.ndarray]) -> tuple[list[Regions], np.ndarray]:
        assert self.propose is not None
        regions = [self.propose(pixels) for pixels in frames]
        return regions, np.ones((len(regions), regions[0].layout.primary), bool)

    def _checked(self, prediction: Prediction) -> Prediction:
        if prediction.attention is None:
            model = self.checkpoint.settings.model
            raise ConfigurationError(
                f"this network ({model}) has no attention to places; agnet explain --save draws the evidence for its "
                "answers"
            )
        return replace(prediction, regions=None)  # boxes would hide the map


def _moments(answers: Iterable[Answer]) -> Iterator[Moment]:
    for answer in answers:
        if isinstance(answer, Unreadable):
            raise ImageError(answer.reason)
        if isinstance(answer, Moment):
            yield answer


def evenly(items: Iterable[Kept], count: int) -> list[Kept]:
    """Choose about evenly spaced items, ``count`` if there are as many, the first one among them.

    Few of them are in memory at a time.
    """
    kept, stride = list[Kept](), 1
    for number, item in enumerate(items):
        if number % stride == 0:
            kept.append(item)
        if len(kept) == 8 * count:
            kept, stride = kept[::2], 2 * stride
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int))
    return [kept[number] for number in chosen.tolist()]


def _on_one_scale(looks: list[Look]) -> list[Look]:
    highest = max((one.attention.highest for one in looks), default=0.0)
    return [
        one._replace(prediction=replace(one.prediction, attention=one.attention._replace(highest=highest)))
        for one in looks
    ]


def _several(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _time(frame: Frame) -> str:
    return f"{frame.seconds:.1f} s"


def _answer(one: Look) -> tuple[str, str]:
    return one.prediction.classes[0], f"{one.prediction.probabilities[0]:.0%}"
