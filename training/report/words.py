"""The sentences of the page: each says what the files say, with its interval, and no more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ...data.fields import size_text
from ...data.sets.catalogue import CATALOGUE
from ...data.text import percent, rough_time
from ..measure.evaluation_report import number
from ..measure.videos import CLIP, TITLES
from ..models.registry import MODELS, settings_of
from ..runs.folder import seconds_of
from .facts import Facts, Row

_TILES = ("top1", "mean_average_precision", "mean_class_accuracy", "calibration_error", "negative_log_likelihood")
_SHORT = {"calibration_error": "calibration error", "negative_log_likelihood": "neg. log-likelihood"}
_FEW = "few keypoints"
_MODELS = {"agnet": "AG-Net", "plain": "plain backbone", "srbn": "SRBN", "bcnn": "B-CNN", "alstm": "ALSTM"}


@dataclass(frozen=True)
class Tile:
    """A number of the page's head, with what is to be read with it."""

    title: str
    value: str
    note: str


def data_name(facts: Facts) -> str:
    """The data set's name for people."""
    root = str(facts.config.get("command", {}).get("options", {}).get("root") or "")
    dataset = str(facts.config["boxes"].get("dataset", ""))
    named = facts.boxes.title if facts.boxes else CATALOGUE[dataset].title if dataset in CATALOGUE else dataset
    own = dataset in CATALOGUE and CATALOGUE[dataset].is_own
    return (root.rstrip("/").rsplit("/", 1)[-1] or named) if own and not facts.boxes else named


def model_name(facts: Facts) -> str:
    """The network in a few words."""
    model = facts.config["model"]
    family = str(model.get("model", "agnet"))
    try:
        backbones = settings_of(model).backbones
    except (LookupError, TypeError, ValueError):
        backbones = str(model.get("backbone", ""))
    return f"{_MODELS.get(family, family)}, {backbones}" if family in MODELS else family


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
    for name, title in TITLES.items():
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
            chosen = next((line for line in reversed(log) if line.get("best")), log[-1])
            took = rough_time(seconds_of(log))
            why = f"the best by {_chosen_by(recipe.get('select_by'))}" if has_validation(facts) else "the last"
            epochs = f"{len(log)} of {recipe.get('epochs')} epochs in {took}"
            yield f"Seed {seed}: {epochs}; epoch {chosen.get('epoch')} was kept, {why}."
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
    return any(name.startswith("val_") for log in facts.logs for line in log for name in line)


def _chosen_by(measure: object) -> str:
    """The measure that chose the epoch, in words."""
    return str(measure or "val_loss").replace("val_", "validation ").replace("top1", "top-1").replace("map", "mAP")


def limits(facts: Facts) -> Iterator[str]:
    """What the result does not say, from facts only."""
    split = "" if facts.classified is None else f"{facts.split} "
    yield f"All results are of {len(facts.rows):,} {split}{facts.called} of one data set, {data_name(facts)}."
    if len(facts.seeds) == 1:
        yield "One seed: differences from another run may be chance of the training as well as of the images."
    else:
        yield f"Classes, images and confidence are of seed {facts.seeds[0]} alone, only the measures of all seeds."
    yield from _of_rows(facts)
    yield from _of_training(facts)
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


def _of_training(facts: Facts) -> Iterator[str]:
    yield from _epochs(facts)
    if facts.config["recipe"].get("backbone_lr") == 0:
        yield "The backbone was not trained: its weights are those it came with."
    if not (facts.config["boxes"].get("images") or {}).get("val"):
        yield "There was no validation split."


def _of_data(facts: Facts) -> Iterator[str]:
    if facts.split not in ("test", "query"):
        yield f"{facts.split} is not the test split."
    if unreadable := facts.config["boxes"].get("left_out_unreadable"):
        yield f"Unreadable and in no result: {unreadable:,} of the data set."
    if facts.boxes is not None and facts.boxes.val_is_test:
        yield "The data set's authors call this test split val: choices made on it elsewhere may favour it."
    if (said := flaws(facts)) is not None:
        yield f"Known of the data set: {said}."


def _epochs(facts: Facts) -> Iterator[str]:
    """What the log says against the training."""
    recipe, last = facts.config["recipe"], []
    for seed, log in zip(facts.seeds, facts.logs, strict=True):
        if log and len(log) < int(recipe.get("epochs") or 0) and not recipe.get("patience"):
            yield f"Seed {seed} was not trained to the end: {len(log)} of {recipe['epochs']} epochs."
        elif len(log) > 1 and log[-1].get("best") and has_validation(facts):
            last.append(str(seed))
    if last:
        seeds = f"seed{'s' if len(last) > 1 else ''} {', '.join(last)}"
        yield f"The last epoch was the best of {seeds}: a longer training may change the result."


def flaws(facts: Facts) -> str | None:
    """Known flaws of a named data set."""
    entry = CATALOGUE.get(str(facts.config["boxes"].get("dataset")))
    return (entry.flaws or None) if entry else None


def making(facts: Facts) -> Iterator[tuple[str, str]]:
    """How the run was made, as names and values."""
    config = facts.config
    run, code, versions = config["run"], config.get("code") or {}, config["versions"]
    if code:
        changed = ", with changes that are not committed" if code.get("git_dirty") else ""
        yield "revision", f"{code.get('git_revision') or 'unknown'}{changed}"
    yield "command", command(facts)
    yield "device", f"{run.get('device')}, {run.get('precision')}"
    if (hardware := config.get("hardware")) is not None:
        cores = f"cores: {hardware.get('cores')}, threads: {hardware.get('threads')}"
        yield "hardware", ", ".join(str(part) for part in (hardware.get("gpu"), hardware.get("cpu"), cores) if part)
    yield "starting weights", str(run.get("weights"))
    size = f"{size_text(facts.image_size)} pixels"
    yield "input", f"{facts.views} (photograph of {size}), log-probabilities averaged" if facts.views else size
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def command(facts: Facts) -> str:
    """The options that the run was started with, as a command."""
    made = facts.config.get("command") or {}
    words = ["agnet", "train", *(["--recipe", str(made["recipe"])] if made.get("recipe") else [])]
    for name, value in (made.get("options") or {}).items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif name == "image_size":
            words += [f"--{option}", size_text(value)]
        elif value is not None:
            words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


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
