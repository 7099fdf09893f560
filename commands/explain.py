"""`agnet explain`: what speaks for and against a class in photographs and clips."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .explained_split import COUNT, RANDOM_ORDERS, Asked, explain_split
from .pictures import say_what_cannot_be_drawn
from .progress import finish, progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..training.answers.contributions import Explained
    from ..training.answers.explain import Explanation
    from ..training.answers.proof import Curves, Proof
    from ..training.runs.checkpoint_header import CheckpointHeader
    from ..training.samples.reading import Propose, Unreadable

METHODS = ("parts", "hirescam", "attention")
ORDERS_OF_ONE = 20  #: random orders for a photograph that was named; over a split fewer do


@click.command(short_help="Show what speaks for a class in photographs and videos.")
@options.run
@click.argument("images", nargs=-1)
@click.option("--class", "this", metavar="NAME", help="Class to explain.  [default: the likeliest]")
@click.option("--against", metavar="NAME", help="Class to tell it from.  [default: the likeliest of the others]")
@click.option(
    "--method",
    type=options.Choice(METHODS),
    help="Method. parts: the exact parts of AG-Net's logits by region and place; hirescam: gradient times activation "
    "of the last feature map, for every model; attention: what the network weighs, where it has attention, the same "
    "for every class.  [default: parts, or hirescam where logits do not come apart]",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a picture of each photograph, and a strip of frames of each video, as PNG and as SVG, and for an "
    "MP4 of each video.",
)
@click.option(
    "--random-orders",
    type=click.IntRange(0),
    help="Number of random orders that each map is compared with to prove it, at six passes of the network each and "
    f"some 40 more; with --split, twice as many; 0: no proof.  [default: 20, or {RANDOM_ORDERS} with --split]",
)
@click.option(
    "--split",
    type=options.Choice(["train", "val", "test"]),
    help="Split whose images are explained, in place of IMAGES, to prove the explanations of the run.",
)
@click.option("--count", type=click.IntRange(1), help=f"Largest number of images of the split.  [default: {COUNT}]")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the choice and of the orders."
)
@click.option(
    "--boxes", type=click.Path(path_type=Path), help="Boxes file of the split.  [default: the one of the run]"
)
@options.root
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line; with --split, the file.")
@options.proposal_weights
@options.device
@click.pass_context
def explain(
    context: click.Context,
    run: Path,
    images: tuple[str, ...],
    this: str | None,
    against: str | None,
    method: str | None,
    save: Path | None,
    random_orders: int | None,
    split: str | None,
    count: int | None,
    seed: int,
    boxes: Path | None,
    root: Path | None,
    as_json: bool,
    proposal_weights: Path | None,
    device: str,
) -> None:
    """Show what speaks for a class rather than another one in photographs and videos, and prove it in photographs.

    IMAGES are named as for agnet predict; videos come after all photographs. Unreadable files are reported and skipped;
    the exit code is then 1. With --split, images of the run's data set are explained, and the proof over all of them
    and some pictures are written to the folder of the run.
    """
    if bool(images) == (split is not None):
        raise click.UsageError("name images, or a split of the run's data set with --split: one of the two")
    if images and (count or boxes or root):
        raise click.UsageError("--count, --boxes and --root are for --split, not for IMAGES")
    from ..data.files import check_folder_writable
    from ..data.images import pixel_limit
    from ..data.inputs import find_inputs
    from ..predictor import proposer
    from ..training.runs.checkpoint_header import read_header
    from ..training.runs.folder import checkpoint_of
    from ..training.samples.reading import some_can_be_read, unreadable_inputs
    from .explained_videos import explain_videos

    header = read_header(checkpoint_of(run))
    if save:
        check_folder_writable(save, "name another folder with --save")
    if method == "attention" and (this is not None or against is not None):
        raise click.UsageError("attention is the same for every class: leave out --class and --against")
    chosen = [None if name is None else _number(name, header.classes) for name in (this, against)]
    if this is not None and chosen[0] == chosen[1]:
        raise click.UsageError("--class and --against name the same class")
    if split is not None:
        if this or against or save or proposal_weights or random_orders == 0:
            raise click.UsageError(
                "--class, --against, --save, --proposal-weights and --random-orders 0 are for IMAGES, not for --split"
            )
        options.check_own_folder(context)
        asked = Asked(split, count or COUNT, seed, random_orders or RANDOM_ORDERS, method)
        explain_split(run, boxes, root, asked, as_json, device)
        return
    propose = proposer(header, proposal_weights)
    named = [*find_inputs(images, sys.stdin.buffer)]
    inputs, videos = [one for one in named if not one.is_video], [one for one in named if one.is_video]
    limit = pixel_limit(header.proposals)
    if some_can_be_read(inputs, limit, decode=True):
        orders = ORDERS_OF_ONE if random_orders is None else random_orders
        found = list(_explanations(run, inputs, propose, (chosen[0], chosen[1]), method, orders, seed, device))
    else:
        found = [*unreadable_inputs(inputs, limit)]
    if not some_can_be_read(videos, limit, decode=False):
        found, videos = [*found, *unreadable_inputs(videos, limit)], []
    done, undone = _show(run, header, found, save, as_json)
    if videos:
        told = explain_videos(run, videos, propose, (chosen[0], chosen[1]), method, device, save, as_json)
        done, undone = done + told[0], undone + told[1]
    finish(done, undone, 0, None)


def _show(
    run: Path, header: CheckpointHeader, found: list[Explanation | Unreadable], save: Path | None, as_json: bool
) -> tuple[int, int]:
    """Print explanations and draw them into ``save``, and tell what could not be read. Returns the number of each."""
    from ..data.text import printable
    from ..training.samples.reading import Unreadable

    explained = [one for one in found if not isinstance(one, Unreadable)]
    pictures = _save(save, run, header, explained) if save else []
    for number, one in enumerate(explained):
        click.echo(_json(one, pictures[number] if save else None) if as_json else _text(one))
    for picture in pictures:
        click.echo(f"written: {printable(str(picture))}", err=True)
    failed = [one for one in found if isinstance(one, Unreadable)]
    for problem in failed:
        click.echo(f"Error: {printable(problem.reason)}", err=True)
    return len(explained), len(failed)


def _number(name: str, classes: tuple[str, ...]) -> int:
    from ..data.errors import ConfigurationError
    from ..data.spelling import did_you_mean

    if name not in classes:
        raise ConfigurationError(f"the run has no class {name!r}{did_you_mean(name, classes)}")
    return classes.index(name)


def _explanations(
    run: Path,
    inputs: list[Input],
    propose: Propose | None,
    chosen: tuple[int | None, int | None],
    method: str | None,
    random_orders: int,
    seed: int,
    device: str,
) -> Iterator[Explanation | Unreadable]:
    """Load the network and explain the photographs, with a progress bar.

    To be called only once an image can be read: PyTorch takes seconds to load.
    """
    from ..data.images import pixel_limit
    from ..data.memory import keep_network_memory
    from ..training.answers.contributions import why_not
    from ..training.answers.explain import Question, explain_samples
    from ..training.answers.proof import Trials
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint
    from ..training.samples.reading import Unreadable, sample_of_input

    keep_network_memory()
    checkpoint = load_checkpoint(run)
    method = method or ("hirescam" if why_not(checkpoint.model) else "parts")
    say, where = partial(click.echo, err=True), choose_device(device, "fp32")
    limit = pixel_limit(checkpoint.proposals)
    samples = (sample_of_input(one, checkpoint.size_hw, propose, limit) for one in inputs)
    trials = Trials(random_orders, seed=seed) if random_orders else None
    passes = trials.passes(checkpoint.regions > 0) if trials else 1
    bar = progress_bar("explain", len(inputs) * passes, "pass" if trials else "image")
    question = Question(method, *chosen)
    for one in explain_samples(checkpoint, samples, where, question, say=say, trials=trials, done=bar.update):
        if trials is None or isinstance(one, Unreadable):
            bar.update(passes)
        yield one
    bar.close()


def _save(folder: Path, run: Path, header: CheckpointHeader, explained: list[Explanation]) -> list[Path]:
    """Draw the explanations, all on one scale."""
    from ..data.images import pixel_limit, read_image
    from ..training.answers.annotated import new_file
    from ..training.answers.explained_pictures import draw_explanation, full_colour
    from ..training.answers.pictures import Caption
    from ..training.answers.truth import known_images
    from ..training.runs.folder import display_name

    place = run if run.is_dir() else run.parent
    say_what_cannot_be_drawn([*header.classes, *(one.name for one in explained), display_name(run)])
    whose = f"by the run '{display_name(run)}', epoch {header.epoch}"
    known, full, saved = known_images(place, header), full_colour(explained), []
    for one in explained:
        image = read_image(one.name, pixel_limit(header.proposals))
        caption = Caption(header.classes, whose, truth=known.truth(one.name) if known else None)
        saved.append(draw_explanation(image, one, full, caption).save(new_file(folder, Path(one.name), ".png")))
    return saved


def _text(one: Explanation) -> str:
    from ..data.text import printable

    lines = [*lines_of(one, one.name), *([_proof_line(one.proof)] if one.proof else [])]
    return "\n".join(map(printable, lines))


def lines_of(one: Explanation, name: str, by_region: bool = True) -> Iterator[str]:
    """Lines of text about an explanation of what has this name; without ``by_region``, no single regions."""
    from ..training.answers.explained_pictures import attention_in_words, names_of_tokens

    this, against = one.probabilities
    if one.method == "attention":
        yield f"{name}: {one.this} {this:.1%}: {attention_in_words(one.evidence)}"
        return
    yield f"{name}: {one.this} {this:.1%} rather than {one.against} {against:.1%}: {one.evidence.total:+.3f} logits"
    if len(one.evidence.parts) > 1 and one.regions is not None:
        names, tokens, sums = names_of_tokens(one), one.evidence.tokens, one.evidence.subtotals(one.regions.layout)
        for word, numbers in zip(("for", "against"), one.evidence.strongest() if by_region else (), strict=False):
            found = ", ".join(f"region {names[number]} {tokens[number]:+.3f}" for number in numbers)
            yield f"  {word}: {found or 'no region'}"
        kinds = f"primary regions {sums.primary:+.3f}, pairs {sums.pairs:+.3f}, whole image {sums.whole:+.3f}"
        yield f"  {kinds}, bias {one.evidence.bias:+.3f}"
    elif one.method == "hirescam":
        yield f"  the map {one.evidence.tokens[0]:+.3f}, not in the map {one.evidence.bias:+.3f}"


def _proof_line(proof: Proof) -> str:
    from ..training.answers.proof import DELETION, MAP, RANDOM, beats

    fill, curves = next(iter(proof.items()))
    areas = curves.areas(DELETION)
    return (
        f"  proof: {beats(curves)}; mean probability as places are taken away ({fill}) {areas[MAP]:.3f}, at random "
        f"{areas[RANDOM]:.3f}"
    )


def token_records(one: Explanation, evidence: Explained) -> list[dict[str, Any]]:
    """What each token of an explanation adds, by ``evidence``, the explanation's own or a frame's."""
    from ..training.answers.explained_pictures import names_of_tokens

    rows = zip(
        names_of_tokens(one), evidence.boxes.tolist(), evidence.tokens.tolist(), evidence.parts.tolist(), strict=True
    )
    return [{"name": name, "box": box, "adds": adds, "places": places} for name, box, adds, places in rows]


def _json(one: Explanation, picture: Path | None) -> str:
    evidence, is_attention = one.evidence, one.method == "attention"
    shares = dict(zip((one.this, one.against), one.probabilities, strict=True))
    values: dict[str, Any] = {"image": one.name, "class": one.this}
    if is_attention:
        values |= {"probabilities": {one.this: shares[one.this]}, "method": one.method}
        values["attention"] = evidence.parts[0].tolist()
    else:
        values |= {"against": one.against, "probabilities": shares, "method": one.method}
        values |= {"logits": evidence.total, "bias": evidence.bias, "tokens": token_records(one, evidence)}
        if one.shares is not None and len(evidence.parts) > 1:
            values["region_weights"] = one.shares.tolist()
    if one.proof:
        values["proof"] = {fill: _proof_values(curves) for fill, curves in one.proof.items()}
    if picture is not None:
        values["picture"] = str(picture)
    return json.dumps(values)


def _proof_values(curves: Curves) -> dict[str, Any]:
    """The curves of a proof, and how many random orders the map beats by deletion."""
    from ..training.answers.proof import DELETION, INSERTION, RANDOM

    found: dict[str, Any] = {"beats": curves.beaten(), "random_orders": len(curves.deletion[RANDOM])}
    for way, orders in ((DELETION, curves.deletion), (INSERTION, curves.insertion)):
        found[way] = {name: curve.tolist() if name == RANDOM else curve[0].tolist() for name, curve in orders.items()}
        found[f"{way}_areas"] = curves.areas(way)
    return found
