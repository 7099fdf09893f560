"""Summary of a boxes file in numbers, as text or as a dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..index import ALL_SPLITS, VAL_IS_TEST, splits_told
from ..text import columns, counted, padded, percent, printable, rows_called, table, tally
from . import schema
from .reader import Boxes, Settings, Sizes

# With more classes than fit on a screen, only the largest and smallest are shown.
_CLASSES_SHOWN = 20
_EXTREMES = 5
_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Spread:
    """Distribution of some values."""

    min: float
    median: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        """Summarise ``values``, which must not be empty."""
        return cls(*(float(value) for value in (values.min(), np.median(values), values.mean(), values.max())))


@dataclass(frozen=True)
class ClassCounts:
    """Number of images of one class, including unreadable ones, as in the file's table ``labels``."""

    name: str
    train: int = 0
    val: int = 0
    test: int = 0
    query: int = 0
    gallery: int = 0

    @property
    def all(self) -> int:
        return self.train + self.val + self.test + self.query + self.gallery


@dataclass(frozen=True)
class ClipFacts:
    """What a summary says of clips alone."""

    frames: Spread  #: of a clip
    frames_a_second: Spread
    frames_with_regions: Spread  #: of a clip
    filled_in: float  #: share of the primary regions without keypoints in their frame, whose boxes were filled in

    @classmethod
    def of(cls, boxes: Boxes) -> ClipFacts | None:
        """Count those of ``boxes``; None if its rows are images."""
        if boxes.clips is None:
            return None
        return cls(
            frames=Spread.of(boxes.clips.frames[boxes.usable]),
            frames_a_second=Spread.of(boxes.clips.frames_a_second[boxes.usable].astype(np.float64)),
            frames_with_regions=Spread.of(np.diff(boxes.frame_first)),
            filled_in=1 - float(boxes.primary_valid.mean()) if boxes.primary_valid.size else 0.0,
        )


@dataclass(frozen=True)
class Persons:
    """Number of persons of a data set for retrieval, by what they are there for, and of cameras."""

    train: int
    val: int
    query: int
    without_match: int  #: persons in query but not in gallery
    distractors: int  #: persons in gallery alone
    cameras: int
    images_without_camera: int

    @classmethod
    def of(cls, boxes: Boxes) -> Persons:
        """Count those of ``boxes``."""
        there = {split: set(boxes.labels[boxes.splits == split].tolist()) for split in ALL_SPLITS}
        cameras = boxes.camera_numbers
        return cls(
            train=len(there["train"]),
            val=len(there["val"]),
            query=len(there["query"]),
            without_match=len(there["query"] - there["gallery"]),
            distractors=len(there["gallery"] - there["query"]),
            cameras=len(np.unique(cameras[cameras >= 0])),
            images_without_camera=int((cameras < 0).sum()),
        )


@dataclass(frozen=True)
class Failure:
    image: str
    reason: str
    fault: str = ""  #: the reason in two or three words, if the file has it


@dataclass(frozen=True)
class Summary:
    """Summary of a whole boxes file. Keypoints, regions and boxes are those of usable images."""

    file: str
    format_version: int
    made_by: str
    fingerprint: str
    file_bytes: int
    table_bytes: int  #: stored size of the tables, part of `file_bytes`
    preview_bytes: int  #: stored size of the pictures, part of `file_bytes`
    bytes_per_image: float  #: size of the whole file per image
    dataset: str
    title: str  #: common name of the data set
    val_is_test: bool  #: whether its authors call the test split val
    images: int
    root: str  #: where the images are expected
    images_there: int  #: files found there
    splits: dict[str, int]
    statuses: dict[str, int]
    classes: tuple[ClassCounts, ...]
    persons: Persons | None  #: of a data set for retrieval
    keypoints: Spread  #: per image, duplicates included
    distinct_keypoints: Spread
    duplicate_keypoints: float  #: share of all keypoints whose position another keypoint already has
    primary_regions: int  #: per image, according to its layout
    secondary_regions: int
    distinct_regions: Spread
    primary_areas: Spread | None  #: shares of the image; None if the layout has no such regions
    secondary_areas: Spread | None
    clips: ClipFacts | None  #: None if the rows are images
    failures: tuple[Failure, ...]
    settings: Settings

    @property
    def rows(self) -> str:
        """What its rows are called."""
        return rows_called(self.clips is not None)

    def to_dict(self) -> dict[str, object]:
        """The summary as a dictionary of numbers, texts, lists and dictionaries only."""
        return asdict(self)


def summarise(boxes: Boxes, sizes: Sizes, root: str, images_there: int) -> Summary:
    """Summarise a boxes file.

    Args:
        boxes: Content of the file.
        sizes: Sizes on disk of the file and its content.
        root: Folder where its images are expected.
        images_there: Number of images found there.
    """
    layout, usable = boxes.layout, boxes.usable
    splits = splits_told(boxes.is_retrieval)
    counts = [np.bincount(boxes.labels[boxes.splits == split], minlength=len(boxes.classes)) for split in splits]
    total, distinct = boxes.total_keypoints[usable], boxes.distinct_keypoints[usable]
    frames = boxes.sizes_wh[usable].prod(axis=1).repeat(np.diff(boxes.frame_first))[:, None]
    has_primaries = bool(layout.count > len(layout.pairs))
    return Summary(
        file=str(boxes.path),
        format_version=boxes.format_version,
        made_by=str(boxes.attributes.get("made_by", "")),
        fingerprint=boxes.fingerprint,
        file_bytes=sizes.file,
        table_bytes=sizes.tables,
        preview_bytes=sizes.previews,
        bytes_per_image=sizes.file / len(boxes.names),
        dataset=boxes.dataset,
        title=boxes.title,
        val_is_test=boxes.val_is_test,
        images=len(boxes.names),
        root=root,
        images_there=images_there,
        splits={split: int(count.sum()) for split, count in zip(splits, counts, strict=True)},
        statuses={status: int((boxes.status == status).sum()) for status in schema.STATUSES},
        classes=tuple(
            ClassCounts(name, **dict(zip(splits, numbers, strict=True)))
            for name, *numbers in zip(boxes.classes, *(count.tolist() for count in counts), strict=True)
        ),
        persons=Persons.of(boxes) if boxes.is_retrieval else None,
        keypoints=Spread.of(total),
        distinct_keypoints=Spread.of(distinct),
        duplicate_keypoints=1 - float(distinct.sum() / total.sum()) if total.any() else 0.0,
        primary_regions=layout.primary if has_primaries else 0,
        secondary_regions=len(layout.pairs),
        distinct_regions=Spread.of(boxes.distinct_regions[usable]),
        primary_areas=Spread.of(_areas(boxes.primary_xyxy) / frames) if has_primaries else None,
        secondary_areas=Spread.of(_areas(layout.secondary(boxes.primary_xyxy)) / frames) if len(layout.pairs) else None,
        clips=ClipFacts.of(boxes),
        failures=tuple(
            Failure(*failure, fault)
            for failure, fault in zip(boxes.failures, boxes.faults or [""] * len(boxes.failures), strict=True)
        ),
        settings=boxes.settings,
    )


def summary_text(summary: Summary) -> str:
    """The summary as readable text of some dozens of lines."""
    kind = "persons" if summary.persons else "classes"
    counts = f"{counted(summary.images, summary.rows)} of {counted(len(summary.classes), kind)}"
    lines = [
        f"{summary.file}: {counts}, data set {summary.title}",
        *([f"  {VAL_IS_TEST}"] if summary.val_is_test else []),
        "",
        *_pairs(
            ("splits", ", ".join(f"{count:,} {split}" for split, count in summary.splits.items())),
            *_persons(summary.persons),
            ("status", ", ".join(f"{count:,} {status}" for status, count in summary.statuses.items())),
            ("regions", _regions(summary)),
            *_clips(summary.clips),
            (f"{summary.rows} at", _whereabouts(summary)),
            ("file", _sizes(summary)),
            ("format", f"version {summary.format_version}, made by {summary.made_by or 'an unnamed program'}"),
            ("fingerprint", summary.fingerprint),
        ),
        "",
        *(_spreads(summary) if summary.primary_regions + summary.secondary_regions else ()),
        *_classes(summary.classes, tuple(summary.splits), kind),
    ]
    if summary.failures:
        faults = Counter(failure.fault for failure in summary.failures if failure.fault)
        lines += ["", f"unreadable: {len(summary.failures):,}{f' ({tally(faults)})' if faults else ''}"]
        lines += [f"  {failure.image}: {failure.reason}" for failure in summary.failures[:_FAILURES_SHOWN]]
        if len(summary.failures) > _FAILURES_SHOWN:
            lines.append(f"  and {counted(len(summary.failures) - _FAILURES_SHOWN, 'others')}; --json lists them all")
    for section, values in summary.settings.items():
        lines += ["", f"{section}:", *_pairs(*((name, str(value)) for name, value in values.items()))]
    return "\n".join(map(printable, lines))


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).astype(np.float64).prod(axis=-1)


def _sizes(summary: Summary) -> str:
    of_tables = (
        f"tables {summary.table_bytes / 1e6:,.2f} MB, {summary.table_bytes / summary.images:,.0f} bytes {_one(summary)}"
    )
    of_previews = f"previews {summary.preview_bytes / 1e6:,.2f} MB" if summary.preview_bytes else "no previews"
    return f"{summary.file_bytes / 1e6:,.2f} MB: {of_tables}; {of_previews}"


def _regions(summary: Summary) -> str:
    if not summary.primary_regions + summary.secondary_regions:
        return "none: for models that use none"
    kinds = (("primary", summary.primary_regions), ("secondary", summary.secondary_regions))
    parts = [f"{count} {kind}" for kind, count in kinds if count]
    of_what = "a frame" if summary.clips else "an image"
    return f"{summary.primary_regions + summary.secondary_regions} {of_what}: {', '.join(parts)}"


def _one(summary: Summary) -> str:
    return "a clip" if summary.clips else "an image"


def _clips(clips: ClipFacts | None) -> list[tuple[str, str]]:
    if clips is None:
        return []
    told = f"{_range(clips.frames)} a clip, {_range(clips.frames_a_second, 1)} a second"
    found = f"regions in {_range(clips.frames_with_regions)} of them; {percent(clips.filled_in)} of the boxes filled in"
    return [("frames", told), ("", found)]


def _range(spread: Spread, digits: int = 0) -> str:
    """The range of the values, such as ``3 to 14``."""
    low, high = (f"{value:,.{digits}f}" for value in (spread.min, spread.max))
    return low if low == high else f"{low} to {high}"


def _whereabouts(summary: Summary) -> str:
    if summary.images_there == summary.images:
        return f"{summary.root}, all there"
    if not summary.images_there:
        return f"{summary.root}, but none is there; give their folder with --root"
    missing = summary.images - summary.images_there
    return f"{summary.root}, where {missing:,} {'is' if missing == 1 else 'are'} missing"


def _spreads(summary: Summary) -> list[str]:
    rows = [[f"of {_one(summary)}", "min", "median", "mean", "max"]]
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
    again = f"{summary.duplicate_keypoints:.1%} of the keypoints share their position with an earlier one"
    return [*table(rows), again, ""]


def _persons(persons: Persons | None) -> list[tuple[str, str]]:
    if persons is None:
        return []
    told = f"{persons.train:,} in train, {persons.val:,} in val, {persons.query:,} in query"
    if persons.without_match:
        told += f" ({persons.without_match:,} of them not in gallery)"
    told += f", {persons.distractors:,} only in gallery"
    cameras = f"{persons.cameras:,}" if persons.cameras else "unknown"
    if persons.cameras and persons.images_without_camera:
        cameras += f"; that of {counted(persons.images_without_camera, 'images')} is unknown"
    return [("persons", told), ("cameras", cameras)]


def _classes(classes: Sequence[ClassCounts], splits: Sequence[str], kind: str) -> list[str]:
    shown, note = list(classes), []
    if len(classes) > _CLASSES_SHOWN:
        ranked = sorted(classes, key=lambda counts: -counts.all)
        shown = [*ranked[:_EXTREMES], *ranked[-_EXTREMES:]]
        note = [f"the {_EXTREMES} largest and the {_EXTREMES} smallest of {len(classes):,} {kind}; --json lists all"]
    rows = [(counts.name, *(f"{getattr(counts, split):,}" for split in (*splits, "all"))) for counts in shown]
    return [*table([("person" if kind == "persons" else "class", *splits, "all"), *rows]), *note]


def _pairs(*pairs: tuple[str, str]) -> list[str]:
    width = max(columns(name) for name, _ in pairs) if pairs else 0
    return [f"  {padded(name, width)}  {value}" for name, value in pairs]
