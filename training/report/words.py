"""The sentences of the page: each says what the files say, with its interval, and no more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ...data.fields import size_text
from ...data.text import percent
from ..measure.evaluation_report import number
from ..runs import words as run_words
from ..titles import CLIP, CLIP_MEASURES
from .facts import Facts, Row

_TILES = ("top1", "mean_average_precision", "mean_class_accuracy", "calibration_error", "negative_log_likelihood")
_SHORT = {"calibration_error": "calibration error", "negative_log_likelihood": "neg. log-likelihood"}
_FEW = "few keypoints"


@dataclass(frozen=True)
class Tile:
    """A number of the page's head, with what is to be read with it."""

    title: str
    value: str
    note: str


def data_name(facts: Facts) -> str:
    """The data set's name for people."""
    return run_words.data_name(facts.config, facts.boxes.title if facts.boxes else "")


def model_name(facts: Facts) -> str:
    """The network in a few words."""
    return run_words.model_name(facts.config["model"])


def verdict(facts: Facts) -> str:
    """The result in a sentence with its interval."""
    found = facts.measures["cmc1" if facts.classified is None else "top1"]
    value = percent(found.value) if found.sd is None else f"{_bare(found.value)} ± {percent(found.sd)}"
    over = f"{facts.called} and seeds" if found.sd is not None else f"these {facts.called}"
    n = count(facts)
    held = f"95% interval over {over}: {_bare(found.interval.low)} to {percent(found.interval.high)}"
    seeds = f"{len(facts.seeds)} seeds, mean ± sd" if found.sd is not None else "one seed"
    if facts.classified is None:
        return f"The nearest image shows the same person for {value} of {n} queries ({held}; {seeds})."
    return f"{value} of {n} {facts.split} {facts.called} are classified correctly ({held}; {seeds})."


def count(facts: Facts) -> str:
    """The number of rows that count."""
    counted = [row for row in facts.rows if facts.classified is not None or row.precision is not None]
    return f"{len(counted):,}"


def counted(facts: Facts, number: int) -> str:
    """A number of rows with their name, such as "1 image"."""
    one = {"queries": "query"}.get(facts.called, facts.called.removesuffix("s"))
    return f"{number:,} {one if number == 1 else facts.called}"


def bounds(facts: Facts) -> Iterator[str]:
    """What so few rows cannot show, and what to read the result against."""
    if (found := facts.classified) is not None:
        most = int(found.confusion.sum(axis=1).max())
        yield f"Always naming the most frequent class would be right for {percent(most / len(facts.rows))}."
    main = facts.measures["cmc1" if facts.classified is None else "top1"].interval
    half = 50 * (main.high - main.low)
    yield f"With {count(facts)} {facts.called}, the result is known to about ±{half:.1f} points."
    if facts.classified is not None and facts.classified.classes:
        widest = max(facts.classified.classes, key=lambda one: one.interval.high - one.interval.low)
        half = 50 * (widest.interval.high - widest.interval.low)
        images = counted(facts, widest.images)
        yield f"A class is known far less well: {widest.name}, with {images}, to about ±{half:.0f} points."
    if len(facts.seeds) == 1:
        yield "One seed does not show how much another training of the same network would differ."


def tiles(facts: Facts) -> Iterator[Tile]:
    """The measures, and whether the rows are new to the network."""
    for name in _TILES if facts.classified is not None else facts.titles:
        found = facts.measures[name]
        title = _SHORT.get(name, facts.titles[name])
        note = f"{_value(name, found.interval.low).removesuffix('%')} to {_value(name, found.interval.high)}"
        if name == "calibration_error" and facts.classified is not None:
            note += f"; {surety(facts)}"
        yield Tile(title, _value(name, found.value), note)
    yield from _clip_tiles(facts)
    copies = sum(bool(row.about.copies) for row in facts.rows)
    seen = "unknown" if facts.seen is None else f"{facts.seen:,}"
    yield Tile(f"{facts.called} seen in training", seen, f"of {len(facts.rows):,}, by content")
    if facts.has_details and facts.classified is not None:
        yield Tile("copies of training images", f"{copies:,}", "the same content; look-alikes were not looked for")


def _clip_tiles(facts: Facts) -> Iterator[Tile]:
    """Clip and frame accuracy of the first seed, where they say more than that of videos."""
    clips = facts.metrics.get("clips") or {}
    for name, title in CLIP_MEASURES.items():
        if clips.get(name) is not None and (name != CLIP or clips["clips"] > clips["videos"]):
            held = clips["intervals"][name]
            of = f", seed {facts.seeds[0]}" if len(facts.seeds) > 1 else ""
            yield Tile(title, percent(clips[name]), f"{_bare(held['low'])} to {percent(held['high'])}{of}")


def surety(facts: Facts) -> str:
    """Whether the answers are surer than right, in words."""
    assert facts.classified is not None
    found = facts.classified.metrics.miscalibration
    if found.interval.low <= 0 <= found.interval.high:
        return "over- or under-confident: not shown"
    return "over-confident" if found.overconfidence > 0 else "under-confident"


def surety_text(facts: Facts) -> str:
    """The sign of the miscalibration with its interval, as a sentence."""
    assert facts.classified is not None
    found = facts.classified.metrics.miscalibration
    if found.interval.low <= 0 <= found.interval.high:
        return signed(f"Neither over- nor under-confidence is shown: the answers are measured {found.text}.")
    often = "less" if found.overconfidence > 0 else "more"
    return f"The answers are {found.text}: they are right {often} often than their probabilities say."


def badges(row: Row) -> list[str]:
    """What to know about an image before judging the answer."""
    found = ["copy of a training image"] if row.about.copies else []
    return found + ([_FEW] if row.about.status == _FEW else [])


def tip(row: Row) -> str:
    """Everything that is known of an image, as one text."""
    parts = [row.name]
    if row.best:
        parts.append(" · ".join(f"{name} {percent(share)}" for name, share in row.best))
    if row.precision is not None:
        parts.append(f"average precision {percent(row.precision)}; nearest: {row.nearest}")
    found = row.about
    about = [f"{found.size} pixels" if found.size else "", f"{found.keypoints} keypoints" if found.keypoints else ""]
    parts.append(", ".join(part for part in about if part))
    parts.append(f"same content as {row.about.copies}" if row.about.copies else "")
    return "\n".join(part for part in parts if part)


def training_text(facts: Facts) -> Iterator[str]:
    """How the networks were trained, in sentences."""
    recipe = facts.config["recipe"]
    for seed, log in zip(facts.seeds, facts.logs, strict=True):
        if log:
            yield f"Seed {seed}: {run_words.epochs(facts.config, log)}"
    drawn = [
        *(["augmented views"] if recipe.get("augment") else []),
        *(["smoothed labels"] if recipe.get("label_smoothing") and not has_cross_entropy(facts) else []),
        *(["mixed images"] if recipe.get("mixup") else []),
    ]
    if drawn:
        on = " and ".join(drawn)
        yield f"The training loss is of {on}, taken while the network changes; the validation loss is of plain images."


def has_cross_entropy(facts: Facts) -> bool:
    """Whether the log has the plain cross-entropy of training, which is like the validation loss."""
    return any("train_cross_entropy" in line for log in facts.logs for line in log)


def has_validation(facts: Facts) -> bool:
    """Whether the epochs were validated."""
    return run_words.has_validation(facts.logs)


def limits(facts: Facts) -> Iterator[str]:
    """What the result does not say, from facts only."""
    split = "" if facts.classified is None else f"{facts.split} "
    yield f"All results are of {len(facts.rows):,} {split}{facts.called} of one data set, {data_name(facts)}."
    if len(facts.seeds) == 1:
        yield "One seed: differences from another run may be chance of the training as well as of the images."
    else:
        yield f"Classes, images and confidence are of seed {facts.seeds[0]} alone, only the measures of all seeds."
    yield from _of_rows(facts)
    yield from run_words.training_limits(facts.config, dict(zip(facts.seeds, facts.logs, strict=True)))
    yield from _of_data(facts)


def _of_rows(facts: Facts) -> Iterator[str]:
    """What makes the measured rows easier or harder than new ones."""
    if facts.seen is None:
        yield f"It is unknown whether the network was trained on some of these {facts.called}."
    elif facts.seen:
        yield f"{counted(facts, facts.seen)} of these were used in training or to choose the epoch: too good a result."
    if copies := sum(bool(row.about.copies) for row in facts.rows):
        yield f"Of {counted(facts, copies)}, the content is that of a training image."
    yield "Photographs that look like a training image were not looked for; `agnet datasets NAME --verify` finds them."
    if few := sum(row.about.status == _FEW for row in facts.rows):
        yield f"Of {counted(facts, few)}, too few keypoints were found: every region is the whole image."


def _of_data(facts: Facts) -> Iterator[str]:
    if facts.split not in ("test", "query"):
        yield f"{facts.split} is not the test split."
    if unreadable := facts.config["boxes"].get("left_out_unreadable"):
        yield f"Unreadable and in no result: {unreadable:,} of the data set."
    if facts.boxes is not None and facts.boxes.val_is_test:
        yield "The data set's authors call this test split val: choices made on it elsewhere may favour it."
    if (said := flaws(facts)) is not None:
        yield f"Known of the data set: {said}."


def flaws(facts: Facts) -> str | None:
    """Known flaws of a named data set."""
    return run_words.flaws(facts.config)


def making(facts: Facts) -> Iterator[tuple[str, str]]:
    """How the run was made, as names and values."""
    for name, value in run_words.making(facts.config):
        if name == "versions":
            yield "input", f"{size_text(facts.image_size)} pixels"
        yield name, value


def signed(text: str) -> str:
    """Numbers with a typographic minus, which is as wide as the plus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\N{MINUS SIGN}", text)


def make_it(facts: Facts, *words: str) -> str:
    """The command that makes what the page lacks: of several seeds, explanations are those of the first."""
    several = words[0] == "explain" and len(facts.folders) > 1
    run = f"{facts.folder}/{facts.folders[0]}" if several else facts.folder
    return shlex.join(["agnet", words[0], "--run", run, *words[1:]])


def _value(name: str, value: float) -> str:
    return number(name, value) if name == "negative_log_likelihood" else percent(value)


def _bare(share: float) -> str:
    return percent(share).removesuffix("%")
