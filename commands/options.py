"""Options that several commands share, declared once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..proposals.settings import ProposalSettings
from ..training.models.settings import AGNetSettings
from ..training.recipes import RunSettings


class Choice(click.Choice):
    """A choice whose complaint names what may have been meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            from ..data.spelling import did_you_mean

            meant = did_you_mean(str(value), self.choices)
            self.fail(f"{error.message.rstrip('.')}{meant or '.'}", param, ctx)


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
run = click.option(
    "--run", type=click.Path(path_type=Path), required=True, help="The run's folder, or the best.safetensors in it."
)


def _check_device(context: click.Context, parameter: click.Parameter, name: str) -> str:
    from ..training.machine.device_names import check_device  # no torch, which takes seconds to load

    check_device(name)
    return name


device = click.option(
    "--device",
    default=RunSettings.device,
    show_default=True,
    callback=_check_device,
    help="Device to compute on: cpu, cuda, cuda:1, mps or auto.",
)
MOST_WORKERS = 16


def workers_for_the_cores() -> int:
    """A reader for each core that this process may use, of those that torchrun's processes share; not under 2."""
    import joblib  # it asks the container's limits, too

    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = joblib.cpu_count() // max(1, int(processes) if processes.isdecimal() else 1)
    return min(MOST_WORKERS, max(2, share))


workers = click.option(
    "--workers",
    type=click.IntRange(0),
    default=workers_for_the_cores,
    help=f"Processes that read images; default: one a core, 2 to {MOST_WORKERS}.",
)
stages = partial(
    click.option,
    "--stages",
    type=click.IntRange(1),
    default=AGNetSettings.stages,
    show_default=True,
    help="Maps of the backbone that regions are pooled from, the last one and larger ones before it.",
)


def max_pixels(more: str) -> Callable[[Any], Any]:
    """The option of the limit of pixels; ``more`` ends its help."""
    return click.option(
        "--max-pixels",
        type=click.IntRange(1, 2**31 - 1),
        default=ProposalSettings.max_pixels,
        show_default=True,
        help="Pixels above which an image is unreadable: decoding takes 3 bytes for each, and a small file can "
        f"announce more than there is memory. {more}",
    )


json_ = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
csv_ = click.option("--csv", "as_csv", is_flag=True, help="Print the classes as CSV.")
