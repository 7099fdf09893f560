"""`agnet evaluate`: what a run is worth on images that it has not seen."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from . import options
from .next_step import say_predict
from .places import images_root
from .progress import watch


@click.command()
@options.run
@click.option("--boxes", type=click.Path(path_type=Path), help="Default: the boxes file the run was trained with.")
@options.root
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="The part to measure on.",
)
@click.option("--force", is_flag=True, help="Measure on images the run was trained on or selected by, too.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images at once.")
@options.device
@options.workers
@options.json_
@options.csv_
def evaluate(
    run: Path,
    boxes: Path | None,
    root: Path | None,
    split: str,
    force: bool,
    batch_size: int,
    device: str,
    workers: int,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Measure a run's best checkpoint on a split, every image once; of a folder of several seeds, each one's.

    Images that it was trained on are refused: the train part, and those of another boxes file that are the same. Beside
    the metrics, the run's folder gets every image's prediction, which agnet compare reads, and two pictures.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: one of them")
    from ..data.boxes.reader import read_boxes
    from ..data.errors import BoxesFileError
    from ..data.memory import keep_network_memory
    from ..data.places import follow_hint
    from ..training.measure.measurable import check_measurable
    from ..training.runs.folder import folder_of, read_config, runs_of

    run = folder_of(run)
    singles, evaluations, measured = runs_of(run), {}, []
    for single in singles:
        config = read_config(single)
        path = boxes or follow_hint(config["boxes"].get("file_relative_to_run"), single)
        if path is None:
            raise BoxesFileError(f"the boxes file of {single} is not where it was; name it with --boxes")
        found = read_boxes(path)
        check_measurable(single, found, images_root(found, root), split, force)
        measured.append((single, config, found))
    # Only now: PyTorch takes seconds to load.
    from ..training.machine.devices import choose_device
    from ..training.measure.evaluation import evaluate_run
    from ..training.measure.evaluation_report import metrics_csv, metrics_text, seeds_csv, seeds_text
    from ..training.measure.seeds import summarise_evaluations
    from ..training.runs.plot_texts import cannot_label

    keep_network_memory()
    for single, config, found in measured:
        evaluation = evaluate_run(
            single,
            found,
            images_root(found, root),
            split,
            batch_size,
            choose_device(device, str(config["run"].get("precision"))),
            workers,
            force=force,
            watch=watch,
            say=partial(click.echo, err=True),
        )
        evaluations[single.name] = evaluation
        if evaluation.warning:
            whose = f"{single.name}: " if len(singles) > 1 else ""
            click.echo(f"Warning: {whose}{evaluation.warning}", err=True)
    metrics, file = evaluation.metrics, evaluation.file
    heading = f"{split}: {metrics.images:,} images of {len(metrics.class_accuracy)} classes"
    if singles == [run]:
        table, text = metrics_csv(metrics), metrics_text(metrics, evaluation.claim)
    else:
        seeds = summarise_evaluations(run, evaluations)
        by_run, file = {name: found.metrics for name, found in evaluations.items()}, seeds.file
        table, text = seeds_csv(list(by_run.values())), seeds_text(by_run, seeds.spreads, evaluation.claim)
    if as_json:
        click.echo(file.read_text(encoding="utf-8"), nl=False)
    elif as_csv:
        click.echo(table, nl=False)
    else:
        click.echo(f"{heading}\n{text}")
    if said := cannot_label([*metrics.class_images, found.title]):
        click.echo(said, err=True)
    click.echo(f"written: {file}, and more beside it", err=True)
    _, config, found = measured[0]
    say_predict(singles[0], found, images_root(found, root), split)
