"""The command line: options, one library call a command, known errors as one line. Nothing heavy on import."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .proposals.settings import KINDS, METHODS, MIXTURES, NETWORKS, SLOT_ORDERS, ProposalSettings, name_of_weights
from .training.models.settings import FUSIONS, MODEL_NAMES, POOLINGS, SE_KINDS, ModelSettings
from .training.recipes import RECIPES, RunSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from .data.boxes_reader import Boxes

DATASETS = ("demo", "folder", "csv", "food101", "stanford40", "ppmi24", "auc-v1", "auc-v2", "caltech256")
EXPORT_FORMATS = ("onnx", "torch")
_SHOWN = 20  # changed images told one by one


class _OneLineErrors(click.Group):
    """Errors of the input end as one line and exit code 1; programming errors keep their traceback."""

    def invoke(self, context: click.Context) -> Any:
        from .data.errors import AgnetError

        # Schedulers and `kill` stop a program by SIGTERM: workers are ended and work is kept, as on Ctrl-C.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(context)
        except AgnetError as error:
            raise click.ClickException(str(error)) from None
        except ImportError as error:
            if "libGL" not in str(error):
                raise
            raise click.ClickException(
                f"OpenCV cannot be loaded ({error}): apt-get install libgl1, or pip uninstall opencv-python and "
                "pip install opencv-python-headless"
            ) from None
        except OSError as error:
            if error.errno in (None, errno.EPIPE):  # a closed pipe is click's to handle
                raise
            raise click.ClickException(f"{error.filename or ''}: {error.strerror}".lstrip(": ")) from None
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            context.exit(130)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="agnet")
def main() -> None:
    """AG-Net: fine-grained image recognition guided by salient regions.

    Two stages that meet in one HDF5 file: `agnet propose` writes the regions of every image of a data set,
    `agnet train` trains the network that attends to them.
    """


_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Where the images are: the folder that holds the data set; for 'folder' the folder of class folders.  "
    "[default: where they were when proposed, else $AGNET_ROOT, else ./datasets]",
)
_dataset_root = click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Where the images are: the folder that holds the data set; for 'folder' the folder of class folders.  "
    "[default: $AGNET_ROOT, else ./datasets; for 'csv' the list's folder]",
)
_boxes = click.option(
    "--boxes", type=click.Path(path_type=Path), default="boxes.h5", show_default=True, help="The boxes file."
)
_run = click.option("--run", type=click.Path(path_type=Path), required=True, help="The run's folder.")
_device = click.option(
    "--device", default=RunSettings.device, show_default=True, help="cpu, cuda, cuda:1, mps or auto."
)
_workers = click.option(
    "--workers",
    type=click.IntRange(0),
    default=RunSettings.workers,
    show_default=True,
    help="Processes that read images.",
)
_stages = click.option(
    "--stages",
    type=click.IntRange(1),
    default=ModelSettings.stages,
    show_default=True,
    help="Of the backbone, from its last map back to larger ones: regions are pooled from each.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@main.command()
@click.argument("dataset", metavar="[NAME]", required=False, type=click.Choice(DATASETS))
@_dataset_root
@click.option("--download", is_flag=True, help="Fetch NAME and unpack it, where no form has to be signed.")
@click.option(
    "--verify",
    is_flag=True,
    help="Count NAME's images, decode every one, and find duplicates; exit code 1 if images are missing or broken.",
)
@click.option("--csv", "list_file", type=click.Path(path_type=Path), help="Of --verify: the list of csv.")
@click.option("--jobs", type=click.IntRange(1), help="Of --verify: worker processes; default: all cores.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Of --verify: draw what looks alike across splits.")
@_json
def datasets(
    dataset: str | None,
    root: Path | None,
    download: bool,
    verify: bool,
    list_file: Path | None,
    jobs: int | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """List the named data sets and what of them is on this machine; with NAME tell all that is known of one.

    A download that was interrupted goes on where it was; an archive that was fetched by hand is taken.
    """
    from .data.availability import details_text, look_up, table_text

    if dataset is None and (download or verify):
        raise click.UsageError(f"--{'download' if download else 'verify'} needs the NAME of a data set")
    if (list_file or jobs or sheet) and not verify:
        raise click.UsageError("--csv, --jobs and --sheet are for --verify")
    given, root = root, root or _root_of_environment() or Path("datasets")
    if download and dataset:
        _download(dataset, root)
    if verify and dataset:
        _examine(dataset, given, list_file, jobs, sheet, as_json)
        return
    found = [look_up(name, root) for name in ([dataset] if dataset else DATASETS)]
    if as_json:
        told = [one.to_dict() for one in found]
        click.echo(json.dumps(told[0] if dataset else told))
    elif download:
        click.echo(root / found[0].entry.folder)
    elif dataset:
        click.echo(details_text(found[0]))
    else:
        click.echo(table_text(found))
        click.echo(f"looked under {root}; agnet datasets NAME tells more of one", err=True)


def _download(dataset: str, root: Path) -> None:
    from .data.acquisition import acquire

    bar: Any = None
    shown = ""

    def progress(what: str, done: int, total: int | None) -> None:
        nonlocal bar, shown
        if what != shown:
            _close(bar)
            bar, shown = _bar(what, total, "B"), what
            bar.initial = bar.n = done  # what an earlier run fetched counts, but not for the speed
        bar.update(done - bar.n)

    try:
        archives = acquire(dataset, root, progress)
    except KeyboardInterrupt:
        _close(bar)
        click.echo(f"\nInterrupted. What has arrived is kept in {root}: run the same to go on", err=True)
        sys.exit(130)
    finally:
        _close(bar)
    for archive in archives:
        click.echo(f"unpacked: {archive}, which may be deleted", err=True)


def _examine(
    dataset: str, root: Path | None, list_file: Path | None, jobs: int | None, sheet: Path | None, as_json: bool
) -> None:
    from .data.catalogue import CATALOGUE, open_dataset
    from .data.drawing import check_picture_path, save_picture
    from .data.examination import examine
    from .data.examination_report import examination_text, near_duplicate_sheet

    if sheet:
        check_picture_path(sheet)
    root = _root_of_dataset(dataset, root, list_file)
    index = open_dataset(dataset, root, val_fraction=0, list_file=list_file, any_counts=True)
    entry = CATALOGUE[dataset]
    with _bar("verify", len(index)) as bar:
        found = examine(
            index,
            classes=entry.classes,
            counts=entry.counts,
            jobs=jobs,
            progress=lambda done, bad: _advance(bar, done, {"unreadable": bad} if bad else {}),
        )
    click.echo(json.dumps({"root": str(root), **found.to_dict()}) if as_json else examination_text(found))
    if sheet and found.near_duplicates:
        picture, count = near_duplicate_sheet(found, root)
        save_picture(picture, sheet)
        click.echo(f"drawn: {count:,} of the {len(found.near_duplicates):,} pairs that look alike, {sheet}", err=True)
    elif sheet:
        click.echo(f"nothing looks alike across splits: {sheet} is not written", err=True)
    if not found.sound:
        broken = f"{len(found.unreadable):,} images cannot be read" if found.unreadable else ""
        raise click.ClickException(f"{dataset} under {root}: {', '.join(filter(None, [*found.wrong, broken]))}")


def _root_of_dataset(dataset: str, root: Path | None, list_file: Path | None) -> Path:
    if (list_file is not None) != (dataset == "csv"):
        raise click.UsageError("the data set csv and --csv FILE go together: one needs the other")
    root = root or (list_file.parent if list_file else _root_of_environment())
    if root is None and dataset == "folder":
        raise click.UsageError("the data set folder needs --root, the folder of class folders")
    return root or Path("datasets")


def _close(bar: Any) -> None:
    if bar is not None:
        bar.close()


@main.command()
@click.option("--dataset", type=click.Choice(DATASETS), required=True, help="Which data set.")
@_dataset_root
@click.option(
    "--csv",
    "list_file",
    type=click.Path(path_type=Path),
    help="Of --dataset csv: a FILE with columns path (relative to --root), label and, if it is split, split.",
)
@click.option(
    "--without-leaked-frames",
    is_flag=True,
    help="Of --dataset auc-v2: leave out the test frames that reportedly show a driver of train.",
)
@click.option("--any-counts", is_flag=True, help="Take a named data set whose numbers are not those of the book.")
@_boxes
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=ProposalSettings.method,
    show_default=True,
    help="What proposes: the paper's keypoints, a network (needs weights), or a control that does not look.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help=f"A FILE with the weights of {' or '.join(NETWORKS)}; default: torchvision's, downloaded.",
)
@click.option(
    "--primary", type=int, default=ProposalSettings.primary, show_default=True, help="Primary regions an image, κ."
)
@click.option(
    "--kinds",
    type=click.Choice(KINDS),
    default=ProposalSettings.kinds,
    show_default=True,
    help="Which regions an image has; 36 at most, dropping pairs of the last primaries.",
)
@click.option(
    "--image-size",
    type=int,
    default=ProposalSettings.image_size,
    show_default=True,
    help="Side on which keypoints are found.",
)
@click.option("--mixture", type=click.Choice(MIXTURES), default=ProposalSettings.mixture, show_default=True)
@click.option(
    "--slot-order",
    type=click.Choice(SLOT_ORDERS),
    default=ProposalSettings.slot_order,
    show_default=True,
    help="Which mixture component is region 0, 1, ...",
)
@click.option(
    "--seed",
    type=int,
    default=ProposalSettings.seed,
    show_default=True,
    help="Of k-means and random boxes.",
)
@click.option(
    "--split-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the parts that are drawn: validation, and test where none is given.",
)
@click.option("--val-fraction", type=float, default=0.1, show_default=True, help="Of train, cut for validation.")
@click.option("--limit", type=int, help="At most this many images, in the shares of classes and splits, for a trial.")
@click.option("--jobs", type=click.IntRange(1), help="Worker processes; default: all cores.")
@click.option("--restart", is_flag=True, help="Start over instead of going on with what is there.")
@click.option(
    "--max-unreadable",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Fail above this share of unreadable images.",
)
def propose(
    dataset: str,
    root: Path | None,
    list_file: Path | None,
    without_leaked_frames: bool,
    any_counts: bool,
    boxes: Path,
    method: str,
    weights: Path | None,
    primary: int,
    kinds: str,
    image_size: int,
    mixture: str,
    slot_order: str,
    seed: int,
    split_seed: int,
    val_fraction: float,
    limit: int | None,
    jobs: int | None,
    restart: bool,
    max_unreadable: float,
) -> None:
    """Stage 1: find the salient regions of every image and write them to one HDF5 file.

    Interrupt it whenever you like: the same command goes on where it stopped.
    """
    from .data.catalogue import CATALOGUE, open_dataset
    from .proposals.data_set import PART_IMAGES, propose_dataset

    if weights and method not in NETWORKS:
        raise click.UsageError(f"--weights is for the methods {' and '.join(NETWORKS)}")
    if without_leaked_frames and dataset != "auc-v2":
        raise click.UsageError("--without-leaked-frames is for --dataset auc-v2")
    if any_counts and dataset in ("folder", "csv"):
        raise click.UsageError(f"--any-counts changes nothing with --dataset {dataset}: no book has its numbers")
    root = _root_of_dataset(dataset, root, list_file)
    settings = ProposalSettings(
        method=method,
        primary=primary,
        kinds=kinds,
        weights=name_of_weights(weights),
        image_size=image_size,
        mixture=mixture,
        slot_order=slot_order,
        seed=seed,
    )
    index = open_dataset(
        dataset,
        root,
        val_fraction=val_fraction,
        split_seed=split_seed,
        limit=limit,
        list_file=list_file,
        leaked_frames=not without_leaked_frames,
        any_counts=any_counts,
    )
    parts = {split: int((index.splits == split).sum()) for split in ("train", "val", "test")}
    click.echo(
        f"{dataset}: {len(index):,} images of {len(index.classes)} classes "
        f"({', '.join(f'{count:,} {split}' for split, count in parts.items())})",
        err=True,
    )
    if flaws := CATALOGUE[dataset].flaws:
        click.echo(f"known of {dataset}: {flaws}", err=True)
    if index.left_out:
        kinds = ", ".join(
            f"{count:,} {kind}" for kind, count in sorted(index.left_out.items(), key=lambda kind: -kind[1])
        )
        click.echo(f"left out: {kinds}", err=True)
    if difference := index.opened_with.get("not_as_distributed"):
        click.echo(f"Warning: not as distributed: {difference}", err=True)
    click.echo(f"settings: {', '.join(f'{k}={v}' for k, v in settings.to_dict().items())}", err=True)
    try:
        with _bar("propose", len(index)) as bar:
            summary = propose_dataset(
                index,
                settings,
                boxes,
                weights=weights,
                jobs=jobs,
                restart=restart,
                progress=lambda done, bad: _advance(bar, done, {"unreadable": bad} if bad else {}),
            )
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. Every {PART_IMAGES} finished images are kept: run the same to go on", err=True)
        sys.exit(130)
    if summary.reused:
        click.echo(f"{summary.reused:,} of them were there already", err=True)
    if summary.few_keypoints:
        click.echo(f"{summary.few_keypoints:,} have too few keypoints: their regions are the whole image", err=True)
    click.echo(boxes)
    if summary.unreadable:
        share = summary.unreadable / summary.images
        complaint = (
            f"{summary.unreadable:,} of {summary.images:,} images ({share:.1%}) could not be read; see the table "
            f"failures in {boxes}"
        )
        if share > max_unreadable:
            raise click.ClickException(f"{complaint}; --max-unreadable {math.ceil(share * 1000) / 1000} accepts that")
        click.echo(complaint, err=True)


@main.command()
@_boxes
@_root
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder; default: runs/<data set>-<model>.")
@click.option("--model", type=click.Choice(MODEL_NAMES), default=ModelSettings.model, show_default=True)
@click.option(
    "--backbone",
    default=ModelSettings.backbone,
    show_default=True,
    help="A backbone's name, torchvision:NAME or timm:NAME.",
)
@click.option("--weights", default=RunSettings.weights, show_default=True, help="Backbone: none, imagenet or a FILE.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="modern", show_default=True)
@click.option("--epochs", type=int, help="Default: the recipe's.")
@click.option("--batch-size", type=int, help="Default: the recipe's.")
@click.option("--lr", type=float, help="Of the head; default: the recipe's.")
@click.option("--backbone-lr", type=float, help="As a multiple of --lr; 0 freezes the backbone; default: the recipe's.")
@click.option("--weight-decay", type=float, help="Default: the recipe's.")
@click.option("--augment/--no-augment", default=None, help="Random affine views of training images.")
@click.option(
    "--regions",
    type=click.Choice(["cached", "live"]),
    help="Move the file's regions with each augmented view (default), or find them anew on it, as the paper does.",
)
@click.option(
    "--fusion",
    type=click.Choice(FUSIONS),
    default=ModelSettings.fusion,
    show_default=True,
    help="Of maximum and average pooling, or one of them.",
)
@click.option(
    "--se",
    type=click.Choice(SE_KINDS),
    default=ModelSettings.se,
    show_default=True,
    help="An SE-Residual for each token slot, one for all, or none.",
)
@click.option(
    "--units",
    type=click.IntRange(1),
    default=ModelSettings.units,
    show_default=True,
    help="Width of the inter-attention.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default=ModelSettings.pooling,
    show_default=True,
    help="Of regions: RoIAlign, or whole cells of a map resized to 42 x 42.",
)
@click.option(
    "--pooling-samples",
    type=click.IntRange(1),
    default=ModelSettings.pooling_samples,
    show_default=True,
    help="Along each side of a bin of the region pooling.",
)
@_stages
@click.option("--no-regions", is_flag=True, help="The whole image is the only token.")
@click.option("--no-self-attention", is_flag=True, help="Regions are pooled from the backbone's own map.")
@click.option("--no-inter-attention", is_flag=True, help="Tokens are averaged.")
@click.option("--spectral-norm", is_flag=True, help="On the self-attention's projections.")
@click.option("--attention-softmax", is_flag=True, help="After the inter-attention's sigmoid.")
@click.option("--seed", type=int, default=RunSettings.seed, show_default=True)
@_device
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default=RunSettings.precision, show_default=True
)
@_workers
@click.option("--stop-after", type=click.IntRange(1), help="Stop after this many epochs; --resume goes on.")
@click.option("--resume", is_flag=True, help="Go on from the run's last finished epoch.")
@click.pass_context
def train(
    context: click.Context,
    boxes: Path,
    root: Path | None,
    run: Path | None,
    model: str,
    backbone: str,
    weights: str,
    recipe: str,
    fusion: str,
    se: str,
    units: int,
    pooling: str,
    pooling_samples: int,
    stages: int,
    no_regions: bool,
    no_self_attention: bool,
    no_inter_attention: bool,
    spectral_norm: bool,
    attention_softmax: bool,
    seed: int,
    device: str,
    precision: str,
    workers: int,
    stop_after: int | None,
    resume: bool,
    **overrides: Any,
) -> None:
    """Stage 2: train AG-Net (or the plain backbone, its control) on images and their cached regions.

    The epoch is chosen on a validation part cut from train; the test part is left for `agnet evaluate`.
    """
    from functools import partial

    from .data.boxes_reader import read_boxes
    from .proposals.one_image import propose_regions
    from .training.fit import LAST, fit

    _refuse_idle_switches(context)
    _keep_memory()
    found = read_boxes(boxes)
    resolved = RECIPES[recipe].override(**overrides)
    propose = None
    if resolved.regions == "live":
        proposals = ProposalSettings.from_dict(found.settings["proposals"])
        if proposals.weights != ProposalSettings.weights:
            raise click.UsageError("--regions live needs regions proposed without a weights file")
        propose = partial(propose_regions, settings=proposals)
    run = run or Path("runs") / f"{found.dataset}-{model}"
    if found.failures:
        click.echo(f"{len(found.failures):,} unreadable images are left out", err=True)
    counts = ", ".join(f"{len(found.rows(split)):,} {split}" for split in ("train", "val", "test"))
    click.echo(f"{found.dataset}: {counts} images of {len(found.classes)} classes", err=True)
    click.echo(f"model {model}, backbone {backbone} with weights {weights}, seed {seed}, into {run}", err=True)
    click.echo(f"recipe {recipe}: {resolved}", err=True)

    def report(line: dict[str, object]) -> None:
        click.echo("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), err=True)

    try:
        best = fit(
            run,
            found,
            _images_root(found, root),
            ModelSettings(
                classes=len(found.classes),
                regions=found.layout.count,
                model=model,
                backbone=backbone,
                spectral_norm=spectral_norm,
                attention_softmax=attention_softmax,
                use_regions=not no_regions,
                self_attention=not no_self_attention,
                inter_attention=not no_inter_attention,
                fusion=fusion,
                se=se,
                units=units,
                pooling=pooling,
                pooling_samples=pooling_samples,
                stages=stages,
            ),
            resolved,
            RunSettings(weights, seed, device, precision, workers),
            propose=propose,
            resume=resume,
            stop_after=stop_after,
            watch=_watch,
            report=report,
        )
    except FloatingPointError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        kept = (
            f"{run} keeps every finished epoch: go on with --resume" if (run / LAST).exists() else "No epoch finished"
        )
        click.echo(f"\nInterrupted. {kept}", err=True)
        sys.exit(130)
    click.echo(best)


@main.command()
@_run
@click.option("--boxes", type=click.Path(path_type=Path), help="Default: the boxes file the run was trained with.")
@_root
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option("--force", is_flag=True, help="Measure on images the run was trained on or selected by, too.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@_device
@_workers
@_json
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
    from .data.boxes_reader import read_boxes
    from .data.errors import BoxesFileError
    from .data.places import follow_hint
    from .training.evaluation import evaluate_run
    from .training.fit import choose_device, read_config

    _keep_memory()
    config = read_config(run)
    boxes = boxes or follow_hint(config["boxes"].get("file_relative_to_run"), run)
    if boxes is None:
        raise BoxesFileError(f"the boxes file of {run} is not where it was; name it with --boxes")
    found = read_boxes(boxes)
    evaluation = evaluate_run(
        run,
        found,
        _images_root(found, root),
        split,
        batch_size,
        choose_device(device, str(config["run"].get("precision"))),
        workers,
        force=force,
        watch=_watch,
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


@main.command()
@_run
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to name.")
@click.option("--save", type=click.Path(path_type=Path), help="A folder for pictures: regions, evidence, prediction.")
@click.option(
    "--proposal-weights",
    type=click.Path(path_type=Path),
    help="The FILE given to propose --weights, where regions come from a network.",
)
@_device
@_json
def predict(
    run: Path,
    images: tuple[Path, ...],
    top: int,
    save: Path | None,
    proposal_weights: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Classify photographs (files or folders), proposing their regions on the fly if the model looks at any.

    An unreadable image is reported and the rest go on; the exit code is then 1.
    """
    from PIL import Image

    from .data.errors import ImageError
    from .data.images import read_image
    from .proposals.one_image import propose_regions
    from .training.checkpoints import load_checkpoint
    from .training.figures import draw_prediction
    from .training.fit import BEST, choose_device
    from .training.predict import predict as predict_images

    _keep_memory()
    checkpoint = load_checkpoint(run / BEST)
    settings = ProposalSettings.from_dict(checkpoint.proposals)
    if checkpoint.regions and settings.weights != name_of_weights(proposal_weights):
        raise click.ClickException(
            f"the regions of {run} were proposed by {settings.method} with other weights; give that file with "
            "--proposal-weights"
        )
    failed = predicted = 0

    def read() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal failed
        for path in _image_files(images):
            try:
                yield str(path), read_image(path)
            except ImageError as error:
                failed += 1
                click.echo(f"Error: {error}", err=True)

    results = predict_images(
        checkpoint,
        read(),
        lambda image: propose_regions(image, settings, proposal_weights),
        choose_device(device),
        top,
        evidence=save is not None,
    )
    for prediction, image in results:
        predicted += 1
        answer = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        if as_json:
            click.echo(json.dumps({"image": prediction.name, "probabilities": answer}))
        else:
            ranked = "  ".join(f"{name} {share:.1%}" for name, share in answer.items())
            click.echo(f"{prediction.name}: {ranked}")
        if save:
            save.mkdir(parents=True, exist_ok=True)
            target = _new_file(save, Path(prediction.name))
            Image.fromarray(draw_prediction(image, prediction)).save(target)
            click.echo(f"written: {target}", err=True)
    if not predicted and not failed:
        raise click.ClickException(f"no images in {', '.join(map(str, images))}")
    if failed:
        sys.exit(1)


@main.command()
@_run
@click.option(
    "--format",
    "format_",
    type=click.Choice(EXPORT_FORMATS),
    default=EXPORT_FORMATS[0],
    show_default=True,
    help="ONNX (pip install 'agnet[onnx]'), or a program of torch.export.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The file.  [default: model.onnx or model.pt2 in the run's folder]",
)
@_json
def export(run: Path, format_: str, output: Path | None, as_json: bool) -> None:
    """Write a run's best checkpoint as one file that runs without agnet, for any number of images.

    It takes uint8 RGB images and boxes in fractions of the image (no boxes for --model plain or --no-regions); classes
    and the settings of the proposals are in its metadata. It is written only if it computes what the network computes.
    """
    from .training.export import export_run

    _keep_memory()
    exported = export_run(run, format_, output)
    if as_json:
        click.echo(json.dumps(exported.to_dict()))
        return
    found = ", ".join(f"{name} {difference:.0e}" for name, difference in exported.largest_differences.items())
    click.echo(f"largest differences from the network's own outputs: {found}", err=True)
    click.echo(exported.file)


@main.command()
@_boxes
@_root
@click.option("--image", "name", help="One image: its path in the file, a unique ending of it, or its row number.")
@click.option(
    "--save", type=click.Path(path_type=Path), help="Write a picture of that image's keypoints, clusters and regions."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet of images and their regions.")
@click.option("--count", type=click.IntRange(1, 400), default=24, show_default=True, help="Images on the sheet.")
@click.option("--verify", is_flag=True, help="Compare every image on disk with what it was; exit code 1 on a change.")
@_json
@click.pass_context
def inspect(
    context: click.Context,
    boxes: Path,
    root: Path | None,
    name: str | None,
    save: Path | None,
    sheet: Path | None,
    count: int,
    verify: bool,
    as_json: bool,
) -> None:
    """Look into a boxes file: a summary, one image's regions, pictures, or whether its images are still the same."""
    from .data.boxes_reader import read_boxes

    counted = context.get_parameter_source("count") is not click.core.ParameterSource.DEFAULT
    if sum((name is not None, sheet is not None, verify)) > 1:
        raise click.UsageError("--image, --sheet and --verify do different things: give one of them")
    if save and name is None:
        raise click.UsageError("--save is for the picture of one image: name it with --image")
    if counted and not sheet:
        raise click.UsageError("--count is for --sheet")
    if as_json and (save or sheet):
        raise click.UsageError("--json prints what --save and --sheet draw: give one of them")
    found = read_boxes(boxes)
    root = _images_root(found, root)
    if verify:
        _verify(found, root, as_json)
    elif target := save or sheet:
        _draw(found, root, name, target, count)
    else:
        _tell(found, root, name, as_json)


def _verify(boxes: Boxes, root: Path, as_json: bool) -> None:
    from .data.summary import printable
    from .data.verification import changed_images

    images = len(boxes.names)
    with _bar("verify", images) as bar:
        changed = list(changed_images(boxes, root, trust_times=False, progress=lambda done: _advance(bar, done, {})))
    if as_json:
        found = [{"image": name, "difference": difference} for name, difference in changed]
        click.echo(json.dumps({"images": images, "root": str(root), "changed": found}))
        sys.exit(1 if changed else 0)
    for name, difference in changed[:_SHOWN]:
        click.echo(printable(f"{name} {difference}"))
    if len(changed) > _SHOWN:
        click.echo(f"and {len(changed) - _SHOWN:,} others")
    if changed:
        elsewhere = "; if they are elsewhere, say so with --root" if len(changed) == images else ""
        raise click.ClickException(
            f"{len(changed):,} of the {images:,} images under {root} are not as they were when {boxes.path} was made"
            + elsewhere
        )
    click.echo(f"{images:,} images are as they were")


def _draw(boxes: Boxes, root: Path, name: str | None, target: Path, count: int) -> None:
    from .data.drawing import check_picture_path, save_picture
    from .data.image_facts import find_image
    from .proposals.inspection import picture_image, picture_sheet

    check_picture_path(target)
    if name is None:
        picture, failures = picture_sheet(boxes, root, count)
        warning = f"{len(failures):,} images cannot be read now, first {failures[0]}" if failures else ""
    else:
        picture, warning = picture_image(boxes, find_image(boxes, name), root)
    if warning:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(save_picture(picture, target))


def _tell(boxes: Boxes, root: Path, name: str | None, as_json: bool) -> None:
    from .data.image_facts import facts_text, find_image, image_facts
    from .data.regions import NOT_THERE
    from .data.summary import summarise, summary_text
    from .data.verification import stamps_of

    if name is None:
        _, times = stamps_of(root, [path.decode() for path in boxes.names.tolist()])
        summary = summarise(boxes, boxes.path.stat().st_size, str(root), int((times != NOT_THERE).sum()))
        click.echo(json.dumps(summary.to_dict()) if as_json else summary_text(summary))
    else:
        facts = image_facts(boxes, find_image(boxes, name))
        click.echo(json.dumps(facts.to_dict()) if as_json else facts_text(facts))


@main.command()
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("resnet50", "densenet121", "inception-v3", "nasnet-mobile", "vgg16"),
    show_default=True,
    help="May be given several times.",
)
@click.option("--classes", type=click.IntRange(1), default=40, show_default=True)
@click.option("--regions", type=click.IntRange(0), default=ModelSettings.regions, show_default=True)
@_stages
@click.option("--latency", is_flag=True, help="Measure the time of inference, too.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Of --latency.")
@_device
@_json
def complexity(
    backbones: tuple[str, ...],
    classes: int,
    regions: int,
    stages: int,
    latency: bool,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Parameters, arithmetic and time of networks with and without AG-Net's parts, beside the paper's Table VI."""
    from dataclasses import replace

    from .training.complexity import VARIANTS, costs_text, network_cost, network_milliseconds
    from .training.fit import choose_device

    _keep_memory()
    costs = []
    for backbone in backbones:
        settings = ModelSettings(classes=classes, regions=regions, backbone=backbone, stages=stages)
        found = [network_cost(settings, variant) for variant in VARIANTS]
        if latency:
            taken = network_milliseconds(settings, batch_size, choose_device(device))
            found = [replace(cost, milliseconds=taken[cost.variant]) for cost in found]
        costs += found
    click.echo(json.dumps([cost.to_dict() for cost in costs]) if as_json else costs_text(costs))


# Switches of AG-Net's parts, and what takes the part away that they are about.
_HEAD = (
    *("fusion", "se", "units", "pooling", "pooling_samples", "stages", "spectral_norm", "attention_softmax"),
    *("no_regions", "no_self_attention", "no_inter_attention"),
)
_IDLE_UNDER: dict[tuple[str, str | bool], tuple[str, ...]] = {
    ("model", "plain"): (*_HEAD, "regions"),
    ("no_self_attention", True): ("spectral_norm",),
    ("no_inter_attention", True): ("units", "attention_softmax"),
    ("pooling", "crop"): ("pooling_samples",),
    ("no_regions", True): ("regions",),
}


def _refuse_idle_switches(context: click.Context) -> None:
    """An option given for a part that another one takes away would change nothing but the run's record."""
    given = {
        name for name in context.params if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    for (taker, value), idle in _IDLE_UNDER.items():
        if context.params[taker] == value and (of_no_use := given.intersection(idle)):
            option = "--" + min(of_no_use).replace("_", "-")
            taken = "--" + taker.replace("_", "-") + ("" if value is True else f" {value}")
            raise click.UsageError(f"{option} changes nothing with {taken}; leave one of them out")


def _keep_memory() -> None:
    """This process runs a network and then ends: what it has freed it may keep for the next batch."""
    from .data.memory import keep_freed_memory

    keep_freed_memory(block_mb=None, idle_mb=2047)


def _images_root(boxes: Boxes, root: Path | None) -> Path:
    """Where a boxes file's images are: as told, else where they were when it was made, else as the environment says."""
    from .data.places import follow_hint

    hint = follow_hint(boxes.attributes.get("root_relative_to_this_file"), boxes.path.parent)
    return root or hint or _root_of_environment() or Path("datasets")


def _root_of_environment() -> Path | None:
    return Path(os.environ["AGNET_ROOT"]) if os.environ.get("AGNET_ROOT") else None


def _new_file(folder: Path, image: Path) -> Path:
    """A name for an image's picture that is not taken: class-photo.png, class-photo-2.png, ..."""
    name = "-".join([*image.parts[-2:-1], image.stem]).lstrip(".-/") or "image"
    numbered = (folder / f"{name}-{number}.png" for number in itertools.count(2))
    return next(path for path in itertools.chain([folder / f"{name}.png"], numbered) if not path.exists())


def _image_files(paths: tuple[Path, ...]) -> Iterator[Path]:
    from .data.images import IMAGE_SUFFIXES

    for path in paths:
        if path.is_dir():
            images = (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            yield from sorted(file for file in images if not file.name.startswith("."))
        else:
            yield path


def _bar(what: str, total: int | None, unit: str = "image") -> Any:
    from tqdm import tqdm

    shown: dict[str, Any] = {"total": total, "desc": what, "unit": unit, "unit_scale": unit == "B"}
    if not sys.stderr.isatty():  # a log: a line a minute, and none for what takes less
        return tqdm(**shown, ascii=True, file=_Lines(), mininterval=60, delay=60)
    return tqdm(**shown, dynamic_ncols=True, file=sys.stderr)


class _Lines:
    """A progress bar's repaints as the lines of a log."""

    def write(self, text: str) -> None:
        if text.strip():
            click.echo(text.strip(), err=True)

    def flush(self) -> None:
        pass


def _advance(bar: Any, done: int, values: dict[str, Any]) -> None:
    if values:
        bar.set_postfix({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}, refresh=False)
    bar.update(done - bar.n)
    if bar.n >= bar.total:
        bar.close()


def _watch(what: str, images: int) -> Callable[[int, dict[str, float]], None]:
    bar = _bar(what, images)
    return lambda done, values: _advance(bar, done, values)


if __name__ == "__main__":
    main(prog_name="agnet")
