"""A line for each epoch of a training, its columns under one another, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..data.text import duration, percent

_MUCH = 0.1  # of an epoch's time spent waiting for images: told, for more workers would help


class EpochLines:
    """The log's lines as text.

    Args:
        epochs: that a seed is trained for.
        seeds: how many are trained one after the other.
        until: the epoch after which each of them is stopped.
        clock: seconds.
    """

    def __init__(
        self, epochs: int, seeds: int = 1, until: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.epochs, self.seeds, self._clock = epochs, seeds, clock
        self._until = min(epochs, until or epochs)
        self._seeds_begun = 0
        self._before = clock()
        self._seconds: list[float] = []  # of each epoch that was trained here, with all that belongs to it

    def begin_seed(self) -> None:
        """To be called before the first epoch of each seed."""
        self._seeds_begun += 1
        self._before = self._clock()

    def line(self, log: Mapping[str, object]) -> str:
        """The text of a line of the log, whose epoch has just ended."""
        now = self._clock()
        self._seconds.append(now - self._before)
        self._before = now
        epoch = int(str(log["epoch"]))
        parts = [f"epoch {epoch:<{len(str(self.epochs))}} of {self.epochs}"]
        for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
            if name in log:
                parts.append(f"{name} {_figure(name, float(str(log[name])))}")
        parts.append(f"lr {float(str(log['lr'])):<7.2g}")
        parts.append(f"{float(str(log['images_per_second'])):5.1f} images/s")
        parts.append(duration(self._seconds[-1]).rjust(7) + self._left(epoch))
        if float(str(log.get("data_wait", 0))) >= _MUCH:
            parts.append(f"{float(str(log['data_wait'])):.0%} of it waiting for images")
        if "images_at_once" in log:
            parts.append(f"{log['images_at_once']} images at once")
        return "  ".join([*parts, *(["best"] if "best" in log else [])]).rstrip()

    def _left(self, epoch: int) -> str:
        epochs = self._until - epoch + (self.seeds - max(1, self._seeds_begun)) * self._until
        if epochs <= 0:
            return " " * len(", 0:00:00 left")
        return f", {duration(epochs * sum(self._seconds) / len(self._seconds)):>7} left"


def _figure(name: str, value: float) -> str:
    """An accuracy in per cent, a loss as it is; always of one width, so far as losses are of usual size."""
    return percent(value).rjust(6) if name.endswith("top1") else f"{value:8.4f}"
