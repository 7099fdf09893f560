"""`agnet evaluate`: what a run is worth on images that it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options
from .places import images_root
from .progress import watch


@click.command()
@options.run
@click.option("--boxes", type=click.Path(path_type=Path), help="Default: the boxes file the run was trained with.")
@options.root
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--force", is_flag=True, help="Measure on images the run was trained on or selected by, too.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@options.device
@options.workers
@options.json_
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
) -> None:
    """Measure a run's best checkpoint on a split, every image once.

    Images that it was trained on are refused: the train part, and those of another boxes file that are the same.
    """
    from ..data.boxes_reader import read_boxes
    from ..data.errors import BoxesFileError
    from ..data.memory import keep_network_memory
    from ..data.places import follow_hint
    from ..training.devices import choose_device
    from ..training.evaluation import evaluate_run
    from ..training.run_folder import read_config

    keep_network_memory()
    config = read_config(run)
    boxes = boxes or follow_hint(config["boxes"].get("file_relative_to_run"), run)
    if boxes is None:
        raise BoxesFileError(f"the boxes file of {run} is not where it was; name it with --boxes")
    found = read_boxes(boxes)
    evaluation = evaluate_run(
        run,
        found,
        images_root(found, root),
        split,
        batch_size,
        choose_device(device, str(config["run"].get("precision"))),
        workers,
        force=force,
        watch=watch,
    )
    metrics = evaluation.metrics
    if evaluation.warning:
        click.echo(f"Warning: {evaluation.warning}", err=True)
    if as_json:
        click.echo(json.dumps(metrics.to_dict()))
        return
    click.echo(f"{split}: {metrics.images:,} images of {len(metrics.class_accuracy)} classes")
    click.echo(f"top-1 {metrics.top1:.2%}   top-5 {metrics.top5:.2%}   mAP {metrics.mean_average_precision:.2%}")
    width = max(map(len, metrics.class_accuracy))
    click.echo(f"{'class':{width}}  accuracy       AP")
    for name, accuracy in metrics.class_accuracy.items():
        precision = metrics.average_precision[name]
        if accuracy is not None and precision is not None:
            click.echo(f"{name:{width}}  {accuracy:8.1%} {precision:8.1%}")
    click.echo(f"written: {evaluation.file}", err=True)
