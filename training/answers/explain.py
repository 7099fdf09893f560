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
from .contributions import Explained, contributions, why_not
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
    #: what the map leaves out: for ``plain``, the classifier's bias; for others, also what is not first order.
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
        method: ``parts``, the exact decomposition; or ``hirescam``, for every network.
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
    if "frames" in checkpoint.model.inputs:
        raise ConfigurationError("this run was trained on clips: single images of it are not explained")
    if len(checkpoint.classes) < 2:
        raise ConfigurationError("the network has one class: there is nothing to explain it against")
    reason = why_not(checkpoint.model) if question.method == "parts" else None
    if reason:
        raise ConfigurationError(f"{reason}: --method hirescam")


def _explanations(
    checkpoint: Checkpoint, model: Model, samples: list[Sample], device: Device, question: Question
) -> list[Explanation]:
    inputs = inputs_of(model, samples, device)
    output, evidence = (_by_parts if question.method == "parts" else _by_hirescam)(model, inputs, question)
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
            shares=None if weights is None else weights[row].detach().float().cpu().numpy(),
            distribution=distributions[row],
        )
        for row, (one, (this, against)) in enumerate(zip(samples, pairs, strict=True))
    ]


def _by_parts(model: Model, inputs: tuple[Tensor | None, ...], question: Question) -> tuple[Output, list[Explained]]:
    images, *regions = inputs
    assert images is not None
    found = contributions(model, images, *regions)
    check_finite(found.output)
    pairs = zip(*question.of(scores_of(found.output).float()), strict=True)
    return found.output, [found.of(row, int(this), int(against)) for row, (this, against) in enumerate(pairs)]


def _by_hirescam(model: Model, inputs: tuple[Tensor | None, ...], question: Question) -> tuple[Output, list[Explained]]:
    def difference(scores: Tensor) -> Tensor:
        this, against = question.of(scores.float())
        rows = torch.arange(len(scores), device=scores.device)
        return scores[rows, this] - scores[rows, against]

    output, maps = with_evidence(model, *inputs, explained=difference)
    check_finite(output)
    left_out = difference(scores_of(output)).detach() - maps.sum(dim=(1, 2))
    whole = np.array([[0, 0, 1, 1]], dtype=np.float32)
    parts = maps.detach().float().cpu().numpy()
    return output, [Explained(part[None], float(rest), whole) for part, rest in zip(parts, left_out, strict=True)]
