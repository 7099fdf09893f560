"""Evaluate a run on one split, provided that it was not trained on the images of that split."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...data.boxes.reader import Boxes
from ...data.errors import DatasetError
from ...data.fields import plain_size
from ...data.files import write_text
from ...data.text import rough_size, rows_called
from ..aggregates import Aggregate
from ..loop.engine import Predictions, Watch, evaluate
from ..machine.devices import Device, Pieces
from ..retrieval import Embedded, retrieve
from ..runs.checkpoints import Checkpoint, check_finite, load_checkpoint
from ..runs.folder import BEST, SUFFIX, checkpoint_hash
from ..runs.model_card import write_card
from ..runs.seen import UNKNOWN, contents_of
from ..samples.loader import ClipDataset, Loader, WindowSampler, dataset_of
from ..tasks import RETRIEVE, task_of
from .claims import Claim, papers_claim
from .embeddings import MOST, KeptEmbeddings
from .evaluation_report import metrics_csv
from .image_facts import image_facts, names_of_seen
from .measurable import check_images, check_measurable, parts_of
from .metrics import Metrics, measure
from .predictions import QueryResults, SplitPredictions, save_embeddings, save_predictions
from .search_report import search_csv
from .searches import SearchMetrics, measure_searches, protocol
from .videos import VideoScores, measure_clips


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a run, the file they were written to, and what limits their meaning."""

    metrics: Metrics | SearchMetrics
    file: Path
    warning: str = ""
    claim: Claim | None = None  #: published figures of this network on this test split
    predictions: SplitPredictions | QueryResults | None = None  #: results for every image, or for every query


def evaluate_run(
    run: Path,
    boxes: Boxes,
    root: Path,
    split: str,
    batch_size: int,
    device: Device,
    workers: int,
    *,
    force: bool = False,
    aggregate: Aggregate | None = None,
    embeddings: bool | None = None,
    images_checked: bool = False,
    watch: Watch,
    say: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Evaluate the best checkpoint of a run on ``split`` of ``boxes``.

    Metrics (JSON and CSV), the prediction for every image, its embedding, and plots of the confusion matrix and the
    calibration are written into the folder of the run, and its model card is written anew. Of a data set for retrieval,
    it is the embeddings, the result of every query, and a plot of the CMC; ``query`` is searched for in ``gallery``,
    and images of ``val`` among each other.

    Args:
        boxes: Boxes file of the run, or another one with the same classes and proposal settings.
        force: Whether to evaluate also on images that the run was trained on or selected by; the metrics file then
            records their number.
        aggregate: Rule that makes the scores of a video from those of its frames, only for clips; by default the mean
            of the probabilities. Files of another rule have names of their own.
        embeddings: Whether to write embeddings; by default those of at most `embeddings.MOST` numbers. A search always
            writes them.
        images_checked: Whether `check_images` has already passed, as for several runs evaluated on the same images.
        watch: Callback that returns a progress callback for a named task and a number of images.
        say: Callback for one-line messages to the user.

    Raises: `MismatchError` when ``boxes`` has other classes or other proposal settings, when images have changed since,
        and, without ``force``, for the training split of the run, for images (by content) that the run or the run that
        provided its initial weights has seen, and where that is unknown. `DatasetError` when images are missing or the
        split is empty, `ConfigurationError` when the metrics cannot be written into the folder of the run,
        `CheckpointError` for a damaged checkpoint, or when the outputs of the network are not finite.
    """
    target, seen, warning = check_measurable(run, boxes, split, force, aggregate)
    if not images_checked:
        check_images(boxes, root, split, watch=watch, say=say)
    task = task_of(boxes)
    rows = np.concatenate([boxes.rows(part) for part in parts_of(split)])
    checkpoint = load_checkpoint(run / BEST)
    sampling = checkpoint.sampling if boxes.of_clips else None
    dataset = dataset_of(boxes, root, checkpoint.size_hw, sampling, regions=checkpoint.regions > 0)
    sampler, videos = None, None
    if isinstance(dataset, ClipDataset) and task is not RETRIEVE:
        sampler, videos = WindowSampler(dataset, rows, batch_size), VideoScores(aggregate or Aggregate())
    loader = Loader(dataset, rows, batch_size, workers, sampler=sampler)
    kept = KeptEmbeddings(sys.maxsize if embeddings else MOST)
    predictions = evaluate(
        device.take(checkpoint.model),
        loader.epoch(0),
        device=device,
        task=task,
        progress=watch(f"evaluate {split}", loader.images),
        pieces=Pieces(device, say, called=rows_called(boxes.of_clips)),
        on_frames=videos.add if videos else None,
        on_embeddings=kept.add if embeddings is not False and task is not RETRIEVE else None,
    )
    check_finite([torch.from_numpy(predictions.logits)])
    if task is RETRIEVE:
        return _searched(run, boxes, split, predictions, checkpoint, target, seen, warning, device)
    counts = None
    if videos:
        *scored, counts = videos.videos()
        predictions = Predictions(*scored)
    metrics = measure(predictions.logits, predictions.labels, checkpoint.classes)
    if sampling and counts is not None:
        metrics = replace(metrics, clips=measure_clips(counts, metrics.top1, aggregate or Aggregate(), sampling))
    claim = papers_claim(boxes, split, checkpoint.settings)
    content = {
        **_about(boxes, split, checkpoint, seen, device),
        **({"title": boxes.title} if metrics.clips else {}),
        "papers_claim": claim and asdict(claim),
        **metrics.to_dict(),
    }
    named = SplitPredictions(
        logits=predictions.logits,
        labels=predictions.labels,
        classes=checkpoint.classes,
        names=_names(boxes, predictions.rows),
        contents=tuple(contents_of(boxes, split)),
        counts=counts,
        title=boxes.title if metrics.clips else "",
        aggregate=metrics.clips.aggregate if metrics.clips else "",
        **_origin(run, boxes, split, checkpoint, seen),
    )
    if kept.left_out:
        say(f"embeddings of {kept.left_out:,} numbers are not written; --embeddings writes them")
    if (vectors := kept.vectors()) is not None:
        size = rough_size(vectors.nbytes)
        say(f"embeddings of {len(vectors):,} {metrics.rows}, {vectors.shape[1]:,} numbers each: {size}")
    facts = image_facts(boxes, predictions.rows, names_of_seen(run, boxes, split), named.likeliest(5))
    _write_all(target, content, metrics, named, facts, vectors, title=boxes.title)
    return Evaluation(metrics, target, warning, claim, named)


class _Photographs(NamedTuple):
    """What is known of the images of a search, those searched for first."""

    names: tuple[str, ...]
    contents: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]  #: empty where unknown

    @classmethod
    def of(cls, boxes: Boxes, split: str, rows: np.ndarray) -> _Photographs:
        numbers = boxes.usable[rows].tolist()
        return cls(
            names=_names(boxes, rows),
            contents=tuple(content for part in parts_of(split) for content in contents_of(boxes, part)),
            persons=tuple(boxes.classes[label] for label in boxes.labels[numbers].tolist()),
            cameras=tuple(boxes.cameras[number] for number in numbers) if boxes.cameras else ("",) * len(numbers),
        )

    def hash(self, first: int) -> str:
        """Hash the images from number ``first`` on, in any order: contents (or paths), persons and cameras."""
        each = zip(self.names[first:], self.contents[first:], self.persons[first:], self.cameras[first:], strict=True)
        lines = sorted((name if content == UNKNOWN else content, *others) for name, content, *others in each)
        return hashlib.blake2b(json.dumps(lines).encode(), digest_size=8).hexdigest()


def _searched(
    run: Path,
    boxes: Boxes,
    split: str,
    predictions: Predictions,
    checkpoint: Checkpoint,
    target: Path,
    seen: int | None,
    warning: str,
    device: Device,
) -> Evaluation:
    """`evaluate_run` of a data set for retrieval, from the embeddings of its images."""
    camera_numbers = boxes.camera_numbers[boxes.usable[predictions.rows]]
    embedded = Embedded(predictions.logits, predictions.labels, camera_numbers)
    queries = len(boxes.rows(split))
    first = queries if split == "query" else 0  # of the images searched in
    query, gallery = Embedded(*(column[:queries] for column in embedded)), Embedded(*(one[first:] for one in embedded))
    found = retrieve(query, gallery if split == "query" else None)
    if not found.counted.any():
        raise DatasetError(
            f"{boxes.path}: no {split} image has another one of its person by another camera to be found; check "
            "persons and cameras with agnet inspect"
        )
    photographs = _Photographs.of(boxes, split, predictions.rows)
    persons, labels = np.unique(photographs.persons[:queries], return_inverse=True)
    nearest = [first + number if number >= 0 else None for number in found.nearest.tolist()]
    results = QueryResults(
        labels=labels.astype(np.int64),
        classes=tuple(persons.tolist()),
        names=photographs.names[:queries],
        contents=photographs.contents[:queries],
        cameras=photographs.cameras[:queries],
        average_precisions=np.where(found.counted, found.average_precisions, -1.0),
        first_match=found.first_match,
        nearest=tuple("" if number is None else photographs.names[number] for number in nearest),
        nearest_persons=tuple("" if number is None else photographs.persons[number] for number in nearest),
        gallery=photographs.hash(first),
        **_origin(run, boxes, split, checkpoint, seen),
    )
    cameras = len({*photographs.cameras} - {""})
    metrics = measure_searches(
        results.scores(),
        left_out=int((~found.counted).sum()),
        gallery_images=len(gallery.persons),
        distractors=int((~np.isin(gallery.persons, query.persons)).sum()),
        persons=len(persons),
        cameras=cameras,
        protocol=protocol(split, cameras=cameras > 0),
    )
    content = {**_about(boxes, split, checkpoint, seen, device), **metrics.to_dict()}
    facts = image_facts(boxes, predictions.rows[:queries], names_of_seen(run, boxes, split))
    _write_search(target, content, metrics, results, facts, embedded, photographs, boxes.title)
    return Evaluation(metrics, target, warning, None, results)


def _about(boxes: Boxes, split: str, checkpoint: Checkpoint, seen: int | None, device: Device) -> dict[str, object]:
    """What a metrics file says besides the metrics."""
    return {
        "split": split,
        "epoch": checkpoint.epoch,
        "dataset": boxes.dataset,
        "boxes_fingerprint": boxes.fingerprint,
        "images_seen_in_training": seen,
        "device": device.device.type,
        "precision": device.precision,
    }


def _origin(run: Path, boxes: Boxes, split: str, checkpoint: Checkpoint, seen: int | None) -> dict[str, Any]:
    """Fields of `MeasuredImages` that do not depend on the image."""
    return {
        "split": split,
        "dataset": boxes.dataset,
        "network": checkpoint_hash(run / BEST),
        "image_size": plain_size(checkpoint.size_hw),
        "images_seen_in_training": seen,
    }


def _names(boxes: Boxes, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(name.decode() for name in boxes.names[boxes.usable[rows]].tolist())


def _write_search(
    target: Path,
    content: dict[str, object],
    metrics: SearchMetrics,
    results: QueryResults,
    facts: Mapping[str, Sequence[object]],
    embedded: Embedded,
    photographs: _Photographs,
    title: str,
) -> None:
    """Write all files of a search; the metrics file, which marks it as complete, comes last before the card."""
    from .evaluation_plots import draw_cmc  # matplotlib takes a second to load

    part = target.stem.removeprefix("metrics")
    save_predictions(target.with_name(f"predictions{part}{SUFFIX}"), results, facts)
    header = {**photographs._asdict(), "queries": len(results.labels), "network": results.network}
    save_embeddings(target.with_name(f"embeddings{part}{SUFFIX}"), embedded.vectors, header)
    draw_cmc(metrics, target.with_name(f"cmc{part}.png"), title)
    write_text(target.with_suffix(".csv"), search_csv([metrics]))
    write_text(target, json.dumps(content, indent=1) + "\n")
    write_card(target.parent)


def _write_all(
    target: Path,
    content: dict[str, object],
    metrics: Metrics,
    predictions: SplitPredictions,
    facts: Mapping[str, Sequence[object]],
    vectors: np.ndarray | None,
    title: str,
) -> None:
    """Write all files of an evaluation; the metrics file, which marks it as complete, comes last before the card."""
    from .evaluation_plots import draw_calibration, draw_confusion  # matplotlib takes a second to load

    # The split, a rule for videos other than the default, and the hash of a boxes file other than the run's.
    part = target.stem.removeprefix("metrics")
    save_predictions(target.with_name(f"predictions{part}{SUFFIX}"), predictions, facts)
    file = target.with_name(f"embeddings{part}{SUFFIX}")
    if vectors is None:
        file.unlink(missing_ok=True)  # those of an earlier network
    else:
        names = ("names", "contents", "classes", "split", "dataset", "network")
        header = {name: getattr(predictions, name) for name in names}
        save_embeddings(file, vectors, {**header, "labels": predictions.labels.tolist()})
    draw_confusion(metrics, target.with_name(f"confusion{part}.png"), title)
    draw_calibration(metrics, target.with_name(f"calibration{part}.png"), title)
    write_text(target.with_suffix(".csv"), metrics_csv(metrics, title))
    write_text(target, json.dumps(content, indent=1) + "\n")
    write_card(target.parent)
