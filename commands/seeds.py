"""Several seeds of one run, for `agnet train --seeds 0 1 2`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..training.measure.statistics import Spread

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
    from ..training.runs.folder import CONFIG

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
    from ..training.runs.folder import CONFIG

    folders = folders_of_seeds(run, seeds, resume)
    for folder, seed in zip(folders, seeds, strict=True):
        train(folder, seed, resume and (folder / CONFIG).exists())
    return folders


def summarise(run: Path, folders: Sequence[Path]) -> list[str]:
    """Write ``seeds.json``: the validation figures of the epochs chosen and their spread. Returns that as text.

    Accuracy's interval is over other images and other seeds; the loss's over seeds alone, for the log does not tell how
    it varies over images.
    """
    from dataclasses import asdict, replace

    from ..data.files import atomic_file
    from ..training.measure.statistics import share_interval_of_means, spread
    from ..training.runs.folder import chosen_line, read_config

    chosen = {folder.name: chosen_line(folder) for folder in folders}
    counts: Any = read_config(folders[0])["boxes"].get("images", {})
    images = int(counts.get("val", 0))
    figures: dict[str, Spread] = {}
    for name in ("val_top1", "val_loss"):
        values = [float(line[name]) for line in chosen.values() if name in line]
        if len(values) == len(folders):  # else there is no validation part, or a run without a finished epoch
            figures[name] = found = spread(values)
            if name == "val_top1":
                interval = share_interval_of_means(values, images)
                figures[name] = replace(found, low=interval.low, high=interval.high)
            elif found.low is not None:
                figures[name] = replace(found, low=max(found.low, 0.0))
    content = {"runs": chosen, "figures": {name: asdict(found) for name, found in figures.items()}}
    with atomic_file(run / "seeds.json") as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [
        f"{name} of {found.n} seed{'s' if found.n > 1 else ''}: {_text(name, found, images)}"
        for name, found in figures.items()
    ]


def _text(name: str, found: Spread, images: int) -> str:
    """Accuracies in per cent."""
    form = "{:.1%}" if name == "val_top1" else "{:.4f}"
    value = form.format(found.mean) + ("" if found.sd is None else f" ± {form.format(found.sd)}")
    if found.low is None or found.high is None:
        return value
    over = f"over {images:,} images and the seeds" if name == "val_top1" else "over the seeds, on these images"
    return f"{value}, 95 % interval of the mean {form.format(found.low)} to {form.format(found.high)} ({over})"
