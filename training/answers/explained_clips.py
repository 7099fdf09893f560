"""Explanations of clips: what speaks for a class rather than for another one, by frame, place and region.

A network that answers once for a clip has the logits of its answer. One that answers for each frame, or for images,
has an answer whose probabilities are the mean over the frames, and what is explained is the mean over the frames of the
difference of the two logits. In both cases it is a sum over the frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor

from ...data.clips import frames_at
from ...data.errors import ImageError
from ...data.images import pixel_limit
from ...data.regions import Regions
from ...data.sampling import SEGMENTS, Sampling
from ...data.videos import Frame, Video
from ..machine.devices import Device
from ..models.contract import Output
from ..models.model import Model
from ..runs.checkpoints import Checkpoint, check_finite
from ..samples.loader import Batch
from ..samples.reading import Propose, ProposeTubes, Unreadable
from ..samples.views import View
from .clip_contributions import clip_contributions
from .contributions import Explained, contributions
from .explain import Explanation, Question, attention_of, check_explainable, over_whole
from .predict import scores_of, with_evidence
from .windows import batch_of_window

FRAMES = 16  #: of a video, for networks that were trained on photographs
_ONE_CLIP = 2.0  # times the usual duration: a longer video is several clips


@dataclass(frozen=True)
class ExplainedFrame:
    """A frame of a clip."""

    number: int  #: in the video
    seconds: float
    #: What the frame adds, with a bias of 0. The sum over the frames, and the bias of the clip, is the difference of
    #: the two logits. With ``attention``, the frame's own shares, sum 1.
    evidence: Explained
    regions: Regions | None  #: None for a network without regions

    @property
    def adds(self) -> float:
        """The sum of the frame's parts."""
        return self.evidence.total


@dataclass(frozen=True)
class ExplainedClip:
    """What speaks for a class rather than for another one in a clip."""

    #: Of all frames together: its evidence has the sums over the frames, of attention the mean, and boxes of the first
    whole: Explanation
    frames: tuple[ExplainedFrame, ...]
    tubes: bool = True  #: whether a region is the same thing in all frames; if not, its sum over them means nothing


@dataclass(frozen=True)
class ClipExplainer:
    """Explains clips of videos by a network of clips, or of images, whose answers for the frames are averaged.

    Args:
        checkpoint: Loaded checkpoint.
        device: Device; the computation is in single precision.
        question: What is asked of every clip.
        propose: Stage 1's function for one image; None for a network without regions.
        propose_tubes: Stage 1's function for the frames of a clip; None for a network without regions or one that was
            not trained on clips.
    """

    checkpoint: Checkpoint
    device: Device
    question: Question
    propose: Propose | None
    propose_tubes: ProposeTubes | None

    def explain(self, name: str) -> Iterator[ExplainedClip | Unreadable]:
        """Explain the clips of a video, one after the other; one that cannot be read is only said to be.

        A network sees a clip as in evaluation: as many frames as in training, of equal parts of the clip or in a row.
        A video that lasts more than twice as long as a clip in training is explained as clips in a row.

        Raises: `ConfigurationError` if the network cannot be explained so, `CheckpointError` if its outputs are not
            finite.
        """
        check_explainable(self.checkpoint, self.question)
        self.device.take(self.checkpoint.model)
        try:
            for frames in clips_of_video(name, self.checkpoint.sampling, pixel_limit(self.checkpoint.proposals)):
                yield self._explained(name, frames)
        except ImageError as error:
            yield Unreadable(name, str(error))

    def _explained(self, name: str, frames: Sequence[Frame]) -> ExplainedClip:
        checkpoint, model = self.checkpoint, self.checkpoint.model
        regions, valid = self._regions([frame.pixels for frame in frames])
        batch = _batch(frames, regions, valid, checkpoint.size_hw).on(self.device)
        output, each, bias = _METHODS[self.question.method](model, batch, self.question)
        distribution = scores_of(output).detach().float().softmax(dim=1)[0].cpu().numpy()
        this, against = _pair(self.question, output)
        put_together = np.mean if self.question.method == "attention" else np.sum
        together = Explained(put_together([one.parts for one in each], axis=0), bias, each[0].boxes)
        whole = Explanation(
            name=name,
            this=checkpoint.classes[this],
            against=checkpoint.classes[against],
            probabilities=(float(distribution[this]), float(distribution[against])),
            evidence=together,
            method=self.question.method,
            regions=regions[0] if regions else None,
            shares=None,
            distribution=distribution,
        )
        there: Sequence[Regions | None] = regions or [None] * len(frames)
        found = zip(frames, each, there, strict=True)
        of_frames = tuple(ExplainedFrame(frame.number, frame.seconds, one, boxes) for frame, one, boxes in found)
        return ExplainedClip(whole, of_frames, tubes=self.propose_tubes is not None)

    def _regions(self, frames: list[np.ndarray]) -> tuple[list[Regions], np.ndarray]:
        """Regions of each frame, and which of their primary ones are valid in it."""
        if self.propose_tubes:
            return self.propose_tubes(frames)
        regions = [self.propose(frame) for frame in frames] if self.propose else []
        primary = len(regions[0].primary_xyxy) if regions else 0
        return regions, np.ones((len(regions), primary), dtype=bool)


def clips_of_video(name: str, sampling: Sampling | None, max_pixels: int) -> Iterator[list[Frame]]:
    """Read the frames of a video that a network sees, clip by clip.

    Args:
        name: Video file, which is read twice.
        sampling: Choice of the frames; None: frames of equal parts of the video, however long it is.
        max_pixels: Largest number of pixels of a frame.

    Raises: `ImageError` if the video cannot be read to its end; nothing has been yielded then.
    """
    last = _last_time(name, max_pixels)
    chosen = sampling or Sampling(FRAMES)
    with Video(name, max_pixels) as video:
        whole = chosen.mode == SEGMENTS and (sampling is None or last <= _ONE_CLIP * chosen.frames / chosen.rate)
        if whole:
            yield list(frames_at(video, chosen.times(last)))
            return
        rate = min(chosen.rate, video.rate)
        frames = frames_at(video, (number / rate for number in count()))
        while window := list(islice(frames, chosen.frames)):
            yield window


def _last_time(name: str, max_pixels: int) -> float:
    """Time of the last frame in seconds. Raises: `ImageError` if the video cannot be read to its end."""
    last = 0.0

    def wanted(number: int, seconds: float) -> bool:
        nonlocal last
        last = seconds
        return False

    with Video(name, max_pixels) as video:
        for _ in video.chosen(wanted):
            pass
    return last


def _batch(frames: Sequence[Frame], regions: list[Regions], valid: np.ndarray, size_hw: tuple[int, int]) -> Batch:
    view = View.of((frames[0].pixels.shape[1], frames[0].pixels.shape[0]), size_hw)
    pixels = torch.from_numpy(np.stack([view.pixels(frame.pixels) for frame in frames])).permute(0, 3, 1, 2)
    return batch_of_window(pixels, regions, valid, size_hw)


def _answered(model: Model, output: Output) -> Output:
    """The output for a clip: a network of images, which received its frames as images, has answered for each frame."""
    return output if "frames" in model.inputs else output._replace(logits=output.logits[None])


def _inputs(model: Model, batch: Batch) -> tuple[Tensor | None, ...]:
    """Inputs of a network for a clip: those of a network of images are the frames."""
    if "frames" in model.inputs:
        return batch.inputs(model.inputs)
    found = {"images": batch.frames, "regions": batch.regions}
    return tuple(None if (each := found[name]) is None else each.flatten(0, 1) for name in model.inputs)


def _pair(question: Question, output: Output) -> tuple[int, int]:
    """Numbers of the two classes."""
    this, against = question.of(scores_of(output).float())
    return int(this), int(against)


def _difference(question: Question, output: Output) -> Tensor:
    """The difference of the two logits ``()``, or its mean over the frames."""
    this, against = _pair(question, output)
    logits = output.logits[0].float()
    return (logits[..., this] - logits[..., against]).mean()


_Found = tuple[Output, list[Explained], float]  # output, what each frame adds, and the bias


def _by_parts(model: Model, batch: Batch, question: Question) -> _Found:
    if "frames" in model.inputs:
        clip = clip_contributions(model, *batch.inputs(model.inputs))  # type: ignore[arg-type]
        output, parts, bias, boxes = clip.output, clip.parts[0], clip.bias, clip.boxes[0]
    else:
        of_frames = contributions(model, *_inputs(model, batch))  # type: ignore[arg-type]
        output, bias, boxes = _answered(model, of_frames.output), of_frames.bias, of_frames.boxes
        parts = of_frames.parts.movedim(1, 0) / len(of_frames.parts)  # (classes, T, N, 7, 7)
    check_finite(output)
    this, against = _pair(question, output)
    each = zip((parts[this] - parts[against]).cpu().numpy(), boxes.cpu().numpy(), strict=True)
    return output, [Explained(part, 0.0, box) for part, box in each], float(bias[this] - bias[against])


def _by_hirescam(model: Model, batch: Batch, question: Question) -> _Found:
    def difference(output: Output) -> Tensor:
        return _difference(question, _answered(model, output))

    output, maps = with_evidence(model, *_inputs(model, batch), explained=difference)
    check_finite(output)
    left_out = float(difference(output).detach() - maps.sum())
    return _answered(model, output), [over_whole(one) for one in maps.detach()], left_out


def _by_attention(model: Model, batch: Batch, question: Question) -> _Found:
    with torch.no_grad():
        output = model(*_inputs(model, batch))
    check_finite(output)
    return _answered(model, output), [over_whole(one) for one in attention_of(output)], 0.0


_METHODS = {"parts": _by_parts, "hirescam": _by_hirescam, "attention": _by_attention}
