"""Several seeds of one run, for `agnet train --seeds 0 1 2`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..training.statistics import Spread

from .sections import SectionedCommand

SEEDS = "--seeds"


class SeveralSeeds(SectionedCommand):
    """A command whose ``--seeds`` takes all words up to the next option: ``--seeds 0 1 2``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _one_each(args))


def _one_each(words: Sequence[str]) -> list[str]:
    """``--seeds 0 1`` -> ``--seeds 0 --seeds 1``, which click understands."""
    found: list[str] = []
    option = ""  # the last one
    for word in words:
        if word.startswith("-"):
            option = word
        elif option == SEEDS and found[-1] != SEEDS:
            found.append(SEEDS)
        found.append(word)
    return found


def check_seeds(context: click.Context, parameter: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    """A callback of the option."""
    if len(set(seeds)) != len(seeds):
        raise click.BadParameter("each seed is to be given once")
    return seeds


def folders_of_seeds(run: Path, seeds: Sequence[int], resume: bool) -> list[Path]:
    """A folder for each seed.

    Raises: `CheckpointError` when ``run`` is a single run, or on resuming holds none of them.
    """
    from ..data.errors import CheckpointError
    from ..training.run_folder import CONFIG

    folders = [run / f"seed-{seed}" for seed in seeds]
    if (run / CONFIG).exists():
        raise CheckpointError(f"{run} is a run of one seed; name another folder with --run")
    if resume and not any((folder / CONFIG).exists() for folder in folders):
        raise CheckpointError(f"{run} holds no run of these seeds; train without --resume")
    return folders


def train_seeds(run: Path, seeds: Sequence[int], resume: bool, train: Callable[[Path, int, bool], Path]) -> list[Path]:
    """Call ``train(folder, seed, resume)`` for a folder of each seed; those not begun yet are begun on resuming.

    Returns: the folders. Raises: as `folders_of_seeds`.
    """
    from ..training.run_folder import CONFIG

    folders = folders_of_seeds(run, seeds, resume)
    for folder, seed in zip(folders, seeds, strict=True):
        train(folder, seed, resume and (folder / CONFIG).exists())
    return folders


def summarise(run: Path, folders: Sequence[Path]) -> list[str]:
    """Write ``seeds.json``: the validation figures of the epochs chosen and their spread. Returns that as text."""
    from dataclasses import asdict

    from ..data.atomic import atomic_file
    from ..training.metrics import possible_spread
    from ..training.run_folder import chosen_line
    from ..training.statistics import spread

    chosen = {folder.name: chosen_line(folder) for folder in folders}
    figures: dict[str, Spread] = {}
    for name, measure in (("val_top1", "top1"), ("val_loss", "negative_log_likelihood")):
        values = [float(line[name]) for line in chosen.values() if name in line]
        if len(values) == len(folders):  # else there is no validation part, or a run without a finished epoch
            figures[name] = possible_spread(measure, spread(values))
    content = {"runs": chosen, "figures": {name: asdict(found) for name, found in figures.items()}}
    with atomic_file(run / "seeds.json") as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [f"{name} of {found.n} seeds: {_text(name, found)}" for name, found in figures.items()]


def _text(name: str, found: Spread) -> str:
    """Accuracies in per cent."""
    form = "{:.1%}" if name == "val_top1" else "{:.4f}"
    if found.sd is None or found.low is None or found.high is None:
        return form.format(found.mean)
    mean, sd, low, high = map(form.format, (found.mean, found.sd, found.low, found.high))
    return f"{mean} ± {sd}, 95 % interval of the mean {low} to {high}"
