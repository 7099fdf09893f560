"""Options shared by several commands."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..training.recipes import RunSettings
from .field_options import Choice as Choice
from .field_options import field_option

if TYPE_CHECKING:
    from ..training.aggregates import Aggregate

root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that contains the data set, or the folder of class folders.  [default: the folder that the regions "
    "were proposed in, else $AGNET_ROOT, else ./datasets]",
)
dataset_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that contains the data set; for the data sets 'folder' and 'clips', the folder of class folders.  "
    "[default: $AGNET_ROOT, else ./datasets; for 'csv', the folder of the list]",
)
split_number = click.option(
    "--split-number",
    type=click.IntRange(1),
    help="Number of the official split of hmdb51 or ucf101, which have three.  [default: 1]",
)
group_pattern = click.option(
    "--group-pattern",
    default="",
    metavar="REGEX",
    help="Regular expression whose first group finds a clip's group (person, source) in its path, for class folders of "
    "clips: '([^/_]+)_[^/]*$' finds S1 in wave/S1_wave_2.mp4. Drawn splits divide no group.",
)
boxes = click.option(
    "--boxes", type=click.Path(path_type=Path), default="boxes.h5", show_default=True, help="Boxes file."
)
proposal_weights = click.option(
    "--proposal-weights",
    type=click.Path(path_type=Path),
    help="FILE that was given to agnet propose --weights, if a network proposes the regions.",
)
run = click.option(
    "--run", type=click.Path(path_type=Path), required=True, help="Folder of the run, or its best.safetensors."
)


def _check_device(context: click.Context, parameter: click.Parameter, name: str) -> str:
    from ..training.machine.device_names import check_device  # imports no torch, which takes seconds to load

    check_device(name)
    return name


device = field_option(RunSettings, "device", callback=_check_device)
MOST_WORKERS = 16


def workers_for_the_cores() -> int:
    """Return one worker per usable core, from 2 to `MOST_WORKERS`; processes of torchrun share the cores."""
    import joblib  # its count respects the limits of a container, too

    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = joblib.cpu_count() // max(1, int(processes) if processes.isdecimal() else 1)
    return min(MOST_WORKERS, max(2, share))


workers = field_option(
    RunSettings, "workers", default=workers_for_the_cores, shown_default=f"one per core, 2 to {MOST_WORKERS}"
)


def _parse_aggregate(context: click.Context, parameter: click.Parameter, text: str | None) -> Aggregate | None:
    from ..training.aggregates import Aggregate

    return None if text is None else Aggregate.parse(text)


aggregate = click.option(
    "--aggregate",
    metavar="mean-prob|mode|last:N",
    callback=_parse_aggregate,
    help="RULE by which the frames of a video answer for it: mean of their probabilities, most frequent winner (the "
    "earlier class of a tie), or mean of the last N frames. Only for clips.  [default: mean-prob]",
)


def one_each(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Rewrite ``--seeds 0 1`` as ``--seeds 0 --seeds 1``, which click understands, for the options ``names``."""
    found: list[str] = []
    option = ""  # the last one
    for word in words:
        if word.startswith("-"):
            option = word
        elif option in names and found[-1] != option:
            found.append(option)
        found.append(word)
    return found


json_ = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
csv_ = click.option("--csv", "as_csv", is_flag=True, help="Print the classes as CSV.")
