"""What a boxes file holds, in numbers: for people as text, for programs as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..index import SPLITS, VAL_IS_TEST
from ..text import columns, padded, printable, table
from . import schema
from .reader import Boxes, Settings

# More classes than fit on a screen are told by their extremes.
_CLASSES_SHOWN = 20
_EXTREMES = 5
_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Spread:
    """How some numbers are distributed."""

    min: float
    median: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """``values`` has at least one."""
        return cls(*(float(value) for value in (values.min(), np.median(values), values.mean(), values.max())))


@dataclass(frozen=True)
class ClassCounts:
    """Images of one class; the unreadable ones count, as in the file's table ``labels``."""

    name: str
    train: int
    val: int
    test: int

    @property
    def all(self) -> int:
        return self.train + self.val + self.test


@dataclass(frozen=True)
class Failure:
    image: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """Of a whole boxes file. Keypoints, regions and boxes are those of the images that could be used."""

    file: str
    format_version: int
    made_by: str
    fingerprint: str
    file_bytes: int
    bytes_per_image: float
    dataset: str
    title: str  #: what people call the data set
    val_is_test: bool  #: whether its maker called the test part val
    images: int
    root: str  #: where the images are expected
    images_there: int  #: files found there
    splits: dict[str, int]
    statuses: dict[str, int]
    classes: tuple[ClassCounts, ...]
    keypoints: Spread  #: of an image, duplicates included
    distinct_keypoints: Spread
    duplicate_keypoints: float  #: share of all keypoints that stand where another one stands already
    primary_regions: int  #: of an image, as its layout has them
    secondary_regions: int
    distinct_regions: Spread
    primary_areas: Spread | None  #: shares of the image; None where the layout has no such regions
    secondary_areas: Spread | None
    failures: tuple[Failure, ...]
    settings: Settings

    def to_dict(self) -> dict[str, object]:
        """Numbers, texts, lists and dictionaries only."""
        return asdict(self)


def summarise(boxes: Boxes, file_bytes: int, root: str, images_there: int) -> Summary:
    """The numbers of a boxes file.

    Args:
        boxes: the file's content.
        file_bytes: its size on disk.
        root: where its images are expected.
        images_there: how many of them were found there.
    """
    layout, usable = boxes.layout, boxes.usable
    counts = [np.bincount(boxes.labels[boxes.splits == split], minlength=len(boxes.classes)) for split in SPLITS]
    total, distinct = boxes.total_keypoints[usable], boxes.distinct_keypoints[usable]
    frames = boxes.sizes_wh[usable].prod(axis=1)[:, None]
    has_primaries = layout.count > len(layout.pairs)
    return Summary(
        file=str(boxes.path),
        format_version=schema.FORMAT_VERSION,
        made_by=str(boxes.attributes.get("made_by", "")),
        fingerprint=boxes.fingerprint,
        file_bytes=file_bytes,
        bytes_per_image=file_bytes / len(boxes.names),
        dataset=boxes.dataset,
        title=boxes.title,
        val_is_test=boxes.val_is_test,
        images=len(boxes.names),
        root=root,
        images_there=images_there,
        splits={split: int(count.sum()) for split, count in zip(SPLITS, counts, strict=True)},
        statuses={status: int((boxes.status == status).sum()) for status in schema.STATUSES},
        classes=tuple(
            ClassCounts(name, *numbers)
            for name, *numbers in zip(boxes.classes, *(count.tolist() for count in counts), strict=True)
        ),
        keypoints=Spread.of(total),
        distinct_keypoints=Spread.of(distinct),
        duplicate_keypoints=1 - float(distinct.sum() / total.sum()) if total.any() else 0.0,
        primary_regions=layout.primary if has_primaries else 0,
        secondary_regions=len(layout.pairs),
        distinct_regions=Spread.of(boxes.distinct_regions[usable]),
        primary_areas=Spread.of(_areas(boxes.primary_xyxy) / frames) if has_primaries else None,
        secondary_areas=Spread.of(_areas(layout.secondary(boxes.primary_xyxy)) / frames) if len(layout.pairs) else None,
        failures=tuple(Failure(*failure) for failure in boxes.failures),
        settings=boxes.settings,
    )


def summary_text(summary: Summary) -> str:
    """The summary for people, some dozens of lines."""
    lines = [
        f"{summary.file}: {summary.images:,} images of {len(summary.classes):,} classes, data set {summary.title}",
        *([f"  {VAL_IS_TEST}"] if summary.val_is_test else []),
        "",
        *_pairs(
            ("splits", ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())),
            ("status", ", ".join(f"{count:,} {status}" for status, count in summary.statuses.items())),
            ("regions", _regions(summary)),
            ("images at", _whereabouts(summary)),
            ("file", f"{summary.file_bytes / 1e6:,.2f} MB, {summary.bytes_per_image:,.0f} bytes an image"),
            ("format", f"version {summary.format_version}, made by {summary.made_by or 'an unnamed program'}"),
            ("fingerprint", summary.fingerprint),
        ),
        "",
        *_spreads(summary),
        f"{summary.duplicate_keypoints:.1%} of the keypoints stand where another one stands already",
        "",
        *_classes(summary.classes),
    ]
    if summary.failures:
        lines += ["", f"unreadable: {len(summary.failures):,}"]
        lines += [f"  {failure.image}: {failure.reason}" for failure in summary.failures[:_FAILURES_SHOWN]]
        if len(summary.failures) > _FAILURES_SHOWN:
            lines.append(f"  and {len(summary.failures) - _FAILURES_SHOWN:,} others; --json lists them all")
    for section, values in summary.settings.items():
        lines += ["", f"{section}:", *_pairs(*((name, str(value)) for name, value in values.items()))]
    return "\n".join(map(printable, lines))


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).astype(np.float64).prod(axis=-1)


def _regions(summary: Summary) -> str:
    kinds = (("primary", summary.primary_regions), ("secondary", summary.secondary_regions))
    parts = [f"{count} {kind}" for kind, count in kinds if count]
    return f"{summary.primary_regions + summary.secondary_regions} an image: {', '.join(parts)}"


def _whereabouts(summary: Summary) -> str:
    if summary.images_there == summary.images:
        return f"{summary.root}, all there"
    if not summary.images_there:
        return f"{summary.root}, but none is there; --root says where they are"
    missing = summary.images - summary.images_there
    return f"{summary.root}, where {missing:,} {'is' if missing == 1 else 'are'} missing"


def _spreads(summary: Summary) -> list[str]:
    rows = [["of an image", "min", "median", "mean", "max"]]
    counts = {
        "keypoints": summary.keypoints,
        "distinct keypoints": summary.distinct_keypoints,
        "distinct regions": summary.distinct_regions,
    }
    for name, spread in counts.items():
        rows.append([name, f"{spread.min:,.0f}", f"{spread.median:,.1f}", f"{spread.mean:,.1f}", f"{spread.max:,.0f}"])
    areas = {"area of a primary": summary.primary_areas, "area of a secondary": summary.secondary_areas}
    for name, share in areas.items():
        if share:
            rows.append([name, *(f"{value:.1%}" for value in (share.min, share.median, share.mean, share.max))])
    return table(rows)


def _classes(classes: Sequence[ClassCounts]) -> list[str]:
    shown, note = list(classes), []
    if len(classes) > _CLASSES_SHOWN:
        ranked = sorted(classes, key=lambda counts: -counts.all)
        shown = [*ranked[:_EXTREMES], *ranked[-_EXTREMES:]]
        note = [f"the {_EXTREMES} largest and the {_EXTREMES} smallest of {len(classes):,} classes; --json lists all"]
    rows = [(counts.name, *(f"{n:,}" for n in (counts.train, counts.val, counts.test, counts.all))) for counts in shown]
    return [*table([("class", *SPLITS, "all"), *rows]), *note]


def _pairs(*pairs: tuple[str, str]) -> list[str]:
    width = max(columns(name) for name, _ in pairs) if pairs else 0
    return [f"  {padded(name, width)}  {value}" for name, value in pairs]
