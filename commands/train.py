"""`agnet train`: stage 2."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..proposals.settings import ProposalSettings
from ..training.models.contract import Settings
from ..training.models.registry import record_of
from ..training.recipes import RECIPES, SAVE_MINUTES, Recipe, RunSettings
from . import options
from .epoch_lines import EpochLines
from .field_options import field_option, settings_from
from .model_options import ModelCommand, chosen_recipe, looks_at_regions, model_in, model_settings
from .next_step import root_words, say_next, say_predict
from .places import images_root
from .progress import watch
from .seeds import SeveralSeeds, check_seeds

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes


class _TrainCommand(SeveralSeeds, ModelCommand):
    """With the options of a model, a recipe and several seeds."""


@click.command(
    short_help="Train a network on images and their regions (stage 2).",
    cls=_TrainCommand,
    known=("classes", "regions"),
    recipe=True,
)
@options.boxes
@options.root
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder; default: runs/<data set>-<model>.")
@field_option(RunSettings, "weights")
@field_option(RunSettings, "seed")
@click.option(
    "--seeds",
    type=int,
    multiple=True,
    callback=check_seeds,
    help="Seeds to train with one after the other (--seeds 0 1 2), into seed-0, seed-1, ... of --run; ends with mean, "
    "standard deviation and interval.",
)
@options.device
@field_option(RunSettings, "precision")
@options.workers
@field_option(RunSettings, "compile")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would happen, with time and memory measured on a few real steps; write nothing.",
)
@options.json_
@click.option("--stop-after", type=click.IntRange(1), help="Number of epochs after which to stop; --resume goes on.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the run's newest saved state; to more epochs, too, where its learning rates so far allow it.",
)
@click.option("--keep-states", is_flag=True, help="Keep the states to resume from when the run has finished.")
@click.option(
    "--save-every",
    type=click.FloatRange(0, min_open=True),
    default=SAVE_MINUTES,
    show_default=True,
    help="Minutes between two states saved within an epoch.",
)
@click.pass_context
def train(
    context: click.Context,
    boxes: Path,
    root: Path | None,
    run: Path | None,
    seeds: tuple[int, ...],
    dry_run: bool,
    as_json: bool,
    stop_after: int | None,
    resume: bool,
    keep_states: bool,
    save_every: float,
    **_: Any,
) -> None:
    """Stage 2: train AG-Net (or the plain backbone, its control) on images and their cached regions.

    The epoch is chosen on a validation part cut from train; the test part is left for `agnet evaluate`.
    """
    from ..data.boxes.reader import read_boxes
    from ..data.fonts import cannot_draw
    from ..data.memory import keep_network_memory
    from ..data.text import file_name
    from ..training.runs.folder import folder_of

    if seeds and _by_the_user(context, "seed"):
        raise click.UsageError("--seed and --seeds exclude each other")
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run; a run's log.jsonl has a line of JSON for each epoch")
    if dry_run and (resume or stop_after):
        raise click.UsageError("--dry-run is of a whole new run; leave out --resume and --stop-after")
    found = read_boxes(boxes)
    recipe, resolved = context.params["recipe"], chosen_recipe(context)
    propose = None
    if resolved.regions == "live":
        proposals = ProposalSettings.from_dict(found.settings["proposals"])
        if proposals.weights != ProposalSettings.weights:
            raise click.UsageError("--regions live needs regions proposed without a weights file")
        from ..proposals.one_image import propose_regions

        propose = partial(propose_regions, settings=proposals)
    run = folder_of(run) if run else Path("runs") / f"{file_name(found.title)}-{model_in(context)}"
    model = model_settings(context, classes=len(found.classes), regions=found.layout.count)
    if looks_at_regions(context):
        found.require_regions(f"--model {model.model}")
    images = images_root(found, root)
    settings = settings_from(context, RunSettings, **({"seed": seeds[0]} if seeds else {}))
    other_epochs = _by_the_user(context, "epochs")
    _check_beforehand(found, images, run, model, resolved, settings, seeds, resume, other_epochs, dry_run)
    # Only now: PyTorch takes seconds to load.
    from ..training.loop.fit import fit
    from ..training.loop.interruption import Interrupted
    from ..training.machine.distributed import meeting, place_of_this_process
    from ..training.runs.folder import CONFIG, folders_of_seeds

    keep_network_memory()
    place = place_of_this_process()
    if dry_run and not place.alone:
        raise click.UsageError("--dry-run is for one process; leave out torchrun")

    def say(text: str) -> None:
        if place.first:
            click.echo(text, err=True)

    lines = EpochLines(resolved.epochs, max(1, len(seeds)), stop_after)

    def report(line: dict[str, object]) -> None:
        say(lines.line(line))

    if found.failures:
        say(f"{len(found.failures):,} unreadable images are left out")
    counts = ", ".join(f"{len(found.rows(split)):,} {split}" for split in ("train", "val", "test"))
    say(f"{found.title}: {counts} images of {len(found.classes)} classes")
    if unknown := cannot_draw([found.title], in_colour=False):  # of the curves' title
        say(unknown)
    with_seeds = f"seeds {', '.join(map(str, seeds))}" if seeds else f"seed {settings.seed}"
    say(f"model {model.model}, backbone {model.backbones} with weights {settings.weights}, {with_seeds}, into {run}")
    changed = ", ".join(f"{name} {value}" for name, value in resolved.differences(RECIPES[recipe]).items())
    say(f"recipe {recipe}{f' with {changed}' if changed else ''}")
    if not place.alone:
        say(f"{place.size} processes share every batch of {resolved.batch_size}")
    if dry_run:
        from ..training.loop.dry_run import dry_run as try_out
        from ..training.loop.dry_run import dry_run_text

        say(f"measuring a few steps{f' of the first of {len(seeds)} seeds' if seeds else ''}")
        several = max(1, len(seeds))
        told = try_out(
            *(run, found, images, model, recipe, resolved, settings),
            propose=propose,
            keep_states=keep_states,
            seeds=several,
            watch=watch,
            say=say,
        )
        click.echo(json.dumps(told.to_dict(), indent=1) if as_json else dry_run_text(told))
        return
    code = 0
    with meeting(place) as processes:

        def train_one(folder: Path, number: int, goes_on: bool) -> Path:
            if seeds:
                say(f"seed {number}, into {folder}")
            lines.begin_seed()
            return fit(
                folder,
                found,
                images,
                model,
                resolved,
                replace(settings, seed=number),
                propose=propose,
                resume=goes_on,
                stop_after=stop_after,
                other_epochs=other_epochs,
                keep_states=keep_states,
                save_every=save_every,
                processes=processes,
                command={"recipe": recipe, "options": _given(context)},
                watch=watch if place.first else lambda what, count: lambda done, values: None,
                report=report,
                say=say,
            )

        try:
            if not seeds:
                best = train_one(run, settings.seed, resume)
            else:
                folders = folders_of_seeds(run, seeds, resume)
                for number, folder in zip(seeds, folders, strict=True):  # those not begun yet are begun on resuming
                    train_one(folder, number, resume and (folder / CONFIG).exists())
        except Interrupted as stopped:
            say(f"\nInterrupted {stopped}; all is saved: the same command and --resume goes on from there.")
            code = stopped.exit_code
        except KeyboardInterrupt:
            say(f"\nInterrupted at once: --resume goes on from the newest state in {run}, if one was saved.")
            sys.exit(130)  # not waiting for other processes, which wait for this one's part of a step
    if code:
        sys.exit(code)
    if place.first:
        if seeds:
            from ..training.measure.seeds import summarise_training

            for line in summarise_training(run, folders):
                say(line)
        click.echo(run if seeds else best)
        _say_what_is_next(found, images, boxes, run, stopped=stop_after is not None and stop_after < resolved.epochs)


def _say_what_is_next(found: Boxes, images: Path, boxes: Path, run: Path, stopped: bool) -> None:
    """The command that measures the run, on the part that is there for it; where it is not finished, how it goes on."""
    from ..data.places import follow_hint
    from ..training.runs.folder import read_config, runs_of

    if stopped:
        click.echo("next: the same command with --resume instead of --stop-after, to go on to the end", err=True)
        return
    split = next((part for part in ("test", "val") if len(found.rows(part))), None)
    if split is None:
        say_predict(runs_of(run)[0], found, images, "train")
        return
    config = read_config(runs_of(run)[0])["boxes"]
    known = follow_hint(config.get("file_relative_to_run"), runs_of(run)[0])
    words: list[str | Path] = ["evaluate", "--run", run]
    if known is None or known.resolve() != boxes.resolve():
        words += ["--boxes", boxes]
    say_next(*words, *root_words(found, images), *(() if split == "test" else ("--split", split)))


def _check_beforehand(
    boxes: Boxes,
    images: Path,
    run: Path,
    model_settings: Settings,
    recipe: Recipe,
    settings: RunSettings,
    seeds: tuple[int, ...],
    resume: bool,
    other_epochs: bool,
    dry_run: bool,
) -> None:
    """Raises: `AgnetError` children for whatever is known to be wrong before PyTorch is loaded."""
    from ..training.loop.preflight import (
        SOURCES,
        check_backbone,
        check_input,
        check_same_images,
        check_weights,
        ending_of,
    )
    from ..training.machine.device_names import check_device
    from ..training.runs.folder import (
        BEST,
        CONFIG,
        check_free,
        check_same_run,
        folders_of_seeds,
        has_state,
        one_training,
        weights_name,
    )

    check_input(boxes, recipe, proposes=True)
    check_device(settings.device, settings.precision)
    for stream in model_settings.streams:
        check_backbone(stream.backbone)
    if not (resume or (dry_run and settings.weights == "imagenet")):
        for stream in model_settings.streams if settings.weights in SOURCES else ():
            check_weights(settings.weights, stream.backbone)
        if settings.weights not in SOURCES:
            check_weights(settings.weights, model_settings.backbones)
    if "WORLD_SIZE" in os.environ:  # one of several processes: the first one alone looks at images and the folder
        return
    check_same_images(boxes, images, contents=False)
    folders = folders_of_seeds(run, seeds, resume) if seeds else [run]
    for number in seeds:
        replace(settings, seed=number)  # is it one?
    for number, folder in zip(seeds or [settings.seed], folders, strict=True):
        if not resume or (seeds and not (folder / CONFIG).exists()):
            check_free(folder)
            continue
        chosen = {"weights": weights_name(settings.weights), "seed": number, "compile": settings.compile}
        parts = {"model": record_of(model_settings), "recipe": asdict(recipe), "run": chosen}
        check_same_run(folder, {**parts, "boxes": {"fingerprint": boxes.fingerprint}}, other_epochs)
        if (folder / BEST).is_file() and not has_state(folder):
            ending_of(folder, recipe)
    if not dry_run:
        with one_training(run):
            pass  # it can be made, and written to


def _given(context: click.Context) -> dict[str, object]:
    """The options of the command line by name; of a path its last part only, for the folder is nobody's business."""
    from ..training.runs.folder import weights_name

    given = {name: value for name, value in context.params.items() if _by_the_user(context, name)}
    if "weights" in given:
        given["weights"] = weights_name(given["weights"])
    return {name: value.name if isinstance(value, Path) else value for name, value in given.items()}


def _by_the_user(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
