"""What a run lacks, as far as it can be told before PyTorch is loaded: that takes seconds, in which a person waits."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...data.boxes.verification import Watch, look_at_images
from ...data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError
from ...data.spelling import did_you_mean
from ..models.backbones.names import WITHOUT_IMAGENET, check_backbone_name, nobody_has
from ..recipes import Recipe
from ..runs.checkpoint_header import is_checkpoint, read_header
from ..runs.folder import BEST, epochs_of, read_log, runs_of
from .selection import Selection

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes

SOURCES = ("none", "imagenet")  #: of a backbone's weights, beside files


def check_input(boxes: Boxes, recipe: Recipe, *, proposes: bool) -> None:
    """Raises: `AgnetError` children for whatever a run of this recipe lacks before any network is built.

    Args:
        proposes: whether there is a function that finds regions anew.
    """
    if recipe.regions == "live" and not proposes:
        raise ConfigurationError("live regions need stage 1's function for one image")
    if not len(boxes.rows("train")):
        raise DatasetError(f"{boxes.path} has no usable training images")
    if recipe.patience and not len(boxes.rows("val")):
        raise ConfigurationError(f"training setting 'patience' needs a validation part, and {boxes.path} has none")


def ending_of(run: Path, recipe: Recipe) -> str:
    """Why a run without a state to go on from is over, of which nothing but its epochs may be asked anew.

    Raises: `CheckpointError` or `MismatchError` where it is to go on.
    """
    log, before = read_log(run), epochs_of(run)
    selection = Selection.of(recipe, log)
    ending = selection.ending(len(log), before)
    new_run = start_from(run, recipe.epochs)
    if not ending:
        raise CheckpointError(f"{run} has no state to go on from any more; {new_run}")
    if recipe.epochs < len(log):
        raise MismatchError(f"{run} is after epoch {len(log)} of {before} already; take --epochs {len(log)} or more")
    if recipe.epochs != before and not selection.is_over(len(log)):
        raise CheckpointError(
            f"{run} has finished its {before} epochs, and the states to go on from were deleted then; {new_run} (a run "
            "that is to go on later keeps them with --keep-states)"
        )
    return ending


def start_from(run: Path, epochs: int) -> str:
    """The remedy for a run that cannot go on to so many epochs, for people."""
    return f"start a new run from its weights, --weights {shlex.quote(str(run))} --epochs {epochs} --run ANOTHER"


def check_same_images(
    boxes: Boxes,
    root: Path,
    *,
    contents: bool = True,
    watch: Watch = lambda what, images: lambda done, values: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Refuse to train with images that are not those of the boxes file. Of the test part, which training does not look
    at, it is only said.

    Args:
        contents: see `look_at_images`.

    Raises: `DatasetError` or `MismatchError`, as `Look.error` has it.
    """
    look = look_at_images(boxes, root, boxes.usable, contents=contents, watch=watch, say=say)
    if (error := look.error()) is None:
        return
    if any(boxes.splits[row] != "test" for row in (*look.missing, *look.changed)):
        raise error
    say(f"Warning: the test part cannot be measured later: {error}")


def check_backbone(name: str) -> None:
    """Raises: `ConfigurationError` for a backbone that is not known, or needs a package that is absent."""
    try:
        check_backbone_name(name)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None


def check_weights(source: str, backbone: str) -> None:
    """Raises: `CheckpointError` for weights that are neither one of `SOURCES` nor there, or that nobody has, or of a
    run that has another backbone.
    """
    if source == "imagenet" and backbone in WITHOUT_IMAGENET:
        raise CheckpointError(f"no ImageNet weights for {backbone}: {nobody_has(WITHOUT_IMAGENET[backbone])}")
    if source not in SOURCES and parents_checkpoint(source, backbone) is None and not Path(source).is_file():
        raise CheckpointError(f"there is no weights file {source}{did_you_mean(source, SOURCES)}")


def parents_checkpoint(source: str, backbone: str) -> Path | None:
    """The checkpoint of the run that ``--weights`` names by its folder or its checkpoint; None where it names something
    else.

    Raises: `CheckpointError` for a run of another backbone, of several seeds, or without a checkpoint.
    """
    path = Path(source)
    if source in SOURCES or not (path.is_dir() or (path.is_file() and is_checkpoint(path))):
        return None
    if path.is_dir():
        try:
            runs = [path] if (path / BEST).is_file() else runs_of(path)
        except CheckpointError:
            raise CheckpointError(f"there is no weights file {source}, and no run in that folder") from None
        if runs != [path]:
            raise CheckpointError(f"{path} holds a run for each of several seeds; name one of them, such as {runs[0]}")
        path = path / BEST
    trained = read_header(path).settings.backbones
    if trained != backbone:
        raise CheckpointError(
            f"{source} was trained with backbone {trained}, and this run has {backbone}: take --backbone {trained}, or "
            "other weights"
        )
    return path
