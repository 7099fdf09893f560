"""Model card of a run, ``README.md`` in the format of the Hugging Face hub, from the run's own files.

What the files do not say is left out or said to be unknown. Neither PyTorch nor huggingface_hub is loaded.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...data.errors import CheckpointError
from ...data.files import write_text
from ...data.places import without_paths
from ...data.sets.catalogue import CATALOGUE
from ...data.text import file_name, markdown, markdown_table, percent, printable, rough_time
from ..bootstrap import Interval
from ..models.contract import Views
from ..models.registry import needs_of, settings_of
from ..titles import CLIP_MEASURES, MEASURES, SEARCH_MEASURES, VIDEO_ACCURACY, between, number
from . import words
from .checkpoint_header import read_values
from .folder import LOG, PULLED, checkpoint_of, read_config, read_log, seconds_of, writing

CARD = "README.md"
#: Line of every card that agnet wrote; one without it belongs to a person and is not replaced.
MARK = "<!-- agnet train and agnet evaluate replace this card; remove this line to keep your own text. -->"
SPLITS = ("test", "query", "val", "train-fold", "train")
#: Entries of a pushed configuration: what a card says of the epochs, as the log stays where it is, and the licence.
EPOCHS, LICENCE = "epochs", "licence"
_OF_AN_EPOCH = ("epoch", "seconds", "total_seconds", "images_per_second", "best")
#: Names of measures in the hub's metadata, where they are others.
_HUB_NAMES = {
    "top1": "accuracy",
    "top5": "top_5_accuracy",
    "mean_class_accuracy": "balanced_accuracy",
    "calibration_error": "expected_calibration_error",
    "map": "mean_average_precision",
}
_TASKS = {
    "image-classification": "Image classification",
    "video-classification": "Video classification",
    "image-feature-extraction": "Person re-identification",
}
_CLASSES = 40  # most classes that are listed
_WORST = 10
_CONFUSIONS = 5
_SUREST = (0.2, 0.5, 0.8, 1.0)  # shares of the images, the most confident ones, whose accuracy is told
#: What was known of the images of a split before they were measured.
_NOT_NEW = {"val": ", by which the epoch was chosen", "train": ", which it was trained on"}
_RECIPE = (
    *("optimizer", "lr", "backbone_lr", "weight_decay", "batch_size", "accumulate", "schedule", "warmup_epochs"),
    *("head_epochs", "label_smoothing", "mixup", "dropout", "class_weights", "augment", "ema_decay", "triplet"),
)
_DATA_UNKNOWN = "The data that this network was trained on is unknown: its weights came without a run."


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says."""

    name: str  #: heading
    header: words.Config  #: metadata of the weights
    config: words.Config  #: configuration of the run, without private paths; empty if there is none
    log: words.Log
    metrics: Mapping[str, words.Config]  #: metrics of this network by split
    run: str  #: what ``--run`` is told: name of a folder, or ``hf://OWNER/NAME``
    licence: str = ""  #: of the weights, as an identifier of the hub; empty if it was not told

    @property
    def images(self) -> Mapping[str, int]:
        """Number of images of each split that has some."""
        found = self.config["boxes"].get("images") or {} if self.config else {}
        return {split: int(count) for split, count in found.items() if count}

    @property
    def task(self) -> str:
        """Task of the network, as the hub names it."""
        if self.images.get("query") or "query" in self.metrics:
            return "image-feature-extraction"
        return "video-classification" if self.header.get("sampling") else "image-classification"

    @property
    def data(self) -> str:
        """Name of the data set."""
        return words.data_name(self.config) if self.config else "unknown data"

    @property
    def called(self) -> str:
        """What rows are called."""
        return {"video-classification": "videos", "image-feature-extraction": "queries"}.get(self.task, "images")

    @property
    def what(self) -> str:
        """What it answers for."""
        return "video" if self.task == "video-classification" else "photograph"

    @property
    def main(self) -> tuple[str, words.Config] | None:
        """The split that the network is judged by, with its metrics; None if there is none."""
        return next(((split, self.metrics[split]) for split in SPLITS if split in self.metrics), None)


def read_card_facts(run: Path, name: str = "", told: str = "", licence: str = "") -> CardFacts:
    """Read what a card says from a run's folder.

    Args:
        run: Folder of a single run, or of weights that came without one.
        name: Heading of the card. Empty: the title of the run, or the name of its folder.
        told: What ``--run`` is told in the card's commands. Empty: the name of the folder.
        licence: Licence of the weights, as an identifier of the hub.

    Raises: `CheckpointError` for a missing or damaged file.
    """
    header = read_values(checkpoint_of(run))
    try:
        config: words.Config = without_paths(read_config(run))
    except CheckpointError:
        config = {}
    return CardFacts(
        name=name or words.name_of(run, config),
        header=header,
        config=config,
        log=epochs_of_card(run, config),
        metrics=dict(metrics_of(run, header.get("epoch"))),
        run=told or printable(words.folder_name(run)),
        licence=licence,
    )


def epochs_of_card(run: Path, config: words.Config) -> list[dict[str, Any]]:
    """What a card says of each epoch, from the log of a run; of a pulled run, from its configuration.

    Raises: `CheckpointError` for a damaged log.
    """
    pushed = config.get(EPOCHS)
    log = read_log(run) if (run / LOG).is_file() else pushed if isinstance(pushed, list) else []
    lines = [line for line in log if isinstance(line, dict)]
    return [{name: value for name, value in line.items() if _is_told(name, value)} for line in lines]


def _is_told(name: str, value: object) -> bool:
    return (name in _OF_AN_EPOCH or name.startswith("val_")) and isinstance(value, (int, float))


def write_card(run: Path) -> Path | None:
    """Write the card of a single run into its folder, unless a person has taken it over or the run was pulled.

    Returns: its path; None if the run has no checkpoint yet, or keeps its card.
    Raises: `CheckpointError` if a file of the run is damaged or the card cannot be written.
    """
    path = run / CARD
    if not checkpoint_of(run).is_file() or not is_ours(path):
        return None
    facts = read_card_facts(run)
    if PULLED in facts.config:  # it tells what its owner measured
        return None
    with writing(run):
        write_text(path, card_text(facts))
    return path


def is_ours(path: Path) -> bool:
    """Whether a card may be replaced: there is none, or agnet wrote it."""
    try:
        return MARK in path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError):
        return False


def card_text(facts: CardFacts) -> str:
    """Write a card as Markdown with the metadata of the hub.

    Raises: `CheckpointError` if an entry of the run's files is not what it should be.
    """
    try:
        metadata = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True, width=120)
        blocks = [f"---\n{metadata}---", MARK, f"# {markdown(facts.name)}", _lead(facts)]
        for heading, lines in _sections(facts):
            if found := [*lines]:
                blocks += [f"## {heading}", *found]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"no model card can be written of {facts.name}: a file of the run has an unexpected entry ({error!r})"
        ) from None
    return "\n\n".join(blocks) + "\n"


def metrics_of(run: Path, epoch: object) -> Iterator[tuple[str, words.Config]]:
    """Metrics of the run's own splits; those of an earlier epoch's network, and damaged files, are left out."""
    for split in SPLITS:
        try:
            found = json.loads((run / metrics_file(split)).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("epoch") == epoch:
            yield split, found


def metrics_file(split: str) -> str:
    """Name of the file with the metrics of a split of the run's own boxes file."""
    return f"metrics-{split}.json"


def _metadata(facts: CardFacts) -> dict[str, Any]:
    """Metadata of the hub: https://huggingface.co/docs/hub/model-cards."""
    found: dict[str, Any] = {
        **({"license": facts.licence} if facts.licence else {}),
        "library_name": "agnet",
        "pipeline_tag": facts.task,
        "tags": ["agnet", "fine-grained", *_backbones(facts)],
    }
    if facts.main:
        found["model-index"] = [{"name": facts.name, "results": [_result(facts, *each) for each in _measured(facts)]}]
    return found


def _measured(facts: CardFacts) -> Iterator[tuple[str, words.Config]]:
    yield from ((split, facts.metrics[split]) for split in SPLITS if split in facts.metrics)


def _result(facts: CardFacts, split: str, metrics: words.Config) -> dict[str, Any]:
    dataset = str(facts.config["boxes"].get("dataset") or "") if facts.config else ""
    entry = CATALOGUE.get(dataset)
    kind = dataset if entry and not entry.is_own else file_name(facts.data)
    return {
        "task": {"type": facts.task, "name": _TASKS[facts.task]},
        "dataset": {"name": facts.data, "type": kind, "split": split},
        "metrics": [
            {"type": _HUB_NAMES.get(name, name), "name": title, "value": round(_value(metrics, name), 6)}
            for name, title in _titles(metrics).items()
        ],
    }


def _titles(metrics: words.Config) -> dict[str, str]:
    """Measures that a metrics file has, with their names in reports."""
    if metrics.get("clips"):
        named = {"top1": VIDEO_ACCURACY, **CLIP_MEASURES, **{k: v for k, v in MEASURES.items() if k != "top1"}}
    else:
        named = SEARCH_MEASURES if "cmc1" in metrics else MEASURES
    told = {**(metrics.get("clips") or {}), **metrics}
    return {name: title for name, title in named.items() if told.get(name) is not None}


def _value(metrics: words.Config, name: str) -> float:
    return float(metrics[name] if name in metrics else metrics["clips"][name])


def _interval(metrics: words.Config, name: str) -> Interval | None:
    """Interval of a measure; None in metrics that are older than intervals."""
    found = (metrics if name in metrics else metrics["clips"]).get("intervals", {}).get(name)
    return Interval(float(found["low"]), float(found["high"])) if found else None


def _backbones(facts: CardFacts) -> list[str]:
    try:
        return settings_of(facts.header["model"]).backbones.split(" + ")
    except (LookupError, TypeError, ValueError):
        return []


def _lead(facts: CardFacts) -> str:
    """What the network is, and its main result, in two sentences."""
    what = f"{words.model_name(facts.header['model'])}: {_number_of_classes(facts)} of {facts.data}."
    if facts.main is None:
        return f"{markdown(what)} It has not been measured on images that are new to it."
    split, metrics = facts.main
    name = "cmc1" if "cmc1" in metrics else "top1"
    count = f"{int(metrics['queries' if name == 'cmc1' else 'images']):,} {split} {facts.called}"
    interval = _interval(metrics, name)
    said = "the nearest image shows the same person" if name == "cmc1" else "the answer is right"
    held = f" (95% interval over these {facts.called}: {between(name, interval)})" if interval else ""
    count = count.replace("query queries", "queries") + _NOT_NEW.get(split, "")
    return f"{markdown(what)} For **{number(name, _value(metrics, name))}** of {count}, {said}{held}."


def _number_of_classes(facts: CardFacts) -> str:
    kind = "persons" if facts.task == "image-feature-extraction" else "classes"
    return f"{len(facts.header['classes']):,} {kind}"


def _sections(facts: CardFacts) -> Iterator[tuple[str, Iterator[str]]]:
    yield "Intended use", _use(facts)
    yield "How to use it", _how(facts)
    yield "Data", _data(facts)
    yield "Training", _training(facts)
    yield "Results", _results(facts)
    yield "Calibration", _calibration(facts)
    yield "Limits", _limits(facts)
    yield "Hardware, time and versions", _hardware(facts)
    yield "Source", _source(facts)


def _use(facts: CardFacts) -> Iterator[str]:
    classes = facts.header["classes"]
    if facts.task == "image-feature-extraction":
        yield (
            f"It finds photographs of a person again: its embeddings of photographs of one person are alike. The "
            f"{len(classes):,} classes are the persons it was trained on and say nothing about others."
        )
    else:
        listed = ", ".join(map(markdown, classes[:_CLASSES]))
        more = f" and {len(classes) - _CLASSES:,} more" if len(classes) > _CLASSES else ""
        yield f"It names the class that a {facts.what} shows, one of {len(classes):,}: {listed}{more}."
    yield f"{_input(facts)} What it does on other kinds of {facts.what}s was not measured."


def _input(facts: CardFacts) -> str:
    """The network's input, as a sentence."""
    sampling, proposals = facts.header.get("sampling"), facts.header.get("proposals") or {}
    seen = f"{sampling['frames']} RGB frames ({sampling['mode']}) of a video" if sampling else "an RGB image"
    told = f"Its input: {seen}, {_sizes(facts)}"
    if regions := needs_of(settings_of(facts.header["model"])).regions:
        of = "each" if sampling else "it"
        told += f", and {regions:,} regions of {of} that agnet finds (method {proposals.get('method', 'unknown')})"
    return f"{told}."


def _sizes(facts: CardFacts) -> str:
    """Sizes of the photographs that the network sees, in all its views, in words."""
    size, views = facts.header["preprocessing"]["size"], Views.of_record(facts.header.get("views"))
    own_hw = (size, size) if isinstance(size, int) else (size[0], size[1])
    sides = views.sizes if views else ()
    high, wide = views.input_hw(own_hw) if views else own_hw
    texts = [f"{side}x{side}" for side in sides] or [f"{high}x{wide}"]
    told = f"resized to {' and to '.join(texts)} pixels (height x width, not cropped)"
    if views is None:
        return told
    crops = "" if sides else f", of which it sees the four corners and the centre, {own_hw[0]}x{own_hw[1]} pixels each"
    return f"{told}{crops}; the logarithms of the views' probabilities are averaged"


def _how(facts: CardFacts) -> Iterator[str]:
    videos, persons = facts.task == "video-classification", facts.task == "image-feature-extraction"
    file = "video.mp4" if videos else "photo.jpg"
    gallery = " --gallery photographs" if persons else ""
    extra = f" With its extra `hub`, `--run {facts.run}` downloads this repository once." if _is_hub(facts) else ""
    yield f"agnet is installed from a copy of its own repository.{extra}"
    yield f"```bash\nagnet predict --run {shlex.quote(facts.run)} {file}{gallery}\n```"
    if videos:
        return
    code = f"import agnet\n\npredictor = agnet.load({json.dumps(facts.run)})\n"
    code += 'vectors = predictor.embed("photo.jpg")' if persons else 'print(predictor.predict("photo.jpg"))'
    if facts.header["model"].get("model") == "agnet":
        name = facts.run.removeprefix("hf://")
        code += f"\n\nnetwork = agnet.AGNet.from_pretrained({json.dumps(name)})  # the torch.nn.Module alone"
    yield f"```python\n{code}\n```"


def _is_hub(facts: CardFacts) -> bool:
    return facts.run.startswith("hf://")


def _data(facts: CardFacts) -> Iterator[str]:
    if not facts.config:
        yield _DATA_UNKNOWN
        return
    boxes = facts.config["boxes"]
    entry = CATALOGUE.get(str(boxes.get("dataset")))
    options = {name: value for name, value in (boxes.get("opened_with") or {}).items() if value not in (None, "")}
    rows = {
        "data set": facts.data,
        "images" if facts.called != "videos" else "videos": _counts(facts.images),
        "classes": f"{len(facts.header['classes']):,}",
        "split": entry.split if entry else "",
        "split options": ", ".join(f"{name} {value}" for name, value in options.items()),
        "unreadable, left out": str(boxes.get("left_out_unreadable", "unknown")),
        "licence of the images": (entry.licence if entry else "") or "unknown",
        "known flaws": words.flaws(facts.config) or "",
        "fingerprints": f"boxes {boxes.get('fingerprint')}, split {boxes.get('split_blake2b', 'unknown')}",
    }
    yield markdown_table([[name, value] for name, value in rows.items() if value])
    yield _duplicates(facts)


def _counts(images: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in images.items()) or "unknown"


def _duplicates(facts: CardFacts) -> str:
    """Known duplicates of training images among those that the network is judged by."""
    if facts.main is None:
        return "Whether test images also occur in train is counted by `agnet evaluate`, which has not run."
    split, metrics = facts.main
    count, seen = int(metrics["queries" if "cmc1" in metrics else "images"]), metrics.get("images_seen_in_training")
    look_alikes = (
        f"{facts.what.capitalize()}s that look alike were not looked for; `agnet datasets NAME --verify` finds them."
    )
    if seen is None:
        return f"It is unknown whether some {facts.what}s of {split} were used in training. {look_alikes}"
    number_of = f"{seen:,} of the {facts.what}s of" if seen else f"No {facts.what} of"
    return (
        f"{number_of} {split} ({count:,} {facts.called}) has the content of one that was used in training or to "
        f"choose the epoch{': the results are too good' if seen else ''}. {look_alikes}"
    )


def _training(facts: CardFacts) -> Iterator[str]:
    if not facts.config:
        yield "How it was trained is unknown."
        return
    run, recipe = facts.config["run"], facts.config["recipe"]
    backbones = " and ".join(_backbones(facts)) or "the backbone"
    lines = [f"- Backbone {backbones}, started from the weights `{run.get('weights')}`; seed {run.get('seed')}."]
    if facts.log:
        lines.append(f"- {words.epochs(facts.config, facts.log)}{_validation(facts)}")
    yield "\n".join(lines)
    named = str((facts.config.get("command") or {}).get("recipe") or "")
    rows = [(name, recipe[name]) for name in _RECIPE if recipe.get(name) not in (None, 0, 0.0, "none", False)]
    if "backbone_lr" in recipe and not recipe["backbone_lr"]:
        rows.append(("backbone_lr", "0 (frozen)"))
    heading = ["recipe", named] if named else ["setting", "value"]
    yield markdown_table([heading, *([name, f"{value}"] for name, value in rows)])
    yield f"```bash\n{words.command(facts.config)}\n```\n\nEvery setting is in `config.json`."


def _validation(facts: CardFacts) -> str:
    """The validation result of the epoch that was kept."""
    chosen = next((line for line in reversed(facts.log) if line.get("best")), {})
    if "val_top1" not in chosen:
        return ""
    return f" Its validation top-1 is {percent(chosen['val_top1'])}; the epoch was chosen on the same images."


def _results(facts: CardFacts) -> Iterator[str]:
    if not facts.metrics:
        yield "None yet: `agnet evaluate` has not run on this network."
    for split, metrics in _measured(facts):
        called = "queries" if "cmc1" in metrics else facts.called
        count = int(metrics["queries" if "cmc1" in metrics else "images"])
        note = _NOT_NEW.get(split, "")
        yield f"### {split}: {count:,} {called}{note}"
        rows = [["", "value", f"95% interval over {called}"]]
        for name, title in _titles(metrics).items():
            interval = _interval(metrics, name)
            rows.append([title, number(name, _value(metrics, name)), between(name, interval) if interval else ""])
        yield markdown_table(rows)
        if claim := metrics.get("papers_claim"):
            yield (
                f"The paper's claim for {markdown(str(claim['of']))} is a top-1 of {percent(claim['top1'], 2)}; no "
                "independent reproduction is known."
            )
        yield from _classes(metrics, called)


def _classes(metrics: words.Config, called: str) -> Iterator[str]:
    accuracies = {name: share for name, share in (metrics.get("class_accuracy") or {}).items() if share is not None}
    if not accuracies:
        return
    worst = sorted(accuracies, key=lambda name: accuracies[name])
    shown, of = worst, "Classes, the least accurate first"
    if len(worst) > _CLASSES:
        shown, of = worst[:_WORST], f"The {_WORST} least accurate of {len(worst):,} classes"
    rows = [["class", called, "accuracy", "95% interval"]]
    for name in shown:
        held = metrics.get("class_intervals", {}).get(name)
        ends = f"{percent(held['low']).removesuffix('%')} to {percent(held['high'])}" if held else ""
        rows.append([name, f"{metrics['class_images'][name]:,}", percent(accuracies[name]), ends])
    yield f"<details><summary>{of}</summary>\n\n{markdown_table(rows)}\n\n</details>"
    if said := _confusions(metrics):
        yield f"Most frequent confusions: {said}."


def _confusions(metrics: words.Config) -> str:
    """The most frequent confusions in words; empty if there are none."""
    names, matrix = [*metrics["class_images"]], metrics.get("confusion") or []
    pairs = [
        (count, names[true], names[taken], sum(line))
        for true, line in enumerate(matrix)
        for taken, count in enumerate(line)
        if true != taken and count
    ]
    most = sorted(pairs, key=lambda pair: -pair[0])[:_CONFUSIONS]
    return ", ".join(f"{markdown(true)} taken for {markdown(taken)} ({n:,} of {of:,})" for n, true, taken, of in most)


def _calibration(facts: CardFacts) -> Iterator[str]:
    """Whether the probabilities mean what they say, on the split that the network is judged by."""
    split, metrics = facts.main or ("", {})
    if "miscalibration" not in metrics:
        return
    error, interval = number("", metrics["calibration_error"]), _interval(metrics, "calibration_error")
    held = f" (95% {between('', interval)})" if interval else ""
    yield (
        f"On {split}, the answers are {metrics['miscalibration']['text']}. The expected calibration error, in 15 bins, "
        f"is {error}{held}. The probabilities were not recalibrated."
    )
    rows = [[f"{facts.called} answered", "probability from", "right", "95% interval"]]
    for share in _SUREST:
        point = next(one for one in metrics["coverage"] if one["coverage"] >= share)
        held = point["interval"]
        ends = f"{percent(held['low']).removesuffix('%')} to {percent(held['high'])}"
        rows.append(
            [f"the surest {point['coverage']:.0%}", f"{point['threshold']:.2f}", percent(point["accuracy"]), ends]
        )
    yield markdown_table(rows)


def _limits(facts: CardFacts) -> Iterator[str]:
    yield "\n".join(f"- {said}" for said in _each_limit(facts))


def _each_limit(facts: CardFacts) -> Iterator[str]:
    """What the results do not say, from facts only."""
    if facts.task != "image-feature-extraction":
        yield f"It always names one of its classes, also for a {facts.what} that shows none of them."
    if facts.main:
        split, metrics = facts.main
        name = "cmc1" if "cmc1" in metrics else "top1"
        if interval := _interval(metrics, name):
            half = 50 * (interval.high - interval.low)
            yield (
                f"With {int(metrics['images' if name == 'top1' else 'queries']):,} {facts.called}, the main result "
                f"is known to about ±{half:.1f} points."
            )
        yield f"All results are of one data set, {markdown(facts.data)}, and of one training (one seed)."
        if split not in ("test", "query"):
            yield f"{split} is not the test split."
    else:
        yield "Nothing is known about its accuracy."
    if facts.config:
        yield from map(markdown, words.training_limits(facts.config, {facts.config["run"].get("seed"): facts.log}))
        if unreadable := facts.config["boxes"].get("left_out_unreadable"):
            yield f"Unreadable and in no result: {unreadable:,} of the data set."
        if "fold" in facts.config:
            yield f"It was trained without fold {facts.config['fold']['number']} of the training images."
    proposals = facts.header.get("proposals") or {}
    if proposals.get("method") == "shuffled":
        yield "Its regions are those of other images, as a control: it is not for single photographs."
    if proposals.get("weights", "default") != "default":
        yield f"Its regions need the weights `{proposals['weights']}` (`--proposal-weights`), which are not part of it."


def _hardware(facts: CardFacts) -> Iterator[str]:
    if not facts.config:
        yield "Unknown."
        return
    rows = {name: value for name, value in words.making(facts.config) if name not in ("command", "starting weights")}
    if "hardware" not in rows:
        rows["hardware"] = "unknown"
    if facts.log:
        rows["time of training"] = rough_time(seconds_of(facts.log))
        if speed := facts.log[-1].get("images_per_second"):
            rows["images a second"] = f"{speed:.1f} (last epoch)"
    yield markdown_table([[name, value] for name, value in rows.items()])


def _source(facts: CardFacts) -> Iterator[str]:
    yield (
        f"Made with agnet {facts.header.get('agnet', '')}, an independent implementation (MIT licence) of A. Bera, Z. "
        'Wharton, Y. Liu, N. Bessis, A. Behera, "Attend and Guide (AG-Net): A Keypoints-Driven Attention-Based Deep '
        'Network for Image Recognition", IEEE Transactions on Image Processing 30, 3691–3704, 2021.'
    )
    if origin := facts.config.get(PULLED):
        repository, revision = origin["repository"], origin["revision"]
        yield f"A copy of {markdown(repository)} on the Hugging Face hub, revision {markdown(revision)}."
    licence = (
        f"The weights are licensed {markdown(facts.licence)}."
        if facts.licence
        else "The licence of the weights is not stated."
    )
    yield f"{licence} This text was filled in from the files of the run by agnet, and is no judgement of its own."
