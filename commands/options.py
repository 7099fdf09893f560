"""Options that several commands share, declared once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from ..training.models.settings import ModelSettings
from ..training.recipes import RunSettings

DATASETS = ("demo", "folder", "csv", "food101", "stanford40", "ppmi24", "auc-v1", "auc-v2", "caltech256")

root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Where the images are: the folder that holds the data set; for 'folder' the folder of class folders.  "
    "[default: where they were when proposed, else $AGNET_ROOT, else ./datasets]",
)
dataset_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Where the images are: the folder that holds the data set; for 'folder' the folder of class folders.  "
    "[default: $AGNET_ROOT, else ./datasets; for 'csv' the list's folder]",
)
boxes = click.option(
    "--boxes", type=click.Path(path_type=Path), default="boxes.h5", show_default=True, help="The boxes file."
)
run = click.option("--run", type=click.Path(path_type=Path), required=True, help="The run's folder.")
device = click.option("--device", default=RunSettings.device, show_default=True, help="cpu, cuda, cuda:1, mps or auto.")
workers = click.option(
    "--workers",
    type=click.IntRange(0),
    default=RunSettings.workers,
    show_default=True,
    help="Processes that read images.",
)
stages = partial(
    click.option,
    "--stages",
    type=click.IntRange(1),
    default=ModelSettings.stages,
    show_default=True,
    help="Of the backbone, from its last map back to larger ones: regions are pooled from each.",
)
json_ = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
csv_ = click.option("--csv", "as_csv", is_flag=True, help="Print the classes as CSV.")
