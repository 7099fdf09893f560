"""Select the best epoch of a run, and stop early when no better one follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..recipes import Recipe
from ..tasks import TASKS

_SIGN = {
    f"val_{measure.name}": 1.0 if measure.higher_is_better else -1.0 for task in TASKS for measure in task.measures
}


@dataclass
class Selection:
    """The best epoch so far on the validation split; a resumed run rebuilds it from its log."""

    by: str  #: name of a measure of validation, such as val_top1
    patience: int = 0  #: epochs without improvement after which to stop; 0: never
    start: int = 0  #: number of epochs at the start in which patience does not count
    best: float | None = None  #: the value of the best epoch
    best_epoch: int = 0  #: its number, from 1; 0 before the first

    @staticmethod
    def of(recipe: Recipe, log: Sequence[Mapping[str, object]]) -> Selection:
        """Rebuild the selection from a complete log."""
        found = Selection(recipe.select_by, recipe.patience, recipe.phases[-1].start)
        for epoch, line in enumerate(log, 1):
            found.is_best(epoch, line)
        return found

    def is_best(self, epoch: int, line: Mapping[str, object]) -> bool:
        """Return whether the epoch of this log line is the best so far, and remember it if so; the first wins a tie.

        Without a validation split, the last epoch is the best.
        """
        value = line.get(self.by)
        if value is None:
            self.best_epoch = epoch
            return True
        found = float(str(value))
        if self.best is not None and not _SIGN[self.by] * found > _SIGN[self.by] * self.best:
            return False
        # A first epoch whose loss is NaN counts as the best only until the next one.
        self.best, self.best_epoch = (None if math.isnan(found) else found), epoch
        return True

    def is_over(self, epoch: int) -> bool:
        """Whether patience is exhausted after this epoch."""
        return 0 < self.patience <= epoch - max(self.best_epoch, self.start)

    def ending(self, epoch: int, epochs: int) -> str:
        """Explain why a run of ``epochs`` epochs is over after ``epoch``; empty while it is not."""
        if epoch >= epochs:
            return f"finished: {_counted(epochs)}; epoch {self.best_epoch} is kept"
        if self.is_over(epoch):
            return f"no better {self.by} for {_counted(self.patience)}: finished; epoch {self.best_epoch} is kept"
        return ""


def _counted(epochs: int) -> str:
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"
