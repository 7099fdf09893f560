"""One aligned line of text per training epoch, with the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..data.text import duration, percent

_MUCH = 0.1  # fraction of an epoch spent waiting for images from which it is reported: more workers would help


class EpochLines:
    """Format the lines of a training log as text.

    Args:
        epochs: Number of epochs for each seed.
        seeds: Number of seeds, trained one after the other.
        until: Epoch after which each of them is stopped; None for the last.
        clock: Function that returns the time in seconds.
        called: What the samples are called, images or clips.
    """

    def __init__(
        self,
        epochs: int,
        seeds: int = 1,
        until: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        called: str = "images",
    ) -> None:
        self.epochs, self.seeds, self._clock, self._called = epochs, seeds, clock, called
        self._until = min(epochs, until or epochs)
        self._seeds_begun = 0
        self._before = clock()
        self._seconds: list[float] = []  # duration of each epoch of this process, with validation and saving

    def begin_seed(self) -> None:
        """Start a seed; call this before its first epoch."""
        self._seeds_begun += 1
        self._before = self._clock()

    def line(self, log: Mapping[str, object]) -> str:
        """Format a line of the log; call this when its epoch has just ended."""
        now = self._clock()
        self._seconds.append(now - self._before)
        self._before = now
        epoch = int(str(log["epoch"]))
        parts = [f"epoch {epoch:<{len(str(self.epochs))}} of {self.epochs}"]
        for name in ("train_loss", "train_top1", "val_loss", "val_top1", "val_map", "val_cmc1"):
            if name in log and not (name == "val_map" and "val_top1" in log):  # the line is long enough
                parts.append(f"{name} {_figure(name, float(str(log[name])))}")
        parts.append(f"lr {float(str(log['lr'])):<7.2g}")
        parts.append(f"{float(str(log['images_per_second'])):5.1f} {self._called}/s")
        parts.append(duration(self._seconds[-1]).rjust(7) + self._left(epoch))
        if float(str(log.get("data_wait", 0))) >= _MUCH:
            parts.append(f"{float(str(log['data_wait'])):.0%} waiting for {self._called}")
        if "images_at_once" in log:
            parts.append(f"{log['images_at_once']} {self._called} at once")
        return "  ".join([*parts, *(["best"] if "best" in log else [])]).rstrip()

    def _left(self, epoch: int) -> str:
        epochs = self._until - epoch + (self.seeds - max(1, self._seeds_begun)) * self._until
        if epochs <= 0:
            return " " * len(", 0:00:00 left")
        return f", {duration(epochs * sum(self._seconds) / len(self._seconds)):>7} left"


def _figure(name: str, value: float) -> str:
    """Format a share in per cent, or a loss, in a fixed width (unless a loss is 1000 or more)."""
    return f"{value:8.4f}" if name.endswith("loss") else percent(value).rjust(6)
