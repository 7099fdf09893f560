"""The official layouts of the named data sets, in miniature but faithful copies.

A function of `COPIES` makes a copy as its archives unpack under ``root`` and gives the numbers of its book: classes,
images in train, images in test, and images in val if the data set has that split. Its images are empty files, or
photographs where ``content`` draws them.
"""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from agnet.data.errors import DatasetError
from agnet.data.sets import layouts
from agnet.data.sets.catalogue import CATALOGUE, open_dataset

ACTIONS = ("applauding", "blowing_bubbles", "writing_on_a_board")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "112.Great_Grey_Shrike")
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
AIRCRAFT = ("707-320", "Cessna 172", "F/A-18")
DOGS = ("n02085620-Chihuahua", "n02099267-flat-coated_retriever", "n02115641-dingo")
PETS = ("Abyssinian", "Egyptian_Mau", "american_pit_bull_terrier")
FOODS = ("apple_pie", "baby_back_ribs", "waffles")


def write(root, names, content=None):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content(number) if content else b"")


def photographs(textured):
    """A function that draws the content of the image of a number, for `write`."""

    def photograph(number):
        content = io.BytesIO()
        Image.fromarray(textured(number, 96, 80)).save(content, "JPEG")
        return content.getvalue()

    return photograph


def shrink_the_book(monkeypatch, dataset, classes, train, test, val=None):
    counts = {"train": train, "test": test} if val is None else {"train": train, "val": val, "test": test}
    monkeypatch.setitem(CATALOGUE, dataset, replace(CATALOGUE[dataset], classes=classes, counts=counts))


def food101(root, content=None):
    base = root / "food-101"
    parts = {
        "train": [f"{label}/{1005649 + number}" for label in FOODS for number in range(10)],
        "test": [f"{label}/{77 + number}" for label in FOODS for number in range(2)],
    }
    write(base / "images", [f"{name}.jpg" for names in parts.values() for name in names], content)
    write(base, ["README.txt", "license_agreement.txt", "meta/classes.txt", "meta/labels.txt", "meta/train.json"])
    for split, names in parts.items():
        (base / "meta" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return len(FOODS), 30, 6


def stanford40(root, content=None):
    base = root / "Stanford40"
    (base / "ImageSplits").mkdir(parents=True)
    parts = {"train": [], "test": []}
    for action in ACTIONS:
        files = [f"{action}_{number:03d}.jpg" for number in range(1, 9)]
        for split, mine in (("train", files[2:7]), ("test", files[:2] + files[7:])):
            (base / "ImageSplits" / f"{action}_{split}.txt").write_bytes("\r\n".join(mine).encode())
            parts[split] += mine
    for split, names in parts.items():
        (base / "ImageSplits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    lines = ["action_name\tnumber_of_images", *(f"{action}\t8" for action in ACTIONS)]
    (base / "ImageSplits" / "actions.txt").write_text("\n".join(lines) + "\n")
    names = [name for files in parts.values() for name in files]
    write(base / "JPEGImages", names, content)
    write(base / "XMLAnnotations", [name.replace(".jpg", ".xml") for name in names])
    return len(ACTIONS), 15, 9


def ppmi24(root, content=None):
    base = root / "norm_image"
    names = [
        f"{deed}_instrument/{instrument.replace(' ', '')}/{split}/{split}_{number:04d}.jpg"
        for deed in ("play", "with")
        for instrument in layouts.INSTRUMENTS
        for split in ("train", "test")
        for number in range(2)
    ]
    write(base, names, content)
    write(root, ["README"])
    return 24, 48, 48


def auc_v1(root, content=None):
    base = root / "auc.distracted.driver.dataset_v2" / "v1_cam1_no_split"
    parts = {"Train": range(100, 103), "Test": range(103, 105)}
    write(
        base, [f"c{label}/{number}.jpg" for label in range(10) for part in parts.values() for number in part], content
    )
    for part, numbers in parts.items():
        lines = [f"/distracted.driver/c{label}/{number}.jpg,{label}" for label in range(10) for number in numbers]
        (base / f"{part}_data_list.csv").write_text("\n".join(["Image,Label", *lines]) + "\n")
    return 10, 30, 20


def auc_v2(root, content=None):
    base = root / "auc.distracted.driver.dataset_v2" / "v2_cam1_cam2_split_by_driver"
    frames = {("Camera 1", "train"): (416, 417), ("Camera 1", "test"): (1,), ("Camera 2", "train"): (21002,)}
    frames["Camera 2", "test"] = (322, 11122)
    names = [
        f"{camera}/{split}/c{label}/{number}.jpg"
        for (camera, split), numbers in frames.items()
        for label in range(10)
        for number in numbers
    ]
    # 321 and 416 are the frames beside those that show a driver of train; 322 of another class is not among them.
    names += [f"Camera 1/test/c0/{number}.jpg" for number in (321, 322, 415, 416)] + ["Camera 1/test/c1/322.jpg"]
    write(base, names, content)
    return 10, 30, 35


def caltech256(root, content=None):
    base = root / "256_ObjectCategories"
    sizes = {"001.ak47": 65, "056.dog": 62, "198.spider": 61, "251.airplanes-101": 66}
    names = [f"{name}/{name[:3]}_{turn + 1:04d}.jpg" for name, size in sizes.items() for turn in range(size)]
    write(base, names, content)
    # Stray files that are in the archive, too.
    write(base, ["198.spider/RENAME2", "056.dog/greg/vision309/056_0001.jpg", "257.clutter/257_0001.jpg"])
    return 4, 240, 14


def cub200(root, content=None):
    base = root / "CUB_200_2011"
    names = [f"{bird}/{bird[4:]}_{number:04d}_{796111 + number}.jpg" for bird in BIRDS for number in range(7)]
    write(base / "images", names, content)
    lists = {
        "images": names,
        "image_class_labels": [1 + BIRDS.index(name.partition("/")[0]) for name in names],
        "train_test_split": [int(turn % 7 < 4) for turn in range(len(names))],
        "classes": BIRDS,
    }
    for file, values in lists.items():
        lines = [f"{number} {value}" for number, value in enumerate(values, 1)]
        (base / f"{file}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    write(base, ["README", "bounding_boxes.txt", "parts/part_locs.txt", "attributes/certainties.txt"])
    return len(BIRDS), 12, 9


def of_cars(files, labels, **more):
    """An ``annotations`` structure array ``(1, files)`` as MATLAB writes it."""
    fields = {"bbox_x1": [np.uint8(39)] * len(files), "class": labels, "fname": files, **more}
    if labels is None:
        del fields["class"]
    annotations = np.empty((1, len(files)), [(name, object) for name in fields])
    for name, values in fields.items():
        annotations[name][0] = values
    return annotations


def cell(texts, shape):
    return np.array(texts, object).reshape(shape)


def stanford_cars(root, content=None):
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    labels = {"train": [3, 1, 2, 1, 3, 2], "test": [2, 3, 1]}
    files = {split: [f"{number:05d}.jpg" for number in range(1, len(mine) + 1)] for split, mine in labels.items()}
    for split, names in files.items():
        write(base / f"cars_{split}", names, content)
        savemat(base / f"devkit/cars_{split}_annos.mat", {"annotations": of_cars(names, None)})
    savemat(base / "devkit/cars_train_annos.mat", {"annotations": of_cars(files["train"], labels["train"])})
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": of_cars(files["test"], labels["test"])})
    savemat(base / "devkit/cars_meta.mat", {"class_names": cell(CARS, (1, -1))})
    write(base, ["devkit/README.txt", "devkit/train_perfect_preds.txt"])
    return len(CARS), 6, 3


def stanford_cars_in_one(root):
    """The same cars as one archive and one list, as for metric learning."""
    base = root / "stanford_cars"
    names = [f"car_ims/{number:06d}.jpg" for number in range(1, 10)]
    write(base, names)
    more = {"relative_im_path": names, "test": [0, 0, 1] * 3}
    annotations = of_cars([""] * 9, [3, 1, 2, 1, 3, 2, 2, 3, 1], **more)
    savemat(base / "cars_annos.mat", {"annotations": annotations, "class_names": cell(CARS, (1, -1))})


def fgvc_aircraft(root, content=None):
    base = root / "fgvc-aircraft-2013b"
    data = base / "data"
    turn = 34309
    for split in ("train", "val", "test"):
        lines = []
        for variant in AIRCRAFT:
            names = [f"{number:07d}" for number in range(turn, turn + 3)]
            turn += 3
            write(data / "images", [f"{name}.jpg" for name in names], content)
            lines += [f"{name} {variant}" for name in names]
        (data / f"images_variant_{split}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    (data / "variants.txt").write_text("\n".join([*AIRCRAFT, ""]))
    write(base, ["README.md", "evaluation.m", "data/images_box.txt", "data/images_family_train.txt"])
    return len(AIRCRAFT), 9, 9, 9


def stanford_dogs(root, content=None):
    base = root / "stanford_dogs"
    wanted = {"train": range(5, 10), "test": (2, 3)}
    for split, numbers in wanted.items():
        names = [f"{dog}/{dog[:9]}_{number}.jpg" for dog in DOGS for number in numbers]
        write(base / "Images", names, content)
        write(base / "Annotation", [name.removesuffix(".jpg") for name in names])
        labels = [[1.0 + DOGS.index(name.partition("/")[0])] for name in names]
        annotated = [name.removesuffix(".jpg") for name in names]
        lists = {"file_list": cell(names, (-1, 1)), "annotation_list": cell(annotated, (-1, 1)), "labels": labels}
        savemat(base / f"{split}_list.mat", lists)
    return len(DOGS), 15, 6


def oxford_pets(root, content=None):
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for split, numbers in (("trainval", (100, 101, 102, 103)), ("test", (1, 201))):
        names = [(f"{pet}_{number}", label) for label, pet in enumerate(PETS, 1) for number in numbers]
        write(base / "images", [f"{name}.jpg" for name, _ in names], content)
        write(base / "annotations/trimaps", [f"{name}.png" for name, _ in names])
        lines = [f"{name} {label} {1 + name[0].islower()} {label}" for name, label in names]
        (base / f"annotations/{split}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    write(base, ["annotations/README", "annotations/list.txt"])
    return len(PETS), 12, 6


COPIES = {
    "food101": food101,
    "stanford40": stanford40,
    "ppmi24": ppmi24,
    "auc-v1": auc_v1,
    "auc-v2": auc_v2,
    "caltech256": caltech256,
    "cub200": cub200,
    "stanford-cars": stanford_cars,
    "fgvc-aircraft": fgvc_aircraft,
    "stanford-dogs": stanford_dogs,
    "oxford-pets": oxford_pets,
}

FINE_GRAINED = ("cub200", "stanford-cars", "fgvc-aircraft", "stanford-dogs", "oxford-pets")

# Where each copy's base folder is below the root, and the folder that a user may have put into another one.
BASES = {
    "food101": "food-101",
    "stanford40": "Stanford40",
    "ppmi24": "norm_image",
    "auc-v1": "auc.distracted.driver.dataset_v2",
    "auc-v2": "auc.distracted.driver.dataset_v2",
    "caltech256": "256_ObjectCategories",
    "cub200": "CUB_200_2011",
    "stanford-cars": "stanford_cars",
    "fgvc-aircraft": "fgvc-aircraft-2013b",
    "stanford-dogs": "stanford_dogs",
    "oxford-pets": "oxford-iiit-pet",
}


def split_of(index):
    return dict(zip(index.names, index.splits.tolist(), strict=True))


def class_of(index):
    return {name: index.classes[label] for name, label in zip(index.names, index.labels, strict=True)}


def complaint(dataset, root):
    with pytest.raises(DatasetError) as caught:
        open_dataset(dataset, root)
    message = str(caught.value)
    assert "\n" not in message
    return message
