"""Prediction of a video by a network of clips, in windows of T frames that slide over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...data.regions import Regions
from ...data.videos import Frame
from ..machine.devices import Device
from ..models.contract import Output
from ..runs.checkpoints import Checkpoint, check_finite
from ..samples.loader import STAND_IN, Batch
from ..samples.reading import ProposeTubes, Sample
from ..samples.views import View
from ..tasks import CLASSIFY
from .pictures import small_frame, smoothed
from .predict import Attention, Prediction


@dataclass(frozen=True)
class Seen:
    """A frame of a video as the network sees it."""

    frame: Frame
    sample: Sample


def uses_windows(checkpoint: Checkpoint) -> bool:
    """Whether a network predicts windows of a video: it looks at clips, or at regions that were found in clips."""
    return checkpoint.sampling is not None and ("frames" in checkpoint.model.inputs or checkpoint.regions > 0)


def sliding_windows(frames: Iterable[Seen], size: int) -> Iterator[tuple[list[Seen], int]]:
    """Yield windows of ``size`` frames, each half a window after the one before, and the number of new frames at its
    end. The last one ends with the last frame; a shorter video is a single window.
    """
    window: deque[Seen] = deque(maxlen=size)
    new = 0
    step = max(1, size // 2)
    started = False
    for one in frames:
        window.append(one)
        new += 1
        if len(window) == size and (new >= step or not started):
            yield list(window), new
            new, started = 0, True
    if new:
        yield list(window), new


@torch.no_grad()
def predict_window(
    checkpoint: Checkpoint,
    window: Sequence[Seen],
    device: Device,
    propose: ProposeTubes | None,
    top: int,
    pictures: bool,
) -> list[Prediction]:
    """Predict the frames of a window, ``checkpoint.model`` being on the device.

    A network of clips has one answer for all of them, the mean of their probabilities; a network of images, whose
    regions were found in the window, one for each.

    Raises: `CheckpointError` if the network's outputs are not finite.
    """
    model = checkpoint.model
    pixels = torch.from_numpy(np.stack([one.sample.pixels for one in window])).permute(0, 3, 1, 2)
    regions, valid = propose([one.frame.pixels for one in window]) if propose else ([], np.zeros((0, 0), bool))
    batch = batch_of_window(pixels, regions, valid, checkpoint.size_hw).on(device)
    with device.autocast():
        output = batch.called(model, model.inputs)
    check_finite(output)
    distributions = _distributions(output, batch.valid, each="images" in model.inputs)
    attention = _attention(output, len(window))
    highest = 0.0
    if attention is not None and pictures:  # as drawn, so that the highest is in full colour
        highest = max(float(smoothed(one, checkpoint.size_hw).max()) for one in attention)
    return [
        _prediction(
            one.sample.name,
            checkpoint.classes,
            distributions[min(number, len(distributions) - 1)],
            top,
            regions[number] if regions else None,
            None if attention is None else Attention(attention[number], highest),
        )
        for number, one in enumerate(window)
    ]


def batch_of_window(pixels: Tensor, regions: list[Regions], valid: np.ndarray, size_hw: tuple[int, int]) -> Batch:
    """A batch of one clip: pixels ``(T, 3, H, W)``, regions of each frame or none, and whether primary ones are valid
    ``(T, κ)``.
    """
    boxes, region_valid = None, None
    if regions:
        view = View.of(regions[0].size_wh, size_hw)
        boxes = torch.from_numpy(np.stack([view.boxes(one) for one in regions]))[None]
        pairs = valid[:, regions[0].layout.pairs].all(axis=2)
        every = pairs if regions[0].layout.kinds == "secondary" else np.concatenate([valid, pairs], axis=1)
        region_valid = torch.from_numpy(every)[None]
    there = torch.ones(1, len(pixels), dtype=torch.bool)
    return Batch(pixels[None], there, boxes, torch.tensor([STAND_IN]), torch.tensor([0]), region_valid)


def _distributions(output: Output, valid: Tensor, each: bool) -> np.ndarray:
    """Probabilities ``(T, K)`` of each frame, or ``(1, K)`` of the window."""
    scores = output.logits[0].float() if each and output.logits.ndim == 3 else CLASSIFY.scores(output, valid)
    return np.asarray(scores.float().softmax(dim=1).cpu().numpy())


def _attention(output: Output, frames: int) -> np.ndarray | None:
    """Attention ``(T, h, w)`` as multiples of its mean over the positions; None for a network without."""
    if output.attention_map is None:
        return None
    maps = output.attention_map.float().cpu().numpy().reshape(frames, *output.attention_map.shape[-2:])
    return np.asarray(maps * maps.shape[1] * maps.shape[2])


def _prediction(
    name: str,
    classes: tuple[str, ...],
    distribution: np.ndarray,
    top: int,
    regions: Regions | None,
    attention: Attention | None,
) -> Prediction:
    order = np.argsort(-distribution, kind="stable")[:top].tolist()
    return Prediction(
        name=name,
        classes=tuple(classes[k] for k in order),
        probabilities=tuple(distribution[order].tolist()),
        distribution=distribution,
        regions=regions,
        region_weights=None,
        evidence=None,
        logit=float(np.log(max(distribution[order[0]], 1e-30))),
        attention=attention,
    )


def shown(seen: Seen) -> Frame:
    """The frame with the pixels that pictures need."""
    return Frame(seen.frame.number, seen.frame.seconds, small_frame(seen.frame.pixels))
