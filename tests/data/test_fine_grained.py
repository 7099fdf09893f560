"""The layouts of birds, cars, aircraft, dogs and pets: classes, splits, lists that contradict each other, copies."""

import io
import json
import shutil
import struct
import tarfile
from collections import Counter
from dataclasses import replace
from hashlib import md5

import numpy as np
import pytest
from scipy.io import savemat

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import DatasetError
from agnet.data.sets import availability, mat_files
from agnet.data.sets.availability import look_up
from agnet.data.sets.catalogue import CATALOGUE, open_dataset
from agnet.data.sets.entry import file_name, published_name
from agnet.data.sets.fetch import acquire
from agnet.data.sets.mat_files import read_mat
from copies import (
    AIRCRAFT,
    BIRDS,
    CARS,
    FINE_GRAINED,
    PETS,
    cell,
    class_of,
    complaint,
    of_cars,
    photographs,
    shrink_the_book,
    split_of,
    stanford_cars_in_one,
    write,
)


def opened(dataset, root):
    return open_dataset(dataset, root, val_fraction=0)


def test_cub200_goes_by_its_four_lists(copy_of):
    index = opened("cub200", copy_of("cub200"))
    assert index.classes == ("Black_footed_Albatross", "Great_Grey_Shrike", "Laysan_Albatross")
    name = "CUB_200_2011/images/112.Great_Grey_Shrike/Great_Grey_Shrike_0003_796114.jpg"
    assert class_of(index)[name] == "Great_Grey_Shrike" and split_of(index)[name] == "train"
    assert split_of(index)[name.replace("0003_796114", "0004_796115")] == "test"


def test_stanford_cars_names_classes_by_their_number_from_one(copy_of):
    index = opened("stanford-cars", copy_of("stanford-cars"))
    assert index.classes == CARS
    for name, label, split in (("train/00001", 3, "train"), ("train/00002", 1, "train"), ("test/00001", 2, "test")):
        name = f"stanford_cars/cars_{name}.jpg"
        assert class_of(index)[name] == CARS[label - 1] and split_of(index)[name] == split


def test_stanford_cars_may_be_in_a_folder_for_each_archive(copy_of):
    root = copy_of("stanford-cars")
    whole = opened("stanford-cars", root)
    base = root / "stanford_cars"
    for part, inside in (("devkit", "car_devkit"), ("cars_train", "cars_train"), ("cars_test", "cars_test")):
        (base / part).rename(base / "moved")
        (base / inside).mkdir()
        (base / "moved").rename(base / inside / part)
    index = opened("stanford-cars", root)
    assert index.names[0] == "stanford_cars/cars_train/cars_train/00001.jpg"
    assert index.labels.tolist() == whole.labels.tolist() and index.splits.tolist() == whole.splits.tolist()


def test_the_labels_of_test_may_be_in_the_devkit(copy_of):
    root = copy_of("stanford-cars")
    whole = opened("stanford-cars", root)
    labels = root / "stanford_cars/cars_test_annos_withlabels.mat"
    labels.rename(root / "stanford_cars/devkit" / labels.name)
    assert class_of(opened("stanford-cars", root)) == class_of(whole)


def test_stanford_cars_may_be_one_archive_with_one_list(tmp_path, monkeypatch):
    stanford_cars_in_one(tmp_path)
    shrink_the_book(monkeypatch, "stanford-cars", 3, 6, 3)
    index = opened("stanford-cars", tmp_path)
    assert class_of(index)["stanford_cars/car_ims/000004.jpg"] == CARS[0]
    assert {name for name, split in split_of(index).items() if split == "test"} == {
        f"stanford_cars/car_ims/{number:06d}.jpg" for number in (3, 6, 9)
    }


def test_fgvc_aircraft_keeps_its_own_validation_and_the_whole_names_of_its_variants(copy_of):
    index = open_dataset("fgvc-aircraft", copy_of("fgvc-aircraft"), val_fraction=0.5)
    assert index.classes == AIRCRAFT
    assert Counter(index.splits.tolist()) == {"train": 9, "val": 9, "test": 9} and not index.val_is_test
    assert class_of(index)["fgvc-aircraft-2013b/data/images/0034312.jpg"] == "Cessna 172"


def test_stanford_dogs_are_named_by_their_breed(copy_of):
    index = opened("stanford-dogs", copy_of("stanford-dogs"))
    assert index.classes == ("Chihuahua", "dingo", "flat-coated_retriever")
    name = "stanford_dogs/Images/n02099267-flat-coated_retriever/n02099267_2.jpg"
    assert class_of(index)[name] == "flat-coated_retriever" and split_of(index)[name] == "test"


def test_oxford_pets_are_named_by_their_breed_and_train_on_trainval(copy_of):
    index = opened("oxford-pets", copy_of("oxford-pets"))
    assert index.classes == tuple(sorted(PETS))
    name = "oxford-iiit-pet/images/american_pit_bull_terrier_103.jpg"
    assert class_of(index)[name] == "american_pit_bull_terrier" and split_of(index)[name] == "train"


def test_images_of_pets_that_no_list_names_are_left_out_and_counted(copy_of):
    root = copy_of("oxford-pets")
    write(root / "oxford-iiit-pet/images", ["Egyptian_Mau_999.jpg", "Egyptian_Mau_101.mat"])
    assert opened("oxford-pets", root).left_out == {".jpg that no list names": 1}


def test_lists_and_images_of_dogs_may_be_extracted_apart(copy_of):
    root = copy_of("stanford-dogs")
    whole = opened("stanford-dogs", root)
    (root / "lists").mkdir()
    for name in ("train_list.mat", "test_list.mat"):
        (root / "stanford_dogs" / name).rename(root / "lists" / name)
    assert opened("stanford-dogs", root).names == whole.names


def test_dogs_and_pets_in_one_folder_keep_to_their_own_images(copy_of):
    root = copy_of("stanford-dogs")
    copy_of("oxford-pets")
    for base in ("stanford_dogs", "oxford-iiit-pet"):
        for path in list((root / base).iterdir()):
            path.rename(root / path.name)
        (root / base).rmdir()
    assert all(name.startswith("Images/n0") for name in opened("stanford-dogs", root).names)
    assert opened("oxford-pets", root).names[0] == "images/Abyssinian_100.jpg"


def test_archives_with_general_names_are_told_apart_and_recognised_in_their_own_folder(tmp_path):
    """Dogs come as images.tar, pets as images.tar.gz."""
    names = [file_name(download) for entry in CATALOGUE.values() for download in entry.downloads]
    assert len(set(names)) == len(names)
    assert published_name(CATALOGUE["stanford-dogs"].downloads[0]) == "images.tar"
    write(tmp_path, ["images.tar", "images.tar.gz"])
    for dataset in ("stanford-dogs", "oxford-pets"):
        assert look_up(dataset, tmp_path).state == availability.NOT_THERE
    write(tmp_path, ["stanford_dogs/images.tar"])
    assert look_up("stanford-dogs", tmp_path).state == availability.NOT_EXTRACTED
    assert look_up("oxford-pets", tmp_path).state == availability.NOT_THERE


def packed(base, *names):
    """A gzipped tar archive of files and folders under ``base``."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.add(base / name, name)
    return content.getvalue()


def serve(site, monkeypatch, dataset, archives):
    """Let the site distribute the data set's archives, by the names that its authors gave them."""
    entry = CATALOGUE[dataset]
    site.files = {f"/{published_name(one)}": content for one, content in zip(entry.downloads, archives, strict=True)}
    served = [
        replace(one, url=f"{site.url}/{published_name(one)}", bytes=None, sha256=None, md5=md5(content).hexdigest())
        for one, content in zip(entry.downloads, archives, strict=True)
    ]
    monkeypatch.setitem(CATALOGUE, dataset, replace(entry, downloads=tuple(served)))


@pytest.mark.parametrize("by_hand", [False, True])
def test_pets_are_downloaded_under_names_that_say_whose_they_are(by_hand, site, copy_of, monkeypatch, tmp_path):
    base = copy_of("oxford-pets") / "oxford-iiit-pet"
    serve(site, monkeypatch, "oxford-pets", [packed(base, "images"), packed(base, "annotations")])
    root = tmp_path / "new"
    if by_hand:
        write(root / "oxford-iiit-pet", ["images.tar.gz"], lambda _: site.files["/images.tar.gz"])
    acquire("oxford-pets", root)
    archives = ["oxford-iiit-pet-annotations.tar.gz", "oxford-iiit-pet-images.tar.gz"]
    assert sorted(path.name for path in root.iterdir() if path.is_file() and path.suffix == ".gz") == archives
    assert look_up("oxford-pets", root).state == availability.COMPLETE
    assert [path for path, _, _ in site.asked] == ["/images.tar.gz", "/annotations.tar.gz"][by_hand:]


def test_cub200_is_downloaded_with_the_list_of_attributes_beside_it(site, copy_of, monkeypatch, tmp_path):
    root = copy_of("cub200")
    write(root, ["attributes.txt"])
    serve(site, monkeypatch, "cub200", [packed(root, "attributes.txt", "CUB_200_2011")])
    acquire("cub200", tmp_path / "new")
    assert opened("cub200", tmp_path / "new").names[0].startswith("CUB_200_2011/CUB_200_2011/images/001.")


# What is missing, or contradicts itself, in one line


@pytest.mark.parametrize(
    ("dataset", "lost"),
    [
        ("cub200", "CUB_200_2011/images"),
        ("cub200", "CUB_200_2011/images.txt"),
        ("cub200", "CUB_200_2011/classes.txt"),
        ("stanford-cars", "stanford_cars/cars_test"),
        ("stanford-cars", "stanford_cars/devkit/cars_meta.mat"),
        ("stanford-cars", "stanford_cars/cars_test_annos_withlabels.mat"),
        ("fgvc-aircraft", "fgvc-aircraft-2013b/data/images"),
        ("fgvc-aircraft", "fgvc-aircraft-2013b/data/variants.txt"),
        ("fgvc-aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt"),
        ("stanford-dogs", "stanford_dogs/Images"),
        ("stanford-dogs", "stanford_dogs/test_list.mat"),
        ("oxford-pets", "oxford-iiit-pet/images"),
        ("oxford-pets", "oxford-iiit-pet/annotations/test.txt"),
    ],
)
def test_a_part_that_is_missing_is_named(dataset, lost, copy_of):
    root = copy_of(dataset)
    shutil.move(root / lost, root.with_name("lost"))
    message = complaint(dataset, root)
    assert "is incomplete: there is no " in message and str(root / lost) in message


@pytest.mark.parametrize(
    ("dataset", "file", "old", "new", "expected"),
    [
        ("cub200", "images.txt", "3 ", "three ", "got 'three 001.Black"),
        ("cub200", "images.txt", "\r\n3 ", "\r\n2 ", "each once, and a value, got '2 "),
        ("cub200", "image_class_labels.txt", "\r\n4 1\r\n", "\r\n", "differ by 1 image, first number 4"),
        ("cub200", "image_class_labels.txt", "\r\n4 1", "\r\n4 2", f"{BIRDS[0]}, has class 2, which is {BIRDS[1]} in"),
        ("cub200", "classes.txt", "002.Laysan", "002.Wandering", "002.Laysan_Albatross, has class 2, which is 002.W"),
        ("cub200", "classes.txt", "2 002", "9 002", "has class 2, which classes.txt does not list"),
        ("cub200", "train_test_split.txt", "\r\n4 1", "\r\n4 2", "expected 1 for train or 0 for test, got '2'"),
        ("fgvc-aircraft", "data/images_variant_val.txt", "Cessna 172", "Cessna", "got '0034321 Cessna'"),
        ("oxford-pets", "annotations/test.txt", "Abyssinian_201 1 1 1", "Abyssinian_201", "got 'Abyssinian_201'"),
        ("oxford-pets", "annotations/test.txt", "Mau_201 2", "Mau_201 1", "has the class 1 of Abyssinian"),
    ],
)
def test_a_list_that_contradicts_itself_is_quoted(dataset, file, old, new, expected, copy_of):
    root = copy_of(dataset)
    place = root / CATALOGUE[dataset].folder / file
    text = place.read_bytes().decode()
    assert old in text
    place.write_bytes(text.replace(old, new, 1).encode())
    message = complaint(dataset, root)
    assert expected in message and (file.rpartition("/")[2] in message)


def list_of_dogs(files, labels):
    return {"file_list": cell(files, (-1, 1)), "labels": [[label] for label in labels]}


LABELS = "cars_test_annos_withlabels.mat"
DOG = "n02085620-Chihuahua/n02085620_2.jpg"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (LABELS, {"annotations": of_cars(["00001.jpg"] * 2, None)}, "have no field 'class'"),
        (LABELS, {"annotations": [1.0, 2.0]}, "have no field 'fname'"),
        (LABELS, {"annotations": of_cars(["../1.jpg"], [1])}, "got '../1.jpg'"),
        (LABELS, {"annotations": of_cars(["00001.jpg"], [4])}, "expected classes 1 to 3, got 4"),
        (LABELS, {"annotations": of_cars(["00001.jpg"], [0])}, "expected classes 1 to 3, got 0"),
        (LABELS, {"annotations": of_cars(["00001.jpg"], [np.nan])}, "expected a whole number, got nan"),
        (LABELS, {"annotations": of_cars(["00001.jpg"], ["x"])}, "expected a whole number, got 'x'"),
        ("devkit/cars_meta.mat", {"names": ["a", "b"]}, "no variable 'class_names'"),
        ("test_list.mat", list_of_dogs([DOG], [1, 2]), "it has 1 files, but 2 labels"),
        ("test_list.mat", list_of_dogs([DOG], [2]), f"{DOG} has the label 2 of n02099267-flat-coated_retriever"),
        ("test_list.mat", list_of_dogs(["Chihuahua/1.jpg"], [1]), "got 'Chihuahua/1.jpg'"),
        ("test_list.mat", list_of_dogs([], []), "the list is empty"),
    ],
)
def test_a_matlab_list_of_another_kind_is_quoted(file, content, expected, copy_of):
    dataset = "stanford-dogs" if file == "test_list.mat" else "stanford-cars"
    root = copy_of(dataset)
    place = root / CATALOGUE[dataset].folder / file
    savemat(place, content)
    message = complaint(dataset, root)
    assert expected in message and str(place) in message


def test_a_damaged_matlab_file_is_an_error_of_one_line(tmp_path):
    good = io.BytesIO()
    savemat(good, list_of_dogs([DOG] * 9, range(9)))
    whole, path = good.getvalue(), tmp_path / "test_list.mat"
    damaged = [b"", b"<html>moved</html>", b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<HH", 0x0200, 0x4D49)]
    damaged += [whole[:length] for length in range(0, len(whole) - 8, len(whole) // 5)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"test_list\.mat: ") as caught:
            read_mat(path, "file_list", "labels")
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert [len(one) for one in read_mat(path, "file_list", "labels")] == [9, 9]


def test_a_compressed_matlab_file_is_read_and_its_damage_told(tmp_path):
    path = tmp_path / "test_list.mat"
    savemat(path, list_of_dogs([DOG] * 9, range(9)), do_compression=True)
    assert read_mat(path, "file_list")[0].tolist() == [DOG] * 9
    content = bytearray(path.read_bytes())
    content[170] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as a MATLAB file"):
        read_mat(path, "file_list")


def test_a_matlab_file_that_crashes_its_reader_costs_itself(tmp_path, monkeypatch):
    path = tmp_path / "test_list.mat"
    savemat(path, list_of_dogs([DOG] * 9, range(9)))
    monkeypatch.setattr(mat_files, "_TRIAL", "import os; os.abort()")
    with pytest.raises(DatasetError, match=r"test_list\.mat: cannot be read .* \(it crashes the reader\)"):
        read_mat(path, "file_list")


def test_a_matlab_file_too_large_for_a_list_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "test_list.mat"
    savemat(path, list_of_dogs([DOG] * 9, range(9)))
    with path.open("ab") as file:
        file.truncate(5 * 2**20)
    monkeypatch.setattr(mat_files, "subprocess", None)  # nothing reads it
    with pytest.raises(DatasetError, match=r"test_list\.mat: its 5\.0 MiB are too large for a list, .* 4;"):
        read_mat(path, "file_list")


def test_an_image_in_two_lists_is_told(copy_of):
    root = copy_of("fgvc-aircraft")
    data = root / "fgvc-aircraft-2013b/data"
    shutil.copy(data / "images_variant_train.txt", data / "images_variant_test.txt")
    assert "0034309.jpg' is listed twice" in complaint("fgvc-aircraft", root)


@pytest.mark.parametrize("dataset", FINE_GRAINED)
def test_other_numbers_than_the_published_are_told(dataset, copy_of, monkeypatch):
    root = copy_of(dataset)
    found = CATALOGUE[dataset].counts
    counts = {split: count + (split == "test") for split, count in found.items()}
    shrink_the_book(monkeypatch, dataset, 4, **counts)
    message = complaint(dataset, root)
    assert f"3 classes instead of 4, {found['test']} test images instead of {counts['test']}" in message
    assert opened_with(dataset, root)["not_as_distributed"] in message


def opened_with(dataset, root):
    return open_dataset(dataset, root, any_counts=True).opened_with


# To the end


def test_birds_go_through_datasets_verify_and_propose(copy_of, agnet, textured, tmp_path):
    root = copy_of("cub200", photographs(textured))
    told = agnet("datasets", "cub200", "--root", root).stdout
    assert "state     complete" in told and "ignored   bounding boxes, part locations" in told
    verified = json.loads(agnet("datasets", "cub200", "--root", root, "--verify", "--jobs", 1, "--json").stdout)
    assert verified["sound"] and verified["counts"] == {"train": 12, "test": 9}
    proposed = agnet("propose", "--dataset", "cub200", "--root", root, "--limit", 9, "--primary", 3, "--jobs", 1)
    assert "9 images of 3 classes" in proposed.stderr
    assert "known issues of cub200: some images, of test too, are also in ImageNet" in proposed.stderr
    assert set(read_boxes(tmp_path / "boxes.h5").splits.tolist()) == {"train", "val", "test"}
