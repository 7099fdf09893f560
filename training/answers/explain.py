"""Explanations of single images: what speaks for a class rather than for another one, by place and by region."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...data.errors import ConfigurationError
from ...data.regions import Regions
from ..machine.devices import Device, Pieces
from ..models.contract import Output
from ..models.model import Model
from ..runs.checkpoints import Checkpoint, check_finite
from ..samples.reading import Sample, Unreadable
from .clip_contributions import image_contributions
from .contributions import Explained, why_not
from .predict import BATCH_SIZE, in_batches, inputs_of, scores_of, with_evidence
from .proof import Proof, Trials, prove


@dataclass(frozen=True)
class Explanation:
    """What speaks for a class rather than for another one in one image."""

    name: str
    this: str  #: the class
    against: str  #: the other class
    probabilities: tuple[float, float]  #: of the two
    #: The parts of the difference of the two logits. With ``hirescam``, one map over the whole image, and ``bias`` is
    #: what the map leaves out: for ``plain``, the classifier's bias; for others, also what is not first order. With
    #: ``attention``, one map of shares, sum 1, and no bias: no logits, and the same for every class.
    evidence: Explained
    method: str  #: as in `Question`
    regions: Regions | None  #: None for a network without regions
    shares: np.ndarray | None  #: `Output.region_weights` of the image
    distribution: np.ndarray  #: float32 ``(classes,)``: all probabilities, in the checkpoint's order of classes
    proof: Proof | None = None  #: of the map; None unless requested


@dataclass(frozen=True)
class Question:
    """What is asked of every image.

    Args:
        method: ``parts``, the exact decomposition; ``hirescam``, for every network; or ``attention``, what the network
            weighs.
        this: Number of the class; None: each image's likeliest.
        against: Number of the other class; None: each image's likeliest of the others.
    """

    method: str = "parts"
    this: int | None = None
    against: int | None = None

    def of(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the two classes of each image: scores ``(B, classes)`` -> twice ``(B,)``."""
        scores = scores.detach().clone()
        if self.against is not None:
            scores[:, self.against] = -torch.inf
            against = torch.full_like(scores[:, 0], self.against, dtype=torch.long)
            this = self._this(scores)
        else:
            this = self._this(scores)
            against = scores.scatter(1, this[:, None], -torch.inf).argmax(dim=1)
        return this, against

    def _this(self, scores: Tensor) -> Tensor:
        return scores.argmax(dim=1) if self.this is None else torch.full_like(scores[:, 0], self.this, dtype=torch.long)


def explain_samples(
    checkpoint: Checkpoint,
    samples: Iterable[Sample | Unreadable],
    device: Device,
    question: Question,
    batch_size: int = BATCH_SIZE,
    say: Callable[[str], None] = lambda text: None,
    trials: Trials | None = None,
    done: Callable[[int], None] = lambda passes: None,
) -> Iterator[Explanation | Unreadable]:
    """Explain prepared samples lazily, in order; unreadable ones keep their position.

    Args:
        checkpoint: Loaded checkpoint, whose network is moved to the device.
        samples: Samples.
        device: Device; the computation is in single precision.
        question: What is asked of every image.
        batch_size: Number of images per batch; explanations do not depend on it, except for rounding.
        say: Function called with a line of text if memory does not suffice for a batch, which is then split.
        trials: What is tried to prove each map; None: nothing.
        done: Function called with the number of passes of the network after each batch of a proof.

    Raises: `ConfigurationError` if the network cannot be explained so, `CheckpointError` if its outputs are not finite.
    """
    check_explainable(checkpoint, question)
    model = device.take(checkpoint.model)

    def proven(one: Explanation, sample: Sample) -> Explanation:
        if trials is None:
            return one
        this = checkpoint.classes.index(one.this)
        return replace(one, proof=prove(model, sample, one.evidence, this, trials, device, batch_size, say, done))

    def explain(part: list[Sample]) -> list[Explanation]:
        return [*map(proven, _explanations(checkpoint, model, part, device, question), part)]

    yield from in_batches(samples, explain, batch_size, Pieces(device, say))


def check_explainable(checkpoint: Checkpoint, question: Question) -> None:
    """Raise `ConfigurationError` if a network cannot answer the question."""
    if len(checkpoint.classes) < 2:
        raise ConfigurationError("the network has one class: there is nothing to explain it against")
    reason = why_not(checkpoint.model) if question.method == "parts" else None
    if reason:
        raise ConfigurationError(f"{reason}: --method hirescam")


def _explanations(
    checkpoint: Checkpoint, model: Model, samples: list[Sample], device: Device, question: Question
) -> list[Explanation]:
    inputs = inputs_of(model, samples, device)
    output, evidence = _METHODS[question.method](model, inputs, question)
    scores = scores_of(output).detach().float()
    distributions = scores.softmax(dim=1).cpu().numpy()
    pairs = torch.stack(question.of(scores), dim=1).tolist()
    weights = output.region_weights
    return [
        Explanation(
            name=one.name,
            this=checkpoint.classes[this],
            against=checkpoint.classes[against],
            probabilities=(float(distributions[row, this]), float(distributions[row, against])),
            evidence=evidence[row],
            method=question.method,
            regions=one.regions,
            shares=None if weights is None else weights[row].detach().flatten().float().cpu().numpy(),
            distribution=distributions[row],
        )
        for row, (one, (this, against)) in enumerate(zip(samples, pairs, strict=True))
    ]


Inputs = tuple[Tensor | None, ...]


def _by_parts(model: Model, inputs: Inputs, question: Question) -> tuple[Output, list[Explained]]:
    found = image_contributions(model, inputs)
    check_finite(found.output)
    pairs = zip(*question.of(scores_of(found.output).float()), strict=True)
    return found.output, [found.of(row, int(this), int(against)) for row, (this, against) in enumerate(pairs)]


def _by_hirescam(model: Model, inputs: Inputs, question: Question) -> tuple[Output, list[Explained]]:
    def difference(output: Output) -> Tensor:
        scores = scores_of(output).float()
        this, against = question.of(scores)
        rows = torch.arange(len(scores), device=scores.device)
        return scores[rows, this] - scores[rows, against]

    output, maps = with_evidence(model, *inputs, explained=difference)
    check_finite(output)
    left_out = (difference(output).detach() - maps.sum(dim=(1, 2))).tolist()
    return output, [over_whole(part, rest) for part, rest in zip(maps.detach(), left_out, strict=True)]


def _by_attention(model: Model, inputs: Inputs, question: Question) -> tuple[Output, list[Explained]]:
    with torch.no_grad():
        output = model(*inputs)
    check_finite(output)
    return output, [over_whole(part) for part in attention_of(output)]


_METHODS = {"parts": _by_parts, "hirescam": _by_hirescam, "attention": _by_attention}


def attention_of(output: Output) -> Tensor:
    """Attention to each position of each frame, clip by clip ``(B T, h, w)``, sum 1; an image is one frame.

    Raises: `ConfigurationError` for a network without attention.
    """
    if output.attention_map is None:
        raise ConfigurationError("the network has no attention over positions: --method hirescam")
    return output.attention_map.detach().flatten(0, -3)


def over_whole(places: Tensor, rest: float = 0.0) -> Explained:
    """A map ``(h, w)`` over the whole image, and what it leaves out."""
    return Explained(places.float().cpu().numpy()[None], rest, np.array([[0, 0, 1, 1]], dtype=np.float32))
