"""Stage 1 over a whole data set: parallel, resumable, one writer, the same bytes however it is run.

Workers compute; this process alone writes. Finished images are kept in parts of `PART_IMAGES` beside the
output, each named by a key of everything that decides its content, and merged when all are there. Whatever
stops a run, the same command goes on from its last finished part.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import filelock
import h5py
import joblib
import numpy as np
import PIL
import sklearn
import threadpoolctl
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .. import __version__
from ..data import boxes_schema as schema
from ..data.atomic import atomic_file
from ..data.boxes_reader import Settings, read_header
from ..data.boxes_writer import Part, Proposal, build_part, write_boxes
from ..data.drawing import contact_sheet, draw_regions, fit_within
from ..data.errors import BoxesFileError, ImageError, MismatchError
from ..data.images import decode_image
from ..data.index import DatasetIndex
from ..data.places import relative_hint
from .one_image import propose_regions
from .settings import ProposalSettings

PART_IMAGES = 256
CHUNK_IMAGES = 16
PREVIEWS = 12

_LOCK, _SETTINGS = "lock", "settings.json"
_REMEDY = "add --restart to start over, or name another file with --boxes"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Summary:
    """What a run of `propose_dataset` did."""

    boxes: Path
    images: int
    few_keypoints: int
    unreadable: int
    reused: int  #: images whose regions an earlier run had finished


def propose_dataset(
    index: DatasetIndex,
    settings: ProposalSettings,
    boxes: Path,
    *,
    dataset_settings: dict[str, object],
    jobs: int | None = None,
    restart: bool = False,
    progress: Progress = lambda done, unreadable: None,
) -> Summary:
    """Write the regions of every image of ``index`` to the file ``boxes``.

    Args:
        index: the data set.
        settings: what decides the regions.
        boxes: the file; its finished parts wait in ``<boxes>.parts`` beside it.
        dataset_settings: how the index came to be; recorded, and compared when a run goes on.
        jobs: joblib workers; by default as the caller's ``joblib.parallel_config`` says, else all cores.
        restart: throw away what earlier runs left at ``boxes``.
        progress: called with images done and unreadable ones among them, as they grow.

    Raises: `MismatchError` when ``boxes`` was made otherwise, `BoxesFileError` when another run is writing
    it or no image could be used.
    """
    if boxes.is_dir() or not boxes.name:
        raise BoxesFileError(f"{boxes} is a folder; name a file with --boxes")
    recorded = _recorded_settings(index, settings, dataset_settings)
    folder = boxes.with_name(boxes.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BoxesFileError(f"another run is writing {boxes}; wait for it or name another file with --boxes") from None
    try:
        stamps = [_stamp(index, row) for row in range(len(index))]
        if restart:
            boxes.unlink(missing_ok=True)
            _clear(folder)
        if boxes.exists():
            _refuse_other(boxes, recorded, _request(index, stamps))
            reused = len(index)
        else:
            _claim(folder, recorded)
            parts, reused = _finish_parts(index, settings, _part_keys(index, stamps, recorded), folder, jobs, progress)
            write_boxes(
                boxes,
                index,
                [partial(Part.load, path) for path in parts],
                attributes=_attributes(index, settings, _request(index, stamps), boxes, parts),
                settings=recorded,
                previews=_previews(index, parts),
            )
        shutil.rmtree(folder, ignore_errors=True)
        return _summary(boxes, reused)
    finally:
        lock.release()
        if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {_LOCK}:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.name != _LOCK:
            entry.unlink()


def _claim(folder: Path, recorded: Settings) -> None:
    """Note what the parts in ``folder`` are made with, or raise `MismatchError` if they were made otherwise."""
    note = folder / _SETTINGS
    try:
        existing = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        _clear(folder)
        with atomic_file(note) as unfinished:
            unfinished.write_text(json.dumps(recorded), encoding="utf-8")
        return
    _refuse_difference(f"the unfinished run in {folder}", existing, recorded)


def _finish_parts(
    index: DatasetIndex,
    settings: ProposalSettings,
    keys: list[str],
    folder: Path,
    jobs: int | None,
    progress: Progress,
) -> tuple[list[Path], int]:
    """Compute the parts that are not there yet. Returns all parts' paths and the images of reused ones."""
    paths = [folder / f"{number:05d}-{key}.npz" for number, key in enumerate(keys)]
    for stale in set(folder.iterdir()) - {*paths, folder / _LOCK, folder / _SETTINGS}:
        stale.unlink()  # parts of images that have changed since
    root = str(index.root.resolve())  # a worker may have been started in another folder
    done = unreadable = reused = 0
    with joblib.Parallel(n_jobs=_jobs(jobs)) as parallel, _told_when_killed():
        for number, path in enumerate(paths):
            names = index.names[number * PART_IMAGES : (number + 1) * PART_IMAGES]
            failed = _failures_of_finished(path)
            if failed is not None:
                reused += len(names)
                done, unreadable = done + len(names), unreadable + failed
                progress(done, unreadable)
                continue
            proposals: list[Proposal] = []
            # A few chunks a worker at a time: plain lists, because not every joblib backend can stream.
            for batch in _batches(names, CHUNK_IMAGES * 8 * _workers(parallel)):
                chunks = [batch[at : at + CHUNK_IMAGES] for at in range(0, len(batch), CHUNK_IMAGES)]
                for chunk in parallel(joblib.delayed(propose_chunk)(root, c, settings) for c in chunks):
                    proposals += chunk
                    done, unreadable = done + len(chunk), unreadable + sum(p.regions is None for p in chunk)
                progress(done, unreadable)
            build_part(index, number * PART_IMAGES, proposals).save(path)
    return paths, reused


@contextmanager
def _told_when_killed() -> Iterator[None]:
    try:
        yield
    except TerminatedWorkerError:
        raise BoxesFileError(
            "a worker process was killed, most likely for want of memory. Finished images are kept: run the same "
            "again, with fewer workers (--jobs)"
        ) from None


def _failures_of_finished(path: Path) -> int | None:
    """How many images of a finished part could not be used; None if it is not there or damaged."""
    try:
        return len(Part.load(path).failures)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)
        return None


def propose_chunk(root: str, names: Sequence[str], settings: ProposalSettings) -> list[Proposal]:
    """One worker's task: the proposals of some images, in order. Unreadable images are recorded, not raised."""
    # joblib limits neither OpenCV's own pool nor every BLAS; left alone, workers fight over the cores.
    cv2.setNumThreads(1)
    with threadpoolctl.threadpool_limits(1):
        return [_propose_file(Path(root), name, settings) for name in names]


def _propose_file(root: Path, name: str, settings: ProposalSettings) -> Proposal:
    try:
        content = (root / name).read_bytes()
    except OSError as error:
        return Proposal(None, 0, "", f"cannot be read: {error.strerror or error}")
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    try:
        image = decode_image(content)
    except ImageError as error:
        return Proposal(None, len(content), digest, str(error))
    return Proposal(propose_regions(image, settings), len(content), digest)


def _recorded_settings(
    index: DatasetIndex, settings: ProposalSettings, dataset_settings: dict[str, object]
) -> Settings:
    versions: dict[str, object] = {
        "agnet": __version__,
        "opencv": cv2.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
    }
    return {
        "dataset": {"name": index.dataset, **dataset_settings},
        "proposals": dict(settings.to_dict()),
        "versions": versions,
    }


def _part_keys(index: DatasetIndex, stamps: list[tuple[int, int]], recorded: Settings) -> list[str]:
    """A key for each part: settings, versions, and its images' names, labels, splits, sizes and times of change."""
    made_by = json.dumps([schema.FORMAT_VERSION, recorded], sort_keys=True)
    keys = []
    for start in range(0, len(index), PART_IMAGES):
        rows = range(start, min(start + PART_IMAGES, len(index)))
        images = [(index.names[row], int(index.labels[row]), str(index.splits[row]), stamps[row]) for row in rows]
        keys.append(_digest([made_by, start, index.classes, images]))
    return keys


def _request(index: DatasetIndex, stamps: list[tuple[int, int]]) -> str:
    """What was asked for: names, labels, splits and sizes in bytes. Not times: a copied folder is the same."""
    sizes = [size for size, _ in stamps]
    return _digest([index.names, index.classes, index.labels.tolist(), index.splits.tolist(), sizes])


def _stamp(index: DatasetIndex, row: int) -> tuple[int, int]:
    """Size and time of change of an image's file; zeros when it is not there."""
    try:
        status = (index.root / index.names[row]).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _refuse_other(boxes: Path, recorded: Settings, request: str) -> None:
    """Raise `MismatchError` if the finished file ``boxes`` is not what this run would write."""
    attributes, existing = read_header(boxes)
    _refuse_difference(str(boxes), existing, recorded)
    if attributes.get("request") != request:
        raise MismatchError(f"{boxes} was made from other images, labels or splits than are there now; {_REMEDY}")


def _refuse_difference(what: str, existing: Settings, recorded: Settings) -> None:
    for section, values in json.loads(json.dumps(recorded)).items():
        found = existing.get(section, {})
        for name in sorted(set(values) | set(found)):
            if values.get(name) != found.get(name):
                raise MismatchError(
                    f"{what} was made with another {section} setting: {name} = {found.get(name)!r}, this run has "
                    f"{values.get(name)!r}; {_REMEDY}"
                )


def _attributes(
    index: DatasetIndex, settings: ProposalSettings, request: str, boxes: Path, parts: list[Path]
) -> dict[str, str | int]:
    hulls = hashlib.blake2b(digest_size=16)
    tables = []
    for path in parts:
        part = Part.load(path)
        hulls.update(part.hulls.tobytes())
        tables.append(part.images)
    images = np.concatenate(tables)
    contents = hashlib.blake2b(digest_size=16)
    contents.update(json.dumps([settings.to_dict(), index.classes, hulls.hexdigest()]).encode())
    for column in (schema.PATH, "label", "split", "content_blake2b"):
        contents.update(images[column].tobytes())
    statuses = images["status"].tolist()
    return {
        "description": f"Salient regions of {len(index)} images, made by agnet {__version__}.",
        "dataset": index.dataset,
        "images": len(index),
        "images_with_few_keypoints": statuses.count(schema.STATUS_FEW.encode()),
        "images_unreadable": statuses.count(schema.STATUS_UNREADABLE.encode()),
        "root_relative_to_this_file": relative_hint(index.root, boxes.parent),
        "fingerprint": contents.hexdigest(),  # what the boxes and their images are
        "request": request,  # what this run was asked for
    }


def _summary(boxes: Path, reused: int) -> Summary:
    attributes, _ = read_header(boxes)
    images, few, unreadable = (
        int(str(attributes[name])) for name in ("images", "images_with_few_keypoints", "images_unreadable")
    )
    return Summary(boxes, images, few, unreadable, reused)


def _previews(index: DatasetIndex, parts: list[Path]) -> dict[str, tuple[np.ndarray, str]]:
    """Up to `PREVIEWS` usable images, evenly over the data set, with their regions drawn, and a sheet of all."""
    wanted = set(np.linspace(0, len(index) - 1, min(PREVIEWS, len(index))).astype(int).tolist())
    pictures: dict[str, tuple[np.ndarray, str]] = {}
    for path in parts:
        primary = Part.load(path).primary
        for number in sorted(wanted & set(primary["image"].tolist())):
            rows = primary[primary["image"] == number]
            boxes = np.stack([rows[column] for column in ("x0", "y0", "x1", "y1")], axis=-1)
            name = index.names[number]
            try:
                image = decode_image((index.root / name).read_bytes())
            except (OSError, ImageError):
                continue
            label = index.classes[index.labels[number]]
            key = f"{len(pictures) + 1:02d}_{''.join(c if c.isalnum() and c.isascii() else '_' for c in label)}"
            pictures[key] = draw_regions(image, boxes, 480), f"image {number}, {name}, class {label}"
    if pictures:
        tiles = [fit_within(picture, 300) for picture, _ in pictures.values()]
        pictures = {"contact_sheet": (contact_sheet(tiles, 4, (306, 306)), "all pictures of this group"), **pictures}
    return pictures


def _jobs(jobs: int | None) -> int:
    """The number asked for here, else by ``joblib.parallel_config``, else all cores."""
    if jobs is not None:
        return jobs
    _, configured = joblib.parallel.get_active_backend()
    return -1 if configured is None else configured


def _workers(parallel: joblib.Parallel) -> int:
    return max(1, joblib.effective_n_jobs(parallel.n_jobs))


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for at in range(0, len(names), size):
        yield names[at : at + size]
