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
from .pictures import say_what_cannot_be_drawn
from .progress import finish, progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..training.answers.contributions import Explained
    from ..training.answers.explain import Explanation
    from ..training.runs.checkpoint_header import CheckpointHeader
    from ..training.samples.reading import Propose, Unreadable

METHODS = ("parts", "hirescam", "attention")


@click.command(short_help="Show what speaks for a class in photographs and videos.")
@options.run
@click.argument("images", nargs=-1, required=True)
@click.option("--class", "this", metavar="NAME", help="Class to explain.  [default: the likeliest]")
@click.option("--against", metavar="NAME", help="Class to tell it from.  [default: the likeliest of the others]")
@click.option(
    "--method",
    type=options.Choice(METHODS),
    help="Method. parts: the exact parts of AG-Net's logits by region and place; hirescam: gradient times activation "
    "of the last feature map, for every model; attention: what the network weighs, where it has attention, the same "
    "for every class.  [default: parts for agnet, hirescam for others]",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for a picture of each photograph, and a strip of frames and an MP4 of each video.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--proposal-weights",
    type=click.Path(path_type=Path),
    help="FILE that was given to agnet propose --weights, if a network proposes the regions.",
)
@options.device
def explain(
    run: Path,
    images: tuple[str, ...],
    this: str | None,
    against: str | None,
    method: str | None,
    save: Path | None,
    as_json: bool,
    proposal_weights: Path | None,
    device: str,
) -> None:
    """Show what speaks for a class rather than another one in photographs and videos.

    IMAGES are named as for agnet predict; videos come after all photographs. Unreadable files are reported and skipped;
    the exit code is then 1.
    """
    from ..data.files import check_folder_writable
    from ..data.images import pixel_limit
    from ..data.inputs import find_inputs
    from ..data.text import printable
    from ..predictor import proposer
    from ..training.runs.checkpoint_header import read_header
    from ..training.runs.folder import checkpoint_of
    from ..training.samples.reading import Unreadable, some_can_be_read, unreadable_inputs
    from .explained_videos import explain_videos

    header = read_header(checkpoint_of(run))
    propose = proposer(header, proposal_weights)
    if save:
        check_folder_writable(save, "name another folder with --save")
    if method == "attention" and (this is not None or against is not None):
        raise click.UsageError("attention is the same for every class: leave out --class and --against")
    chosen = [None if name is None else _number(name, header.classes) for name in (this, against)]
    if this is not None and chosen[0] == chosen[1]:
        raise click.UsageError("--class and --against name the same class")
    named = [*find_inputs(images, sys.stdin.buffer)]
    inputs, videos = [one for one in named if not one.is_video], [one for one in named if one.is_video]
    limit = pixel_limit(header.proposals)
    if some_can_be_read(inputs, limit, decode=True):
        found = list(_explanations(run, inputs, propose, (chosen[0], chosen[1]), method, device))
    else:
        found = [*unreadable_inputs(inputs, limit)]
    if not some_can_be_read(videos, limit, decode=False):
        found, videos = [*found, *unreadable_inputs(videos, limit)], []
    explained = [one for one in found if not isinstance(one, Unreadable)]
    pictures = _save(save, run, header, explained) if save else []
    for number, one in enumerate(explained):
        click.echo(_json(one, pictures[number] if save else None) if as_json else _text(one))
    for picture in pictures:
        click.echo(f"written: {printable(str(picture))}", err=True)
    failed = [one for one in found if isinstance(one, Unreadable)]
    for problem in failed:
        click.echo(f"Error: {printable(problem.reason)}", err=True)
    done = (
        explain_videos(run, videos, propose, (chosen[0], chosen[1]), method, device, save, as_json)
        if videos
        else (0, 0)
    )
    finish(len(explained) + done[0], len(failed) + done[1], 0, None)


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
    device: str,
) -> Iterator[Explanation | Unreadable]:
    """Load the network and explain the photographs, with a progress bar.

    To be called only once an image can be read: PyTorch takes seconds to load.
    """
    from ..data.images import pixel_limit
    from ..data.memory import keep_network_memory
    from ..training.answers.contributions import why_not
    from ..training.answers.explain import Question, explain_samples
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint
    from ..training.samples.reading import sample_of_input

    keep_network_memory()
    checkpoint = load_checkpoint(run)
    method = method or ("hirescam" if why_not(checkpoint.model) else "parts")
    say, where = partial(click.echo, err=True), choose_device(device, "fp32")
    limit = pixel_limit(checkpoint.proposals)
    samples = (sample_of_input(one, checkpoint.size_hw, propose, limit) for one in inputs)
    bar = progress_bar("explain", len(inputs))
    for one in explain_samples(checkpoint, samples, where, Question(method, *chosen), say=say):
        bar.update()
        yield one
    bar.close()


def _save(folder: Path, run: Path, header: CheckpointHeader, explained: list[Explanation]) -> list[Path]:
    """Draw the explanations, all on one scale."""
    from ..data.drawing import save_picture
    from ..data.images import pixel_limit, read_image
    from ..training.answers.annotated import new_file
    from ..training.answers.explained_pictures import draw_explanation, full_colour
    from ..training.answers.truth import known_images

    place = run if run.is_dir() else run.parent
    say_what_cannot_be_drawn([*header.classes, *(one.name for one in explained), place.resolve().name])
    whose = f"by the run '{place.resolve().name}', epoch {header.epoch}"
    known, full, saved = known_images(place, header), full_colour(explained), []
    for one in explained:
        image = read_image(one.name, pixel_limit(header.proposals))
        truth = known.truth(one.name) if known else None
        picture = draw_explanation(image, one, full, whose, truth)
        saved.append(save_picture(picture, new_file(folder, Path(one.name), ".png")))
    return saved


def _text(one: Explanation) -> str:
    from ..data.text import printable

    return "\n".join(map(printable, lines_of(one, one.name)))


def lines_of(one: Explanation, name: str) -> Iterator[str]:
    """Lines of text about an explanation of what has this name."""
    from ..training.answers.explained_pictures import attention_in_words, names_of_tokens

    this, against = one.probabilities
    if one.method == "attention":
        yield f"{name}: {one.this} {this:.1%}: {attention_in_words(one.evidence)}"
        return
    yield f"{name}: {one.this} {this:.1%} rather than {one.against} {against:.1%}: {one.evidence.total:+.3f} logits"
    if len(one.evidence.parts) > 1 and one.regions is not None:
        names, tokens, sums = names_of_tokens(one), one.evidence.tokens, one.evidence.subtotals(one.regions.layout)
        for word, numbers in zip(("for", "against"), one.evidence.strongest(), strict=True):
            found = ", ".join(f"region {names[number]} {tokens[number]:+.3f}" for number in numbers)
            yield f"  {word}: {found or 'no region'}"
        kinds = f"primary regions {sums.primary:+.3f}, pairs {sums.pairs:+.3f}, whole image {sums.whole:+.3f}"
        yield f"  {kinds}, bias {one.evidence.bias:+.3f}"
    elif one.method == "hirescam":
        yield f"  the map {one.evidence.tokens[0]:+.3f}, not in the map {one.evidence.bias:+.3f}"


def token_records(one: Explanation, evidence: Explained) -> list[dict[str, Any]]:
    """What each token of an explanation adds, by ``evidence``, the explanation's own or a frame's."""
    from ..training.answers.explained_pictures import names_of_tokens

    rows = zip(
        names_of_tokens(one), evidence.boxes.tolist(), evidence.tokens.tolist(), evidence.parts.tolist(), strict=True
    )
    return [{"name": name, "box": box, "adds": adds, "places": places} for name, box, adds, places in rows]


def _json(one: Explanation, picture: Path | None) -> str:
    evidence = one.evidence
    if one.method == "attention":
        values: dict[str, Any] = {
            "image": one.name,
            "class": one.this,
            "probabilities": {one.this: one.probabilities[0]},
            "method": one.method,
            "attention": evidence.parts[0].tolist(),
        }
        return json.dumps(values | ({} if picture is None else {"picture": str(picture)}))
    values = {
        "image": one.name,
        "class": one.this,
        "against": one.against,
        "probabilities": {one.this: one.probabilities[0], one.against: one.probabilities[1]},
        "method": one.method,
        "logits": evidence.total,
        "bias": evidence.bias,
        "tokens": token_records(one, evidence),
    }
    if one.shares is not None and len(evidence.parts) > 1:
        values["region_weights"] = one.shares.tolist()
    if picture is not None:
        values["picture"] = str(picture)
    return json.dumps(values)
