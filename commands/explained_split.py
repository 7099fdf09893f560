"""`agnet explain --split`: the proof of explanations over a split, in the folder of the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .pictures import say_what_cannot_be_drawn
from .places import boxes_of, images_root
from .progress import progress_bar, watch

if TYPE_CHECKING:
    from ..training.answers.split_proof import ProvenSplit, SplitImages

RANDOM_ORDERS, COUNT = 8, 200


@dataclass(frozen=True)
class Asked:
    """What is asked for on the command line."""

    split: str
    count: int
    seed: int
    random_orders: int
    method: str | None


def explain_split(run: Path, boxes: Path | None, root: Path | None, asked: Asked, as_json: bool, device: str) -> None:
    """Prove the explanations of photographs of a split; write the result and some pictures into the run's folder."""
    from ..data.files import check_folder_writable
    from ..data.memory import keep_network_memory
    from ..training.measure.measurable import check_images, check_measurable
    from ..training.runs.folder import folder_of

    folder, say = folder_of(run), partial(click.echo, err=True)
    images = _images(folder, boxes, root, asked)
    # Not refused: an explanation is no score.
    metrics, _, warning = check_measurable(folder, images.boxes, asked.split, force=True)
    check_images(images.boxes, images.root, asked.split, watch=watch, say=say)
    file = metrics.with_name(f"explanations{metrics.stem.removeprefix('metrics')}.json")
    check_folder_writable(file.with_suffix(""), "copy the run to a folder of yours and name that with --run")
    if warning:
        say(f"Warning: {warning}")
    if len(images.boxes.rows(asked.split)) < asked.count:
        say(f"{asked.split} has {len(images.rows):,} images: all are explained")
    keep_network_memory()
    proven = _prove(folder, file, images, asked, device)
    click.echo(file.read_text(encoding="utf-8") if as_json else _text(proven), nl=not as_json)
    say(f"written: {file}, and pictures in {file.with_suffix('')}")


def _images(folder: Path, boxes_file: Path | None, root: Path | None, asked: Asked) -> SplitImages:
    from ..data.errors import ConfigurationError
    from ..training.answers.split_proof import SplitImages

    boxes = boxes_of([folder], boxes_file)[folder]
    if boxes.of_clips or boxes.is_retrieval:
        raise ConfigurationError(
            f"{boxes.path} has {'clips' if boxes.of_clips else 'persons to search for'}, and only splits of classified "
            "photographs are proven; name photographs to explain in place of --split"
        )
    return SplitImages(boxes, images_root(boxes, root), asked.split, asked.count, asked.seed)


def _prove(folder: Path, file: Path, images: SplitImages, asked: Asked, device: str) -> ProvenSplit:
    from ..training.answers.contributions import why_not
    from ..training.answers.explain import Question
    from ..training.answers.proof import FILLS, Trials
    from ..training.answers.split_pictures import draw_split
    from ..training.answers.split_proof import prove_split
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint
    from ..training.runs.folder import BEST, checkpoint_hash

    checkpoint = load_checkpoint(folder / BEST)
    method = asked.method or ("hirescam" if why_not(checkpoint.model) else "parts")
    question, where = Question(method), choose_device(device, "fp32")
    network, say = checkpoint_hash(folder / BEST), partial(click.echo, err=True)
    passes = Trials(asked.random_orders, tuple(FILLS)).passes(checkpoint.regions > 0)
    bar = progress_bar(f"explain {asked.split}", passes * len(images.rows), "pass")
    proven, explained = prove_split(
        checkpoint, network, images, question, asked.random_orders, where, say, done=bar.update
    )
    bar.close()
    name = folder.resolve().name
    say_what_cannot_be_drawn([*checkpoint.classes, name])
    run = f"by the run '{name}', epoch {checkpoint.epoch}"
    file.unlink(missing_ok=True)  # an earlier one, which names pictures that are replaced
    proven.write(file, draw_split(file.with_suffix(""), images, proven, explained, checkpoint.classes, run))
    return proven


def _text(proven: ProvenSplit) -> str:
    """A table of areas under the curves and differences with their intervals."""
    from ..data.text import table
    from ..training.answers.proof import DELETION, INSERTION, MAP

    orders = list(next(iter(proven.fills.values()))[DELETION])
    rows = [["area under the curve", *orders, *(f"map - {order}" for order in orders if order != MAP)]]
    for fill, found in proven.fills.items():
        for way in (DELETION, INSERTION):
            minus = found[f"{way}_minus"].values()
            areas = [f"{area:.3f}" for area in found[way].values()]
            rows.append(
                [
                    f"{way}, {fill}",
                    *areas,
                    *(f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" for one in minus),
                ]
            )
    said = f"{proven.split}: {len(proven.images):,} of {proven.of:,} images, {proven.method}, epoch {proven.epoch}"
    return "\n".join([said, *table(rows), "deletion: lower is better; insertion: higher", proven.verdict])
