"""What a run is asked to do, and what a person is told meanwhile. No torch: it takes seconds to load."""

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
    """A network to train: from what, how, and into which folder."""

    run: Path  #: folder that gets all that the run leaves
    boxes: Boxes  #: its ``train`` split is trained on, its ``val`` split chooses the epoch, ``test`` is not looked at
    root: Path  #: folder of the images
    model: Settings
    recipe: Recipe
    settings: RunSettings
    propose: Propose | None = None  #: stage 1's function for one image, for ``recipe.regions`` live
    resume: bool = False  #: go on from the newest state in ``run``, in the middle of an epoch or not
    stop_after: int | None = None  #: finished epochs after which to stop; ``resume`` goes on as if it had not stopped
    #: On resuming, go on to ``recipe.epochs`` also where the run was to have others, if its learning rates so far are
    #: the same then.
    other_epochs: bool = False
    keep_states: bool = False  #: keep the states when the run has finished
    save_every: float = SAVE_MINUTES  #: minutes between states within an epoch; one is saved after every epoch anyway
    command: Mapping[str, object] = field(default_factory=dict)  #: the recipe's name and the options, for the record

    @property
    def proposes(self) -> bool:
        """Whether regions can be found anew."""
        return self.propose is not None


def _watch_nothing(what: str, images: int) -> Callable[[int, dict[str, float]], None]:
    return lambda done, values: None


@dataclass(frozen=True)
class Console:
    """Where a run tells a person what it does; silent by default."""

    watch: Watch = _watch_nothing  #: (what is going on, its number of images) -> (images done, values) for a bar
    report: Callable[[dict[str, object]], None] = lambda line: None  #: each epoch's log line
    say: Callable[[str], None] = lambda text: None  #: a line of text


SILENT = Console()
