"""`agnet train`: train a network (stage 2)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..data.names import TRAIN_FOLD
from ..data.text import printable
from ..proposals.settings import SHUFFLES, ProposalSettings
from ..training.models.registry import record_of
from ..training.recipes import SAVE_MINUTES, Recipe, RunSettings
from . import options
from .completion import complete_trackers
from .configuration import ConfigurableCommand, config, configuration_in
from .epoch_lines import EpochLines
from .field_options import by_the_user, field_option, settings_from
from .model_options import ModelCommand, RareOption, chosen_recipe, looks_at_regions, model_settings
from .places import images_root
from .progress import watch
from .seeds import SeveralSeeds, check_seeds
from .training_lines import given_options, introduction, say_what_is_next

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes
    from ..training.loop.job import Console, Job
    from ..training.machine.distributed import Processes
    from ..training.samples.reading import Propose


MOST_LETTERS = 100  #: of a title


class _TrainCommand(SeveralSeeds, ConfigurableCommand, ModelCommand):
    """A command with the options of a model, a recipe, several seeds and a configuration file.

    The defaults of some options depend on the boxes file: persons are trained for retrieval, clips by the recipe
    for clips.
    """

    def defaults_for(self, given: Mapping[str, object]) -> dict[str, object]:
        from ..data.boxes.reader import CLIPS, SEARCHED, kind_of_rows

        kind = kind_of_rows(Path(str(given.get("boxes", "boxes.h5"))))
        return defaults_of(clips=kind == CLIPS, persons=kind == SEARCHED)


def _one_line(context: click.Context, parameter: click.Parameter, text: str) -> str:
    title = printable(" ".join(text.split()))
    if len(title) > MOST_LETTERS:
        raise click.BadParameter(f"wanted at most {MOST_LETTERS} letters, got {len(title)}")
    return title


def _trackers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    from ..training.runs.trackers import parse_names

    try:
        return parse_names(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


STATES = "Saved states"


def defaults_of(*, clips: bool, persons: bool) -> dict[str, object]:
    """Return the defaults that are others for clips, and for persons that are searched for."""
    if persons:
        return {"recipe": "reid", "neck": "batch-norm"}
    return {"recipe": "clips"} if clips else {}


@click.command(
    short_help="Train a network on images and their regions (stage 2).",
    cls=_TrainCommand,
    known=("classes", "regions"),
    recipe=True,
)
@config
@options.boxes
@options.root
@click.option("--run", type=options.RunPath(reads=False), help="Folder of the run.  [default: runs/DATASET-MODEL]")
@click.option(
    "--log",
    cls=RareOption,
    section="Trackers",
    metavar="NAME,NAME",
    callback=_trackers,
    shell_complete=complete_trackers,
    help="Trackers of the log besides the run's log.jsonl: csv, tensorboard, wandb, mlflow, or none.  [default: those "
    "of a resumed run, else tensorboard, if it is installed]",
)
@click.option("--title", default="", callback=_one_line, help="Title of the run, for its pictures and tables.")
@field_option(RunSettings, "weights")
@field_option(RunSettings, "seed")
@click.option(
    "--seeds",
    type=int,
    multiple=True,
    callback=check_seeds,
    help="Seeds to train with, one after the other (--seeds 0 1 2), in the folders seed-0, seed-1, ... of --run; the "
    "mean, standard deviation and interval are printed at the end.",
)
@options.device
@field_option(RunSettings, "precision")
@options.workers
@field_option(RunSettings, "compile")
@field_option(RunSettings, "cache_features")
@field_option(RunSettings, "folds")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would happen, with time and memory measured on a few training steps, and write nothing.",
)
@options.json_
@click.option("--stop-after", type=click.IntRange(1), help="Number of epochs after which to stop; --resume continues.")
@click.option(
    "--resume",
    is_flag=True,
    help="Resume from the latest saved state of the run; --epochs may change if past learning rates stay the same.",
)
@click.option(
    "--keep-states",
    cls=RareOption,
    section=STATES,
    is_flag=True,
    help="Keep the saved states when the run has finished.",
)
@click.option(
    "--save-every",
    cls=RareOption,
    section=STATES,
    type=click.FloatRange(0, min_open=True),
    default=SAVE_MINUTES,
    show_default=True,
    help="Minutes between states saved within an epoch.",
)
@click.pass_context
def train(context: click.Context, **given: Any) -> None:
    """Stage 2: train AG-Net, or another --model, on images and their regions.

    The best epoch is chosen on the validation split; the test split is reserved for agnet evaluate.
    """
    from ..data.memory import keep_network_memory
    from ..data.text import rows_called

    call = _Call(**{one.name: given[one.name] for one in fields(_Call)})
    _check_call(call, context)
    job = _job(call, context)
    jobs = _jobs(job, call.seeds)
    _check_beforehand(job, jobs, call.dry_run)
    # Imported here: PyTorch takes seconds to load.
    from ..training.loop.job import Console
    from ..training.machine.distributed import place_of_this_process

    keep_network_memory()
    place = place_of_this_process()
    if call.dry_run and not place.alone:
        raise click.UsageError("--dry-run runs in one process; leave out torchrun")
    called = rows_called(job.boxes.of_clips)
    lines = EpochLines(job.recipe.epochs, len(jobs), call.stop_after, called=called)
    console = Console(watch, lambda line: _say(lines.line(line)), _say) if place.first else Console()
    for line in introduction(job, call.seeds, given["recipe"], place.size):
        console.say(line)
    if configuration := configuration_in(context):
        console.say(
            "\n".join([f"configuration of {configuration.file}", *configuration.cautions(job.boxes, place.size)])
        )
    if call.dry_run:
        _try_out(jobs, call, given["recipe"], console)
    else:
        _train_and_report(job, jobs, call, place, console, lines)


@dataclass(frozen=True)
class _Call:
    """Options of a call other than the settings of the model, the recipe and the run."""

    boxes: Path
    root: Path | None
    log: tuple[str, ...] | None
    title: str
    run: Path | None
    seeds: tuple[int, ...]
    dry_run: bool
    as_json: bool
    stop_after: int | None
    resume: bool
    keep_states: bool
    save_every: float


def _check_call(call: _Call, context: click.Context) -> None:
    if call.seeds and by_the_user(context, "seed"):
        raise click.UsageError("--seed and --seeds exclude each other")
    if call.seeds and context.params["folds"]:
        raise click.UsageError("--folds and --seeds exclude each other; train the folds once for each --seed")
    if call.as_json and not call.dry_run:
        raise click.UsageError("--json needs --dry-run; the log.jsonl of a run has a line of JSON for each epoch")
    if call.dry_run and (call.resume or call.stop_after):
        raise click.UsageError("--dry-run estimates a complete new run; leave out --resume and --stop-after")


def _job(call: _Call, context: click.Context) -> Job:
    """Return the job of this call, with the first of several seeds.

    Raises: subclasses of `AgnetError` for an invalid boxes file.
    """
    from ..data.boxes.reader import read_boxes
    from ..data.text import file_name
    from ..training.loop.job import Job
    from ..training.runs.folder import folder_of
    from ..training.tasks import task_of

    boxes, recipe = read_boxes(call.boxes), chosen_recipe(context)
    classes = task_of(boxes).classes(boxes)
    model = model_settings(context, classes=len(classes), regions=boxes.layout.count)
    propose = None
    if not looks_at_regions(context):
        recipe = recipe.override(regions=Recipe.regions)  # a configuration file may say live
    else:
        propose = _live_regions(boxes) if recipe.regions == "live" else None
        boxes.require_regions(f"--model {model.model}")
    return Job(
        run=folder_of(call.run) if call.run else Path("runs") / f"{file_name(boxes.title)}-{model.model}",
        boxes=boxes,
        root=images_root(boxes, call.root),
        model=model,
        recipe=recipe,
        settings=settings_from(context, RunSettings, **({"seed": call.seeds[0]} if call.seeds else {})),
        propose=propose,
        resume=call.resume,
        stop_after=call.stop_after,
        other_epochs=by_the_user(context, "epochs"),
        keep_states=call.keep_states,
        save_every=call.save_every,
        log=call.log,
        title=call.title,
        command={"recipe": context.params["recipe"], "options": given_options(context)},
    )


def _live_regions(boxes: Boxes) -> Propose:
    """Return stage 1's function for one image, with the settings of the boxes file."""
    proposals = ProposalSettings.from_dict(boxes.settings["proposals"])
    if proposals.weights != ProposalSettings.weights:
        raise click.UsageError("--regions live needs regions proposed without a weights file")
    if proposals.method in SHUFFLES:
        raise click.UsageError(
            f"--regions live finds an image's own regions in order, and this boxes file has those of {proposals.method}"
        )
    from ..proposals.one_image import propose_regions

    return partial(propose_regions, settings=proposals)


def _try_out(jobs: list[Job], call: _Call, recipe_name: str, console: Console) -> None:
    from ..training.loop.dry_run import dry_run, dry_run_text

    several = f" of the first of {len(jobs)} {'seeds' if call.seeds else 'folds'}" if len(jobs) > 1 else ""
    console.say(f"measuring a few steps{several}")
    found = dry_run(jobs[0], console, recipe_name=recipe_name, seeds=len(jobs))
    click.echo(json.dumps(found.to_dict(), indent=1) if call.as_json else dry_run_text(found))


def _train_and_report(
    job: Job, jobs: list[Job], call: _Call, place: Processes, console: Console, lines: EpochLines
) -> None:
    """Train with each seed or without each fold; print the path of the result and, on stderr, the next command."""
    best = _train_each(job.run, jobs, place, console, lines)
    if not place.first:
        return
    stopped = call.stop_after is not None and call.stop_after < job.recipe.epochs
    if call.seeds:
        from ..training.measure.seeds import summarise_training

        for line in summarise_training(job.run, [one.run for one in jobs]):
            _say(line)
    elif job.settings.folds and not stopped:
        from ..training.measure.out_of_fold import score_left_out

        _say(score_left_out(job.run, jobs, console))
    click.echo(best if best.parent == job.run else job.run)
    say_what_is_next(job.boxes, job.root, call.boxes, job.run, stopped)


def _jobs(job: Job, seeds: tuple[int, ...]) -> list[Job]:
    """Return a job for each seed or fold, or the job itself; when resuming, those not yet started start from scratch.

    Raises: subclasses of `AgnetError` for a folder that holds something else, or too few images for the folds.
    """
    from ..training.runs.folder import FOLD, SEED, folders_of

    if seeds:
        folders = folders_of(job.run, SEED, seeds, job.resume)
        return [_into(job, folder, seed) for seed, folder in zip(seeds, folders, strict=True)]
    if not (count := job.settings.folds):
        return [job]
    from ..training.runs.folds import without_fold

    seed, folders = job.settings.seed, folders_of(job.run, FOLD, range(count), job.resume)
    return [
        replace(_into(job, folder, seed), boxes=without_fold(job.boxes, fold, count, seed), fold=fold)
        for fold, folder in enumerate(folders)
    ]


def _into(job: Job, folder: Path, seed: int) -> Job:
    """Return the job with another seed and folder."""
    from ..training.runs.folder import CONFIG

    going_on = job.resume and (folder / CONFIG).exists()
    return replace(job, run=folder, settings=replace(job.settings, seed=seed), resume=going_on)


def _train_each(run: Path, jobs: list[Job], place: Processes, console: Console, lines: EpochLines) -> Path:
    """Run the jobs and return the best checkpoint of the last; an interruption exits with its own code."""
    from ..training.loop.fit import fit
    from ..training.loop.interruption import Interrupted
    from ..training.machine.distributed import meeting

    code = 0
    with meeting(place) as processes:
        try:
            for job in jobs:
                if job.run != run:  # one of several
                    which = f"seed {job.settings.seed}" if job.fold is None else f"without fold {job.fold}"
                    console.say(f"{which}, into {job.run}")
                lines.begin_seed()
                best = fit(job, console, processes)
        except Interrupted as stopped:
            console.say(f"\nInterrupted {stopped}; the state is saved: add --resume to the same command to continue.")
            code = stopped.exit_code
        except KeyboardInterrupt:
            console.say(f"\nInterrupted at once: --resume continues from the latest state in {run}, if one was saved.")
            sys.exit(130)  # without waiting for other processes, which wait for this one in a collective
    if code:
        sys.exit(code)
    return best


def _say(text: str) -> None:
    click.echo(text, err=True)


def _check_beforehand(job: Job, jobs: list[Job], dry_run: bool) -> None:
    """Check everything that can be checked before PyTorch is loaded. Raises: subclasses of `AgnetError`.

    Args:
        job: The job of the call.
        jobs: The job, or those of its seeds or folds.
        dry_run: Whether nothing will be written.
    """
    from ..training.loop.preflight import (
        check_backbone,
        check_cacheable,
        check_input,
        check_same_images,
        check_views,
        check_weights,
        ending_of,
    )
    from ..training.machine.device_names import check_device
    from ..training.runs.folder import (
        BEST,
        check_free,
        check_same_run,
        fold_record,
        has_state,
        one_training,
        weights_name,
    )
    from ..training.runs.provenance import identity
    from ..training.runs.sources import needs_no_file
    from ..training.runs.trackers import check_installed

    settings = job.settings
    check_input(job.boxes, job.recipe, proposes=job.proposes, processes=int(os.environ.get("WORLD_SIZE", 1)))
    check_device(settings.device, settings.precision)
    check_views(job.recipe.views, job.model, job.boxes)
    check_installed(job.log or ())
    if settings.cache_features:
        check_cacheable(job.recipe)
    for stream in job.model.streams:
        check_backbone(stream.backbone)
    if not (job.resume or (dry_run and needs_no_file(settings.weights))):
        check_weights(settings.weights, job.model)
    if "WORLD_SIZE" in os.environ:  # one of several processes: only the first one checks the images and the folder
        return
    check_same_images(job.boxes, job.root, contents=False)
    for one in jobs:
        if not one.resume:
            check_free(one.run)
            continue
        chosen = {name: getattr(one.settings, name) for name in ("seed", "compile", "cache_features", "folds")}
        chosen["weights"] = weights_name(settings.weights)
        parts = {"model": record_of(job.model), "recipe": asdict(job.recipe), "run": chosen}
        parts |= fold_record(one.fold, len(one.boxes.rows(TRAIN_FOLD)))
        check_same_run(one.run, {**parts, "boxes": identity(one.boxes)}, job.other_epochs)
        if (one.run / BEST).is_file() and not has_state(one.run):
            ending_of(one.run, job.recipe)
    if not dry_run:
        with one_training(job.run):
            pass  # raises if the folder cannot be created or written to
