"""The official layouts, in miniature but faithful copies, and what becomes of them on people's machines."""

import json
import os
import shutil
import unicodedata

import pytest

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import DatasetError
from agnet.data.sets import layouts
from agnet.data.sets.catalogue import CATALOGUE, open_dataset
from copies import (
    ACTIONS,
    BASES,
    COPIES,
    FINE_GRAINED,
    FOODS,
    class_of,
    complaint,
    photographs,
    shrink_the_book,
    split_of,
    write,
)

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", "0", "--device", "cpu"]


def same_but_for_folders(one, other):
    """Whether two indices have the same images in the same order, classes and splits, under other folders."""
    pairs = (sorted((a.lower(), b.lower()), key=len) for a, b in zip(one.names, other.names, strict=True))
    return (
        all(longer.endswith(shorter) for shorter, longer in pairs)
        and list(class_of(one).values()) == list(class_of(other).values())
        and one.splits.tolist() == other.splits.tolist()
    )


# The official layouts, and what the book says of them


def test_the_book_has_the_papers_numbers():
    counts = {name: (entry.classes, entry.counts) for name, entry in CATALOGUE.items() if entry.counts}
    assert counts == {
        "food101": (101, {"train": 75_750, "test": 25_250}),
        "stanford40": (40, {"train": 4_000, "test": 5_532}),
        "ppmi24": (24, {"train": 2_400, "test": 2_400}),
        "auc-v1": (10, {"train": 12_977, "test": 4_331}),
        "auc-v2": (10, {"train": 12_555, "test": 1_923}),
        "caltech256": (256, {"train": 256 * 60, "test": 29_780 - 256 * 60}),
        "cub200": (200, {"train": 5_994, "test": 11_788 - 5_994}),
        "stanford-cars": (196, {"train": 8_144, "test": 16_185 - 8_144}),
        "fgvc-aircraft": (100, {"train": 3_334, "val": 3_333, "test": 10_000 - 3_334 - 3_333}),
        "stanford-dogs": (120, {"train": 120 * 100, "test": 20_580 - 120 * 100}),
        "oxford-pets": (37, {"train": 3_680, "test": 7_349 - 3_680}),
        "market1501": (751 + 750 + 1, {"train": 12_936, "query": 3_368, "gallery": 19_732 - 3_819}),
        "cuhk03-767-labelled": (767 + 700, {"train": 7_368, "query": 1_400, "gallery": 14_096 - 7_368 - 1_400}),
        "cuhk03-767-detected": (767 + 700, {"train": 7_365, "query": 1_400, "gallery": 14_097 - 7_365 - 1_400}),
        "hmdb51": (51, {"train": 51 * 70, "test": 51 * 30}),
        "ucf101": (101, {"train": 13_320 - 3_783, "test": 3_783}),
    }
    assert layouts.CALTECH_TRAIN == 60
    assert [sum(counts.values()) for counts in CATALOGUE["ucf101"].more_counts] == [13_320, 13_320]
    assert CATALOGUE["hmdb51"].tutorial_counts == {"train": 6_766 - 1_530, "val": 1_130, "test": 1_530 - 1_130}


def test_every_official_layout_is_read_as_distributed(copy):
    dataset, root = copy
    index = open_dataset(dataset, root, val_fraction=0)
    entry = CATALOGUE[dataset]
    assert len(index.classes) == entry.classes
    assert {split: int(index.counts(split).sum()) for split in entry.counts} == entry.counts
    assert sum(entry.counts.values()) == len(index)
    assert all((root / name).is_file() for name in index.names)


def test_validation_is_cut_from_train_and_never_from_test(copy):
    dataset, root = copy
    whole, cut = (split_of(open_dataset(dataset, root, val_fraction=fraction)) for fraction in (0, 0.4))
    assert {name for name, split in whole.items() if split == "test"} == {
        name for name, split in cut.items() if split == "test"
    }
    assert "val" in cut.values() and ("val" in whole.values()) == (dataset == "fgvc-aircraft")


def test_food101_follows_its_lists(copy_of):
    index = open_dataset("food101", copy_of("food101"))
    assert index.classes == FOODS
    assert index.counts("train").tolist() == [9, 9, 9] and index.counts("val").tolist() == [1, 1, 1]
    assert split_of(index)["food-101/images/waffles/78.jpg"] == "test"
    assert class_of(index)["food-101/images/waffles/78.jpg"] == "waffles"


def test_stanford40_takes_classes_and_splits_from_the_lists_of_the_actions(copy_of):
    index = open_dataset("stanford40", copy_of("stanford40"), val_fraction=0)
    assert index.classes == ACTIONS
    for number, split in ((1, "test"), (2, "test"), (3, "train"), (7, "train"), (8, "test")):
        name = f"Stanford40/JPEGImages/blowing_bubbles_{number:03d}.jpg"
        assert split_of(index)[name] == split and class_of(index)[name] == "blowing_bubbles"


def test_ppmi24_has_a_class_for_each_instrument_played_or_held(copy_of):
    index = open_dataset("ppmi24", copy_of("ppmi24"), val_fraction=0)
    assert index.classes[:2] == ("play bassoon", "play cello") and index.classes[-1] == "with violin"
    name = "norm_image/with_instrument/frenchhorn/test/test_0001.jpg"
    assert class_of(index)[name] == "with french horn" and split_of(index)[name] == "test"


@pytest.mark.parametrize("spelling", ["French Horn", "french_horn", "FrenchHorn"])
def test_ppmi24_knows_the_french_horn_however_it_is_spelt(spelling, copy_of):
    root = copy_of("ppmi24")
    for deed in ("play", "with"):
        above = root / "norm_image" / f"{deed}_instrument"
        (above / "frenchhorn").rename(above / spelling)
    assert len(open_dataset("ppmi24", root).classes) == 24


def test_auc_v1_resolves_the_paths_of_its_lists_by_their_endings(copy_of):
    index = open_dataset("auc-v1", copy_of("auc-v1"), val_fraction=0)
    assert index.classes[0] == "c0 safe driving" and index.classes[9] == "c9 talking to passenger"
    base = "auc.distracted.driver.dataset_v2/v1_cam1_no_split"
    assert class_of(index)[f"{base}/c6/103.jpg"] == "c6 drinking"
    assert split_of(index)[f"{base}/c6/102.jpg"] == "train" and split_of(index)[f"{base}/c6/103.jpg"] == "test"


def test_auc_v1_takes_images_in_the_folder_that_the_lists_name_and_lists_beside_it(copy_of):
    root = copy_of("auc-v1")
    base = root / "auc.distracted.driver.dataset_v2" / "v1_cam1_no_split"
    whole = open_dataset("auc-v1", root)
    (base / "distracted.driver").mkdir()
    for label in range(10):
        (base / f"c{label}").rename(base / "distracted.driver" / f"c{label}")
    for part in ("Train", "Test"):
        (base / f"{part}_data_list.csv").rename(base.parent / f"{part}_data_list.csv")
    moved = open_dataset("auc-v1", root)
    assert [name.rpartition("/c")[2] for name in moved.names] == [name.rpartition("/c")[2] for name in whole.names]
    assert moved.splits.tolist() == whole.splits.tolist()


def test_auc_v2_takes_both_cameras(copy_of):
    index = open_dataset("auc-v2", copy_of("auc-v2"), val_fraction=0)
    base = "auc.distracted.driver.dataset_v2/v2_cam1_cam2_split_by_driver"
    assert split_of(index)[f"{base}/Camera 2/train/c3/21002.jpg"] == "train"
    assert split_of(index)[f"{base}/Camera 1/test/c3/1.jpg"] == "test"
    assert class_of(index)[f"{base}/Camera 2/test/c7/11122.jpg"] == "c7 reaching behind"


def test_auc_v2_can_leave_out_the_leaked_frames_and_them_alone(copy_of):
    root = copy_of("auc-v2")
    kept, clean = (open_dataset("auc-v2", root, leaked_frames=leaked) for leaked in (True, False))
    base = "auc.distracted.driver.dataset_v2/v2_cam1_cam2_split_by_driver/Camera 1/test/c0"
    assert set(kept.names) - set(clean.names) == {f"{base}/322.jpg", f"{base}/415.jpg"}
    assert set(clean.names) < set(kept.names)
    assert clean.left_out == {layouts.LEAKED: 2}
    assert (kept.opened_with["leaked_frames"], clean.opened_with["leaked_frames"]) == (True, False)


def test_caltech256_draws_60_of_each_class_and_leaves_clutter_and_stray_files(copy_of):
    root = copy_of("caltech256")
    index = open_dataset("caltech256", root, val_fraction=0)
    assert index.classes == ("airplanes-101", "ak47", "dog", "spider")
    assert index.counts("train").tolist() == [60] * 4
    assert index.counts("test").tolist() == [6, 5, 2, 1]
    assert index.left_out == {"without a suffix": 1, "folders among images": 1, "folder 257.clutter": 1}


def test_five_seeds_give_five_draws_of_caltech256_and_each_is_repeated(copy_of):
    root = copy_of("caltech256")
    drawn = [open_dataset("caltech256", root, split_seed=seed, val_fraction=0) for seed in (0, 1, 2, 3, 4, 0)]
    draws = [tuple(index.splits.tolist()) for index in drawn]
    assert draws[0] == draws[5]
    assert len(set(draws)) == 5
    # Images are drawn, not taken in order: the few to test come from the first half of a class as from the second.
    tested = [int(name[-8:-4]) for index in drawn for name, split in split_of(index).items() if split == "test"]
    assert 20 < sum(tested) / len(tested) < 45


def test_a_class_of_caltech256_that_leaves_nothing_to_test_is_refused(copy_of):
    root = copy_of("caltech256")
    (root / "256_ObjectCategories/198.spider/198_0001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"198\.spider holds 60 images, fewer than 61"):
        open_dataset("caltech256", root)


# What downloads look like


def test_a_data_set_may_be_one_level_too_deep(copy):
    dataset, root = copy
    whole = open_dataset(dataset, root)
    base = BASES[dataset]
    for above in (f"x y/{base}", f"{base}/{base}", f"é/{base.upper()}"):
        place = root.with_name("moved " + above.replace("/", " ")) / above
        place.parent.mkdir(parents=True)
        shutil.copytree(root / base, place)
        assert same_but_for_folders(whole, open_dataset(dataset, place.parents[1]))


def test_a_data_set_may_be_named_by_its_own_folder(copy):
    dataset, root = copy
    assert same_but_for_folders(open_dataset(dataset, root), open_dataset(dataset, root / BASES[dataset]))


@pytest.mark.parametrize(
    ("dataset", "inner"), [("auc-v1", "v1_cam1_no_split"), ("auc-v2", "v2_cam1_cam2_split_by_driver")]
)
def test_a_part_of_auc_may_be_the_root(dataset, inner, copy_of):
    root = copy_of(dataset)
    inside = root / BASES[dataset] / inner
    assert same_but_for_folders(open_dataset(dataset, root), open_dataset(dataset, inside))


def test_suffixes_in_upper_case_are_the_lists_images(copy):
    dataset, root = copy
    whole = open_dataset(dataset, root)
    for image in list(root.rglob("*.jpg")):
        image.rename(image.with_suffix(".JPG"))
    index = open_dataset(dataset, root)
    assert same_but_for_folders(whole, index)
    assert all((root / name).is_file() and name.endswith(".JPG") for name in index.names)


def test_what_a_mac_leaves_is_not_seen(copy):
    dataset, root = copy
    whole = open_dataset(dataset, root)
    for place in [path.parent for path in root.rglob("*.jpg")]:
        (place / "._1.jpg").touch()
        (place / ".DS_Store").touch()
    shutil.copytree(root / BASES[dataset], root / "__MACOSX" / BASES[dataset])
    index = open_dataset(dataset, root)
    assert index.names == whole.names and index.left_out == whole.left_out


def test_links_to_folders_and_images_are_followed(copy):
    dataset, root = copy
    whole = open_dataset(dataset, root)
    (root / BASES[dataset]).rename(root.with_name("store"))
    (root / BASES[dataset]).symlink_to(root.with_name("store"))
    image = root / whole.names[0]
    image.rename(root.with_name("an image"))
    image.symlink_to(root.with_name("an image"))
    assert open_dataset(dataset, root).names == whole.names


def test_other_data_sets_in_the_same_root_do_not_disturb(copy):
    dataset, root = copy
    whole = open_dataset(dataset, root)
    for other, make in COPIES.items():
        if not (root / BASES[other]).exists():
            make(root)
    (root / "VOC2012/JPEGImages").mkdir(parents=True)
    (root / "circle").symlink_to(root / "circle")
    assert open_dataset(dataset, root).names == whole.names


def test_names_in_another_unicode_form_are_found(tmp_path, monkeypatch):
    label = "crème brûlée"
    write(tmp_path / "food-101/images", [f"{unicodedata.normalize('NFD', label)}/1.jpg", "b/1.jpg", "b/2.jpg"])
    (tmp_path / "food-101/meta").mkdir()
    (tmp_path / "food-101/meta/train.txt").write_text(f"{label}/1\nb/1\n", encoding="utf-8")
    (tmp_path / "food-101/meta/test.txt").write_text("b/2\n")
    shrink_the_book(monkeypatch, "food101", 2, 2, 1)
    index = open_dataset("food101", tmp_path, val_fraction=0)
    assert index.classes == ("b", label)
    assert all((tmp_path / name).is_file() for name in index.names)


def test_lists_and_images_of_stanford40_may_be_extracted_apart(copy_of):
    root = copy_of("stanford40")
    whole = open_dataset("stanford40", root)
    for part in ("JPEGImages", "ImageSplits"):
        (root / f"Stanford40_{part}").mkdir()
        (root / "Stanford40" / part).rename(root / f"Stanford40_{part}" / part)
    assert open_dataset("stanford40", root).splits.tolist() == whole.splits.tolist()


def test_images_that_no_list_names_are_left_out_and_counted(copy_of):
    root = copy_of("stanford40")
    write(root / "Stanford40/JPEGImages", ["applauding_009.jpg", "Thumbs.db"])
    assert open_dataset("stanford40", root).left_out == {".jpg that no list names": 1}


# What is missing, in one line


@pytest.mark.parametrize("dataset", COPIES)
def test_a_data_set_that_is_not_there_says_where_it_was_looked_for_and_how_to_get_it(dataset, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        message = complaint(dataset, root)
        entry = CATALOGUE[dataset]
        assert f"{entry.title} is not under {root}: looked for {root / entry.folder}" in message
        assert entry.how in message and "--root" in message
        fetch = f"agnet datasets --download {dataset} --root {root} downloads it"
        assert (fetch in message) == bool(entry.downloads)


@pytest.mark.parametrize(
    ("dataset", "archive"),
    [
        ("food101", "food-101.tar.gz"),
        ("stanford40", "Stanford40_ImageSplits.zip"),
        ("ppmi24", "norm_ppmi_12class.zip"),
        ("auc-v1", "auc.distracted.driver.dataset_v2.zip"),
        ("auc-v2", "AUC.distracted.driver.dataset_v2.zip"),
        ("caltech256", "256_ObjectCategories.tar"),
        ("cub200", "CUB_200_2011.tgz"),
        ("stanford-cars", "cars_train.tgz"),
        ("fgvc-aircraft", "fgvc-aircraft-2013b.tar.gz"),
        ("stanford-dogs", "stanford-dogs-images.tar"),
        ("oxford-pets", "oxford-iiit-pet-images.tar.gz"),
    ],
)
def test_an_archive_that_is_not_extracted_and_half_a_download_are_told(dataset, archive, tmp_path):
    write(tmp_path, ["other.zip", archive])
    extract = f"agnet datasets --download {dataset} --root {tmp_path} extracts it"
    expected = extract if CATALOGUE[dataset].downloads else "extract it there"
    assert f"{tmp_path / archive} is not extracted: {expected}" in complaint(dataset, tmp_path)
    (tmp_path / CATALOGUE[dataset].folder).mkdir()
    half = tmp_path / CATALOGUE[dataset].folder / f"{archive}.part"
    (tmp_path / archive).rename(half)
    assert f"{half} is half a download" in complaint(dataset, tmp_path).replace("\\", "/")


@pytest.mark.parametrize("dataset", ["food101", "stanford40", "auc-v1", *FINE_GRAINED])
def test_images_that_lists_name_and_are_absent_are_counted_and_the_first_is_named(dataset, copy_of):
    root = copy_of(dataset)
    index = open_dataset(dataset, root, val_fraction=0)
    for name in index.names[1:4]:
        (root / name).unlink()
    (root / index.names[4]).unlink()
    (root / index.names[4]).symlink_to(root / "gone")
    message = complaint(dataset, root)
    assert f"4 of the {len(index)} images that its lists name do not exist, first {root / index.names[1]}" in message
    assert "extract the whole archive again" in message


@pytest.mark.parametrize("dataset", ["ppmi24", "auc-v2", "caltech256"])
def test_a_folder_that_lost_images_is_not_as_distributed(dataset, copy_of):
    root = copy_of(dataset)
    index = open_dataset(dataset, root, val_fraction=0)
    split, first = index.splits[0], root / index.names[0]
    first.unlink()
    if dataset == "caltech256":  # of a class, 60 are drawn all the same
        split = "test"
    count = CATALOGUE[dataset].counts[split]
    message = complaint(dataset, root)
    assert f"{count - 1} {split} images instead of {count}" in message and "--any-counts" in message
    changed = open_dataset(dataset, root, any_counts=True)
    assert len(changed) == len(index) - 1
    assert changed.opened_with["not_as_distributed"] == f"{count - 1} {split} images instead of {count}"
    assert "not_as_distributed" not in index.opened_with


def test_a_class_too_few_is_told(copy_of):
    root = copy_of("caltech256")
    shutil.rmtree(root / "256_ObjectCategories/056.dog")
    assert "3 classes instead of 4, 180 train images instead of 240, 12 test images" in complaint("caltech256", root)


@pytest.mark.parametrize(
    ("dataset", "lost"),
    [
        ("food101", "food-101/meta/test.txt"),
        ("food101", "food-101/images"),
        ("stanford40", "Stanford40/JPEGImages"),
        ("stanford40", "Stanford40/ImageSplits/actions.txt"),
        ("stanford40", "Stanford40/ImageSplits/applauding_test.txt"),
        ("stanford40", "Stanford40/ImageSplits/train.txt"),
        ("ppmi24", "norm_image/with_instrument"),
        ("ppmi24", "norm_image/play_instrument/erhu/test"),
        ("auc-v1", "auc.distracted.driver.dataset_v2/v1_cam1_no_split/Test_data_list.csv"),
        ("auc-v2", "auc.distracted.driver.dataset_v2/v2_cam1_cam2_split_by_driver/Camera 2"),
    ],
)
def test_a_part_that_is_missing_is_named(dataset, lost, copy_of):
    root = copy_of(dataset)
    shutil.move(root / lost, root.with_name("lost"))
    message = complaint(dataset, root)
    assert "is incomplete: there is no " in message and str(root / lost) in message


def test_a_part_that_is_missing_may_still_be_in_its_archive(copy_of):
    root = copy_of("stanford40")
    shutil.rmtree(root / "Stanford40/JPEGImages")
    write(root / "Stanford40", ["Stanford40_JPEGImages.zip"])
    assert f"extract its archives in {root / 'Stanford40'} again, completely" in complaint("stanford40", root)


@pytest.mark.parametrize("dataset", ["stanford40", "caltech256"])
def test_half_a_download_is_told_where_images_are_absent(dataset, copy_of):
    root = copy_of(dataset)
    (root / open_dataset(dataset, root).names[0]).unlink()
    half = f"{CATALOGUE[dataset].folder}_images.zip.part"
    write(root, [half])
    remedy = f"agnet datasets --download {dataset} --root {root} resumes it"
    assert f"{half} is half a download: {remedy}" in complaint(dataset, root)


def test_an_empty_list_is_half_an_extraction(copy_of):
    root = copy_of("food101")
    (root / "food-101/meta/test.txt").write_text("")
    assert "test.txt is empty" in complaint("food101", root)


@pytest.mark.parametrize(
    ("dataset", "file", "text", "expected"),
    [
        ("food101", "food-101/meta/test.txt", "waffles/77\n12345\n", "got '12345'"),
        ("stanford40", "Stanford40/ImageSplits/applauding_test.txt", "running_001.jpg", "got 'running_001.jpg'"),
        ("stanford40", "Stanford40/ImageSplits/test.txt", "applauding_001.jpg\n", "differ by 8 images"),
    ],
)
def test_a_list_of_another_kind_is_quoted(dataset, file, text, expected, copy_of):
    root = copy_of(dataset)
    (root / file).write_text(text)
    message = complaint(dataset, root)
    assert expected in message and str(root / file) in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("/distracted.driver/c3/103.jpg,4", "/distracted.driver/c3/103.jpg is in the folder of c3 but has the label 4"),
        ("/distracted.driver/c3/103.jpg,12", "expected columns Image and Label with labels 0 to 9"),
        ("/distracted.driver/c3/103.jpg", "expected columns Image and Label"),
    ],
)
def test_a_list_of_auc_v1_that_contradicts_itself_is_refused(row, expected, copy_of):
    root = copy_of("auc-v1")
    listing = root / "auc.distracted.driver.dataset_v2/v1_cam1_no_split/Test_data_list.csv"
    listing.write_text(f"Image,Label\n{row}\n")
    message = complaint("auc-v1", root)
    assert expected in message and str(listing) in message


def test_a_folder_that_may_not_be_read_is_passed_by_in_the_search(copy_of, monkeypatch):
    root = copy_of("food101")
    (root / "food-101").rename(root / "zzz")
    shutil.copytree(root / "zzz", root / "lost+found")
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "lost+found")
    assert all(name.startswith("zzz/") for name in open_dataset("food101", root).names)


# To the end


def test_a_layout_goes_through_propose_train_and_evaluate(copy_of, agnet, textured, tmp_path):
    root = copy_of("auc-v2", photographs(textured))
    proposed = agnet("propose", "--dataset", "auc-v2", "--root", root, "--without-leaked-frames", "--jobs", 1)
    assert "left out: 2 test frames of a driver in train" in proposed.stderr
    assert "63 images of 10 classes" in proposed.stderr
    assert "known issues of auc-v2: Camera 1/test/c0/322 to 415 reportedly show a driver of train" in proposed.stderr
    boxes = read_boxes(tmp_path / "boxes.h5")
    assert boxes.settings["dataset"] == {
        "name": "auc-v2",
        "val_fraction": 0.1,
        "split_seed": 0,
        "limit": None,
        "leaked_frames": False,
    }
    agnet("train", "--run", "run", "--model", "plain", "--epochs", 1, "--image-size", 64, *TRAIN)
    measured = json.loads(agnet("evaluate", "--run", "run", "--workers", 0, "--json").stdout)
    assert measured["images"] == 33
    assert "c0 safe driving" in measured["class_accuracy"]
    agnet("inspect", "--verify")


def test_the_copy_that_was_changed_needs_any_counts_and_is_warned_of(copy_of, agnet):
    root = copy_of("ppmi24")
    (root / "norm_image/play_instrument/erhu/test/test_0000.jpg").unlink()
    refused = agnet("propose", "--dataset", "ppmi24", "--root", root, code=1)
    assert "47 test images instead of 48" in refused.stderr and len(refused.stderr.splitlines()) == 1
    taken = agnet("propose", "--dataset", "ppmi24", "--root", root, "--any-counts", "--jobs", 1, code=1)
    assert "Warning: not as distributed: 47 test images instead of 48" in taken.stderr
