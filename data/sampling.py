"""Choice of the frames of a clip by time. Nothing heavy is imported before a choice is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SEGMENTS, WINDOW = "segments", "window"
SAMPLINGS = (SEGMENTS, WINDOW)
_ROUNDING = 1e-4  # seconds


@dataclass(frozen=True)
class Sampling:
    """Choice of the T frames of a clip that a network sees."""

    frames: int  #: T
    mode: str = SEGMENTS  #: one of `SAMPLINGS`: one frame of each of T equal parts, or T in a row at ``rate``
    #: frames per second of a window; for `SEGMENTS` the rate at which a longer video is predicted, see `lasting`
    rate: float = 15.0

    def times(self, last: float, generator: np.random.Generator | None = None, window: int = 0) -> tuple[float, ...]:
        """Times in seconds of at most T frames, increasing, from 0 to ``last``.

        Args:
            last: Time of the clip's last frame in seconds.
            generator: Generator of the random times for training: a moment of each part, or the start of the window.
                Without it, the middle of each part, or ``window``.
            window: Number of the window, of those that cover the clip one after the other.
        """
        import numpy as np

        if self.mode == SEGMENTS:
            within = 0.5 if generator is None else generator.uniform(size=self.frames)
            return tuple((last * (np.arange(self.frames) + within) / self.frames).tolist())
        length = (self.frames - 1) / self.rate
        start = window * self.frames / self.rate if generator is None else generator.uniform(0, max(0.0, last - length))
        times = start + np.arange(self.frames) / self.rate
        return tuple(times[times <= last + _ROUNDING].tolist())

    def lasting(self, last: float) -> Sampling:
        """This sampling with the ``rate`` that `SEGMENTS` have in a clip whose last frame is at ``last`` seconds.

        At that rate, a window of a longer video lasts as long as such a clip. That of `WINDOW` is kept.
        """
        return replace(self, rate=self.frames / last) if self.mode == SEGMENTS and last > 0 else self

    def windows(self, last: float) -> int:
        """Number of windows that cover a clip; 1 for `SEGMENTS`, whose frames are of the whole clip."""
        if self.mode == SEGMENTS:
            return 1
        return int((last + _ROUNDING) * self.rate) // self.frames + 1
