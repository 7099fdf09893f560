"""The official layouts of the fine-grained benchmarks: birds, cars, aircraft, dogs and pets.

Each function takes the root, counts files left out by kind, and raises `DatasetError` if something is missing or its
lists contradict each other. The catalogue compares the numbers with the published counts.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from ..listing import OnDisk, join
from ..text import counted
from .catalogue import CUB200, FGVC_AIRCRAFT, OXFORD_PETS, STANFORD_CARS, STANFORD_DOGS
from .entry import Entry, Options, Rows
from .mat_files import read_mat
from .on_disk import is_absent, is_incomplete, lines_of, listed_images, locate, needed_folder, needed_list, needed_part

_TEST_LABELS = "cars_test_annos_withlabels.mat"


def cub200_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``CUB_200_2011/images/NNN.Species/*.jpg`` by four lists of ``<number> <value>`` beside ``images``.

    ``images.txt`` has the paths, ``image_class_labels.txt`` the numbers of the classes, ``classes.txt`` their names,
    and ``train_test_split.txt`` 1 for train and 0 for test. The class is the name without its number.
    """
    disk = OnDisk(root)
    listing = needed_part(disk, CUB200, "train_test_split.txt", file=True)
    base = _above(listing)
    _, paths = _numbered(disk, CUB200, join(base, "images.txt"))
    _, classes = _numbered(disk, CUB200, join(base, "classes.txt"))
    labels_at, labels = _numbered(disk, CUB200, join(base, "image_class_labels.txt"))
    splits_at, splits = _numbered(disk, CUB200, join(base, "train_test_split.txt"))
    for place, listed in ((labels_at, labels), (splits_at, splits)):
        if odd := paths.keys() ^ listed.keys():
            raise DatasetError(
                f"{place} and images.txt differ by {counted(len(odd), 'images')}, first number {min(odd, key=int)}"
            )
    rows: Rows = []
    for number, path in paths.items():
        folder, _, _ = path.partition("/")
        label = classes.get(labels[number])
        if label != folder:
            found = "classes.txt does not list" if label is None else f"is {label} in classes.txt"
            raise DatasetError(
                f"{labels_at}: image {number}, in the folder {folder}, has class {labels[number]}, which {found}"
            )
        if splits[number] not in ("0", "1"):
            raise DatasetError(f"{splits_at}: expected 1 for train or 0 for test, got {splits[number]!r}")
        split = "train" if splits[number] == "1" else "test"
        rows.append((join(base, f"images/{path}"), re.sub(r"^\d+\.", "", folder), split))
    needed_folder(disk, CUB200, join(base, "images"))
    return listed_images(disk, CUB200, rows, left_out)


def stanford_cars_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``cars_{train,test}/*.jpg`` by ``devkit/cars_train_annos.mat`` and ``cars_test_annos_withlabels.mat``.

    The labels of test are a file of their own, beside ``devkit`` or in it. ``devkit/cars_meta.mat`` names the classes.
    Without ``devkit``, read ``car_ims/*.jpg`` by ``cars_annos.mat``: the same images as one archive with one list.
    """
    disk = OnDisk(root)
    listing = locate(disk, STANFORD_CARS, "devkit/cars_train_annos.mat", file=True)
    if listing is not None:
        return listed_images(disk, STANFORD_CARS, _cars_by_two_lists(disk, listing), left_out)
    listing = locate(disk, STANFORD_CARS, "cars_annos.mat", file=True)
    if listing is not None:
        return listed_images(disk, STANFORD_CARS, _cars_by_one_list(disk, listing), left_out)
    raise is_absent(STANFORD_CARS, root, "devkit/cars_train_annos.mat")


def fgvc_aircraft_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``data/images/NNNNNNN.jpg`` by ``data/images_variant_{train,val,test}.txt`` of ``<image> <variant>``.

    Variants have spaces and slashes in their names; ``data/variants.txt`` lists them.
    """
    disk = OnDisk(root)
    listing = needed_part(disk, FGVC_AIRCRAFT, "data/images_variant_train.txt", file=True)
    base = _above(listing)
    variants_at, variants = lines_of(disk, FGVC_AIRCRAFT, join(base, "variants.txt"))
    known = set(variants)
    rows: Rows = []
    for split in ("train", "val", "test"):
        place, lines = lines_of(disk, FGVC_AIRCRAFT, join(base, f"images_variant_{split}.txt"))
        for line in lines:
            image, _, variant = map(str.strip, line.partition(" "))
            if variant not in known:
                raise DatasetError(
                    f"{place}: expected lines like '1025794 707-320' with a variant of {variants_at.name}, got {line!r}"
                )
            rows.append((join(base, f"images/{image}.jpg"), variant, split))
    needed_folder(disk, FGVC_AIRCRAFT, join(base, "images"))
    return listed_images(disk, FGVC_AIRCRAFT, rows, left_out)


def stanford_dogs_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``Images/<WordNet number>-<breed>/*.jpg`` by ``{train,test}_list.mat``; the class is the breed.

    Images and lists come in separate archives, which may have been extracted to different places.
    """
    disk = OnDisk(root)
    listing = needed_part(disk, STANFORD_DOGS, "train_list.mat", file=True)
    base = _above(listing)
    rows: Rows = []
    folder_of: dict[int, str] = {}
    for split in ("train", "test"):
        place = root / needed_list(disk, STANFORD_DOGS, join(base, f"{split}_list.mat"))
        files, labels = read_mat(place, "file_list", "labels")
        if len(files) != len(labels):
            raise DatasetError(f"{place}: it has {len(files):,} files, but {len(labels):,} labels")
        for file, label in zip(files, labels, strict=True):
            found = re.fullmatch(r"(n\d+-([^/]+))/[^/]+", str(file))
            if found is None:
                raise DatasetError(
                    f"{place}: expected names like 'n02085620-Chihuahua/n02085620_5927.jpg', got {str(file)!r}"
                )
            number = _whole(place, label)
            if folder_of.setdefault(number, found[1]) != found[1]:
                raise DatasetError(f"{place}: {found[0]} has the label {number} of {folder_of[number]}")
            rows.append((found[0], found[2], split))
    images = _folder_of_images(disk, STANFORD_DOGS, listing, "Images", rows[0][0])
    rows = [(join(images, file), breed, split) for file, breed, split in rows]
    return listed_images(disk, STANFORD_DOGS, rows, left_out)


def oxford_pets_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``images/<breed>_<number>.jpg`` by ``annotations/{trainval,test}.txt``: "train" and "test".

    The lists have lines of ``<breed>_<number> <class> <species> <number within the species>``.
    """
    disk = OnDisk(root)
    listing = needed_part(disk, OXFORD_PETS, "annotations/trainval.txt", file=True)
    base = _above(listing)
    rows: Rows = []
    breed_of: dict[str, str] = {}
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        place, lines = lines_of(disk, OXFORD_PETS, join(base, file))
        for line in lines:
            found = re.fullmatch(r"((\S+)_\d+)\s+(\d+)\s+[12]\s+\d+", line)
            if found is None:
                raise DatasetError(f"{place}: expected lines like 'Abyssinian_100 1 1 1', got {line!r}")
            if breed_of.setdefault(found[3], found[2]) != found[2]:
                raise DatasetError(f"{place}: {found[1]} has the class {found[3]} of {breed_of[found[3]]}")
            rows.append((f"{found[1]}.jpg", found[2], split))
    images = _folder_of_images(disk, OXFORD_PETS, base, "images", rows[0][0])
    rows = [(join(images, file), breed, split) for file, breed, split in rows]
    return listed_images(disk, OXFORD_PETS, rows, left_out)


def _above(name: str) -> str:
    return name.rpartition("/")[0]


def _folder_of_images(disk: OnDisk, entry: Entry, neighbour: str, name: str, first: str) -> str:
    """The folder ``name`` beside ``neighbour`` or, if that lacks the image ``first``, at another usual place.

    A name like ``images`` does not tell whose folder it is; the image does.

    Raises: `DatasetError` if there is no such folder.
    """
    beside = join(_above(neighbour), name)
    found = disk.file(join(beside, first)) or locate(disk, entry, join(name, first), file=True)
    if found is not None:
        return "/".join(found.split("/")[: -len(first.split("/"))])
    return needed_folder(disk, entry, beside)


def _numbered(disk: OnDisk, entry: Entry, listing: str) -> tuple[Path, dict[str, str]]:
    """A list's path and the value of each number.

    Raises: `DatasetError` for a line that is not ``<number> <value>``, or a number that comes twice.
    """
    place, lines = lines_of(disk, entry, listing)
    values: dict[str, str] = {}
    for line in lines:
        number, _, value = line.partition(" ")
        if not number.isdecimal() or not value or number in values:
            raise DatasetError(f"{place}: expected lines of a number, each once, and a value, got {line!r}")
        values[number] = value
    return place, values


def _cars_by_two_lists(disk: OnDisk, listing: str) -> Rows:
    devkit = _above(listing)
    classes = _class_names(disk.root / needed_list(disk, STANFORD_CARS, join(devkit, "cars_meta.mat")))
    beside = join(_above(devkit), _TEST_LABELS)
    in_devkit = disk.file(join(devkit, _TEST_LABELS))
    test = disk.file(beside) or in_devkit or locate(disk, STANFORD_CARS, _TEST_LABELS, file=True)
    if test is None:
        what = f"there is no list {disk.root / beside}, which is distributed apart from devkit"
        raise is_incomplete(STANFORD_CARS, disk.root, what)
    rows: Rows = []
    for split, place in (("train", disk.root / listing), ("test", disk.root / test)):
        annotations = _cars(place, "fname", "class")
        images = _folder_of_images(disk, STANFORD_CARS, devkit, f"cars_{split}", str(annotations["fname"][0]))
        for file, label in zip(annotations["fname"], annotations["class"], strict=True):
            rows.append((join(images, file), _class_name(place, classes, label), split))
    return rows


def _cars_by_one_list(disk: OnDisk, listing: str) -> Rows:
    place = disk.root / listing
    classes = _class_names(place)
    annotations = _cars(place, "relative_im_path", "class", "test")
    files = [path.rpartition("/")[2] for path in annotations["relative_im_path"]]
    images = _folder_of_images(disk, STANFORD_CARS, listing, "car_ims", files[0])
    rows: Rows = []
    for file, label, is_test in zip(files, annotations["class"], annotations["test"], strict=True):
        split = "test" if _whole(place, is_test) else "train"
        rows.append((join(images, file), _class_name(place, classes, label), split))
    return rows


def _cars(place: Path, *fields: str) -> np.ndarray:
    """The ``annotations`` in a list of cars, a structure array that has ``fields``; the first is a file's name."""
    (annotations,) = read_mat(place, "annotations")
    known = annotations.dtype.names or ()
    if lacking := [field for field in fields if field not in known]:
        raise DatasetError(f"{place}: its annotations have no field {lacking[0]!r}; it is not the list with labels")
    for file in annotations[fields[0]]:
        if not isinstance(file, str) or not re.fullmatch(r"(\w+/)?\d+\.jpg", file):
            raise DatasetError(f"{place}: expected names like '00001.jpg', got {file!r}")
    return annotations


def _class_names(place: Path) -> list[str]:
    (names,) = read_mat(place, "class_names")
    return [str(name).strip() for name in names]


def _class_name(place: Path, classes: list[str], label: object) -> str:
    """The name of a class by its number from 1."""
    number = _whole(place, label)
    if not 1 <= number <= len(classes):
        raise DatasetError(f"{place}: expected classes 1 to {len(classes)}, got {number}")
    return classes[number - 1]


def _whole(place: Path, number: object) -> int:
    """A number from a MATLAB file, which has most of them as float. Raises: `DatasetError` if it is not whole."""
    if not isinstance(number, int | float | np.number) or not float(number).is_integer():
        raise DatasetError(f"{place}: expected a whole number, got {number!r}")
    return int(number)
