"""Check the input of a run before PyTorch, which takes seconds to load, is imported."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.boxes.verification import Watch, look_at_images
from ...data.errors import CheckpointError, ConfigurationError, DatasetError, MismatchError
from ...data.names import TRAIN_FOLD
from ...data.spelling import did_you_mean
from ..models.backbones.names import WITHOUT_IMAGENET, check_backbone_name, nobody_has
from ..models.registry import needs_of
from ..recipes import Recipe
from ..runs.checkpoint_header import is_checkpoint, read_header
from ..runs.folder import BEST, FOLD, epochs_of, numbered, read_log, runs_of
from ..runs.sources import LIBRARY_SOURCES, is_by_backbone, sources_by_backbone
from ..tasks import task_of
from .selection import Selection

if TYPE_CHECKING:
    from ...data.boxes.reader import Boxes
    from ..models.contract import Settings, Views


def check_input(boxes: Boxes, recipe: Recipe, *, proposes: bool, processes: int = 1) -> None:
    """Check that a run of this recipe has everything it needs, before any network is built.

    Args:
        boxes: Boxes file of the images.
        recipe: Training settings.
        proposes: Whether a function that proposes regions during training is available.
        processes: Number of processes that train together.

    Raises: `ConfigurationError` or `DatasetError` for whatever is missing.
    """
    if recipe.regions == "live" and not proposes:
        raise ConfigurationError("live regions need stage 1's function for one image")
    if boxes.of_clips and not recipe.frames:
        raise ConfigurationError(
            f"{boxes.path} is of clips, and this recipe of images; use --frames 16 or --recipe clips"
        )
    if recipe.frames and not boxes.of_clips:
        raise ConfigurationError(
            f"training setting 'frames': wanted 0, since {boxes.path} is of images, not of clips; got {recipe.frames}"
        )
    if boxes.of_clips and recipe.regions == "live":
        raise ConfigurationError("regions cannot be proposed live for clips; use --regions cached")
    if boxes.of_clips and recipe.images_per_class:
        raise ConfigurationError(
            "training setting 'images_per_class': batches of classes, and the triplet loss, are for searches, "
            f"which are among images, and {boxes.path} is of clips; use --images-per-class 0 --triplet 0"
        )
    if boxes.is_retrieval and len(boxes.rows(TRAIN_FOLD)):
        raise ConfigurationError(f"--folds is for classes, and {boxes.path} has persons to search for; leave it out")
    task = task_of(boxes)
    task.classes(boxes)  # raises for a file with classes in a wrong order
    if not len(boxes.rows(task.splits.trained_on)):
        raise DatasetError(f"{boxes.path} has no usable training images")
    measures = [f"val_{measure.name}" for measure in task.measures]
    if recipe.select_by not in measures:
        raise ConfigurationError(
            f"training setting 'select_by': wanted {' or '.join(measures)}, which are measured in {task.name}, got "
            f"{recipe.select_by}; add --select-by {measures[0]}"
        )
    if recipe.images_per_class and processes > 1:
        raise ConfigurationError(
            "training setting 'images_per_class' needs one process: several would divide the images of a class; leave "
            "out torchrun, or use --images-per-class 0 --triplet 0"
        )
    if recipe.patience and not len(boxes.rows(task.splits.chosen_by)):
        raise ConfigurationError(f"training setting 'patience' needs a validation split, and {boxes.path} has none")


def check_views(views: Views | None, settings: Settings, boxes: Boxes | None = None) -> None:
    """Raise `ConfigurationError` if a network cannot see photographs in these views.

    Args:
        views: Views; None for none.
        settings: Settings of the network.
        boxes: Boxes file of the images; None for photographs in no data set.
    """
    if views is None:
        return
    option, needs = views.options, needs_of(settings)
    if boxes is not None and boxes.of_clips:
        raise ConfigurationError(f"{option} is for photographs, and {boxes.path} has clips; leave it out")
    if boxes is not None and boxes.is_retrieval:
        raise ConfigurationError(f"{option} is for classes, and {boxes.path} has persons to search for; leave it out")
    if not needs.views:
        raise ConfigurationError(f"{option}: the network {settings.model} sees photographs in one view; leave it out")
    if needs.regions and not views.sizes:
        raise ConfigurationError(
            f"{option}: crops would cut the regions of {settings.model}; use --sizes, or a model without regions"
        )


def check_cacheable(recipe: Recipe) -> None:
    """Raise `ConfigurationError` unless every epoch sees the same views through a backbone that never changes."""
    for phase in recipe.phases:
        if phase.recipe.backbone_lr:
            raise ConfigurationError("--cache-features needs a frozen backbone; add --backbone-lr 0")
    for name, value, remedy in (
        ("augment", recipe.augment, "--no-augment"),
        ("mixup", recipe.mixup, "--mixup 0"),
        ("regions", recipe.regions == "live", "--regions cached"),
    ):
        if value:
            raise ConfigurationError(
                f"--cache-features shows the same view in every epoch, which training setting {name!r} changes; add "
                f"{remedy}"
            )


def ending_of(run: Path, recipe: Recipe) -> str:
    """Explain why a run without a saved state is over, given a recipe that may differ from the run's in its epochs.

    Raises: `CheckpointError` or `MismatchError` if the run would have to continue.
    """
    log, before = read_log(run), epochs_of(run)
    selection = Selection.of(recipe, log)
    ending = selection.ending(len(log), before)
    new_run = start_from(run, recipe.epochs)
    if not ending:
        raise CheckpointError(f"{run} no longer has a state to resume from; {new_run}")
    if recipe.epochs < len(log):
        raise MismatchError(f"{run} is already after epoch {len(log)} of {before}; use --epochs {len(log)} or more")
    if recipe.epochs != before and not selection.is_over(len(log)):
        raise CheckpointError(
            f"{run} has finished its {before} epochs, and its states were deleted then; {new_run} (train with "
            "--keep-states to be able to continue a finished run)"
        )
    return ending


def start_from(run: Path, epochs: int) -> str:
    """Return the remedy for a run that cannot continue to ``epochs`` epochs, as text."""
    return f"start a new run from its weights, --weights {shlex.quote(str(run))} --epochs {epochs} --run ANOTHER"


def check_same_images(
    boxes: Boxes,
    root: Path,
    *,
    contents: bool = True,
    watch: Watch = lambda what, images: lambda done, values: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Check that the images are those of the boxes file; for the test split, which training does not use, only warn.

    Args:
        boxes: Boxes file of the images.
        root: Folder of the images.
        contents: See `look_at_images`.
        watch: Progress callback.
        say: Function called with a line of text for the user.

    Raises: `DatasetError` or `MismatchError`, as returned by `Look.error`.
    """
    look = look_at_images(boxes, root, boxes.usable, contents=contents, watch=watch, say=say)
    if (error := look.error()) is None:
        return
    if any(boxes.splits[row] != "test" for row in (*look.missing, *look.changed)):
        raise error
    say(f"Warning: the test split cannot be evaluated later: {error}")


def check_backbone(name: str) -> None:
    """Check the name of a backbone.

    Raises: `ConfigurationError` for an unknown backbone, or one that needs a package that is not installed.
    """
    try:
        check_backbone_name(name)
    except (ValueError, ImportError) as error:
        raise ConfigurationError(str(error)) from None


def check_weights(source: str, settings: Settings) -> None:
    """Check the source of the initial weights of a network with these settings.

    Raises: `CheckpointError` for a source that is neither one of `LIBRARY_SOURCES` nor an existing file or run, for
        ImageNet weights that are not published, or for a run with other backbones; `ConfigurationError` as in
        `sources_by_backbone`.
    """
    if parents_checkpoint(source, settings) is not None:
        return
    if not (source in LIBRARY_SOURCES or is_by_backbone(source) or Path(source).is_file()):
        raise CheckpointError(f"there is no weights file {source}{did_you_mean(source, LIBRARY_SOURCES)}")
    for backbone, one in sources_by_backbone(source, _backbones_of(settings)).items():
        if one == "imagenet" and backbone in WITHOUT_IMAGENET:
            raise CheckpointError(f"no ImageNet weights for {backbone}: {nobody_has(WITHOUT_IMAGENET[backbone])}")
        if one not in LIBRARY_SOURCES and not Path(one).is_file():
            raise CheckpointError(f"there is no weights file {one}{did_you_mean(one, LIBRARY_SOURCES)}")


def parents_checkpoint(source: str, settings: Settings) -> Path | None:
    """Return the checkpoint if ``--weights`` names a run, by its folder or checkpoint; otherwise None.

    Raises: `CheckpointError` for a run whose backbones are not those of ``settings``, a run of several seeds, or one
        without a checkpoint.
    """
    path = Path(source)
    if source in LIBRARY_SOURCES or not (path.is_dir() or (path.is_file() and is_checkpoint(path))):
        return None
    if path.is_dir():
        try:
            runs = [path] if (path / BEST).is_file() else runs_of(path)
        except CheckpointError:
            if folds := numbered(path, FOLD):
                raise CheckpointError(f"{path} holds a run for each fold; name one, such as {folds[0]}") from None
            raise CheckpointError(f"there is no weights file {source}, and that folder holds no run") from None
        if runs != [path]:
            raise CheckpointError(f"{path} holds a run for each of several seeds; name one of them, such as {runs[0]}")
        path = path / BEST
    trained = read_header(path).settings
    if _backbones_of(trained) != _backbones_of(settings):
        remedies = [" ".join(_options_for(_backbones_of(trained), settings)), "other weights"]
        raise CheckpointError(
            f"{source} was trained with backbone {trained.backbones}, but this run has {settings.backbones}: use "
            f"{' or '.join(filter(None, remedies))}"
        )
    return path


def _backbones_of(settings: Settings) -> list[str]:
    return [stream.backbone for stream in settings.streams]


def _options_for(backbones: list[str], settings: Settings) -> list[str]:
    """Return the options, as typed, that change a model's backbones to these; empty if its family cannot have them."""
    named = [one.name for one in fields(settings) if getattr(settings, one.name) in _backbones_of(settings)]
    wanted = backbones * len(named) if len(backbones) == 1 else backbones  # two streams may share one backbone
    changes: dict[str, Any] = dict(zip(named, wanted, strict=False))
    if _backbones_of(replace(settings, **changes)) != backbones:
        return []
    return [f"--{name.replace('_', '-')} {shlex.quote(backbone)}" for name, backbone in changes.items()]
