"""Messages of `agnet train` before and after training, and its record of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..training.recipes import RECIPES
from .field_options import by_the_user
from .next_step import root_words, say_next, say_predict

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes
    from ..training.loop.job import Job


def introduction(job: Job, seeds: Sequence[int], recipe_name: str, processes: int) -> Iterator[str]:
    """Yield lines that describe the run before training starts."""
    from ..data.fonts import cannot_draw
    from ..data.index import splits_told
    from ..data.text import counted, rows_called

    boxes, model, recipe = job.boxes, job.model, job.recipe
    if boxes.failures:
        lost = len(boxes.failures)
        yield f"{counted(lost, f'unreadable {rows_called(boxes.of_clips)}')} {'is' if lost == 1 else 'are'} left out"
    counts = ", ".join(f"{len(boxes.rows(split)):,} {split}" for split in splits_told(boxes.is_retrieval))
    kind = "persons" if boxes.is_retrieval else "classes"
    yield f"{boxes.title}: {counts} {rows_called(boxes.of_clips)} of {len(boxes.classes)} {kind}"
    if unknown := cannot_draw([boxes.title, job.title], in_colour=False):  # for the title of the curves
        yield unknown
    with_seeds = f"seeds {', '.join(map(str, seeds))}" if seeds else f"seed {job.settings.seed}"
    weights = f"backbone {model.backbones} with weights {job.settings.weights}"
    yield f"model {model.model}, {weights}, {with_seeds}, into {job.run}"
    changed = ", ".join(f"{name} {value}" for name, value in recipe.differences(RECIPES[recipe_name]).items())
    yield f"recipe {recipe_name}{f' with {changed}' if changed else ''}"
    if recipe.head_epochs:
        yield from map(str, recipe.phases)
    if job.settings.folds:
        yield from _about_folds(job)
    if processes > 1:
        yield f"{processes} processes share every batch of {recipe.batch_size}"


def _about_folds(job: Job) -> Iterator[str]:
    from ..data.text import rows_called
    from ..training.runs.folds import never_left_out

    called = rows_called(job.boxes.of_clips)
    yield f"{job.settings.folds} folds: each is left out of one run, whose epoch is chosen on val, and scored by it"
    if kept := never_left_out(job.boxes, job.settings.folds, job.settings.seed):
        yield (
            f"{kept:,} training {called} are in every run and get no score: their classes could not be learnt without "
            "them, since all images of the class are in one group"
        )


def say_what_is_next(found: Boxes, images: Path, boxes: Path, run: Path, stopped: bool) -> None:
    """Print the command that evaluates the run, on the test split if it has images, or that resumes a stopped run.

    Of a run on folds, it is the one that lists labels.
    """
    from ..data.places import follow_hint
    from ..training.runs.folder import FOLD, numbered, read_config, runs_of

    if stopped:
        click.echo("next: the same command with --resume instead of --stop-after, to finish training", err=True)
        return
    if numbered(run, FOLD):
        say_next("labels", "--run", run)
        return
    split = next((part for part in ("query", "test", "val") if len(found.rows(part))), None)
    if split is None:
        say_predict(runs_of(run)[0], found, images, "train")
        return
    config = read_config(runs_of(run)[0])["boxes"]
    known = follow_hint(config.get("file_relative_to_run"), runs_of(run)[0])
    words: list[str | Path] = ["evaluate", "--run", run]
    if known is None or known.resolve() != boxes.resolve():
        words += ["--boxes", boxes]
    say_next(*words, *root_words(found, images), *(() if split in ("test", "query") else ("--split", split)))


def given_options(context: click.Context) -> dict[str, object]:
    """Return the options on the command line by name, paths without their folders, which may contain personal names."""
    from ..training.runs.folder import weights_name

    given = {name: value for name, value in context.params.items() if by_the_user(context, name)}
    if "weights" in given:
        given["weights"] = weights_name(given["weights"])
    return {name: value.name if isinstance(value, Path) else value for name, value in given.items()}
