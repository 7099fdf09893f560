"""The named data sets: each entry knows one layout on disk and turns it into a `DatasetIndex`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from . import demo
from .errors import ConfigurationError, DatasetError
from .images import IMAGE_SUFFIXES
from .index import DatasetIndex, build_index, cut_from_train, limit_index

Rows = list[tuple[str, str, str]]

TEST_FRACTION_OF_FOLDERS = 0.2

# What people call the folders of a split data set; upper or lower case.
_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def open_dataset(
    dataset: str,
    root: str | Path,
    *,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    limit: int | None = None,
) -> DatasetIndex:
    """The index of a data set, its validation part cut from train where it brings none.

    Args:
        dataset: a key of `CATALOGUE`.
        root: the folder that holds the data set (for ``folder``, the folder of class folders itself).
        val_fraction: share of each class's training images that becomes validation; 0 cuts none.
        split_seed: seed of that cut, and of the test split where the layout has none.
        limit: keep at most this many images.

    Raises: `DatasetError` naming what was looked for, where, and how to get it.
    """
    if dataset not in CATALOGUE:
        raise ConfigurationError(f"unknown data set {dataset!r}; known: {', '.join(CATALOGUE)}")
    root = Path(root)
    left_out: Counter[str] = Counter()
    index = build_index(dataset, root, CATALOGUE[dataset](root, left_out))
    if not (index.splits == "test").any():
        index = cut_from_train(index, TEST_FRACTION_OF_FOLDERS, "test", split_seed)
    if not (index.splits == "val").any():
        index = cut_from_train(index, val_fraction, "val", split_seed)
    if limit is not None:
        index = limit_index(index, limit)
    opened_with: dict[str, object] = {"val_fraction": val_fraction, "split_seed": split_seed, "limit": limit}
    return replace(index, opened_with=opened_with, left_out=dict(left_out))


def folder_rows(root: Path, left_out: Counter[str]) -> Rows:
    """``train/<class>/*`` with ``val/`` and/or ``test/`` beside it, or ``<class>/*`` without any split.

    Also by their other usual names: training, valid, validation, testing.

    A lone ``val`` is taken as the held-out test part: it would otherwise be selected on and reported at once.
    Without split folders every image is ``train`` here, and `open_dataset` cuts the test part, seeded.
    """
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}; name the folder of class folders with --root")
    folders = {part.name.lower(): part for part in _folders(root)}
    parts: dict[str, Path] = {}
    for name, split in _SPLIT_FOLDERS.items():
        if name in folders:
            part = folders.pop(name)
            if split in parts:
                raise DatasetError(f"{root}: {parts[split].name!r} and {name!r} are both {split}; keep one of them")
            parts[split] = part
    if not parts:
        return [(name, label, "train") for name, label in _images_by_class(root, root, left_out)]
    if "train" not in parts:
        raise DatasetError(f"{root} has a folder of images to test on but no folder train beside it")
    if folders:
        raise DatasetError(f"{root}: the folder {min(folders)!r} beside train is no split (train, val or test)")
    if "val" in parts and "test" not in parts:
        parts["test"] = parts.pop("val")
    rows: Rows = []
    for split, part in parts.items():
        rows += [(name, label, split) for name, label in _images_by_class(part, root, left_out)]
    unknown = {label for _, label, _ in rows} - {label for _, label, split in rows if split == "train"}
    if unknown:
        raise DatasetError(f"{root}: class {min(unknown)!r} has images to test on but none in train")
    return rows


def food101_rows(root: Path, left_out: Counter[str]) -> Rows:
    """Food-101 as distributed: ``food-101/images/<class>/<id>.jpg`` and ``food-101/meta/{train,test}.txt``."""
    base = next((place for place in (root / "food-101", root) if (place / "meta").is_dir()), root / "food-101")
    prefix = "" if base == root else f"{base.name}/"
    rows: Rows = []
    for split in ("train", "test"):
        listing = base / "meta" / f"{split}.txt"
        try:
            lines = listing.read_text(encoding="utf-8").split("\n")
        except OSError:
            raise DatasetError(
                f"Food-101 is not under {root}: looked for {listing}. Get food-101.tar.gz (5 GB) from "
                "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/ , extract it there, or name the "
                "folder that holds food-101/ with --root"
            ) from None
        for line in filter(None, map(str.strip, lines)):
            label, separator, _ = line.partition("/")
            if not separator:
                raise DatasetError(f"{listing}: expected lines like 'apple_pie/1005649', got {line!r}")
            rows.append((f"{prefix}images/{line}.jpg", label, split))
    if not (base / "images").is_dir():
        raise DatasetError(
            f"Food-101's lists are in {base / 'meta'} but there is no folder {base / 'images'}: extract the "
            "whole archive"
        )
    return rows


def demo_rows(root: Path, left_out: Counter[str]) -> Rows:
    """The embedded data set, made under ``root`` on first use; see `demo`."""
    place = demo.ensure_demo(root)
    return [(f"{place.name}/{name}", label, split) for name, label, split in folder_rows(place, left_out)]


# Each takes the root and gives (name relative to it, class, split) for every image, and counts files left out by kind.
CATALOGUE: dict[str, Callable[[Path, Counter[str]], Rows]] = {
    "demo": demo_rows,
    "folder": folder_rows,
    "food101": food101_rows,
}


def _images_by_class(part: Path, root: Path, left_out: Counter[str]) -> list[tuple[str, str]]:
    """(path relative to root, class) for every image in the class folders of ``part``, sorted."""
    found = []
    for class_folder in _folders(part):
        # In the order of their parts: a folder's images together, whatever letters sort before a slash.
        mine = sorted(_image_files(class_folder, left_out), key=lambda name: name.split("/"))
        if not mine:
            raise DatasetError(f"the class folder {class_folder} holds no images; remove it or fill it")
        place = class_folder.relative_to(root).as_posix()
        found += [(f"{place}/{name}", class_folder.name) for name in mine]
    loose = (entry.suffix.lower() for entry in part.iterdir() if entry.is_file())
    left_out.update(f"{suffix} outside class folders" for suffix in loose if suffix in IMAGE_SUFFIXES)
    if not found:
        raise DatasetError(f"no images found in class folders under {part} (expected {part}/<class>/*.jpg)")
    return found


def _image_files(folder: Path, left_out: Counter[str]) -> Iterator[str]:
    """Names relative to ``folder`` of the images in it and below, links followed, each folder entered once.

    Files that are no images by their names are counted in ``left_out`` by their suffix.
    """
    entered = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for file in files:
            suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 - fast
            if file.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES:
                yield prefix + file
            else:
                left_out[suffix or file] += 1


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX")))
