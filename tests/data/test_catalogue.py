import shutil

import numpy as np
import pytest
from PIL import Image

from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.sets import demo
from agnet.data.sets.catalogue import CATALOGUE, open_dataset


def touch(root, *names):
    """Empty files: a catalogue looks at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_in(index, split):
    return {name for name, its_split in zip(index.names, index.splits, strict=True) if its_split == split}


def class_of(index):
    return {name: index.classes[label] for name, label in zip(index.names, index.labels, strict=True)}


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match="unknown data set 'imagenet'; known: demo, folder, csv, food101"):
        open_dataset("imagenet", tmp_path)


def test_folders_with_train_val_and_test_are_taken_as_they_are(tmp_path):
    touch(
        tmp_path,
        *(f"{split}/{label}/{n}.jpg" for split in ("train", "val", "test") for label in "ab" for n in "123"),
    )
    index = open_dataset("folder", tmp_path)
    for split in ("train", "val", "test"):
        assert names_in(index, split) == {f"{split}/{label}/{n}.jpg" for label in "ab" for n in "123"}
    assert class_of(index) == {name: name.split("/")[1] for name in index.names}


def test_a_lone_val_folder_is_the_test_part_and_validation_is_cut_from_train(tmp_path):
    touch(tmp_path, *(f"train/{label}/{n}.jpg" for label in "ab" for n in range(10)))
    touch(tmp_path, *(f"val/{label}/{n}.jpg" for label in "ab" for n in range(4)))
    index = open_dataset("folder", tmp_path, val_fraction=0.2)
    assert names_in(index, "test") == {f"val/{label}/{n}.jpg" for label in "ab" for n in range(4)}
    assert index.counts("val").tolist() == [2, 2]
    assert index.counts("train").tolist() == [8, 8]
    assert all(name.startswith("train/") for name in names_in(index, "val"))


def test_folders_without_splits_get_seeded_ones(tmp_path):
    touch(tmp_path, *(f"{label}/{n}.jpg" for label in "ab" for n in range(20)))
    index = open_dataset("folder", tmp_path, val_fraction=0.25, split_seed=1)
    assert index.counts("test").tolist() == [4, 4]
    assert index.counts("val").tolist() == [4, 4]
    assert index.counts("train").tolist() == [12, 12]
    again = open_dataset("folder", tmp_path, val_fraction=0.25, split_seed=1)
    other = open_dataset("folder", tmp_path, val_fraction=0.25, split_seed=2)
    assert index.splits.tolist() == again.splits.tolist() != other.splits.tolist()


def test_no_validation_where_none_is_wanted(tmp_path):
    touch(tmp_path, *(f"{label}/{n}.jpg" for label in "ab" for n in range(10)))
    assert not names_in(open_dataset("folder", tmp_path, val_fraction=0), "val")


def test_folders_keep_subfolders_and_leave_other_files_and_hidden_ones(tmp_path):
    touch(
        tmp_path,
        "Train/b/deep/1.JPEG",
        "Train/b/notes.txt",
        "Train/b/.hidden.jpg",
        "Train/b/.git/2.jpg",
        "Train/a/1.png",
    )
    touch(tmp_path, "__MACOSX/c/1.jpg", ".cache/d/1.jpg", "readme.jpg", "Test/a/9.webp", "Test/b/9.tif")
    index = open_dataset("folder", tmp_path)
    assert index.names == ("Train/a/1.png", "Train/b/deep/1.JPEG", "Test/a/9.webp", "Test/b/9.tif")
    assert index.classes == ("a", "b")
    assert index.splits.tolist() == ["train", "train", "test", "test"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ((), "no images found"),
        (("a/1.txt", "b/2.jpg"), "class folder .*a holds no images"),
        (("only/1.jpg",), "only one class"),
        (("val/a/1.jpg", "val/b/1.jpg"), "no folder train beside it"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"), "class 'c'"),
        (("train/a/1.jpg", "train/b/1.jpg", "extra/a/1.jpg"), "'extra' beside train is not a split"),
        (("train/a/1.jpg", "train/b/1.txt"), "class folder .*b holds no images"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"), "no images found in class folders under .*test"),
    ],
)
def test_a_folder_of_another_layout_is_refused(names, complaint, tmp_path):
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match=complaint):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(("train", "held_out"), [("training", "validation"), ("Train", "valid"), ("train", "testing")])
def test_split_folders_go_by_their_usual_names(train, held_out, tmp_path):
    touch(tmp_path, *(f"{train}/{label}/{n}.jpg" for label in "ab" for n in range(4)), f"{held_out}/a/9.jfif")
    index = open_dataset("folder", tmp_path)
    assert index.classes == ("a", "b")
    assert index.splits[index.names.index(f"{held_out}/a/9.jfif")] == "test"


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "store/1.jpg", "photos/a/2.jpg", "photos/b/3.jpg")
    (tmp_path / "photos/a/more").symlink_to(tmp_path / "store")
    (tmp_path / "photos/b/loop").symlink_to(tmp_path / "photos/b")
    index = open_dataset("folder", tmp_path / "photos", val_fraction=0)
    assert sorted(index.names) == ["a/2.jpg", "a/more/1.jpg", "b/3.jpg"]


def test_an_archive_is_no_folder(tmp_path):
    touch(tmp_path, "photos.zip")
    with pytest.raises(DatasetError, match=r"photos\.zip is a file; if it is an archive, extract it"):
        open_dataset("folder", tmp_path / "photos.zip")


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere.*--root"):
        open_dataset("folder", tmp_path / "nowhere")


def test_every_data_set_complains_about_an_empty_place(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ensure_demo", lambda root: root)
    for name in CATALOGUE:
        with pytest.raises(DatasetError):
            open_dataset(name, tmp_path)


def test_the_embedded_data_set_is_made_once_of_sixteen_photographs(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(demo, "IMAGES_OF_A_CLASS", {"train": 3, "test": 1})
    index = open_dataset("demo", tmp_path / "sets", val_fraction=0.34)
    assert len(index.classes) == 16
    for split in ("train", "val", "test"):
        assert index.counts(split).tolist() == [{"train": 2, "val": 1, "test": 1}[split]] * 16
    for name in index.names:
        with Image.open(index.root / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (320, 240))
    contents = {(index.root / name).read_bytes() for name in index.names}
    assert len(contents) == len(index)
    assert [place.name for place in (tmp_path / "sets").iterdir()] == [demo.FOLDER]

    stamps = {name: (index.root / name).stat().st_mtime_ns for name in index.names}
    open_dataset("demo", tmp_path / "sets")
    assert stamps == {name: (index.root / name).stat().st_mtime_ns for name in index.names}

    elsewhere = open_dataset("demo", tmp_path / "other sets")
    assert contents == {(elsewhere.root / name).read_bytes() for name in elsewhere.names}


def test_an_interrupted_embedded_data_set_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_photographs", lambda: {"a": np.zeros((9, 9, 3), np.uint8)})

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_view", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.ensure_demo(tmp_path / "sets")
    assert list((tmp_path / "sets").iterdir()) == []


def test_the_embedded_data_set_needs_a_place_to_write(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_photographs", dict)
    (tmp_path / "sets").touch()
    with pytest.raises(DatasetError, match="cannot write the embedded data set"):
        demo.ensure_demo(tmp_path / "sets")


def test_two_names_of_one_split_are_refused(folder):
    (folder / "train").rename(folder / "training")
    shutil.copytree(folder / "training", folder / "Train")
    with pytest.raises(DatasetError, match="'Train' and 'training' are both train"):
        open_dataset("folder", folder)


def test_files_that_are_left_out_are_counted_by_kind(folder):
    for name in ("IMG_1.CR2", "IMG_2.cr2", "notes"):
        (folder / "train" / "ant" / name).write_bytes(b"?")
    (folder / "train" / "ant" / ".hidden").write_bytes(b"?")
    shutil.copy(folder / "val" / "ant" / "0.png", folder / "train" / "loose.png")
    left_out = open_dataset("folder", folder).left_out
    assert left_out == {".cr2": 2, "without a suffix": 1, ".png outside class folders": 1}
