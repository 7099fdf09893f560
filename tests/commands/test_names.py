"""What people and their systems call folders, files and classes, at its oddest."""

import json
import os
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from agnet.data.boxes.reader import read_boxes
from agnet.data.errors import DatasetError
from agnet.data.index import build_index
from agnet.data.inputs import find_inputs
from agnet.data.sets.catalogue import open_dataset
from agnet.data.sets.examination import examine
from agnet.data.text import composed_all, file_name
from agnet.training.measure.predictions import load_predictions, save_predictions

COMPOSED, APART = "caf\u00e9", "cafe\u0301"
pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--model", "plain", "--backbone", "mobilenet-v3-small", "--weights", "none", "--image-size", 64, "--epochs", 1]
GRID = ["--method", "grid", "--jobs", 1]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def draw(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), (number * 7 % 256, 90, 30)).save(root / name)


def class_of(index):
    return {name: index.classes[label] for name, label in zip(index.names, index.labels, strict=True)}


# The two forms of a letter


@pytest.fixture
def tells_forms_apart(tmp_path):
    """Skips where the disk itself takes both forms for one name, as a Mac's does."""
    (tmp_path / COMPOSED).mkdir()
    if (tmp_path / APART).exists():
        pytest.skip("this disk has one form of each name")
    (tmp_path / COMPOSED).rmdir()


def test_the_two_forms_are_two_texts():
    assert COMPOSED != APART and unicodedata.normalize("NFC", APART) == COMPOSED


def test_a_class_may_be_written_in_both_forms_in_different_splits(tmp_path, tells_forms_apart):
    touch(tmp_path, *(f"train/{label}/{n}.jpg" for label in (COMPOSED, "bar") for n in range(3)))
    touch(tmp_path, *(f"test/{label}/{n}.jpg" for label in (APART, "bar") for n in range(2)))
    index = open_dataset("folder", tmp_path, val_fraction=0)
    assert index.classes == ("bar", COMPOSED) and index.counts("test").tolist() == [2, 2]
    assert f"test/{APART}/0.jpg" in index.names  # files are called what they are called


def test_and_in_one_split(tmp_path, tells_forms_apart):
    touch(tmp_path, *(f"{label}/{label}{n}.jpg" for label in (COMPOSED, APART, "bar") for n in range(3)))
    index = open_dataset("folder", tmp_path, val_fraction=0)
    assert index.classes == ("bar", COMPOSED)
    assert Counter(class_of(index).values()) == {COMPOSED: 6, "bar": 3}


def test_the_labels_of_a_list_may_be_of_both_forms(tmp_path):
    touch(tmp_path, *(f"{n}.jpg" for n in range(4)))
    labels = [COMPOSED, APART, "bar", "bar"]
    rows = [
        f"{n}.jpg,{label},{split}" for n, (label, split) in enumerate(zip(labels, ["train", "test"] * 2, strict=True))
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    index = open_dataset("csv", tmp_path, list_file=tmp_path / "list.csv")
    assert index.classes == ("bar", COMPOSED)
    assert class_of(index) == {"0.jpg": COMPOSED, "1.jpg": COMPOSED, "2.jpg": "bar", "3.jpg": "bar"}


def test_any_layouts_classes_are_composed_and_look_alikes_stay_apart(tmp_path):
    labels = [APART, COMPOSED, "\ufb01n", "fin", "K", "\u212a", "Fin", "\uac00", "\u1100\u1161"]
    index = build_index("named", tmp_path, [(f"{n}.jpg", label, "train") for n, label in enumerate(labels)])
    assert set(index.classes) == {COMPOSED, "\ufb01n", "fin", "K", "Fin", "\uac00"}  # Kelvin's sign is K; ﬁ is not fi


def test_cases_are_two_classes_and_the_error_says_so(tmp_path):
    touch(tmp_path, "train/Cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg")
    with pytest.raises(DatasetError, match=r"class 'cat' has .* none in train, where it may be called 'Cat'"):
        open_dataset("folder", tmp_path)


def test_what_other_programs_wrote_is_read_in_one_form():
    assert composed_all(["bar", APART]) == ("bar", COMPOSED)
    assert composed_all([COMPOSED, APART]) == (COMPOSED, APART)  # a file that has both keeps both apart


def with_names_apart(path):
    """The boxes file as another program makes it on a Mac: é in two letters."""
    import h5py
    import numpy as np

    from agnet.data.boxes import schema

    with h5py.File(path, "r+") as file:
        rows = file["labels"][:]
        names = [unicodedata.normalize("NFD", name.decode()).encode() for name in rows[schema.CLASS]]
        dtype = schema.labels_dtype(max(map(len, names)))
        table = np.array([(row["label"], name, *list(row)[2:]) for row, name in zip(rows, names, strict=True)], dtype)
        description = file["labels"].attrs["description"]
        del file["labels"]
        options = {"chunks": (len(table),), "compression": "gzip", "shuffle": True, "fletcher32": True}
        stored = file.create_dataset("labels", (len(table),), schema.stored(dtype), **options)
        stored[:] = table.view(stored.dtype)
        stored.attrs["description"] = description


def test_a_run_is_measured_on_a_file_of_the_other_form_and_compared(agnet, boxes_file, folder, tmp_path):
    agnet("train", "--root", folder, "--run", "run", "--workers", 0, "--device", "cpu", *TRAIN)
    with_names_apart(boxes_file)
    assert read_boxes(boxes_file).classes == ("ant", "bee", unicodedata.normalize("NFC", "côté"))
    agnet("evaluate", "--root", folder, "--run", "run", "--boxes", boxes_file, "--workers", 0, "--device", "cpu")
    found = load_predictions(tmp_path / "run" / "predictions-test.safetensors")
    (tmp_path / "old").mkdir()
    for name in ("config.json", "log.jsonl"):
        (tmp_path / "old" / name).write_bytes((tmp_path / "run" / name).read_bytes())
    apart = tuple(unicodedata.normalize("NFD", name) for name in found.classes)
    save_predictions(tmp_path / "old" / "predictions-test.safetensors", replace(found, classes=apart))
    agnet("compare", "run", "old")


# What systems leave among photographs

LEFT = (
    *("__MACOSX", ".ipynb_checkpoints", "@eaDir", ".AppleDouble", ".thumbnails", ".Trash-1000", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found", ".picasaoriginals", "#recycle", ".@__thumb", "@Recycle", "found.000"),
    *("__pycache__", ".git", "$Recycle.Bin"),
)


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("where", ["{}/x/1.jpg", "train/{}/1.jpg", "train/a/{}/1.jpg", "train/a/deep/{}/1.jpg"])
def test_folders_of_systems_are_no_classes_and_have_no_images(tmp_path, where, name):
    touch(tmp_path, *(f"{part}/{label}/{n}.jpg" for part in ("train", "test") for label in "ab" for n in range(2)))
    touch(tmp_path, where.format(name))
    index = open_dataset("folder", tmp_path)
    assert len(index) == 8 and index.classes == ("a", "b")
    assert index.left_out == {f"folder {name}": 1}
    seen = [one.name for one in find_inputs([str(tmp_path)], sys.stdin)]
    assert len(seen) == 8 and not any(name in path for path in seen)


def test_patterns_find_what_systems_keep_only_where_it_is_named(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/@eaDir/1.jpg", "__MACOSX/a/2.jpg", "@eaDir/3.jpg")

    def seen(pattern):
        return [
            Path(one.name).relative_to(tmp_path).as_posix() for one in find_inputs([str(tmp_path / pattern)], sys.stdin)
        ]

    assert seen("**/*.jpg") == ["a/1.jpg"]
    assert seen("@eaDir/*.jpg") == ["@eaDir/3.jpg"]
    assert seen("a/../a/*.jpg") == ["a/../a/1.jpg"]


def test_files_of_systems_are_no_images(tmp_path):
    touch(
        tmp_path, "a/1.jpg", "b/1.jpg", "a/._1.jpg", "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", "b/._2.jpg", "b/x"
    )
    index = open_dataset("folder", tmp_path)
    assert index.names == ("a/1.jpg", "b/1.jpg")
    assert index.left_out == {"hidden .jpg": 2, ".db": 1, ".ini": 1, "without a suffix": 1}


def test_a_list_may_name_what_is_hidden(tmp_path):
    touch(tmp_path, ".kept/1.jpg", "2.jpg")
    (tmp_path / "list.csv").write_text("path,label\n.kept/1.jpg,a\n2.jpg,b\n")
    assert open_dataset("csv", tmp_path, list_file=tmp_path / "list.csv").names == (".kept/1.jpg", "2.jpg")


def test_names_like_those_of_systems_are_classes(tmp_path):
    names = ("recycled", "thumbnails", "found", "macosx", "tmp", "lost", "eadir")
    touch(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert open_dataset("folder", tmp_path).classes == tuple(sorted(names))


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    scandir = os.scandir

    def guarded(place):
        if Path(os.fspath(place)).name == "b":
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(DatasetError, match=r"cannot look into the folder .*b: Permission denied"):
        open_dataset("folder", tmp_path)


# Split words


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *(("Training", "train"), ("valid", "val"), ("VALIDATION", "val"), ("dev", "val"), ("testing", "test")),
        *(("eval", "test"), ("Evaluation", "test"), ("test", "test")),
    ],
)
def test_folders_and_lists_know_the_same_words(tmp_path, word, split):
    other = {"train": "test", "val": "test", "test": "val"}[split]
    parts = {word: split, **{part: part for part in ("train", other) if part != split}}
    names = [f"{part}/{label}/{n}.jpg" for part in parts for label in "ab" for n in range(2)]
    touch(tmp_path / "photos", *names)
    rows = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    for index in (
        open_dataset("folder", tmp_path / "photos", val_fraction=0),
        open_dataset("csv", tmp_path / "photos", val_fraction=0, list_file=tmp_path / "list.csv"),
    ):
        wanted = {name: parts[name.split("/")[0]] for name in names}
        if "val" not in wanted.values() or "test" in wanted.values():
            assert dict(zip(index.names, index.splits.tolist(), strict=True)) == wanted


def test_two_words_for_one_part_are_refused(tmp_path):
    touch(tmp_path, *(f"{part}/{label}/1.jpg" for part in ("train", "test", "Eval") for label in "ab"))
    with pytest.raises(DatasetError, match="'Eval' and 'test' are both test; keep one of them"):
        open_dataset("folder", tmp_path)


def test_trains_are_photographed_too(tmp_path):
    touch(tmp_path, *(f"{label}/{n}.jpg" for label in ("bus", "car", "train") for n in range(2)))
    assert open_dataset("folder", tmp_path).classes == ("bus", "car", "train")
    touch(tmp_path, "train/a/1.jpg")
    with pytest.raises(DatasetError, match="'bus' beside train is not a split"):
        open_dataset("folder", tmp_path)


def test_a_train_and_a_test_folder_without_classes_are_no_two_classes(tmp_path):
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    with pytest.raises(DatasetError, match="no images found in class folders under"):
        open_dataset("folder", tmp_path)


# Odd names go through everything

ODD = ("-rf", "0", "nan", "None", "a b ", "100%", "{0}", "a,b;c", "=1+1", "'quoted\"", "x" * 255, "ß", "train.jpg", "~")


def test_odd_names_of_classes_and_files_go_through_everything(agnet, tmp_path):
    if sys.platform != "linux":
        pytest.skip("other file systems take fewer names")
    deep = "/".join(["d" * 250] * 3)  # a path longer than Windows' 260
    names = [f"{label}/{n}.png" for label in ODD for n in range(4)]
    names += [f"ß/{odd}.PNG" for odd in ("-x", "%s", "{}", "n" * 251, "Ünï\u202e")] + [f"0/{deep}/1.png"]
    draw(tmp_path / "photos", *names)
    agnet("propose", "--dataset", "folder", "--root", "photos", *GRID)
    boxes = read_boxes(tmp_path / "boxes.h5")
    assert set(boxes.classes) == set(ODD) and {name.decode() for name in boxes.names} == set(names)
    assert agnet("inspect", "--verify").stdout == f"{len(names)} images are unchanged\n"
    agnet("inspect")
    agnet("train", "--run", "run", "--workers", 0, "--device", "cpu", "--batch-size", 64, *TRAIN)
    agnet("evaluate", "--run", "run", "--workers", 0, "--device", "cpu", "--csv")
    told = agnet("predict", "--run", "run", "--jobs", 0, "--device", "cpu", "--json", "--top", 100, "photos/0")
    for line in told.stdout.splitlines():
        assert set(json.loads(line)["probabilities"]) == set(ODD)


def test_the_search_for_a_name_that_is_there_twice_is_quick(tmp_path):
    """Of a hundred thousand; comparing each with all would take minutes."""
    rows = [(f"{n}.jpg", "ab"[n % 2], "train") for n in range(100_000)]
    with pytest.raises(DatasetError, match=r"'99999\.jpg' is listed twice"):
        build_index("csv", tmp_path, [*rows, rows[-1]])


# What a data set is called


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Vögel 2024", "Vögel_2024"),
        ("../../etc", "_.._etc"),
        ("a/b\\c:d", "a_b_c_d"),
        (" ", "_"),
        ("...", "_"),
        ("", "_"),
        ("x" * 300, "x" * 60),
        ("名前", "名前"),
    ],
)
def test_a_title_becomes_part_of_a_files_name(text, name):
    assert file_name(text) == name


def test_people_s_data_is_called_by_its_folders_or_lists_name(tmp_path, monkeypatch):
    touch(tmp_path / "Vögel", "a/1.jpg", "b/1.jpg")
    (tmp_path / "my list.csv").write_text("path,label\na/1.jpg,a\nb/1.jpg,b\n")
    assert open_dataset("folder", tmp_path / "Vögel").title == "Vögel"
    (tmp_path / "link").symlink_to(tmp_path / "Vögel")
    assert open_dataset("folder", tmp_path / "link").title == "link"
    assert open_dataset("csv", tmp_path / "Vögel", list_file=tmp_path / "my list.csv").title == "my list"
    monkeypatch.chdir(tmp_path / "Vögel")
    assert open_dataset("folder", ".").title == "Vögel"
    monkeypatch.setenv("HOME", str(tmp_path / "Vögel"))  # whose name is nobody's business
    assert (
        open_dataset("folder", tmp_path / "Vögel").title == open_dataset("folder", tmp_path / "link").title == "folder"
    )


def test_the_name_is_in_the_file_the_runs_folder_and_what_is_said(agnet, folder, tmp_path):
    folder.rename(tmp_path / "my birds")
    proposed = agnet("propose", "--dataset", "folder", "--root", "my birds", *GRID)
    assert proposed.stderr.splitlines()[:2] == [
        "my birds: 18 images of 3 classes (9 train, 3 val, 6 test)",
        "its val split is the test split, since it has no other; the val counted here is cut from train",
    ]
    boxes = read_boxes(tmp_path / "boxes.h5")
    assert (boxes.dataset, boxes.title, boxes.val_is_test) == ("folder", "my birds", True)
    summary = agnet("inspect").stdout
    assert "data set my birds\n  its val split is the test split" in summary
    trained = agnet("train", "--workers", 0, "--device", "cpu", *TRAIN)
    assert "my birds: 9 train, 3 val, 6 test images of 3 classes" in trained.stderr
    assert trained.stdout == f"{Path('runs', 'my_birds-plain', 'best.safetensors')}\n"
    told = examine(open_dataset("folder", "my birds"), jobs=1)
    assert (told.dataset, told.title) == ("folder", "my birds")


def test_a_test_part_is_not_called_val_where_there_is_one(agnet, folder, tmp_path):
    (folder / "val").rename(folder / "test")
    proposed = agnet("propose", "--dataset", "folder", "--root", folder, *GRID)
    assert "its val" not in proposed.stderr and "its val" not in agnet("inspect").stdout
    assert not read_boxes(tmp_path / "boxes.h5").val_is_test


def test_a_file_without_a_title_has_its_data_sets_and_a_strangers_leads_nowhere(boxes_file):
    boxes = read_boxes(boxes_file)
    untitled = {name: value for name, value in boxes.attributes.items() if name != "title"}
    assert replace(boxes, attributes=untitled).title == "folder"
    assert (
        replace(boxes, attributes=untitled | {"title": "a\x1b[2J/../b"}).title == "a\N{REPLACEMENT CHARACTER}[2J/../b"
    )
