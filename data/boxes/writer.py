"""Writing of boxes files: finished parts are merged into one file that appears complete or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import BoxesFileError
from ..files import PatientFile, atomic_file, interrupts_postponed
from ..index import ALL_SPLITS, SPLITS, DatasetIndex
from ..regions import NO_REGIONS, Layout, Proposal, Regions, boxes_of_hulls
from ..text import first_line, printable, rows_called, widest
from . import schema

_BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Part:
    """Table rows of consecutive images.

    They are final except that ``first_row_in_primary`` and ``hull_first`` count from the start of the part.
    """

    images: np.ndarray
    primary: np.ndarray
    hulls: np.ndarray
    failures: np.ndarray

    def save(self, path: Path) -> None:
        """Write to ``path``, which is complete or does not exist, even after an interruption."""
        try:
            with atomic_file(path) as unfinished, unfinished.open("wb") as file:
                np.savez(file, images=self.images, primary=self.primary, hulls=self.hulls, failures=self.failures)
        except OSError as error:
            raise _cannot_write(path, error) from None
        except ValueError as error:  # an archive closed in the middle of an entry hides what interrupted it
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise

    @classmethod
    def load(cls, path: Path) -> Part:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] for name in ("images", "primary", "hulls", "failures")})


def _images_dtype(index: DatasetIndex) -> np.dtype:
    widths = {
        schema.FILE: index.widest["file"],
        schema.CLASS_OF: index.widest["class"],
        "split": max(len("train"), index.widest["split"]),
        "group": index.widest["group"],
        "camera": index.widest["camera"],
        schema.PATH: index.widest["name"],
    }
    known = [name for name, values in zip(schema.GROUPS, (index.groups, index.cameras), strict=True) if values]
    return schema.images_dtype(widths, [*known, *(schema.CLIPS if index.of_clips else ())])


def build_part(index: DatasetIndex, first_image: int, proposals: Sequence[Proposal]) -> Part:
    """Build the table rows of images ``first_image, first_image + 1, ...`` of ``index``.

    Columns are filled for all images at once, which takes a tenth of the time of filling row by row.
    """
    images = _rows_of_files(index, first_image, proposals)
    usable = [row for row, proposal in enumerate(proposals) if proposal.regions]
    frames = [list(_frames(proposals[row])) for row in usable]
    counts = np.array([len(of_image) for of_image in frames], np.intp)
    numbers = np.repeat(images["image"][usable], counts)
    primary, hulls = _rows_of_regions(index, numbers, [frame for of_image in frames for frame in of_image])
    regions = [proposal.regions for proposal in proposals if proposal.regions]
    if regions:
        layout = regions[0].layout
        first = np.cumsum(counts) - counts  # the first frame of each image
        boxes = _boxes_of(primary, layout) if layout.primary else np.zeros((len(numbers), 0, 4), np.float32)
        enough = [any(one.enough_keypoints for _, one, _ in of_image) for of_image in frames]
        tubes = [proposals[row].tubes for row in usable]
        columns: dict[str, object] = {
            schema.STATUS: np.where(enough, schema.STATUS_OK, schema.STATUS_FEW).astype(bytes),
            schema.FIRST_ROW: first * layout.primary if layout.primary else -1,
            "width": [one.size_wh[0] for one in regions],
            "height": [one.size_wh[1] for one in regions],
            "keypoints": [one.total_keypoints for one in regions],
            "distinct_keypoints": [one.distinct_keypoints for one in regions],
            "distinct_regions": _count_distinct(layout.boxes(boxes[first])),
        }
        if index.of_clips:
            columns["frames"] = [one.frames if one else 0 for one in tubes]
            columns["frames_a_second"] = [one.frames_a_second if one else 0 for one in tubes]
        for name, values in columns.items():
            images[name][usable] = values
    failures = [
        (int(row["image"]), proposal.fault[: schema.MAX_FAULT].encode(), row[schema.FILE], _cut(proposal.reason))
        for row, proposal in zip(images, proposals, strict=True)
        if not proposal.regions
    ]
    kind = schema.failures_dtype(index.widest["name"], schema.MAX_REASON)
    return Part(images, primary, hulls, np.array(failures, kind))


def _rows_of_files(index: DatasetIndex, first_image: int, proposals: Sequence[Proposal]) -> np.ndarray:
    """Rows of the table images as if none could be read: the columns of regions are to be filled."""
    some = slice(first_image, first_image + len(proposals))
    images = np.zeros(len(proposals), _images_dtype(index))
    images["image"] = np.arange(some.start, some.stop)
    images["label"] = index.labels[some]
    images["file_bytes"] = [proposal.file_bytes for proposal in proposals]
    images["modified_utc"] = schema.modified_text(np.array([proposal.modified_ns for proposal in proposals]))
    images[schema.FIRST_ROW] = -1
    images[schema.STATUS] = schema.STATUS_UNREADABLE.encode()
    texts: dict[str, Sequence[str]] = {
        schema.FILE: [name.rpartition("/")[2] for name in index.names[some]],
        schema.CLASS_OF: [index.classes[label] for label in index.labels[some].tolist()],
        schema.PATH: index.names[some],
        "split": index.splits[some].tolist(),
        "content_blake2b": [proposal.content_blake2b for proposal in proposals],
        "group": index.groups[some],
        "camera": index.cameras[some],
    }
    for column in texts.keys() & set(images.dtype.names or ()):
        images[column] = [text.encode() for text in texts[column]]
    return images


def _frames(proposal: Proposal) -> Iterator[tuple[int, Regions, np.ndarray | bool]]:
    """Yield number, regions and their validity of each frame with regions; an image is a single frame."""
    if proposal.tubes:
        yield from zip(proposal.tubes.numbers.tolist(), proposal.tubes.regions, proposal.tubes.valid, strict=True)
    elif proposal.regions:
        yield 0, proposal.regions, True


def _rows_of_regions(
    index: DatasetIndex, numbers: np.ndarray, frames: Sequence[tuple[int, Regions, np.ndarray | bool]]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the tables primary and hulls, frame after frame, of images of these ``numbers``."""
    regions = [one for _, one, _ in frames]
    layout = regions[0].layout if regions else NO_REGIONS
    primary = np.zeros(len(frames) * layout.primary, _primary_dtype(index))
    if not len(primary):
        return primary, np.zeros(0, schema.HULLS)
    counts = np.concatenate([one.hull_counts for one in regions])
    points = np.concatenate([one.hull_xy for one in regions])
    sizes = np.repeat(np.array([one.size_wh for one in regions]), layout.primary, axis=0)
    slots = np.tile(np.arange(layout.primary), len(frames))
    for name, sides in zip(_BOX, boxes_of_hulls(points, counts, sizes).T, strict=True):
        primary[name] = sides
    primary["image"] = np.repeat(numbers, layout.primary)
    primary["region"] = slots
    primary["keypoints"] = np.concatenate([one.keypoints for one in regions])
    primary["weight"] = np.concatenate([one.weights for one in regions]).round(4)
    primary["hull_first"] = np.cumsum(counts) - counts
    primary["hull_count"] = counts
    if index.of_clips:
        primary["frame"] = np.repeat([frame for frame, _, _ in frames], layout.primary)
        primary["valid"] = np.concatenate([np.broadcast_to(valid, layout.primary) for _, _, valid in frames])
    hulls = np.zeros(len(points), schema.HULLS)
    hulls["image"], hulls["region"] = np.repeat(primary["image"], counts), np.repeat(slots, counts)
    hulls["x"], hulls["y"] = points.T
    return primary, hulls


def _boxes_of(primary: np.ndarray, layout: Layout) -> np.ndarray:
    """Boxes of the rows of the table primary, ``(frames, κ, 4)``."""
    return np.stack([primary[name] for name in _BOX], axis=-1).reshape(-1, layout.primary, 4)


def _count_distinct(boxes: np.ndarray) -> np.ndarray:
    """Number of distinct boxes of each image, ``(n, R, 4)`` -> ``(n,)``."""
    earlier = np.tri(boxes.shape[1], k=-1, dtype=bool) & np.ones((len(boxes), 1, 1), bool)  # (n, R, R)
    for side in np.moveaxis(boxes, -1, 0).copy():
        earlier &= side[:, :, None] == side[:, None]
    return np.count_nonzero(~earlier.any(axis=-1), axis=-1)


def _primary_dtype(index: DatasetIndex) -> np.dtype:
    return schema.PRIMARY_OF_CLIPS if index.of_clips else schema.PRIMARY


def _secondary_dtype(index: DatasetIndex) -> np.dtype:
    return schema.SECONDARY_OF_CLIPS if index.of_clips else schema.SECONDARY


def write_boxes(
    path: Path,
    index: DatasetIndex,
    parts: Iterable[Callable[[], Part]],
    layout: Layout,
    attributes: Mapping[str, str | int | float],
    settings: Mapping[str, Mapping[str, object]],
    previews: Mapping[str, tuple[np.ndarray, str]],
    idle: Collection[str] = (),
) -> Path:
    """Merge ``parts`` into a boxes file at ``path``, replacing an existing file only once the new one is complete.

    Args:
        path: Output path.
        index: Data set covered by the parts, in order.
        parts: Loaders, each called more than once, one after the other, so that one part at a time is in memory.
        layout: Regions of an image.
        attributes: Further root attributes, scalars.
        settings: Whole configuration in sections; stored as a table and as JSON in the attribute ``settings``.
        previews: Mapping from name to (uint8 RGB picture, caption) for the group ``preview``, which is omitted if this
            is empty.
        idle: Settings that the proposal method does not use.

    Returns: ``path``.
    Raises: `BoxesFileError` if no image could be used or the disk is full; ``path`` is then unchanged.
    """
    parts = list(parts)
    sizes = [(len(part.primary), len(part.hulls), len(part.failures)) for part in (load() for load in parts)]
    primary_rows, hull_rows, failure_rows = np.sum(sizes, axis=0).tolist()
    if failure_rows == len(index):
        reason, rows = parts[0]().failures[0][schema.REASON].decode(), rows_called(index.of_clips)
        raise BoxesFileError(
            f"{path}: not written, because none of the {len(index)} {rows} could be used; the first, "
            f"{index.names[0]}: {reason}"
        )
    pair_rows = primary_rows // layout.primary * len(layout.pairs) if layout.primary else 0
    needed = (
        len(index) * _images_dtype(index).itemsize
        + primary_rows * _primary_dtype(index).itemsize
        + pair_rows * _secondary_dtype(index).itemsize
        + hull_rows * schema.HULLS.itemsize
        + sum(picture.nbytes for picture, _ in previews.values())
    )
    _check_room(path, needed)
    try:
        # These bounds keep the file readable by HDF5 1.10 (HDFView, h5dump); "latest" does not.
        with (
            interrupts_postponed() as interrupts,
            atomic_file(path) as unfinished,
            PatientFile(unfinished) as disk,
            h5py.File(disk, "w", libver=("earliest", "v110")) as file,
        ):
            for _ in _write_tables(file, index, parts, layout, primary_rows, hull_rows, pair_rows):
                interrupts()
                disk.check()
            if failure_rows:  # an empty table looks broken
                _write_failures(file, np.concatenate([load().failures for load in parts]))
            if index.of_clips:
                _describe_clips(file)
            _write_labels(file, index)
            _write_settings(file, settings, idle)
            few = attributes.get("images_with_few_keypoints", 0)
            _write_read_me(file, read_me(index, layout, unreadable=failure_rows, few=int(few)))
            if previews:
                _write_previews(file, previews)
            file.attrs.update({name: _scalar(value) for name, value in attributes.items()})
            file.attrs["settings"] = np.bytes_(json.dumps(settings))
            file.attrs["units"] = np.bytes_(schema.UNITS)
            file.attrs["format"] = np.bytes_(schema.FORMAT)
            file.attrs["format_version"] = np.int32(schema.FORMAT_VERSION)
            # Written last: readers refuse a file without it.
            file.attrs["complete"] = np.int8(1)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk with either
        raise _cannot_write(path, error) from None
    return path


def _write_tables(
    file: h5py.File,
    index: DatasetIndex,
    parts: Sequence[Callable[[], Part]],
    layout: Layout,
    primary_rows: int,
    hull_rows: int,
    pair_rows: int,
) -> Iterator[None]:
    """Write the tables that grow with the data set, one part per step; their lengths are known in advance."""
    tables = {"images": _create(file, "images", _images_dtype(index), len(index), 1024)}
    if primary_rows:  # an empty table looks broken
        tables["primary"] = _create(file, "primary", _primary_dtype(index), primary_rows, 64 * layout.primary)
        tables["hulls"] = _create(file, "hulls", schema.HULLS, hull_rows, 4096)
    if pair_rows:
        tables["secondary"] = _create(file, "secondary", _secondary_dtype(index), pair_rows, 64 * len(layout.pairs))
    at = dict.fromkeys(("images", "primary", "hulls", "secondary"), 0)
    for load in parts:
        part = load()
        images, primary = part.images.copy(), part.primary.copy()
        images[schema.FIRST_ROW] += np.where(images[schema.FIRST_ROW] < 0, 0, at["primary"])
        primary["hull_first"] += at["hulls"]
        rows = {"images": images, "primary": primary, "hulls": part.hulls}
        if pair_rows:
            rows["secondary"] = _secondary_rows(part.primary, layout, _secondary_dtype(index))
        for name, table in tables.items():
            table[at[name] : at[name] + len(rows[name])] = rows[name].view(table.dtype)
            at[name] += len(rows[name])
        yield


def _check_room(path: Path, needed: float) -> None:
    """Refuse early if the file may not fit: on a full disk, HDF5 prints pages of errors while it cleans up.

    ``needed`` counts uncompressed bytes; the file will be smaller.
    """
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise BoxesFileError(
            f"cannot write {path}: it may need {needed / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB left. "
            "Finished images are kept: make room and run the same again"
        )


def _cannot_write(path: Path, error: Exception) -> BoxesFileError:
    """Replace NumPy's and HDF5's messages about a full disk by our own."""
    full = shutil.disk_usage(path.parent).free < 2**20 or "No space left" in str(error)
    reason = "no space left on the disk" if full else first_line(error, "unknown reason")
    return BoxesFileError(f"cannot write {path}: {reason}. Finished images are kept: make room and run the same again")


def _secondary_rows(primary: np.ndarray, layout: Layout, dtype: np.dtype) -> np.ndarray:
    boxes = _boxes_of(primary, layout)
    rows = np.zeros((len(boxes), len(layout.pairs)), dtype)
    for name in {"image", "frame"} & set(dtype.names or ()):
        rows[name] = primary[name].reshape(-1, layout.primary)[:, :1]
    rows["region"] = layout.primary + np.arange(len(layout.pairs))
    rows["first"], rows["second"] = layout.pairs.T
    unions = layout.secondary(boxes)
    for column, name in enumerate(_BOX):
        rows[name] = unions[..., column]
    return rows.ravel()


def _create(file: h5py.File, name: str, dtype: np.dtype, rows: int, chunk_rows: int) -> h5py.Dataset:
    table = file.create_dataset(
        name,
        (rows,),
        schema.stored(dtype),
        chunks=(max(1, min(rows, chunk_rows)),),
        compression="gzip",
        compression_opts=schema.GZIP_LEVEL,
        shuffle=True,
        fletcher32=True,
    )
    table.attrs["description"] = np.bytes_(schema.TABLES[name])
    if name in ("primary", "secondary", "hulls"):
        table.attrs["units"] = np.bytes_(schema.UNITS)
    return table


def _fill(file: h5py.File, name: str, rows: np.ndarray) -> None:
    table = _create(file, name, rows.dtype, len(rows), 1024)
    table[:] = rows.view(table.dtype)


def _write_failures(file: h5py.File, failures: np.ndarray) -> None:
    widths = [max(len(text) for text in failures[column]) for column in (schema.FAILED_FILE, schema.REASON)]
    _fill(file, "failures", failures.astype(schema.failures_dtype(*widths)))


def _describe_clips(file: h5py.File) -> None:
    for name in sorted(schema.OF_CLIPS.keys() & file.keys()):
        file[name].attrs["description"] = np.bytes_(f"{schema.TABLES[name]} {schema.OF_CLIPS[name]}")


def _write_labels(file: h5py.File, index: DatasetIndex) -> None:
    splits = _splits_of(index)
    dtype = schema.labels_dtype(index.widest["class"], splits)
    counts = [index.counts(split).tolist() for split in splits]
    rows = [
        (label, name.encode(), *numbers)
        for label, (name, *numbers) in enumerate(zip(index.classes, *counts, strict=True))
    ]
    _fill(file, "labels", np.array(rows, dtype))


def _splits_of(index: DatasetIndex) -> list[str]:
    """The three standard splits, empty or not, and any other split of this data set."""
    there = set(index.splits.tolist())
    return [split for split in ALL_SPLITS if split in SPLITS or split in there]


def _write_settings(file: h5py.File, settings: Mapping[str, Mapping[str, object]], idle: Collection[str]) -> None:
    rows = [
        (
            f"{section}: {name}".encode(),
            str(value).encode(),
            b"no" if section == "proposals" and name in idle else b"yes",
        )
        for section, values in settings.items()
        for name, value in values.items()
    ]
    names, values, _ = zip(*rows, strict=True)
    _fill(file, "settings", np.array(rows, schema.settings_dtype(max(map(len, names)), max(map(len, values)))))


# Sentences of the read-me about clips.
_OF_CLIPS = (
    "frame of primary is the number of the frame in its clip.",
    "A region is the same thing in all frames of its clip.",
    "valid is 0 where it has no keypoint: the box is filled in.",
)


def read_me(index: DatasetIndex, layout: Layout, unreadable: int, few: int) -> list[str]:
    """Build the sentences of the read-me table, each of at most `schema.READ_ME_LETTERS` letters.

    Args:
        index: Data set.
        layout: Regions of an image.
        unreadable: Number of images that could not be read.
        few: Number of images with few keypoints.
    """
    parts = [f"{int((index.splits == split).sum()):,} {split}" for split in _splits_of(index)]
    pairs = len(layout.pairs)
    kinds = [f"{layout.primary} primary regions" if layout.primary else "", f"{pairs} around pairs" if pairs else ""]
    of_regions = (
        f"{'Each frame' if index.of_clips else 'A usable image'} has {' and '.join(filter(None, kinds))}.",
        *(_OF_CLIPS if index.of_clips else ()),
        "first_row_in_primary of images says where they begin.",
        "Boxes are in pixels of the upright photograph.",
        "x0 y0 is the upper left corner, x1 y1 the lower right one.",
        "hulls holds the outlines that the primary regions enclose.",
    )
    rows, whole = rows_called(index.of_clips), "frame" if index.of_clips else "image"
    sentences = [
        f"Regions of a data set's {rows}, for attention networks.",
        f"The data set is {index.title or index.dataset}",
        f"It has {len(index):,} {rows} of {len(index.classes):,} classes:",
        *(f"   {part}" for part in parts),
        f"{unreadable:,} {rows} could not be used{': see failures.' if unreadable else '.'}",
        *([f"{few:,} have few keypoints: regions are the whole {whole}."] if few else []),
        "The file is complete.",
        "If there is a group preview, begin with its pictures.",
        f"images has one row per {rows[:-1]}, numbered from 0.",
        *(of_regions if layout.count else ("There are no regions: for models that use none.",)),
        "settings lists how it was made, labels the classes.",
        "In Python, where FILE is the name of this file:",
        "   import pandas",
        "   images = pandas.read_hdf(FILE, 'images')",
    ]
    longest = schema.READ_ME_LETTERS
    return [text if len(text) <= longest else text[: longest - 1] + "…" for text in map(printable, sentences)]


def _write_read_me(file: h5py.File, sentences: Sequence[str]) -> None:
    dtype = schema.read_me_dtype(widest(sentences))
    _fill(file, schema.READ_ME, np.array([(sentence.encode(),) for sentence in sentences], dtype))


def _write_previews(file: h5py.File, previews: Mapping[str, tuple[np.ndarray, str]]) -> None:
    """Write pictures by the HDF5 Image specification, so that HDFView opens them as pictures on a double click."""
    group = file.create_group(schema.PREVIEW)
    group.attrs["description"] = np.bytes_(
        "A few images by their rows in the table images, with their primary regions."
    )
    for name, (picture, caption) in previews.items():
        dataset = group.create_dataset(name, data=picture, compression="gzip", compression_opts=schema.GZIP_LEVEL)
        dataset.attrs["CLASS"] = np.bytes_("IMAGE")
        dataset.attrs["IMAGE_VERSION"] = np.bytes_("1.2")
        dataset.attrs["IMAGE_SUBCLASS"] = np.bytes_("IMAGE_TRUECOLOR")
        dataset.attrs["INTERLACE_MODE"] = np.bytes_("INTERLACE_PIXEL")
        dataset.attrs["description"] = np.bytes_(caption.encode())


def _scalar(value: str | int | float) -> np.bytes_ | int | float:
    return np.bytes_(value.encode()) if isinstance(value, str) else value


def _cut(reason: str) -> bytes:
    """Encode the reason as UTF-8, cut to the column's width but never inside a character."""
    return reason.encode()[: schema.MAX_REASON].decode(errors="ignore").encode()
