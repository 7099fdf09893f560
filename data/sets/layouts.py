"""The official layouts of the paper's data sets: files as distributed, converted to (name, class, split) rows.

Each function takes the root, counts files left out by kind, and raises `DatasetError` if something is missing. The
catalogue compares the numbers with the published counts.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from ..listing import OnDisk, join
from ..text import counted
from .catalogue import AUC_V1, AUC_V2, CALTECH256, FOOD101, LEAKED, PPMI24, STANFORD40
from .entry import Options, Rows
from .on_disk import images_in, is_absent, is_incomplete, lines_of, listed_images, locate, needed_folder, needed_part

INSTRUMENTS = (
    "bassoon",
    "cello",
    "clarinet",
    "erhu",
    "flute",
    "french horn",
    "guitar",
    "harp",
    "recorder",
    "saxophone",
    "trumpet",
    "violin",
)
POSTURES = {
    "c0": "c0 safe driving",
    "c1": "c1 texting right",
    "c2": "c2 phone right",
    "c3": "c3 texting left",
    "c4": "c4 phone left",
    "c5": "c5 radio",
    "c6": "c6 drinking",
    "c7": "c7 reaching behind",
    "c8": "c8 hair and makeup",
    "c9": "c9 talking to passenger",
}
LEAKED_FRAMES = range(322, 416)  #: of AUC-V2's Camera 1/test/c0
CALTECH_TRAIN = 60  #: training images per class


def food101_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``food-101/images/<class>/<id>.jpg`` by the lists ``food-101/meta/{train,test}.txt`` of ``<class>/<id>``."""
    disk = OnDisk(root)
    listing = needed_part(disk, FOOD101, "meta/train.txt", file=True)
    base = listing.rpartition("/")[0].rpartition("/")[0]
    rows: Rows = []
    for split in ("train", "test"):
        place, lines = lines_of(disk, FOOD101, join(base, f"meta/{split}.txt"))
        for line in lines:
            label, separator, _ = line.partition("/")
            if not separator:
                raise DatasetError(f"{place}: expected lines like 'apple_pie/1005649', got {line!r}")
            rows.append((join(base, f"images/{line}.jpg"), label, split))
    if disk.folder(join(base, "images")) is None:
        raise is_incomplete(FOOD101, root, f"there is no folder {root / base / 'images'} beside its lists")
    return listed_images(disk, FOOD101, rows, left_out)


def stanford40_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``JPEGImages/<action>_<NNN>.jpg`` by the lists ``ImageSplits/<action>_{train,test}.txt``.

    ``ImageSplits/actions.txt`` names the actions, below a header, before a tab. The class comes from the list; file
    names and the lists of all actions, ``{train,test}.txt``, must agree.
    """
    disk = OnDisk(root)
    lists = needed_part(disk, STANFORD40, "ImageSplits")
    above = lists.rpartition("/")[0]
    # Images and lists come in separate archives, which may have been extracted to different places.
    images = disk.folder(join(above, "JPEGImages")) or locate(disk, STANFORD40, "JPEGImages")
    if images is None:
        raise is_incomplete(STANFORD40, root, f"there is no folder {root / above / 'JPEGImages'} beside ImageSplits")
    _, lines = lines_of(disk, STANFORD40, join(lists, "actions.txt"))
    rows: Rows = []
    for action in (line.split("\t")[0].strip() for line in lines[1:]):
        for split in ("train", "test"):
            place, files = lines_of(disk, STANFORD40, join(lists, f"{action}_{split}.txt"))
            for file in files:
                if not re.fullmatch(rf"{re.escape(action)}_\d+\.\w+", file, flags=re.IGNORECASE):
                    raise DatasetError(f"{place}: expected names like '{action}_001.jpg', got {file!r}")
                rows.append((join(images, file), action, split))
    for split in ("train", "test"):
        place, files = lines_of(disk, STANFORD40, join(lists, f"{split}.txt"))
        by_action = {name.rpartition("/")[2] for name, _, its_split in rows if its_split == split}
        if odd := by_action ^ set(files):
            raise DatasetError(
                f"{place} and the lists of the actions differ by {counted(len(odd), 'images')}, first {min(odd)}"
            )
    return listed_images(disk, STANFORD40, rows, left_out)


def ppmi24_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``norm_image/{play,with}_instrument/<instrument>/{train,test}/*``: "play violin", "with violin", …"""
    disk = OnDisk(root)
    base = needed_part(disk, PPMI24, "norm_image")
    rows: Rows = []
    for deed in ("play", "with"):
        above = join(base, f"{deed}_instrument")
        # "French horn" is written as one word, as two, or with a hyphen, in any letter case.
        spelt = {re.sub(r"[\s_-]", "", name).casefold(): name for name in disk.folders(disk.folder(above) or above)}
        for instrument in INSTRUMENTS:
            folder = join(above, spelt.get(instrument.replace(" ", ""), instrument))
            for split in ("train", "test"):
                place = needed_folder(disk, PPMI24, join(folder, split))
                rows += [(name, f"{deed} {instrument}", split) for name in images_in(disk, place, left_out)]
    return rows


def auc_v1_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``v1_cam1_no_split/c0 … c9/*.jpg`` by ``Train_data_list.csv`` and ``Test_data_list.csv`` in it or beside it.

    The lists have the columns Image and Label (0 … 9). Their paths start in another folder; only their ends are used.
    """
    disk = OnDisk(root)
    base = needed_part(disk, AUC_V1, "v1_cam1_no_split")
    inside = [join(base, name) for name in disk.folders(base)]
    images = next((place for place in [base, *inside] if disk.folder(join(place, "c0"))), base)
    rows: Rows = []
    for split in ("train", "test"):
        file = f"{split.capitalize()}_data_list.csv"
        beside = join(base.rpartition("/")[0], file)
        listing = disk.file(join(base, file)) or disk.file(beside) or locate(disk, AUC_V1, file, file=True)
        place, lines = lines_of(disk, AUC_V1, listing or join(base, file))
        for row in csv.DictReader(lines):
            path, label = (row.get("Image") or "").strip(), (row.get("Label") or "").strip()
            posture = label if label.startswith("c") else f"c{label}"
            if not path or posture not in POSTURES:
                raise DatasetError(f"{place}: expected columns Image and Label with labels 0 to 9, got {row}")
            folder, _, name = path.replace("\\", "/").rpartition("/")
            folder = folder.rpartition("/")[2]
            if folder in POSTURES and folder != posture:
                raise DatasetError(f"{place}: {path} is in the folder of {folder} but has the label {label}")
            rows.append((join(images, f"{posture}/{name}"), POSTURES[posture], split))
    return listed_images(disk, AUC_V1, rows, left_out)


def auc_v2_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``v2_cam1_cam2_split_by_driver/Camera {1,2}/{train,test}/c0 … c9/*.jpg``, both cameras.

    ``options.leaked_frames=False`` leaves out `LEAKED_FRAMES` of ``Camera 1/test/c0``.
    """
    disk = OnDisk(root)
    base = needed_part(disk, AUC_V2, "v2_cam1_cam2_split_by_driver")
    rows: Rows = []
    for camera in ("Camera 1", "Camera 2"):
        for split in ("train", "test"):
            part = needed_folder(disk, AUC_V2, join(base, f"{camera}/{split}"))
            for posture, label in POSTURES.items():
                place = disk.folder(join(part, posture))
                for name in images_in(disk, place, left_out) if place else []:
                    number = Path(name).stem
                    leaked = (camera, split, posture) == ("Camera 1", "test", "c0") and (
                        number.isdecimal() and int(number) in LEAKED_FRAMES
                    )
                    if leaked and not options.leaked_frames:
                        left_out[LEAKED] += 1
                    else:
                        rows.append((name, label, split))
    return rows


def caltech256_rows(root: Path, left_out: Counter[str], options: Options) -> Rows:
    """Read ``256_ObjectCategories/NNN.name/*.jpg`` without ``257.clutter``; 60 of each class, drawn, are train.

    The class is the name without its number. The draw for a class depends only on ``options.split_seed``, its number
    and its image names.
    """
    disk = OnDisk(root)
    base = needed_part(disk, CALTECH256, "256_ObjectCategories")
    rows: Rows = []
    for folder in disk.folders(base):
        numbered = re.fullmatch(r"(\d{3})\.(.+)", folder)
        if numbered is None or int(numbered[1]) > 256:
            left_out[f"folder {folder}"] += 1
            continue
        images = images_in(disk, join(base, folder), left_out, frozenset({".jpg"}))
        if len(images) <= CALTECH_TRAIN:
            raise is_incomplete(
                CALTECH256, root, f"{root / base / folder} holds {len(images)} images, fewer than {CALTECH_TRAIN + 1}"
            )
        generator = np.random.default_rng([options.split_seed, int(numbered[1])])
        train = set(generator.permutation(len(images))[:CALTECH_TRAIN].tolist())
        label = numbered[2]
        rows += [(name, label, "train" if turn in train else "test") for turn, name in enumerate(images)]
    if not rows:
        raise is_absent(CALTECH256, root, "256_ObjectCategories/001.ak47")
    return rows
