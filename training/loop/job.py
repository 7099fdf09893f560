"""The description of a training run and its console output. Does not import PyTorch, which takes seconds to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.boxes.verification import Watch
from ..models.contract import Settings
from ..recipes import SAVE_MINUTES, Recipe, RunSettings

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes
    from ..samples.reading import Propose


@dataclass(frozen=True)
class Job:
    """A training run: its network, data, settings and folder."""

    run: Path  #: folder for everything the run writes
    boxes: Boxes  #: ``train`` is trained on, ``val`` selects the epoch, ``test`` is not used
    root: Path  #: folder of the images
    model: Settings
    recipe: Recipe
    settings: RunSettings
    propose: Propose | None = None  #: stage 1's function for one image, for ``recipe.regions`` live
    resume: bool = False  #: resume from the newest state in ``run``, also within an epoch
    stop_after: int | None = None  #: number of finished epochs after which to pause; ``resume`` continues
    #: On resuming, allow a ``recipe.epochs`` that differs from the run's, if its learning rates so far stay the same.
    other_epochs: bool = False
    keep_states: bool = False  #: whether to keep the states after the run has finished
    save_every: float = SAVE_MINUTES  #: minutes between states within an epoch; a state is also saved after every epoch
    #: Names of the trackers of the log, keys of `trackers.KINDS`; None for those the run was started with.
    log: tuple[str, ...] | None = None
    title: str = ""  #: title that a person gives the run, for pictures and tables
    command: Mapping[str, object] = field(default_factory=dict)  #: recipe name and options, recorded in the run
    fold: int | None = None  #: number of the fold of train that ``boxes`` leaves out (`without_fold`), if any

    @property
    def proposes(self) -> bool:
        """Whether regions can be proposed during training."""
        return self.propose is not None


def _watch_nothing(what: str, images: int) -> Callable[[int, dict[str, float]], None]:
    return lambda done, values: None


@dataclass(frozen=True)
class Console:
    """Callbacks for the messages of a run; silent by default."""

    watch: Watch = _watch_nothing  #: (activity, number of images) -> (images done, values), for a progress bar
    report: Callable[[dict[str, object]], None] = lambda line: None  #: called with each epoch's log line
    say: Callable[[str], None] = lambda text: None  #: called with a line of text


SILENT = Console()
