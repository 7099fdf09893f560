"""`agnet evaluate`: metrics of a run on images that it was not trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..data.names import TRAIN_FOLD
from . import options, viewing
from .next_step import say_predict
from .places import boxes_of, images_root
from .progress import watch
from .viewing import SizesCommand

if TYPE_CHECKING:
    from ..training.aggregates import Aggregate
    from ..training.measure.evaluation import Evaluation
    from ..training.measure.seeds import SeedsEvaluation
    from ..training.models.contract import Views


@click.command(cls=SizesCommand, short_help="Measure a run on a split: accuracy, AP, or CMC and mAP.")
@options.run_folder
@click.option("--boxes", type=click.Path(path_type=Path), help="Boxes file.  [default: the one the run was trained on]")
@options.root
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test", "query", TRAIN_FOLD]),
    help="Split to measure on; query: persons to find in the gallery; train-fold: the fold of train that the run was "
    "trained without.  [default: test, or query]",
)
@click.option(
    "--force", is_flag=True, help="Measure even on images that were used to train the run or to choose its epoch."
)
@options.aggregate
@viewing.views
@click.option(
    "--embeddings/--no-embeddings",
    default=None,
    help="Embeddings of the images, written in half precision.  [default: those of at most 4,096 numbers]",
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Number of images per batch.")
@options.device
@options.workers
@options.json_
@options.csv_
def evaluate(
    run: Path,
    boxes: Path | None,
    root: Path | None,
    split: str | None,
    force: bool,
    aggregate: Aggregate | None,
    sizes: Views | None,
    crops: Views | None,
    embeddings: bool | None,
    batch_size: int,
    device: str,
    workers: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Measure the best checkpoint of a run, or of each of several seeds, on a split; every image counts once.

    Images that the run was trained on are refused: the training split, and identical images in another boxes file.
    The metrics, the prediction for every image (for agnet compare) and two plots are written to the folder of the run.
    Of a data set of persons, every query is searched for in the gallery. Of clips, every video counts once.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from ..data.memory import keep_network_memory
    from ..training.measure.measurable import check_images, check_measurable, default_split
    from ..training.runs.folder import folder_of, read_config, runs_of

    run, say, views = folder_of(run), partial(click.echo, err=True), viewing.views_in(sizes, crops)
    files = boxes_of(runs_of(run), boxes)
    split = split or default_split(next(iter(files.values())))
    for single, found in files.items():
        check_measurable(single, found, split, force, aggregate, views)
    roots = {found.path: images_root(found, root) for found in files.values()}
    for found in {found.path: found for found in files.values()}.values():
        check_images(found, roots[found.path], split, watch=watch, say=say)
    # Imported here: PyTorch takes seconds to load.
    from ..training.machine.devices import choose_device
    from ..training.measure.evaluation import evaluate_run
    from ..training.measure.seeds import summarise_evaluations
    from ..training.runs.plot_texts import cannot_label
    from ..training.runs.trackers import log_measures

    keep_network_memory()
    evaluations = {}
    for single, found in files.items():
        evaluation = evaluations[single.name] = evaluate_run(
            single,
            found,
            roots[found.path],
            split,
            batch_size,
            choose_device(device, str(read_config(single)["run"].get("precision"))),
            workers,
            force=force,
            aggregate=aggregate,
            views=views,
            embeddings=embeddings,
            images_checked=True,
            watch=watch,
            say=say,
        )
        if evaluation.warning:
            whose = f"{single.name}: " if len(files) > 1 else ""
            say(f"Warning: {whose}{evaluation.warning}")
        log_measures(single, evaluation.file, say)
    file = evaluation.file
    seeds = None if run in files else summarise_evaluations(run, evaluations)
    if seeds:
        file = seeds.file
    heading, table, text = _report(found.title, split, evaluations, seeds)
    if as_json:
        click.echo(file.read_text(encoding="utf-8"), nl=False)
    elif as_csv:
        click.echo(table, nl=False)
    else:
        click.echo(f"{heading}\n{text}")
    if said := cannot_label([*_classes(evaluation), found.title]):
        say(said)
    say(f"written: {file}, and more files in the same folder")
    first, found = next(iter(files.items()))
    say_predict(first, found, roots[found.path], split, views)


def _report(
    title: str, split: str, evaluations: dict[str, Evaluation], seeds: SeedsEvaluation | None
) -> tuple[str, str, str]:
    """A heading, the CSV, and the text of the evaluations, of one run or of ``seeds``."""
    from ..training.measure.evaluation_report import metrics_csv, metrics_text, seeds_csv, seeds_text
    from ..training.measure.metrics import Metrics
    from ..training.measure.search_report import search_csv, search_heading, search_seeds_text, search_text
    from ..training.measure.searches import SearchMetrics

    by_run = {name: found.metrics for name, found in evaluations.items()}
    searches = {name: found for name, found in by_run.items() if isinstance(found, SearchMetrics)}
    if searches:
        first = next(iter(searches.values()))
        text = search_seeds_text(searches, seeds.spreads) if seeds else search_text(first)
        return search_heading(title, split, first), search_csv(list(searches.values())), text
    measured = {name: found for name, found in by_run.items() if isinstance(found, Metrics)}
    first_metrics, claim = next(iter(measured.values())), next(reversed(evaluations.values())).claim
    rows = f"{first_metrics.images:,} {first_metrics.rows} of {len(first_metrics.class_accuracy)} classes"
    views = next(iter(evaluations.values())).views
    rows += f", views of {views}" if views else ""
    heading = f"{title}, {split}: {rows}" if first_metrics.clips else f"{split}: {rows}"
    if seeds:
        return heading, seeds_csv(list(measured.values()), title), seeds_text(measured, seeds.spreads, claim)
    return heading, metrics_csv(first_metrics, title), metrics_text(first_metrics, claim)


def _classes(evaluation: Evaluation) -> list[str]:
    """Classes that the plots of an evaluation name."""
    return list(getattr(evaluation.metrics, "class_images", ()))
