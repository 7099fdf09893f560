"""One optimiser step at a time: loss, mixup, gradients, weight averaging, and recovery when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...data.errors import TrainingError
from ...data.text import first_line, rows_called
from ..machine.devices import Device
from ..machine.distributed import ALONE, Processes
from ..machine.torch_internals import is_lone_value, is_of_compiler, is_out_of_memory
from ..models.contract import Output
from ..models.model import Model
from ..recipes import Phase, Recipe
from ..samples.loader import STAND_IN, Batch
from ..tasks import CLASSIFY, Task
from .ema import WeightAverage
from .optimizer import build_optimizer, rest_frozen
from .triplets import triplet_losses
from .watchdog import Watchdog

PULSE = 20  #: steps between two checks of a GPU's values; each check waits for the GPU to finish its queue

LOSS, WEIGHT, CORRECT, IMAGES = range(4)  #: indices of the totals: summed loss, its summed weight, hits, images
CROSS_ENTROPY = "cross_entropy"  #: name of the cross-entropy of the true labels, among the totals of the losses
_FIGURES = ("loss", "top1")
_RESERVED = (*_FIGURES, CROSS_ENTROPY)  # names in a log line that auxiliary losses must not use

_LESS = (
    "free some, use a smaller --backbone or --image-size, freeze part of the network (--frozen-stages, "
    "--backbone-lr 0), or try --precision bf16"
)


class _Piece(NamedTuple):
    """Some samples of a batch on the device, possibly mixed with other samples."""

    batch: Batch
    other_labels: Tensor | None  #: labels ``(B,)`` of the samples mixed in; None without mixup


class Learner:
    """A network with its optimiser and everything else that changes during training.

    Args:
        model: Network, already on ``device``.
        recipe: Training settings; ``model.dropout.p`` is set from them, and parameters that a phase freezes have
            ``requires_grad = False`` until another phase begins.
        device: Device of the model.
        seed: Random seed of dropout and mixup, combined with epoch and step: a resumed run draws the same numbers as
            an uninterrupted one.
        class_images: Number of training images of each class, for balanced class weights.
        task: Loss, scores and measures to train for.
        compiler: Backend of torch.compile, or None. The keys of the state dict do not change.
        processes: Processes that train together, each on its share of every batch. Batch norms see the images that
            pass through one process at once, except trainable ones on GPUs, which are synchronised over all
            processes. The weights of process 0 are kept.
        say: Function called with a line of text for the user.

    Raises: `ConfigurationError` as in `build_optimizer`.
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
        self._learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.average = WeightAverage(model, recipe.ema_decay, recipe.ema_warmup) if recipe.ema_decay else None
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.precision == "fp16")
        self.micro_batch: int | None = None  #: images or clips per forward pass once a batch has not fitted into memory
        #: Names of `CROSS_ENTROPY` and of the auxiliary losses; None before the first step.
        self.loss_names: tuple[str, ...] | None = None
        #: Whether the totals have the mean cross-entropy of the true labels, without label smoothing, class weights and
        #: auxiliary losses. A mixed image has no true label, and a state of an older version has no such sum.
        self.tells_cross_entropy = recipe.mixup == 0
        self._watchdog = Watchdog(device)
        self._class_weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            self._class_weights = balanced_weights(class_images)
            self._weights_on_device = self._class_weights.to(device.device)
        if compiler:
            model.compile(backend=compiler)
        self._begin(recipe.phase(0))

    @property
    def judged(self) -> Model:
        """The network that is validated and saved: the moving average of the weights if the recipe has one."""
        return self.average.model if self.average else self.model

    def begin_phase(self, epoch: int) -> None:
        """Begin the phase of this epoch, unless the learner is in it: with a new optimiser and other frozen parts.

        The moving average of the weights and the gradient scaler continue.
        """
        if (phase := self.recipe.phase(epoch)) != self.phase:
            self._begin(phase)

    def _begin(self, phase: Phase) -> None:
        self.phase = phase
        for parameter in self._learning:
            parameter.requires_grad_(True)
        self.optimizer = build_optimizer(self.model, phase.recipe)
        # Wrapped anew, because only parameters that require a gradient at this moment have it exchanged.
        self._network = self.processes.parallel(self.model, synchronised_norms=phase.recipe.backbone_lr > 0)

    def start(self, epoch: int = 0) -> None:
        """Switch the model to training mode for this epoch, except for the parts that its phase freezes."""
        self.begin_phase(epoch)
        self.model.train()
        rest_frozen(self.model, self.recipe.frozen_norms)

    def no_totals(self) -> Tensor:
        """Return totals of zero steps: zeros ``(4 + L,)`` on the device, for the L losses of ``loss_names``."""
        exact = torch.float64 if self.device.device.type != "mps" else torch.float32
        return torch.zeros(4 + len(self.loss_names or ()), dtype=exact, device=self.device.device)

    def step(self, batches: Sequence[Batch], epoch: int, step: int, steps: int) -> Tensor:
        """Do one optimiser step on the mean loss over all images of the batches.

        If memory is too small, the step is repeated from its beginning in smaller pieces, with the same mean loss.
        (BatchNorm statistics are computed over one piece.)

        Args:
            batches: Batches whose gradients are accumulated.
            epoch, step: Epoch and step within it, counted from 0.
            steps: Number of steps in the epoch.

        Returns: The step's totals ``(4 + L,)``, on the device: summed loss, its summed weight, hits, images, and the
            sum of each loss of ``loss_names``.
        Raises: `TrainingError` if a value is no longer finite, or a single image does not fit into memory;
            `ValueError` for auxiliary losses that are not ``(B,)``, or not those of the step before.
        """
        # The rate at the middle of the step: no step is wasted at a rate of 0 or gets the next epoch's rate.
        factor = self.phase.lr_factor(epoch + (step + 0.5) / steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest_lr"] * factor
        # Each process draws different numbers; the first draws those of a run with one process.
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
            # Some weights may have changed already, so the step cannot be repeated.
            raise TrainingError(
                f"not enough memory on {self.device.device} for the state of the optimiser; {_LESS}"
            ) from None
        self.scaler.update()
        if self.average:
            self.average.update(self.model, epoch * steps + step)
        return totals

    def check(self, epoch: int, steps: int) -> None:
        """Raise `TrainingError` with a diagnosis if a loss was not finite; waits for the device."""
        self._watchdog.check(self.model, self._rate, epoch, steps)

    def check_weights(self, epoch: int, step: int) -> None:
        """Raise `TrainingError` if a weight is not finite after ``step`` steps of the epoch; waits for the device."""
        self._watchdog.check_weights(self.model, self._rate, epoch, step)

    @property
    def _rate(self) -> float:
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _gradients(self, batches: Sequence[Batch], seeds: np.random.SeedSequence) -> tuple[Tensor, Tensor]:
        """Compute gradients of the mean loss; return totals and whether images, regions, logits are finite ``(3,)``."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
            try:
                return self._attempt(batches, np.random.default_rng(seeds))
            except ValueError as error:
                if not is_lone_value(error):
                    raise
                others = "" if self.model.neck is not None else ", a larger --image-size, or --frozen-norms"
                raise TrainingError(
                    f"a batch norm received a single value per channel; use another --batch-size{others}, in a new run"
                ) from None
            except RuntimeError as error:
                if is_of_compiler(error):
                    raise TrainingError(
                        f"torch.compile failed ({first_line(error)}); train without --compile"
                    ) from None
                if not is_out_of_memory(error):
                    raise
            # Only here are the attempt's tensors freed: the error's traceback held them.
            self._take_less(max(len(batch.labels) for batch in batches))

    def _take_less(self, batch_size: int) -> None:
        called = rows_called(self.recipe.frames > 0)
        if self.recipe.triplet:
            raise TrainingError(
                f"not enough memory on {self.device.device} for {batch_size} images at once, and the triplet loss "
                "compares all images of a batch; use a smaller --batch-size, and a larger --accumulate, in a new run"
            )
        if not self.processes.alone:
            raise TrainingError(
                f"not enough memory on {self.device.device} for {batch_size} {called} at once, and several processes "
                "cannot reduce that number within a step; use a smaller --batch-size and a larger --accumulate, in a "
                "new run"
            )
        before = min(self.micro_batch or batch_size, batch_size)
        if before == 1:
            frames = f" of {self.recipe.frames} frames; use fewer --frames," if self.recipe.frames else ";"
            raise TrainingError(f"not enough memory on {self.device.device} for a single {called[:-1]}{frames} {_LESS}")
        self.micro_batch = before // 2
        self.optimizer.zero_grad(set_to_none=True)
        self.device.free_memory()
        self.say(
            f"not enough memory for {before} {called} at once: continuing with {self.micro_batch} at a time and the "
            f"same number of {called} per step; --batch-size {self.micro_batch} with --accumulate does so from the "
            "start"
        )

    def _attempt(self, batches: Sequence[Batch], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        weight = self._weight(batches)  # of this process; gradients are averaged over all processes
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
            raise ValueError(f"the model returned auxiliary losses {names}, but in the last step {self.loss_names}")
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
        """Accumulate a batch's gradients, and update ``totals``, ``named`` and ``finite`` in place.

        Args:
            batch: Samples to process.
            share: Fraction of each image that is kept by mixup; the rest comes from its neighbour.
            divisor: Number by which the summed loss is divided.
            totals: Sums ``(4,)``; loss and hits are added.
            named: Sums of `CROSS_ENTROPY` and of the auxiliary losses, by name.
            finite: Whether images, regions and logits are finite, bool ``(3,)``.
        """
        for piece, other_labels in self._pieces(batch, share):
            with self.device.autocast():
                output = piece.called(self._network, self.model.inputs)
                loss = share * self._loss(output, piece.labels, piece.valid)
                if other_labels is not None:
                    loss = loss + (1 - share) * self._loss(output, other_labels, piece.valid)
                for name, value in self._auxiliary(output, piece.labels).items():
                    own = share * self._sum(value, piece.labels)
                    if other_labels is not None:
                        own = own + (1 - share) * self._sum(value, other_labels)
                    loss = loss + own
                    named[name] = named.get(name, 0) + own.detach().to(totals.dtype)
            self.scaler.scale(loss / divisor).backward()
            with torch.no_grad():
                if self.tells_cross_entropy:
                    plain = self.task.losses(output, piece.labels, piece.valid, 0.0).sum()
                    named[CROSS_ENTROPY] = named.get(CROSS_ENTROPY, 0) + plain.to(totals.dtype)
                scores = self.task.scores(output, piece.valid)
                correct = self.task.hits(output, piece.labels, piece.valid).sum() * share
                if other_labels is not None:
                    correct = correct + self.task.hits(output, other_labels, piece.valid).sum() * (1 - share)
                totals[LOSS] += loss
                totals[CORRECT] += correct
                regions = scores if piece.regions is None else piece.regions
                finite &= torch.stack([value.isfinite().all() for value in (piece.frames, regions, scores)])

    def _share(self, generator: np.random.Generator) -> float:
        """Draw the fraction of an image that mixup keeps, at least half, so that its regions belong to the dominant
        image. For pairs in random order this has the same distribution as mixup.
        """
        if self.recipe.mixup == 0:
            return 1.0
        share = float(generator.beta(self.recipe.mixup, self.recipe.mixup))
        return max(share, 1 - share)

    def _pieces(self, batch: Batch, share: float) -> Iterator[_Piece]:
        """Yield the batch on the device in pieces of `micro_batch`, mixed with neighbour samples if ``share`` < 1."""
        batch = batch.on(self.device)
        size = self.micro_batch or len(batch.labels)
        # Batches are shuffled, so an image's neighbour is random; the last image's neighbour is the first image.
        neighbours = (batch.frames.roll(1, 0), batch.valid.roll(1, 0), batch.labels.roll(1, 0)) if share < 1 else None
        for cut in (slice(at, at + size) for at in range(0, len(batch.labels), size)):
            piece = batch.cut(cut)
            if neighbours is None:
                yield _Piece(piece, None)
                continue
            others, valid, labels = (column[cut] for column in neighbours)
            frames = torch.lerp(self.device.frames(others).float(), piece.frames.float(), share)
            # A mixed frame is valid only if both frames are.
            yield _Piece(piece._replace(frames=frames, valid=piece.valid & valid), labels)

    def _loss(self, output: Output, labels: Tensor, valid: Tensor) -> Tensor:
        """Return the task's loss summed over samples, with the class weights of `_sum`."""
        return self._sum(self.task.losses(output, labels, valid, self.recipe.label_smoothing), labels)

    def _auxiliary(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return the auxiliary losses of the model and of the recipe by name, float32 ``(B,)``."""
        found = _auxiliary(output, labels)
        if self.recipe.triplet:
            vectors = output.embedding if output.compared is None else output.compared
            if vectors is None:
                raise ValueError("the triplet loss needs a model that returns an embedding")
            found["triplet"] = self.recipe.triplet * triplet_losses(vectors, labels, self.recipe.margin)
        return found

    def _sum(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Sum the samples' losses ``(B,)``, each multiplied by the weight of its class.

        The weight applies to the whole image, and label smoothing stays uniform over the classes. PyTorch's ``weight``
        would also weight the smoothing term class by class: with class sizes of 30 : 1, the optimal prediction for an
        image of the frequent class would then be the rare class.
        """
        if self._class_weights is not None:
            # The loss of a stand-in is 0, whatever its weight.
            losses = losses * self._weights_on_device[labels.clamp(min=0)]
        return losses.sum()

    def _weight(self, batches: Sequence[Batch]) -> float:
        """Return the number that the summed loss is divided by, computed on the host: the number of images, or the sum
        of their class weights. A mixed image weighs share · w(its class) + (1 − share) · w(its neighbour's class), and
        every image of a batch is the neighbour of exactly one other, so mixup does not change the sum.
        """
        real = [batch.labels[batch.labels != STAND_IN] for batch in batches]
        if self._class_weights is None:
            return float(sum(len(labels) for labels in real))
        return float(sum(self._class_weights[labels].sum() for labels in real))


def balanced_weights(class_images: Sequence[int]) -> Tensor:
    """Compute class weights ``(classes,)`` from the number of images of each class.

    Every class has the same total weight, and an image weighs 1 on average. A class without images has weight 0.
    """
    counts = torch.tensor(class_images, dtype=torch.float64)
    there = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (there * counts.clamp(min=1)), 0.0).float()


def _auxiliary(output: Output, labels: Tensor) -> dict[str, Tensor]:
    """Return the auxiliary losses of an output by name, float32 ``(B,)``; those of stand-ins are 0."""
    found = {}
    for name, value in (output.losses or {}).items():
        if value.shape != labels.shape:
            raise ValueError(f"auxiliary loss {name!r}: wanted shape {tuple(labels.shape)}, got {tuple(value.shape)}")
        if name in _RESERVED or not name.isidentifier():
            raise ValueError(f"auxiliary loss {name!r}: wanted a name of letters other than {', '.join(_RESERVED)}")
        found[name] = torch.where(labels == STAND_IN, 0, value.float())
    return found


def means(totals: Tensor, loss_names: Sequence[str] = ()) -> dict[str, float]:
    """Compute mean ``loss``, ``top1`` and the losses of ``loss_names`` from totals ``(4 + L,)``; waits for the device.

    ``loss`` is the minimised loss, including auxiliary losses. `CROSS_ENTROPY` is the mean over the images, whatever
    the weights of their classes. Without images, all values are NaN.
    """
    loss, weight, correct, images, *others = totals.tolist()
    if not images:  # one of several processes may have seen stand-ins only
        return dict.fromkeys((*_FIGURES, *loss_names), math.nan)
    named = {
        name: value / (images if name == CROSS_ENTROPY else weight)
        for name, value in zip(loss_names, others, strict=False)
    }
    return {"loss": loss / weight, "top1": correct / images, **named}
