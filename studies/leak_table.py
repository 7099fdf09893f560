"""The table of `leak.py`: what each defect of a protocol, alone and together, adds to the measured accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from agnet.data.text import markdown_table, table
from agnet.training.measure.statistics import joined_test, share_difference, spread

Epoch = Mapping[
    str, str
]  # by split and order, such as "val sorted": for each image 1 if it is classified rightly, else 0
Run = Mapping[str, Sequence[Epoch]]  # epochs of the networks "sound", "wrong" (regions) and "none", with one seed

NOTES = (
    "Top-1 accuracy on the test images in per cent, mean ± sd over seeds, and its difference from the sound protocol "
    "with a 95 % interval over test images and seeds; both are paired: with a seed, all networks see the same batches, "
    "and those with sound and with wrong regions start from the same weights.",
    "wrong regions: the regions of a batch are concatenated region by region and read image by image; each image keeps "
    "its own whole-image token. random, sorted: order of the validation and test images in their batches; to a sound "
    "network the order makes no difference.",
    "The epoch is the one with the best accuracy on validation images, unless it is chosen on test.",
)


@dataclass(frozen=True)
class Protocol:
    """A way to train, to classify the test images and to choose the epoch."""

    title: str
    network: str  #: "sound", "wrong" or "none"
    order: str = "random"  #: of the images in evaluation batches: "random" or "sorted" by class
    chosen_on: str = "val"  #: split with whose accuracy the epoch is chosen

    def right(self, run: Run) -> np.ndarray:
        """Whether each test image is right in the chosen epoch, the first of equals: 1.0 or 0.0, ``(n,)``."""
        epochs = run[self.network]
        best = max(epochs, key=lambda epoch: epoch[f"{self.chosen_on} {self.order}"].count("1"))
        return np.array(list(best[f"test {self.order}"]), dtype=np.float64)


SOUND = Protocol("sound", "sound")
PROTOCOLS = (
    SOUND,
    Protocol("epoch chosen on test", "sound", chosen_on="test"),
    Protocol("wrong regions, random", "wrong"),
    Protocol("wrong regions, random, chosen on test", "wrong", chosen_on="test"),
    Protocol("wrong regions, sorted", "wrong", "sorted"),
    Protocol("wrong regions, sorted, chosen on test", "wrong", "sorted", "test"),
    Protocol("no regions", "none"),
    Protocol("no regions, chosen on test", "none", chosen_on="test"),
)


def report(runs: Mapping[str, Sequence[Run]], as_markdown: bool = False) -> str:
    """Format the runs of each data set by name, one per seed, as two tables over data sets: values and differences."""
    counted = [f"{name}, {len(of_seeds)} seed{'s'[: len(of_seeds) > 1]}" for name, of_seeds in runs.items()]
    tables = [
        [[title, *counted], *([one.title, *(cell(one, of_seeds) for of_seeds in runs.values())] for one in protocols)]
        for title, cell, protocols in (
            ("top-1", _value, PROTOCOLS),
            ("difference from sound", _difference, PROTOCOLS[1:]),
        )
    ]
    if as_markdown:
        return "\n\n".join([*map(markdown_table, tables), *NOTES]) + "\n"
    return "\n\n".join(["\n".join(table(rows)) for rows in tables] + [fill(note, 100) for note in NOTES]) + "\n"


def _value(protocol: Protocol, runs: Sequence[Run]) -> str:
    found = spread([float(protocol.right(run).mean()) for run in runs])
    return f"{100 * found.mean:.1f}" + (f" ± {100 * found.sd:.1f}" if found.sd is not None else "")


def _difference(protocol: Protocol, runs: Sequence[Run]) -> str:
    value, low, high = difference(protocol, runs)
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def difference(protocol: Protocol, runs: Sequence[Run]) -> tuple[float, float, float]:
    """Accuracy minus that of the sound protocol, and the ends of its 95 % interval over images and paired seeds."""
    right: Callable[[Protocol], np.ndarray] = lambda one: np.array([one.right(run) for run in runs])  # noqa: E731
    sound, other = right(SOUND), right(protocol)
    by_seed = (other - sound).mean(axis=1)
    variance = share_difference(sound, other)[1]
    interval, _ = joined_test(float(by_seed.mean()), variance, sound.shape[1], [by_seed.tolist()])
    return float(by_seed.mean()), interval.low, interval.high
