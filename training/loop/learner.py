"""A network while it learns: one step of the optimiser at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...data.errors import TrainingError
from ...data.text import first_line
from ..machine.devices import Device
from ..machine.distributed import ALONE, Processes
from ..machine.torch_internals import is_lone_value, is_of_compiler, is_out_of_memory
from ..models.contract import Output
from ..models.model import Model
from ..recipes import Recipe
from ..samples.loader import STAND_IN, Batch
from ..tasks import CLASSIFY, Task
from .ema import WeightAverage
from .optimizer import build_optimizer, rest_frozen
from .watchdog import Watchdog

PULSE = 20  #: steps between two looks at a GPU's numbers; each look waits for all that is under way

LOSS, WEIGHT, CORRECT, IMAGES = range(4)  #: of the totals: summed loss and the weight it is summed over, hits, images
_FIGURES = ("loss", "top1")  # of a log line; auxiliary losses have other names

_LESS = (
    "free some, take a smaller --backbone or --image-size, freeze a part (--frozen-stages, --backbone-lr 0), or try "
    "--precision bf16"
)


class _Piece(NamedTuple):
    """Some samples of a batch, on the device, mixed with others or not."""

    batch: Batch
    other_labels: Tensor | None  #: of what they are mixed with


class Learner:
    """A network, its optimiser, and what else changes while it learns.

    Args:
        model: on its device.
        recipe: how it learns; ``model.dropout`` gets its share from it, and what it freezes asks for no gradient.
        device: the model's.
        seed: of dropout and mixup, with epoch and step: a resumed run draws what a straight one does.
        class_images: how many training images each class has, for balanced class weights.
        task: what it learns.
        compiler: backend of torch.compile, or None. The state dict's keys stay the same.
        processes: that learn together, each from its part of every batch. Batch norms see what goes through a process
            at once, unless they are on GPUs and learn: then they see all of it. What is kept is process 0's.
        say: told in a line what a user should know.

    Raises: `ConfigurationError` as `build_optimizer`.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        device: Device,
        *,
        seed: int = 0,
        class_images: Sequence[int] = (),
        task: Task = CLASSIFY,
        compiler: str | None = None,
        processes: Processes = ALONE,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model, self.recipe, self.device, self.seed, self.say = model, recipe, device, seed, say
        self.task, self.processes = task, processes
        model.dropout.p = recipe.dropout
        self.optimizer = build_optimizer(model, recipe)
        self.average = WeightAverage(model, recipe.ema_decay, recipe.ema_warmup) if recipe.ema_decay else None
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.precision == "fp16")
        self.micro_batch: int | None = None  #: images at once, once memory has not sufficed for a batch
        self.loss_names: tuple[str, ...] | None = None  #: of the auxiliary losses; None before the first step
        self._watchdog = Watchdog(device)
        self._class_weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            self._class_weights = balanced_weights(class_images)
            self._weights_on_device = self._class_weights.to(device.device)
        if compiler:
            model.compile(backend=compiler)
        self._network = processes.parallel(model, synchronised_norms=recipe.backbone_lr > 0)

    @property
    def judged(self) -> Model:
        """The network that is validated and kept: the running mean of the weights where there is one."""
        return self.average.model if self.average else self.model

    def start(self) -> None:
        """Training mode, for all that learns."""
        self.model.train()
        rest_frozen(self.model, self.recipe.frozen_norms)

    def no_totals(self) -> Tensor:
        """Totals of no step: ``(4 + L,)`` zeros on the device, with L auxiliary losses known so far."""
        exact = torch.float64 if self.device.device.type != "mps" else torch.float32
        return torch.zeros(4 + len(self.loss_names or ()), dtype=exact, device=self.device.device)

    def step(self, batches: Sequence[Batch], epoch: int, step: int, steps: int) -> Tensor:
        """One step of the optimiser on the mean over all images of some batches.

        Memory that does not suffice is met by smaller pieces; the step is then done again from its beginning, with the
        same mean. (BatchNorm's statistics are of what goes through at once.)

        Args:
            epoch, step: counted from 0.
            steps: of the epoch.

        Returns: the step's totals ``(4 + L,)``, on the device: summed loss, the weight it is summed over, hits, images,
            and the sum of each auxiliary loss, in the order of ``loss_names``.
        Raises: `TrainingError` when numbers are not finite any more, or a single image does not fit into memory;
            `ValueError` for auxiliary losses that are not ``(B,)``, or not those of the step before.
        """
        # The middle of the step: none is wasted at a rate of 0, none gets the next epoch's rate.
        factor = self.recipe.lr_factor(epoch + (step + 0.5) / steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest_lr"] * factor
        # Each process draws its own; the first one what it would draw alone.
        place = [self.processes.rank] if self.processes.rank else []
        totals, finite = self._gradients(batches, np.random.SeedSequence([self.seed, epoch, step, *place]))
        self._watchdog.see(step, finite, totals[LOSS])
        if self.device.answers_at_once or step % PULSE == PULSE - 1 or step == steps - 1:
            self.check(epoch, steps)
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            self._watchdog.see_norm(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm))
        try:
            self.scaler.step(self.optimizer)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # It may have moved some weights already, so that there is no second try.
            raise TrainingError(
                f"the memory of {self.device.device} does not suffice for the optimiser's own numbers; {_LESS}"
            ) from None
        self.scaler.update()
        if self.average:
            self.average.update(self.model, epoch * steps + step)
        return totals

    def check(self, epoch: int, steps: int) -> None:
        """Raise `TrainingError` with a diagnosis if a loss was no finite number; waits for the device."""
        self._watchdog.check(self.model, self._rate, epoch, steps)

    def check_weights(self, epoch: int, step: int) -> None:
        """Raise `TrainingError` if the network is not fit to be saved after so many steps of the epoch; waits for the
        device.
        """
        self._watchdog.check_weights(self.model, self._rate, epoch, step)

    @property
    def _rate(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _gradients(self, batches: Sequence[Batch], seeds: np.random.SeedSequence) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss. Returns totals, and whether images, regions and logits are finite ``(3,)``."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
            try:
                return self._attempt(batches, np.random.default_rng(seeds))
            except ValueError as error:
                if not is_lone_value(error):
                    raise
                raise TrainingError(
                    "a batch norm got a single value of a single image; take another --batch-size, a larger "
                    "--image-size, or --frozen-norms, in a new run"
                ) from None
            except RuntimeError as error:
                if is_of_compiler(error):
                    raise TrainingError(
                        f"torch.compile failed ({first_line(error)}); train without --compile"
                    ) from None
                if not is_out_of_memory(error):
                    raise
            # Only here are the tensors of the attempt gone, which the error's traceback held.
            self._take_less(max(len(batch.labels) for batch in batches))

    def _take_less(self, batch_size: int) -> None:
        if not self.processes.alone:
            raise TrainingError(
                f"the memory of {self.device.device} does not suffice for {batch_size} images at once, and several "
                "processes cannot take less in the middle of a step: go on with a smaller --batch-size and more "
                "--accumulate, in a new run"
            )
        before = min(self.micro_batch or batch_size, batch_size)
        if before == 1:
            raise TrainingError(f"the memory of {self.device.device} does not suffice for a single image; {_LESS}")
        self.micro_batch = before // 2
        self.optimizer.zero_grad(set_to_none=True)
        self.device.free_memory()
        self.say(
            f"memory does not suffice for {before} images at once: going on with {self.micro_batch} at a time, the "
            f"same number of images to a step; --batch-size {self.micro_batch} with --accumulate asks for that at once"
        )

    def _attempt(self, batches: Sequence[Batch], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        weight = self._weight(batches)  # of this process; gradients are averaged over all of them
        divisor = self.processes.sum_number(weight) / self.processes.size
        totals, named = self.no_totals()[:4], dict[str, Tensor]()
        finite = torch.ones(3, dtype=torch.bool, device=self.device.device)
        for number, batch in enumerate(batches, 1):
            with self.processes.exchanging_gradients(self._network, number == len(batches)):
                self._backward(batch, self._share(generator), divisor, totals, named, finite)
        totals[WEIGHT] += weight
        totals[IMAGES] += sum(int((batch.labels != STAND_IN).sum()) for batch in batches)
        names = tuple(sorted(named))
        if self.loss_names not in (None, names):
            raise ValueError(f"the model gives the auxiliary losses {names}, and before it gave {self.loss_names}")
        self.loss_names = names
        return torch.cat([totals, *(named[name].reshape(1) for name in names)]), finite

    def _backward(
        self,
        batch: Batch,
        share: float,
        divisor: float,
        totals: Tensor,
        named: dict[str, Tensor],
        finite: Tensor,
    ) -> None:
        """Add a batch's gradients to those there are, and its sums to ``totals``, ``named`` and ``finite``, in place.

        Args:
            share: of each image; the rest is its neighbour's.
            divisor: of the summed loss.
            named: the sums of the auxiliary losses.
        """
        for piece, other_labels in self._pieces(batch, share):
            inputs = piece.inputs(self.model.inputs)
            with self.device.autocast():
                output = self._network(*inputs)
                loss = share * self._loss(output, piece.labels, piece.valid)
                if other_labels is not None:
                    loss = loss + (1 - share) * self._loss(output, other_labels, piece.valid)
                for name, value in _auxiliary(output, piece.labels).items():
                    own = share * self._sum(value, piece.labels)
                    if other_labels is not None:
                        own = own + (1 - share) * self._sum(value, other_labels)
                    loss = loss + own
                    named[name] = named.get(name, 0) + own.detach().to(totals.dtype)
            self.scaler.scale(loss / divisor).backward()
            with torch.no_grad():
                scores = self.task.scores(output, piece.valid)
                correct = self.task.hits(scores, piece.labels).sum() * share
                if other_labels is not None:
                    correct = correct + self.task.hits(scores, other_labels).sum() * (1 - share)
                totals[LOSS] += loss
                totals[CORRECT] += correct
                regions = scores if piece.regions is None else piece.regions
                finite &= torch.stack([value.isfinite().all() for value in (piece.frames, regions, scores)])

    def _share(self, generator: np.random.Generator) -> float:
        """How much of an image stays when it is mixed with another, at least half: its regions are then where the
        picture is that one mostly sees. Of pairs in random order this has the distribution of mixup itself.
        """
        if self.recipe.mixup == 0:
            return 1.0
        share = float(generator.beta(self.recipe.mixup, self.recipe.mixup))
        return max(share, 1 - share)

    def _pieces(self, batch: Batch, share: float) -> Iterator[_Piece]:
        """The batch on the device in pieces of `micro_batch`; each sample mixed with its neighbour if ``share`` < 1."""
        batch = batch.on(self.device)
        size = self.micro_batch or len(batch.labels)
        # Batches are shuffled, so that an image's neighbour is any other. The last one's is the first.
        neighbours = (batch.frames.roll(1, 0), batch.valid.roll(1, 0), batch.labels.roll(1, 0)) if share < 1 else None
        for cut in (slice(at, at + size) for at in range(0, len(batch.labels), size)):
            piece = batch.cut(cut)
            if neighbours is None:
                yield _Piece(piece, None)
                continue
            others, valid, labels = (column[cut] for column in neighbours)
            frames = torch.lerp(self.device.frames(others).float(), piece.frames.float(), share)
            # A frame is only as good as both that it is made of.
            yield _Piece(piece._replace(frames=frames, valid=piece.valid & valid), labels)

    def _loss(self, output: Output, labels: Tensor, valid: Tensor) -> Tensor:
        """The sum over samples of the task's loss, as `_sum` has it."""
        return self._sum(self.task.losses(output, labels, valid, self.recipe.label_smoothing), labels)

    def _sum(self, losses: Tensor, labels: Tensor) -> Tensor:
        """The sum of samples' losses ``(B,)``, each times the weight of its class.

        The weight is the image's, and smoothing's share is even over the classes. PyTorch's own ``weight`` would weigh
        that share class by class, too: at 30 : 1 a frequent image's best answer is then the rare class.
        """
        if self._class_weights is not None:
            # A stand-in's loss is 0, whatever its weight.
            losses = losses * self._weights_on_device[labels.clamp(min=0)]
        return losses.sum()

    def _weight(self, batches: Sequence[Batch]) -> float:
        """What the sum of the losses of some batches is divided by, known to the host: their images, or the weights of
        their classes. A mixed image weighs share · w(its class) + (1 − share) · w(its neighbour's), and every image of
        a batch is one other's neighbour: the sum is the same.
        """
        real = [batch.labels[batch.labels != STAND_IN] for batch in batches]
        if self._class_weights is None:
            return float(sum(len(labels) for labels in real))
        return float(sum(self._class_weights[labels].sum() for labels in real))


def balanced_weights(class_images: Sequence[int]) -> Tensor:
    """Images of each class -> its weight ``(classes,)``: a class in all counts alike, an image 1 on average.

    A class without images has weight 0.
    """
    counts = torch.tensor(class_images, dtype=torch.float64)
    there = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (there * counts.clamp(min=1)), 0.0).float()


def _auxiliary(output: Output, labels: Tensor) -> dict[str, Tensor]:
    """The auxiliary losses of an output, float32 ``(B,)``, by name; a stand-in's are 0."""
    found = {}
    for name, value in (output.losses or {}).items():
        if value.shape != labels.shape:
            raise ValueError(f"auxiliary loss {name!r}: wanted shape {tuple(labels.shape)}, got {tuple(value.shape)}")
        if name in _FIGURES or not name.isidentifier():
            raise ValueError(f"auxiliary loss {name!r}: wanted a name of letters other than {', '.join(_FIGURES)}")
        found[name] = torch.where(labels == STAND_IN, 0, value.float())
    return found


def means(totals: Tensor, loss_names: Sequence[str] = ()) -> dict[str, float]:
    """Mean ``loss``, ``top1`` and auxiliary losses of totals ``(4 + L,)``; waits for the device.

    ``loss`` is what is minimised, auxiliary losses included. Of no images all are NaN.
    """
    loss, weight, correct, images, *others = totals.tolist()
    if not images:  # one of several processes may have seen stand-ins only
        return dict.fromkeys((*_FIGURES, *loss_names), math.nan)
    named = {name: value / weight for name, value in zip(loss_names, others, strict=False)}
    return {"loss": loss / weight, "top1": correct / images, **named}
