"""What `agnet explain` does with videos, and how it tells of their clips."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .pictures import say_what_cannot_be_drawn
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.inputs import Input
    from ..training.answers.explained_clips import ClipExplainer, ExplainedClip
    from ..training.answers.truth import KnownImages
    from ..training.samples.reading import Propose, Unreadable


def explain_videos(
    run: Path,
    videos: Sequence[Input],
    propose: Propose | None,
    chosen: tuple[int | None, int | None],
    method: str | None,
    device: str,
    save: Path | None,
    as_json: bool,
) -> tuple[int, int]:
    """Explain videos one after the other, and tell and draw each as soon as it is explained.

    Returns: numbers of explained and of unreadable videos.
    """
    from ..data.text import printable
    from ..training.samples.reading import Unreadable

    explainer, said, failed = _explainer(run, propose, chosen, method, device), 0, 0
    draw = _drawer(save, run, explainer, [video.name for video in videos]) if save else None
    bar = progress_bar("explain", len(videos), "video")
    for video in videos:
        found = list(explainer.explain(video.name))
        clips, problems = _parted(found)
        pictures: tuple[Path, ...] | Unreadable = draw(clips) if draw and clips else ()
        if isinstance(pictures, Unreadable):
            problems, pictures = [*problems, pictures], ()
        for clip in clips:
            click.echo(json.dumps(_record(clip, pictures)) if as_json else "\n".join(map(printable, _lines(clip))))
        for picture in pictures:
            click.echo(f"written: {printable(str(picture))}", err=True)
        for problem in problems:
            click.echo(f"Error: {printable(problem.reason)}", err=True)
        said, failed = said + bool(clips), failed + bool(problems)
        bar.update()
    bar.close()
    return said, failed


def _explainer(
    run: Path,
    propose: Propose | None,
    chosen: tuple[int | None, int | None],
    method: str | None,
    device: str,
) -> ClipExplainer:
    """Load the network. To be called only once a video is there: PyTorch takes seconds to load."""
    from ..data.memory import keep_network_memory
    from ..predictor import tubes_proposer
    from ..training.answers.contributions import why_not
    from ..training.answers.explain import Question
    from ..training.answers.explained_clips import ClipExplainer
    from ..training.machine.devices import choose_device
    from ..training.runs.checkpoints import load_checkpoint

    keep_network_memory()
    checkpoint = load_checkpoint(run)
    method = method or ("hirescam" if why_not(checkpoint.model) else "parts")
    where = choose_device(device, "fp32")
    return ClipExplainer(checkpoint, where, Question(method, *chosen), propose, tubes_proposer(checkpoint))


def _parted(found: Sequence[ExplainedClip | Unreadable]) -> tuple[list[ExplainedClip], list[Unreadable]]:
    from ..training.samples.reading import Unreadable

    clips = [one for one in found if not isinstance(one, Unreadable)]
    return clips, [one for one in found if isinstance(one, Unreadable)]


def _drawer(
    save: Path, run: Path, explainer: ClipExplainer, names: Sequence[str]
) -> Callable[[list[ExplainedClip]], tuple[Path, ...] | Unreadable]:
    """A function that draws the clips of a video, and returns the files or why there are none."""
    from ..training.answers.truth import known_images
    from ..training.runs.folder import display_name

    place, checkpoint = run if run.is_dir() else run.parent, explainer.checkpoint
    say_what_cannot_be_drawn([*checkpoint.classes, *names, display_name(run)])
    whose = f"by the run '{display_name(run)}', epoch {checkpoint.epoch}"
    return partial(_draw, save=save, whose=whose, known=known_images(place, checkpoint), explainer=explainer)


def _draw(
    clips: list[ExplainedClip], save: Path, whose: str, known: KnownImages | None, explainer: ClipExplainer
) -> tuple[Path, ...] | Unreadable:
    from ..data.errors import ImageError
    from ..data.images import pixel_limit
    from ..training.answers.explained_clip_pictures import save_explained
    from ..training.answers.pictures import Caption
    from ..training.samples.reading import Unreadable

    name, checkpoint = clips[0].whole.name, explainer.checkpoint
    caption = Caption(checkpoint.classes, whose, truth=known.truth(name) if known else None)
    try:
        return save_explained(clips, save, caption, pixel_limit(checkpoint.proposals))
    except ImageError as error:
        return Unreadable(name, str(error))


def _lines(clip: ExplainedClip) -> Iterator[str]:
    from ..training.answers.explained_pictures import attention_in_words
    from .explain import lines_of

    first, last = clip.frames[0].seconds, clip.frames[-1].seconds
    is_attention = clip.whole.method == "attention"
    yield from lines_of(clip.whole, f"{clip.whole.name}, {first:.1f} to {last:.1f} s", by_region=clip.tubes)
    for frame in clip.frames:
        said = attention_in_words(frame.evidence) if is_attention else f"{frame.adds:+.3f}"
        yield f"  {frame.seconds:.1f} s: {said}"


def _record(clip: ExplainedClip, pictures: Sequence[Path]) -> dict[str, Any]:
    whole, frames = clip.whole, clip.frames
    is_attention = whole.method == "attention"
    shares = dict(zip((whole.this, whole.against), whole.probabilities, strict=True))
    values: dict[str, Any] = {
        "video": whole.name,
        "from": round(frames[0].seconds, 3),
        "to": round(frames[-1].seconds, 3),
        "class": whole.this,
        "probabilities": {whole.this: shares[whole.this]} if is_attention else shares,
        "method": whole.method,
    }
    if not is_attention:
        values |= {"against": whole.against, "logits": whole.evidence.total, "bias": whole.evidence.bias}
    values["frames"] = [_frame_record(clip, number) for number in range(len(frames))]
    return values | ({"pictures": [str(picture) for picture in pictures]} if pictures else {})


def _frame_record(clip: ExplainedClip, number: int) -> dict[str, Any]:
    from .explain import token_records

    frame = clip.frames[number]
    values: dict[str, Any] = {"frame": frame.number, "seconds": round(frame.seconds, 3)}
    if clip.whole.method == "attention":
        return values | {"attention": frame.evidence.parts[0].tolist()}
    return values | {"adds": frame.adds, "tokens": token_records(clip.whole, frame.evidence)}
