"""Options shared by several commands."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

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
_HUB = "hf:/"  # a path has one slash less
_ON_THE_HUB = "agnet.on_the_hub"  # entry of a context: the run is in the hub's cache, which nothing is written to


class RunPath(click.ParamType):
    """Folder of a run or its checkpoint; or ``hf://OWNER/NAME[@REVISION]``, which is downloaded to the hub's cache.

    Args:
        reads: Whether the command only reads the run. If not, it names the command that copies the run from the hub.
    """

    name = "path"

    def __init__(self, reads: bool = True) -> None:
        self._reads = reads

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        if not str(value).startswith(_HUB) or context is None or context.resilient_parsing:
            return Path(value)
        if not self._reads:
            _needs_a_folder(value, context)
        from ..training.runs.hub import local_run

        context.meta[_ON_THE_HUB] = value
        return local_run(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


def check_own_folder(context: click.Context) -> None:
    """Raise `click.UsageError` if the run is on the hub. For what reads a run, and also writes into its folder."""
    if name := context.meta.get(_ON_THE_HUB):
        _needs_a_folder(name, context)


def _needs_a_folder(name: str, context: click.Context) -> NoReturn:
    raise click.UsageError(
        f"{name} is on the hub, and this needs the folder of a run: agnet pull {name.removeprefix(_HUB).strip('/')} "
        "--run FOLDER copies it into one",
        context,
    )


run = click.option(
    "--run",
    type=RunPath(),
    required=True,
    help="Folder of the run, its best.safetensors, or hf://OWNER/NAME, a network on the Hugging Face hub.",
)
run_folder = click.option(
    "--run", type=RunPath(reads=False), required=True, help="Folder of the run, or its best.safetensors."
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
