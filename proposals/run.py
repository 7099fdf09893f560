"""Stage 1 over a whole data set: parallel, resumable, with one writer and the same bytes however it is run.

Workers compute; only this process writes. Finished images are kept in parts of `PART_IMAGES` beside the output. Each
part is named by a key of everything that affects its content, and all are merged at the end. However a run is stopped,
the same command resumes after its last finished part.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import filelock
import numpy as np

from .. import __version__
from ..data.boxes import schema
from ..data.boxes.reader import Settings, embedded_photographs, read_boxes, read_listing, refuse_to_replace_other
from ..data.boxes.verification import stamps_of
from ..data.boxes.writer import Part, build_part, write_boxes
from ..data.clips import frames_numbered
from ..data.drawing import captioned_sheet, contact_sheet, draw_regions
from ..data.errors import BoxesFileError, ConfigurationError, ImageError, MismatchError, WorkerError
from ..data.faults import PASSING
from ..data.files import atomic_file, check_folder_writable
from ..data.images import decode_image
from ..data.index import DatasetIndex
from ..data.places import relative_hint
from ..data.regions import Proposal
from ..data.text import file_name
from ..data.workers import in_parallel
from .provenance import REMEDY, digest, recorded_settings, refuse_difference, refuse_other
from .settings import SHUFFLED, SHUFFLED_SLOTS, ProposalSettings, name_of_weights
from .shuffled import Load, shuffled, shuffled_slots
from .worker import lost_image, propose_chunk

PART_IMAGES = 256
CHUNK_IMAGES, CHUNK_CLIPS = 16, 2
PREVIEWS, FEW_PREVIEWS = 12, 3
STRIP = 4  #: frames of a clip in its preview

_LOCK, _SETTINGS = "lock", "settings.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """Result of a run of `propose_dataset`."""

    boxes: Path
    images: int
    few_keypoints: int
    unreadable: int
    first_failure: str  #: an unreadable image and the reason; empty if there is none
    reused: int  #: number of images that an earlier run had finished
    previews: int = 0  #: number of photographs in the file
    postponed: int = 0  #: unreadable images that the same command will try again, since they may be intact


def propose_dataset(
    index: DatasetIndex,
    settings: ProposalSettings,
    boxes: str | Path,
    *,
    weights: Path | None = None,
    jobs: int | None = None,
    restart: bool = False,
    previews: bool = True,
    progress: Progress = lambda done, unreadable: None,
) -> Summary:
    """Write the regions of every image of ``index`` to the file ``boxes``.

    Args:
        index: Data set.
        settings: Proposal settings.
        boxes: Output file; its finished parts are kept in ``<boxes>.parts`` beside it.
        weights: File with the weights of the method's network; ``settings.weights`` is its digest.
        jobs: Number of joblib workers; by default as set by the caller's ``joblib.parallel_config``, else all cores.
        restart: Whether to discard what earlier runs left at ``boxes``.
        previews: Whether to embed a few photographs in the file for viewing.
        progress: Function called with the growing numbers of images done and of unreadable ones among them.

    Raises: `MismatchError` if ``boxes`` was made with other settings or from other images, `BoxesFileError` if another
    run is writing it or no image could be used, `WorkerError` if workers cannot be started or memory does not suffice
    for any image, `DatasetError` if the images have disappeared, `ConfigurationError` if the folder of ``boxes`` is
    read-only.
    """
    boxes = Path(boxes)
    if boxes.is_dir() or not boxes.name:
        raise BoxesFileError(f"{boxes} is a folder; name a file with --boxes")
    if name_of_weights(weights) != settings.weights:
        raise ConfigurationError(
            f"the settings name other weights ({settings.weights}) than those of the file {weights}"
        )
    if index.of_clips != (settings.frames > 0):
        rows, wanted = ("clips", "1 or more") if index.of_clips else ("images", "0")
        raise ConfigurationError(
            f"proposal setting 'frames': wanted {wanted}, since {index.title or index.dataset} is of {rows}; got "
            f"{settings.frames}"
        )
    recorded = recorded_settings(index, settings)
    folder = boxes.with_name(boxes.name + ".parts")
    # Check for an unfinished run first: it may be about to replace the file.
    if boxes.exists() and not restart and not (folder / _SETTINGS).exists():
        refuse_other(boxes, recorded, index)
        if not previews and (embedded := embedded_photographs(boxes)):
            raise MismatchError(
                f"{boxes} is finished and holds {embedded:,} photographs as previews; --restart makes it again without"
            )
        return _summary(boxes, reused=len(index))
    if restart:
        refuse_to_replace_other(boxes)
    for place in (boxes.parent, folder):
        check_folder_writable(place, "name a file in another folder with --boxes")
    with _locked(boxes, folder):
        if restart:
            _clear(folder)
        _claim(folder, recorded, index)
        run = _Run(index, settings, weights, folder, _part_keys(index, recorded))
        reused, postponed = run.finish(jobs, progress)
        parts: list[Load] = [partial(Part.load, path) for path in run.paths]
        if settings.method == SHUFFLED:
            parts = shuffled(index, parts, settings)
        elif settings.method == SHUFFLED_SLOTS:
            parts = shuffled_slots(index, parts, settings)
        attributes, statuses = _attributes(index, settings, boxes, parts)
        write_boxes(
            boxes,
            index,
            parts,
            settings.layout,
            attributes=attributes,
            settings=recorded,
            previews=_previews(index, settings, parts, statuses) if previews else {},
            idle=settings.idle,
        )
        if not postponed:
            _clear(folder)
    return _summary(boxes, reused, postponed)


@contextmanager
def _locked(boxes: Path, folder: Path) -> Iterator[None]:
    """Reserve the folder of the parts for this run. Raises: `BoxesFileError` if another run has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    busy = BoxesFileError(f"another run is writing {boxes}; wait for it or name another file with --boxes")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise busy from None
    if not (folder / _LOCK).exists():  # the previous owner is just deleting the folder
        lock.release()
        raise busy
    threads = cv2.getNumThreads()
    try:
        yield
    finally:
        cv2.setNumThreads(threads)  # a worker that runs in this process sets it to one
        if {entry.name for entry in folder.iterdir()} <= {_LOCK}:
            shutil.rmtree(folder, ignore_errors=True)  # before another run can take the lock
        lock.release()


def _clear(folder: Path, keep: Iterable[Path] = ()) -> None:
    """Delete what runs leave in the folder of the parts; other files are the user's."""
    for pattern in ("*.npz", "*.tmp", _SETTINGS):
        for entry in set(folder.glob(pattern)) - set(keep):
            entry.unlink()


def _claim(folder: Path, recorded: Settings, index: DatasetIndex) -> None:
    """Record what the parts in ``folder`` are made from, or raise `MismatchError` if it is something else."""
    note = folder / _SETTINGS
    listed = digest([index.names, index.classes, index.labels.tolist(), index.splits.tolist()])
    try:
        existing = json.loads(note.read_text(encoding="utf-8"))
        settings, images, count = (existing[key] for key in ("settings", "images", "count"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        _clear(folder)
        with atomic_file(note) as unfinished:
            content = {"settings": recorded, "images": listed, "count": len(index)}
            unfinished.write_text(json.dumps(content), encoding="utf-8")
        return
    refuse_difference(f"the unfinished run in {folder}", settings, recorded)
    if images != listed:
        raise MismatchError(
            f"the unfinished run in {folder} was started with another list of images, classes or splits "
            f"({count:,} images then, {len(index):,} now); {REMEDY}"
        )


@dataclass(frozen=True)
class _Run:
    """The parts of a data set: the finished ones, and how to make the others."""

    index: DatasetIndex
    settings: ProposalSettings
    weights: Path | None
    folder: Path
    keys: list[str]  #: one per part, of everything that affects its content

    @property
    def paths(self) -> list[Path]:
        return [self.folder / f"{number:05d}-{key}.npz" for number, key in enumerate(self.keys)]

    def finish(self, jobs: int | None, progress: Progress) -> tuple[int, int]:
        """Compute the missing parts.

        Returns: the number of images in parts that were finished, and of images left for now, whose parts the next run
        makes again.
        Raises: `WorkerError` if no image could be used, for reasons that may be temporary.
        """
        _clear(self.folder, keep=[*self.paths, self.folder / _SETTINGS])  # parts with images that have changed since
        failed = {number: _failures_of_finished(path) for number, path in enumerate(self.paths)}
        missing = [number for number, failures in failed.items() if failures is None]
        done = reused = len(self.index) - sum(len(self._names(number)) for number in missing)
        unreadable = sum(failures for failures in failed.values() if failures)
        postponed: list[str] = []
        progress(done, unreadable)
        with closing(self._proposals(missing, jobs)) as chunks:
            for number in missing:
                proposals: list[Proposal] = []
                while len(proposals) < len(self._names(number)):
                    chunk = next(chunks)
                    proposals += chunk
                    done, unreadable = done + len(chunk), unreadable + sum(p.regions is None for p in chunk)
                    postponed += [p.reason.removeprefix(PASSING) for p in chunk if p.reason.startswith(PASSING)]
                    progress(done, unreadable)
                build_part(self.index, number * PART_IMAGES, proposals).save(self.paths[number])
        if postponed and unreadable == len(self.index):
            raise WorkerError(
                f"no image can be used here and now, for no known fault of the images (first: {postponed[0]}); "
                "the same command tries them again"
            )
        return reused, len(postponed)

    def _names(self, number: int) -> tuple[str, ...]:
        return self.index.names[number * PART_IMAGES : (number + 1) * PART_IMAGES]

    def _proposals(self, missing: Iterable[int], jobs: int | None) -> Generator[list[Proposal], None, None]:
        """Chunks of proposals, none of which spans two parts."""
        names = [self._names(number) for number in missing]
        size = CHUNK_CLIPS if self.index.of_clips else CHUNK_IMAGES
        chunks = [part[at : at + size] for part in names for at in range(0, len(part), size)]
        root = str(self.index.root.resolve())
        weights = str(self.weights.resolve()) if self.weights else None
        task = partial(propose_chunk, root, self.settings, weights)
        return in_parallel(chunks, task, partial(lost_image, root, self.index.of_clips), jobs)


def _failures_of_finished(path: Path) -> int | None:
    """Number of images in a finished part that could not be used; None if the part must be made (again).

    It must if it is missing or damaged, or if a file could not be opened, which may be possible now.
    """
    try:
        part = Part.load(path)
        return len(part.failures) if (part.images["content_blake2b"] != b"").all() else None
    except (FileNotFoundError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)
        return None


def _part_keys(index: DatasetIndex, recorded: Settings) -> list[str]:
    """A key for each part: settings, versions, and its images' names, labels, splits, sizes and modification times."""
    made_by = json.dumps([schema.FORMAT_VERSION, recorded], sort_keys=True)
    sizes, times = (stamps.tolist() for stamps in stamps_of(index.root, index.names))
    labels, splits = index.labels.tolist(), index.splits.tolist()
    images = list(zip(index.names, labels, splits, sizes, times, strict=True))
    return [
        digest([made_by, start, index.classes, images[start : start + PART_IMAGES]])
        for start in range(0, len(index), PART_IMAGES)
    ]


def _attributes(
    index: DatasetIndex, settings: ProposalSettings, boxes: Path, parts: list[Load]
) -> tuple[dict[str, str | int], np.ndarray]:
    """Root attributes, and the status of each image."""
    hulls = hashlib.blake2b(digest_size=16)
    tables = []
    for load in parts:
        part = load()
        hulls.update(part.hulls.tobytes())
        if index.of_clips:
            hulls.update(part.primary[["frame", "valid"]].tobytes())
        tables.append(part.images)
    images = np.concatenate(tables)
    contents = hashlib.blake2b(digest_size=16)
    contents.update(json.dumps([settings.to_dict(), index.classes, hulls.hexdigest()]).encode())
    for column in (schema.PATH, "label", "split", "content_blake2b"):
        contents.update(images[column].tobytes())
    statuses = images[schema.STATUS].tolist()
    attributes: dict[str, str | int] = {
        "description": schema.DESCRIPTION,
        "made_by": f"agnet {__version__}",
        "dataset": index.dataset,
        "title": index.title or index.dataset,
        "images": len(index),
        "images_with_few_keypoints": statuses.count(schema.STATUS_FEW.encode()),
        "images_unreadable": statuses.count(schema.STATUS_UNREADABLE.encode()),
        "root_relative_to_this_file": relative_hint(index.root, boxes.parent),
        "fingerprint": contents.hexdigest(),  # identifies the boxes and their images
    }
    return attributes | ({"val_is_test": 1} if index.val_is_test else {}), images[schema.STATUS]


def _summary(boxes: Path, reused: int, postponed: int = 0) -> Summary:
    status = read_listing(boxes).status
    few, unreadable = (int((status == kind).sum()) for kind in (schema.STATUS_FEW, schema.STATUS_UNREADABLE))
    failures = read_boxes(boxes).failures if unreadable else ()
    first = f"{failures[0][0]}: {failures[0][1]}" if failures else ""
    return Summary(
        boxes, len(status), few, unreadable, first, reused, previews=embedded_photographs(boxes), postponed=postponed
    )


def _previews(
    index: DatasetIndex, settings: ProposalSettings, parts: list[Load], statuses: np.ndarray
) -> dict[str, tuple[np.ndarray, str]]:
    """Draw up to `PREVIEWS` usable images with their regions, named by their rows, and a sheet of all.

    They are spread evenly over the data set, except that up to `FEW_PREVIEWS` images with too few keypoints are always
    included, so that they do not go unnoticed.
    """
    layout = settings.layout
    digits = max(5, len(str(len(index) - 1)))  # in a name, so that names sort by row
    pictures: dict[str, tuple[np.ndarray, str]] = {}
    tiles: list[tuple[np.ndarray, str]] = []
    for number in _previewed(statuses):
        name, label = index.names[number], index.classes[index.labels[number]]
        part = parts[number // PART_IMAGES]()
        rows = part.primary[part.primary["image"] == number]
        try:
            if index.of_clips:
                picture = _strip(index.root / name, int(part.images["frames"][number % PART_IMAGES]), rows, settings)
            else:
                image = decode_image((index.root / name).read_bytes(), settings.max_pixels)
                picture = draw_regions(image, _boxes(rows), layout, 480)
        except (OSError, ImageError):
            continue
        pictures[f"image_{number:0{digits}d}_{file_name(label)}"] = picture, f"image {number}, {name}, class {label}"
        tiles.append((picture, f"{number} · {label} · {statuses[number].decode()}"))
    if not tiles:
        return {}
    legend = "Row in the table images · class · status."
    if layout.count:
        legend += " Boxes: primary regions by their numbers; white: around 0 and 1."
        legend += " Dashed: filled in." if index.of_clips else ""
    sheet = captioned_sheet(tiles, 4, legend)
    return {schema.SHEET: (sheet, "all pictures of this group"), **pictures}


def _strip(path: Path, frames: int, rows: np.ndarray, settings: ProposalSettings) -> np.ndarray:
    """Draw some frames of a clip with their regions, from its ``rows`` of the table primary, two in a row."""
    numbers = np.unique(rows["frame"]) if len(rows) else np.arange(frames)
    chosen = _evenly(numbers, STRIP)
    pictures = []
    for frame in frames_numbered(path, chosen, settings.max_pixels):
        own = rows[rows["frame"] == frame.number]
        pictures.append(draw_regions(frame.pixels, _boxes(own), settings.layout, 240, own["valid"]))
    height, width = pictures[0].shape[:2]
    return contact_sheet(pictures, 2, (width + 6, height + 6))


def _boxes(rows: np.ndarray) -> np.ndarray:
    """The boxes of rows of the table primary, ``(n, 4)``."""
    return np.stack([rows[column] for column in ("x0", "y0", "x1", "y1")], axis=-1)


def _previewed(statuses: np.ndarray) -> list[int]:
    """Choose the images to preview, increasing, from the ``statuses`` of all images."""
    few = np.flatnonzero(statuses == schema.STATUS_FEW.encode())
    chosen = set(_evenly(few, FEW_PREVIEWS))
    usable = np.flatnonzero(statuses != schema.STATUS_UNREADABLE.encode())
    others = usable[~np.isin(usable, list(chosen))]
    return sorted(chosen | set(_evenly(others, PREVIEWS - len(chosen))))


def _evenly(rows: np.ndarray, count: int) -> list[int]:
    """At most ``count`` evenly spaced rows, including the first and the last."""
    if not len(rows):
        return []
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].tolist()
