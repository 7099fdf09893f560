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
from ..training.models.registry import MODELS, ModelSettings, record_of
from ..training.models.settings import FUSIONS, POOLINGS, SE_KINDS, AGNetSettings
from ..training.recipes import PRECISIONS, RECIPES, SAVE_MINUTES, Recipe, RunSettings
from . import options
from .epoch_lines import EpochLines
from .next_step import root_words, say_next, say_predict
from .places import images_root
from .progress import watch
from .sections import SectionedOption, recipe_options
from .seeds import SeveralSeeds, check_seeds

if TYPE_CHECKING:
    from ..data.boxes.reader import Boxes

_PARTS = "AG-Net's parts"
part_option = partial(click.option, cls=SectionedOption, section=_PARTS)


@click.command(cls=SeveralSeeds)
@options.boxes
@options.root
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder; default: runs/<data set>-<model>.")
@click.option(
    "--model",
    type=options.Choice(list(MODELS)),
    default=AGNetSettings.model,
    show_default=True,
    help="AG-Net, or its control: the backbone with one linear layer.",
)
@click.option(
    "--backbone",
    default=AGNetSettings.backbone,
    show_default=True,
    help="A backbone's name, torchvision:NAME or timm:NAME.",
)
@click.option(
    "--weights",
    default=RunSettings.weights,
    show_default=True,
    help="Weights to begin with: none, imagenet, a FILE of the backbone's, or a RUN, of whose head what fits is taken.",
)
@click.option(
    "--recipe",
    type=options.Choice(list(RECIPES)),
    default="modern",
    show_default=True,
    help="The settings of training, by name; options of their own override them.",
)
@click.option(
    "--seed", type=int, default=RunSettings.seed, show_default=True, help="Seed of weights, order and augmentation."
)
@click.option(
    "--seeds",
    type=int,
    multiple=True,
    callback=check_seeds,
    help="Train with each of them (--seeds 0 1 2), into seed-0, seed-1, ... of --run; ends with mean, sd and interval.",
)
@options.device
@click.option(
    "--precision",
    type=options.Choice(PRECISIONS),
    default=RunSettings.precision,
    show_default=True,
    help="Precision of autocast; auto: bf16 on a GPU that has it, else fp32.",
)
@options.workers
@click.option("--compile", is_flag=True, help="Use torch.compile: a slow start, then faster steps.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would happen, with its time and memory from a few real steps; write nothing.",
)
@options.json_
@click.option("--stop-after", type=click.IntRange(1), help="Stop after this many epochs; --resume goes on.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the run's newest saved state; to more epochs, too, where its learning rates so far allow it.",
)
@click.option("--keep-states", is_flag=True, help="The states to go on from stay when the run has finished.")
@click.option(
    "--save-every",
    type=click.FloatRange(0, min_open=True),
    default=SAVE_MINUTES,
    show_default=True,
    help="Minutes between states saved within an epoch.",
)
@part_option(
    "--fusion",
    type=options.Choice(FUSIONS),
    default=AGNetSettings.fusion,
    show_default=True,
    help="Weights of maximum and average pooling, learned, or one of the two alone.",
)
@part_option(
    "--se",
    type=options.Choice(SE_KINDS),
    default=AGNetSettings.se,
    show_default=True,
    help="An SE-Residual for each token slot, one for all, or none.",
)
@part_option(
    "--units",
    type=click.IntRange(1),
    default=AGNetSettings.units,
    show_default=True,
    help="Width of the inter-attention.",
)
@part_option(
    "--pooling",
    type=options.Choice(POOLINGS),
    default=AGNetSettings.pooling,
    show_default=True,
    help="Pooling of regions: RoIAlign, or whole cells of a map resized to 42 x 42.",
)
@part_option(
    "--pooling-samples",
    type=click.IntRange(1),
    default=AGNetSettings.pooling_samples,
    show_default=True,
    help="Samples along each side of a bin of the region pooling.",
)
@options.stages(cls=SectionedOption, section=_PARTS)
@part_option("--no-regions", is_flag=True, help="Look at the whole image only, as one token.")
@part_option(
    "--no-self-attention",
    is_flag=True,
    help="Pool regions from the backbone's own map.",
)
@part_option("--no-inter-attention", is_flag=True, help="Average the tokens instead.")
@part_option("--spectral-norm", is_flag=True, help="Normalise the self-attention's projections by their spectral norm.")
@part_option(
    "--attention-softmax",
    is_flag=True,
    help="Take a softmax after the inter-attention's sigmoid.",
)
@part_option(
    "--shortcut",
    is_flag=True,
    help="Classify by the map's average beside F, whose share begins at 0; not in the paper.",
)
@recipe_options
@click.pass_context
def train(
    context: click.Context,
    boxes: Path,
    root: Path | None,
    run: Path | None,
    model: str,
    backbone: str,
    weights: str,
    recipe: str,
    fusion: str,
    se: str,
    units: int,
    pooling: str,
    pooling_samples: int,
    stages: int,
    no_regions: bool,
    no_self_attention: bool,
    no_inter_attention: bool,
    spectral_norm: bool,
    attention_softmax: bool,
    shortcut: bool,
    seed: int,
    seeds: tuple[int, ...],
    device: str,
    precision: str,
    workers: int,
    compile: bool,
    dry_run: bool,
    as_json: bool,
    stop_after: int | None,
    resume: bool,
    keep_states: bool,
    save_every: float,
    **overrides: Any,
) -> None:
    """Stage 2: train AG-Net (or the plain backbone, its control) on images and their cached regions.

    The epoch is chosen on a validation part cut from train; the test part is left for `agnet evaluate`.
    """
    from ..data.boxes.reader import read_boxes
    from ..data.fonts import cannot_draw
    from ..data.memory import keep_network_memory
    from ..data.text import file_name
    from ..training.runs.folder import folder_of

    _refuse_idle_switches(context)
    if seeds and context.get_parameter_source("seed") is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--seed and --seeds exclude each other")
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run; a run's log.jsonl has a line of JSON for each epoch")
    if dry_run and (resume or stop_after):
        raise click.UsageError("--dry-run is of a whole new run; leave out --resume and --stop-after")
    found = read_boxes(boxes)
    resolved = RECIPES[recipe].override(**overrides)
    propose = None
    if resolved.regions == "live":
        proposals = ProposalSettings.from_dict(found.settings["proposals"])
        if proposals.weights != ProposalSettings.weights:
            raise click.UsageError("--regions live needs regions proposed without a weights file")
        from ..proposals.one_image import propose_regions

        propose = partial(propose_regions, settings=proposals)
    run = folder_of(run) if run else Path("runs") / f"{file_name(found.title)}-{model}"
    model_settings = ModelSettings(
        classes=len(found.classes),
        regions=found.layout.count,
        model=model,
        backbone=backbone,
        spectral_norm=spectral_norm,
        attention_softmax=attention_softmax,
        shortcut=shortcut,
        use_regions=not no_regions,
        self_attention=not no_self_attention,
        inter_attention=not no_inter_attention,
        fusion=fusion,
        se=se,
        units=units,
        pooling=pooling,
        pooling_samples=pooling_samples,
        stages=stages,
    )
    if model != "plain" and not no_regions:
        found.require_regions(f"--model {model}")
    images = images_root(found, root)
    settings = RunSettings(weights, seeds[0] if seeds else seed, device, precision, workers, compile)
    other_epochs = context.get_parameter_source("epochs") is click.core.ParameterSource.COMMANDLINE
    _check_beforehand(found, images, run, model_settings, resolved, settings, seeds, resume, other_epochs, dry_run)
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
    with_seeds = f"seeds {', '.join(map(str, seeds))}" if seeds else f"seed {seed}"
    say(f"model {model}, backbone {backbone} with weights {weights}, {with_seeds}, into {run}")
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
            *(run, found, images, model_settings, recipe, resolved, settings),
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
                model_settings,
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
                best = train_one(run, seed, resume)
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
    from ..training.runs.provenance import identity

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
        check_same_run(folder, {**parts, "boxes": identity(boxes)}, other_epochs)
        if (folder / BEST).is_file() and not has_state(folder):
            ending_of(folder, recipe)
    if not dry_run:
        with one_training(run):
            pass  # it can be made, and written to


def _given(context: click.Context) -> dict[str, object]:
    """The options of the command line by name; of a path its last part only, for the folder is nobody's business."""
    from ..training.runs.folder import weights_name

    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    if "weights" in given:
        given["weights"] = weights_name(given["weights"])
    return {name: value.name if isinstance(value, Path) else value for name, value in given.items()}


_HEAD = (
    *("fusion", "se", "units", "pooling", "pooling_samples", "stages", "spectral_norm", "attention_softmax"),
    *("no_regions", "no_self_attention", "no_inter_attention", "shortcut"),
)


_IDLE_UNDER: dict[tuple[str, str | bool], tuple[str, ...]] = {
    ("model", "plain"): (*_HEAD, "regions"),
    ("no_self_attention", True): ("spectral_norm",),
    ("no_inter_attention", True): ("units", "attention_softmax"),
    ("pooling", "crop"): ("pooling_samples",),
    ("no_regions", True): ("regions",),
}


def _refuse_idle_switches(context: click.Context) -> None:
    """An option given for a part that another one takes away would change nothing but the run's record."""
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    for (taker, value), idle in _IDLE_UNDER.items():
        if context.params[taker] == value and (of_no_use := given.intersection(idle)):
            option = "--" + min(of_no_use).replace("_", "-")
            taken = "--" + taker.replace("_", "-") + ("" if value is True else f" {value}")
            raise click.UsageError(f"{option} changes nothing with {taken}; leave one of them out")
