"""Aggregation of the scores of a video's frames to the scores of the video. Nothing heavy is imported at the top."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

MEAN, MODE, LAST = "mean-prob", "mode", "last"


@dataclass(frozen=True)
class Aggregate:
    """Rule by which the scores of the frames of a video, in order, become the scores of the video."""

    rule: str = MEAN  #: `MEAN` of the probabilities, `MODE`: most frequent winner, or `LAST`: mean of the last frames
    last: int = 0  #: number of frames for `LAST`

    @classmethod
    def parse(cls, text: str) -> Aggregate:
        """Read ``mean-prob``, ``mode`` or ``last:N``. Raises: `ConfigurationError` for anything else."""
        if text in (MEAN, MODE):
            return cls(text)
        if found := re.fullmatch(rf"{LAST}:0*([1-9][0-9]{{0,8}})", text):
            return cls(LAST, int(found[1]))
        raise ConfigurationError(f"--aggregate {text!r}: wanted {MEAN}, {MODE}, or {LAST}:N such as {LAST}:8")

    def __str__(self) -> str:
        return f"{LAST}:{self.last}" if self.rule == LAST else self.rule

    @property
    def part(self) -> str:
        """Part of the names of files: empty for the default, so that no other rule overwrites its files."""
        return "" if self.rule == MEAN else f"-{self}".replace(":", "-")

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Aggregate the logits of m ≥ 1 frames.

        For `MODE`, the winner's ties go to the earlier class, as in ``argmax``. To rank all other classes as well, one
        more vote is cast: half of it for the winner, half in shares of the mean probabilities.

        Args:
            logits: Logits of the frames in order, ``(m, K)``.

        Returns: logarithms of K values that are positive and sum to 1, float32 ``(K,)``.
        """
        import numpy as np

        shown = logits[-self.last :] if self.rule == LAST else logits
        with np.errstate(invalid="ignore"):  # of a broken network, which is refused later
            exact = shown.astype(np.float64)
            logs = exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)
            mean = np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))
        if self.rule == MODE:
            votes = np.bincount(shown.argmax(axis=1), minlength=shown.shape[1]).astype(np.float64)
            votes[votes.argmax()] += 0.5
            with np.errstate(divide="ignore"):
                mean = np.logaddexp(np.log(votes), mean + np.log(0.5)) - np.log(len(logs) + 1)
        return mean.astype(np.float32)
