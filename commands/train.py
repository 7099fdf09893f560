"""`agnet train`: stage 2."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..proposals.settings import ProposalSettings
from ..training.models.settings import FUSIONS, MODEL_NAMES, POOLINGS, SE_KINDS, ModelSettings
from ..training.recipes import PRECISIONS, RECIPES, RunSettings
from . import options
from .places import images_root
from .progress import watch
from .sections import SectionedCommand, SectionedOption, recipe_options

part_option = partial(click.option, cls=SectionedOption, section="AG-Net's parts")


@click.command(cls=SectionedCommand)
@options.boxes
@options.root
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder; default: runs/<data set>-<model>.")
@click.option("--model", type=click.Choice(MODEL_NAMES), default=ModelSettings.model, show_default=True)
@click.option(
    "--backbone",
    default=ModelSettings.backbone,
    show_default=True,
    help="A backbone's name, torchvision:NAME or timm:NAME.",
)
@click.option("--weights", default=RunSettings.weights, show_default=True, help="Backbone: none, imagenet or a FILE.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="modern", show_default=True)
@click.option("--seed", type=int, default=RunSettings.seed, show_default=True)
@options.device
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=RunSettings.precision,
    show_default=True,
    help="Of autocast; auto: bf16 on a GPU that has it, else fp32.",
)
@options.workers
@click.option("--compile", is_flag=True, help="By torch.compile: a slow start, then faster steps.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would happen, with its time and memory from a few real steps; write nothing.",
)
@options.json_
@click.option("--stop-after", type=click.IntRange(1), help="Stop after this many epochs; --resume goes on.")
@click.option("--resume", is_flag=True, help="Go on from the run's last finished epoch.")
@part_option(
    "--fusion",
    type=click.Choice(FUSIONS),
    default=ModelSettings.fusion,
    show_default=True,
    help="Of maximum and average pooling, or one of them.",
)
@part_option(
    "--se",
    type=click.Choice(SE_KINDS),
    default=ModelSettings.se,
    show_default=True,
    help="An SE-Residual for each token slot, one for all, or none.",
)
@part_option(
    "--units",
    type=click.IntRange(1),
    default=ModelSettings.units,
    show_default=True,
    help="Width of the inter-attention.",
)
@part_option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default=ModelSettings.pooling,
    show_default=True,
    help="Of regions: RoIAlign, or whole cells of a map resized to 42 x 42.",
)
@part_option(
    "--pooling-samples",
    type=click.IntRange(1),
    default=ModelSettings.pooling_samples,
    show_default=True,
    help="Along each side of a bin of the region pooling.",
)
@options.stages
@part_option("--no-regions", is_flag=True, help="The whole image is the only token.")
@part_option(
    "--no-self-attention",
    is_flag=True,
    help="Regions are pooled from the backbone's own map.",
)
@part_option("--no-inter-attention", is_flag=True, help="Tokens are averaged.")
@part_option("--spectral-norm", is_flag=True, help="On the self-attention's projections.")
@part_option(
    "--attention-softmax",
    is_flag=True,
    help="After the inter-attention's sigmoid.",
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
    seed: int,
    device: str,
    precision: str,
    workers: int,
    compile: bool,
    dry_run: bool,
    as_json: bool,
    stop_after: int | None,
    resume: bool,
    **overrides: Any,
) -> None:
    """Stage 2: train AG-Net (or the plain backbone, its control) on images and their cached regions.

    The epoch is chosen on a validation part cut from train; the test part is left for `agnet evaluate`.
    """
    from ..data.boxes_reader import read_boxes
    from ..data.memory import keep_network_memory
    from ..proposals.one_image import propose_regions
    from ..training.fit import fit
    from ..training.run_folder import LAST

    _refuse_idle_switches(context)
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run; a run's log.jsonl has a line of JSON for each epoch")
    if dry_run and (resume or stop_after):
        raise click.UsageError("--dry-run is of a whole new run; leave out --resume and --stop-after")
    keep_network_memory()
    found = read_boxes(boxes)
    resolved = RECIPES[recipe].override(**overrides)
    propose = None
    if resolved.regions == "live":
        proposals = ProposalSettings.from_dict(found.settings["proposals"])
        if proposals.weights != ProposalSettings.weights:
            raise click.UsageError("--regions live needs regions proposed without a weights file")
        propose = partial(propose_regions, settings=proposals)
    run = run or Path("runs") / f"{found.dataset}-{model}"
    if found.failures:
        click.echo(f"{len(found.failures):,} unreadable images are left out", err=True)
    counts = ", ".join(f"{len(found.rows(split)):,} {split}" for split in ("train", "val", "test"))
    click.echo(f"{found.dataset}: {counts} images of {len(found.classes)} classes", err=True)
    click.echo(f"model {model}, backbone {backbone} with weights {weights}, seed {seed}, into {run}", err=True)
    changed = ", ".join(f"{name} {value}" for name, value in resolved.differences(RECIPES[recipe]).items())
    click.echo(f"recipe {recipe}{f' with {changed}' if changed else ''}", err=True)

    network = ModelSettings(
        classes=len(found.classes),
        regions=found.layout.count,
        model=model,
        backbone=backbone,
        spectral_norm=spectral_norm,
        attention_softmax=attention_softmax,
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
    settings = RunSettings(weights, seed, device, precision, workers, compile)
    if dry_run:
        from ..training.dry_run import dry_run as try_out
        from ..training.dry_run import dry_run_text

        click.echo("measuring a few steps", err=True)
        where = images_root(found, root)
        told = try_out(run, found, where, network, recipe, resolved, settings, propose=propose)
        click.echo(json.dumps(told.to_dict(), indent=1) if as_json else dry_run_text(told))
        return

    def report(line: dict[str, object]) -> None:
        click.echo("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), err=True)

    try:
        best = fit(
            run,
            found,
            images_root(found, root),
            network,
            resolved,
            settings,
            propose=propose,
            resume=resume,
            stop_after=stop_after,
            watch=watch,
            report=report,
            say=lambda text: click.echo(text, err=True),
        )
    except KeyboardInterrupt:
        kept = (
            f"{run} keeps every finished epoch: go on with --resume" if (run / LAST).exists() else "No epoch finished"
        )
        click.echo(f"\nInterrupted. {kept}", err=True)
        sys.exit(130)
    click.echo(best)


_HEAD = (
    *("fusion", "se", "units", "pooling", "pooling_samples", "stages", "spectral_norm", "attention_softmax"),
    *("no_regions", "no_self_attention", "no_inter_attention"),
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
