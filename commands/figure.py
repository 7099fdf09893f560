"""`agnet figure`: the figures of papers from any run, with their numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .field_options import is_given
from .places import images_root, root_of_environment

if TYPE_CHECKING:
    from ..training.aggregates import Aggregate
    from ..training.measure.figures import Evaluated

FORMATS = (".png", ".svg", ".pdf")
_OF_RUNS = {"runs", "against", "labels", "split", "aggregate"}
#: Figures, and the options that each takes besides --save.
FIGURES = {
    "class-accuracy": _OF_RUNS,
    "average-precision": _OF_RUNS,
    "worst-classes": {"runs", "split", "aggregate", "root", "count"},
    "regions": _OF_RUNS,
    "keypoints": {"boxes", "images", "root", "count"},
    "attention": {"runs", "files", "count", "proposal_weights", "device"},
}
_COUNTS = {"worst-classes": 5, "keypoints": 3, "attention": 6}


@dataclass(frozen=True)
class _Made:
    """A figure that is ready to be drawn."""

    caption: str
    csv: str
    draw: Callable[[Path], Path]
    texts: Iterable[str]  #: drawn texts, for a notice of letters that no font has
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Asked:
    """Values of the options."""

    files: tuple[str, ...]
    runs: tuple[Path, ...]
    against: tuple[Path, ...]
    labels: tuple[str, ...]
    split: str | None
    aggregate: Aggregate | None
    boxes: Path
    images: tuple[str, ...]
    root: Path | None
    count: int
    proposal_weights: Path | None
    device: str


@click.command(short_help="Draw a figure of a paper from runs, with its numbers.")
@click.argument("name", metavar="NAME", type=options.Choice([*FIGURES]))
@click.argument("files", nargs=-1)
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=options.RunPath(),
    help="Folder of a run, or of several seeds, which are averaged. May be repeated.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of the run that --run is compared with: it comes first, in blue.",
)
@click.option(
    "--label", "labels", multiple=True, help="Name of a run in the figure; one for each run, that of --against first."
)
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test", "query"]),
    help="Split that the runs were evaluated on.  [default: test, or query]",
)
@options.aggregate
@options.boxes
@click.option(
    "--image",
    "images",
    multiple=True,
    help="Image of the figure keypoints, named as for agnet inspect. May be repeated.  [default: some of each class]",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that contains the data set.  [default: the recorded folder, else $AGNET_ROOT, else ./datasets]",
)
@click.option(
    "--count",
    type=click.IntRange(1, 40),
    help="Number of classes (worst-classes, 5), images (keypoints, 3) or frames of each video (attention, 6).",
)
@options.proposal_weights
@options.device
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="FILE for the figure: .png, .svg or .pdf. Its numbers are written beside it as .csv.  [default: NAME.png]",
)
@click.pass_context
def figure(context: click.Context, name: str, save: Path | None, count: int | None, **given: Any) -> None:
    """Draw a figure as in the papers. Prints its caption, and writes its numbers as CSV beside it.

    \b
    class-accuracy     accuracy of every class (AG-Net, Figure 5)
    average-precision  average precision of every class, sorted (Figures 6 to 8)
    worst-classes      the worst classes, and what they are taken for (Figure 9)
    regions            accuracy against the number of regions (Table VIII)
    keypoints          from the photograph to its regions (Figures 3 and 4)
    attention          where a network looks in FILES, photographs or videos

    Runs must have been evaluated (agnet evaluate), several of them on the same images.
    """
    from ..data.text import printable
    from ..training.runs.plot_texts import cannot_label

    _check_options(context, name)
    target = save or Path(f"{name}.png")
    _check_target(target)
    asked = _Asked(count=count or _COUNTS.get(name, 0), **given)
    made = _FIGURES[name](asked, name)
    for warning in made.warnings:
        click.echo(printable(f"Warning: {warning}"), err=True)
    if said := cannot_label(made.texts):
        click.echo(said, err=True)
    from ..data.files import write_text

    made.draw(target)
    write_text(target.with_suffix(".csv"), made.csv)
    click.echo(printable(made.caption))
    click.echo(f"written: {target} and {target.with_suffix('.csv')}", err=True)


def _check_options(context: click.Context, name: str) -> None:
    """Raise `click.UsageError` for options that the figure does not take, or lacks."""
    for parameter in context.command.params:
        option = str(parameter.name)
        if option in ("name", "save") or option in FIGURES[name] or not is_given(context, option):
            continue
        said = "FILES" if option == "files" else parameter.opts[0]
        raise click.UsageError(f"{said} changes nothing in the figure {name}; leave it out")
    if name != "attention":
        options.check_own_folder(context)
    if "runs" in FIGURES[name] and not context.params["runs"]:
        raise click.UsageError(f"the figure {name} needs a run: --run RUN")
    if "runs" in FIGURES[name] and name in _COUNTS and len(context.params["runs"]) > 1:
        raise click.UsageError(f"the figure {name} shows one run; several seeds of it are in one folder")
    if name == "attention" and not context.params["files"]:
        raise click.UsageError(
            "the figure attention needs photographs or videos: agnet figure attention --run RUN FILE"
        )


def _check_target(target: Path) -> None:
    from ..data.files import check_writable

    if target.suffix.lower() not in FORMATS:
        raise click.UsageError(f"--save {target}: its name must end in {', '.join(FORMATS)}")
    if not target.parent.is_dir():
        raise click.UsageError(f"--save {target}: there is no folder {target.parent}")
    numbers = target.with_suffix(".csv")
    if numbers.exists() and not any(target.with_suffix(suffix).exists() for suffix in FORMATS):
        raise click.UsageError(
            f"{numbers} is there already, without a figure beside it, and would be replaced by the figure's numbers; "
            "name another file with --save"
        )
    for path in (target, numbers):
        check_writable(path, "name another file with --save")


def _load(asked: _Asked) -> Evaluated:
    """Load the runs that were evaluated; SciPy takes a second to load."""
    from ..training.runs.folder import measured_split, predictions_of, runs_of

    runs = [*asked.against, *asked.runs]
    split = asked.split or measured_split(runs_of(runs[0])[0])
    for run in runs:
        predictions_of(run, split, asked.aggregate)
    from ..training.measure.figures import load_evaluated

    return load_evaluated(runs, asked.labels, split, asked.aggregate)


def _by_class(asked: _Asked, name: str) -> _Made:
    evaluated = _load(asked)
    from ..training.measure.figure_plots import draw_classes
    from ..training.measure.figures import class_figure

    found = class_figure(evaluated, name.replace("class-", "").replace("-", " "))
    return _Made(found.caption, found.csv(), partial(draw_classes, found), found.texts, evaluated.cautions)


def _regions(asked: _Asked, name: str) -> _Made:
    evaluated = _load(asked)
    from ..training.measure.figure_plots import draw_regions_plot
    from ..training.measure.figures import regions_figure

    found = regions_figure(evaluated)
    texts = [one.name for one in found.points]
    return _Made(found.caption, found.csv(), partial(draw_regions_plot, found), texts, evaluated.cautions)


def _worst_classes(asked: _Asked, name: str) -> _Made:
    from ..data.places import follow_hint
    from ..training.runs.folder import read_config

    evaluated = _load(asked)
    from ..training.measure.worst_classes import pictures_of, worst_classes
    from ..training.runs.picture_plots import draw_pictures

    run = evaluated.runs[0]
    recorded = follow_hint(read_config(run.paths[0])["boxes"].get("root_relative_to_run"), run.paths[0])
    root = asked.root or recorded or root_of_environment() or Path("datasets")
    found = worst_classes(evaluated, asked.count)
    pictures = pictures_of(found, run.predictions[0], root)
    return _Made(found.caption, found.csv(), partial(draw_pictures, pictures), pictures.texts)


def _keypoints(asked: _Asked, name: str) -> _Made:
    from ..data.boxes.image_facts import find_image
    from ..data.boxes.reader import read_boxes
    from ..proposals.inspection import rows_of_sheet
    from ..proposals.stages import stages_figure
    from ..training.runs.picture_plots import draw_pictures

    boxes = read_boxes(asked.boxes)
    images = [find_image(boxes, image) for image in asked.images]
    images = images or boxes.usable[rows_of_sheet(boxes, asked.count)].tolist()
    found = stages_figure(boxes, images, images_root(boxes, asked.root))
    draw = partial(draw_pictures, found.pictures)
    return _Made(found.caption, found.csv(), draw, found.pictures.texts, found.warnings)


def _attention(asked: _Asked, name: str) -> _Made:
    from ..data.inputs import find_inputs
    from ..predictor import proposer, tubes_proposer
    from ..training.runs.checkpoint_header import read_header
    from ..training.runs.folder import checkpoint_of, display_name

    (run,) = asked.runs
    propose = proposer(read_header(checkpoint_of(run)), asked.proposal_weights)
    inputs = list(find_inputs(asked.files, sys.stdin.buffer))
    # Imported here: PyTorch takes seconds to load.
    from ..training.answers.attention_figure import attention_figure
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint
    from ..training.runs.picture_plots import draw_pictures

    checkpoint = load_checkpoint(run)
    tubes, whose = tubes_proposer(checkpoint), display_name(run)
    device = choose_device(asked.device, "fp32")
    found = attention_figure(checkpoint, inputs, device, propose, tubes, asked.count, whose)
    pictures = found.pictures
    return _Made(found.caption, found.csv(), partial(draw_pictures, pictures), pictures.texts)


_FIGURES: dict[str, Callable[[_Asked, str], _Made]] = {
    "class-accuracy": _by_class,
    "average-precision": _by_class,
    "worst-classes": _worst_classes,
    "regions": _regions,
    "keypoints": _keypoints,
    "attention": _attention,
}
