"""CUHK03: both protocols, from folders and from a small file as MATLAB 7.3 writes it, and hostile ones."""

import re
from collections import Counter

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.sets import cuhk03_release
from agnet.data.sets.availability import PARTLY, look_up
from agnet.data.sets.catalogue import CATALOGUE, DRAWS, open_dataset
from agnet.data.sets.cuhk03 import NOT_DRAWN

PERSONS = (4, 2, 1, 1, 1)  # of each pair of cameras
NUMBERS = (1, 2, 6, 7, 8)  # two pictures in view 1, three in view 2
NAMES = [
    (pair, person, 1 if number <= 5 else 2, number)
    for pair, count in enumerate(PERSONS, 1)
    for person in range(1, count + 1)
    for number in NUMBERS
]
TESTED = [(1 + seed % 2, 1) for seed in range(DRAWS)]


def file_name(pair, person, view, number):
    return f"{pair}_{person:03d}_{view}_{number:02d}.png"


def pixels(*key):
    return np.random.default_rng(key).integers(0, 256, (20 + key[0], 9 + key[-1], 3), dtype=np.uint8)


def write_release(path, **filters):
    """Write a `cuhk-03.mat`: axes reversed, cells as references, empty cells as MATLAB stores them."""
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", userblock_size=512) as file:

        def cell(values):
            target = file.create_dataset(f"#refs#/{len(file.get('#refs#', ()))}", data=values, **filters)
            return target.ref

        def cells(name, references):
            table = file.create_dataset(name, (len(references[0]), len(references)), h5py.ref_dtype)
            for column, row in np.ndindex(table.shape):
                table[column, row] = references[row][column]
            return table

        empty = file.create_dataset("#refs#/empty", data=np.zeros(2, np.uint64)).ref
        for boxes in ("labeled", "detected"):
            pairs = []
            for pair, count in enumerate(PERSONS, 1):
                rows = []
                for person in range(1, count + 1):
                    keys = [(pair, person, 1 if number <= 5 else 2, number) for number in range(1, 11)]
                    rows.append([cell(pixels(*key).T) if key in NAMES else empty for key in keys])
                pairs.append([cells(f"#refs#/{boxes}{pair}", rows).ref])
            cells(boxes, pairs)
        cells("testsets", [[cell(np.array([tested], float).T)] for tested in TESTED])
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return path


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path / "cuhk03" / "cuhk03_release" / "cuhk-03.mat", compression="gzip", shuffle=True)


def write_lists(root, boxes="labeled", **changes):
    """Write a list of the new protocol: persons of pairs 1 and 3 are searched for, view 1 queries, view 2 gallery."""
    tested = np.array([pair in (1, 3) for pair, *_ in NAMES])
    first = np.array([view == 1 for _, _, view, _ in NAMES])
    persons = list(dict.fromkeys(name[:2] for name in NAMES))
    lists = {
        "filelist": np.array([[file_name(*name)] for name in NAMES], dtype=object),
        "labels": np.array([[persons.index(name[:2]) + 1.0] for name in NAMES]),
        "camId": np.array([[float(name[2])] for name in NAMES]),
        "train_idx": np.flatnonzero(~tested)[None] + 1.0,
        "query_idx": np.flatnonzero(tested & first)[None] + 1.0,
        "gallery_idx": np.flatnonzero(tested & ~first)[None] + 1.0,
    }
    savemat(root / f"cuhk03_new_protocol_config_{boxes}.mat", lists | changes)


def fill(folder):
    folder.mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(pixels(*name)).save(folder / file_name(*name))


@pytest.mark.parametrize(("boxes", "named"), [("labeled", "labelled"), ("detected", "detected")])
def test_the_new_protocol_follows_its_lists(tmp_path, boxes, named):
    fill(tmp_path / f"images_{boxes}")
    Image.new("RGB", (9, 9)).save(tmp_path / f"images_{boxes}" / "1_009_1_01.png")
    write_lists(tmp_path, boxes)
    dataset = f"cuhk03-767-{named}"
    index = open_dataset(dataset, tmp_path, any_counts=True, val_fraction=0)
    assert Counter(index.splits.tolist()) == {"train": 4 * 5, "query": 5 * 2, "gallery": 5 * 3}
    assert index.classes[:4] == ("2_001", "2_002", "4_001", "5_001") and index.classes[4:6] == ("1_001", "1_002")
    for name, person, camera in zip(index.names, index.groups, index.cameras, strict=True):
        pair, number, view, _ = name.rpartition("/")[2].split("_")
        assert (person, camera) == (f"{pair}_{number}", f"{pair}-{view}")
    assert index.left_out == {".png that no list names": 1} and index.title == dataset
    with pytest.raises(DatasetError, match="9 classes instead of 1,467, 20 train images instead of 7,36"):
        open_dataset(dataset, tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"query_idx": np.array([[0.0, 1.0]])}, "query_idx has other values than 1 to 45"),
        ({"gallery_idx": np.array([[46.0]])}, "gallery_idx has other values"),
        ({"train_idx": np.array([[1.5]])}, "train_idx has other values"),
        ({"labels": np.arange(45.0)[:, None]}, "its labels contradict the persons"),
        ({"labels": np.ones((44, 1))}, "44 labels for 45 pictures"),
        ({"filelist": np.array([["../../secret.png"]] * 45, dtype=object)}, "expected names like 1_001_1_01.png"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(tmp_path, changes, complaint):
    fill(tmp_path / "images_labeled")
    write_lists(tmp_path, **changes)
    with pytest.raises(DatasetError, match=re.escape(complaint)):
        open_dataset("cuhk03-767-labelled", tmp_path, any_counts=True)


@pytest.mark.parametrize("seed", [0, 1, 19])
def test_single_shot_draws_one_gallery_image_of_each_person_of_a_test_set(release, tmp_path, seed):
    index = open_dataset("cuhk03-1367-labelled", tmp_path, any_counts=True, val_fraction=0, split_seed=seed)
    pair, person = TESTED[seed]
    of = {
        split: sorted(index.names[k] for k in np.flatnonzero(index.splits == split)) for split in ("query", "gallery")
    }
    folder = "cuhk03/cuhk03_release/images_labeled"
    assert of["query"] == [f"{folder}/{pair}_{person:03d}_1_{number:02d}.png" for number in (1, 2)]
    assert len(of["gallery"]) == 1 and of["gallery"][0].startswith(f"{folder}/{pair}_{person:03d}_2_")
    assert index.left_out == {NOT_DRAWN: 2} and (index.splits == "train").sum() == 8 * 5
    assert index.title == f"cuhk03-1367-labelled, test set {seed}"


def test_a_suffix_in_capitals_hides_no_camera(release, tmp_path):
    fill(release.parent / "images_labeled")
    for picture in (release.parent / "images_labeled").iterdir():
        picture.rename(picture.with_suffix(".PNG"))
    index = open_dataset("cuhk03-1367-labelled", tmp_path, any_counts=True)
    assert set(index.cameras) >= {"1-1", "1-2", "5-2"}


def test_there_are_twenty_test_sets(release, tmp_path):
    with pytest.raises(ConfigurationError, match="has 20 test sets: --split-seed chooses one, 0 to 19; got 20"):
        open_dataset("cuhk03-1367-labelled", tmp_path, split_seed=20)


def test_pictures_are_extracted_once_and_exactly(release, tmp_path, monkeypatch):
    found = look_up("cuhk03-1367-detected", tmp_path)
    assert found.state == PARTLY and "agnet propose cuhk03-1367-detected" in found.detail
    folder = release.parent / "images_detected"
    assert not folder.exists()
    said = []
    monkeypatch.setattr(cuhk03_release, "_TOLD", 20)
    open_dataset("cuhk03-1367-detected", tmp_path, any_counts=True, say=said.append)
    assert str(folder) in said[0] and [line.split()[0] for line in said[1:]] == ["20", "40"]
    assert sorted(path.name for path in folder.iterdir()) == [file_name(*name) for name in NAMES]
    for name in NAMES:
        assert np.array_equal(np.asarray(Image.open(folder / file_name(*name))), pixels(*name))
    monkeypatch.setattr(cuhk03_release, "_pictures", None)
    open_dataset("cuhk03-1367-detected", tmp_path, any_counts=True, say=said.append)
    assert len(said) == 3
    assert sorted(path.name for path in release.parent.iterdir()) == ["cuhk-03.mat", "images_detected"]


def soft_link(file):
    del file["detected"]
    file["detected"] = h5py.SoftLink("/labeled")


def external(file):
    del file["testsets"]
    file.create_dataset("testsets", (1, 20), "f8", external=[("/etc/passwd", 0, 160)])


def virtual(file):
    del file["detected"]
    layout = h5py.VirtualLayout((1, 5), h5py.ref_dtype)
    layout[:] = h5py.VirtualSource("other.h5", "labeled", (1, 5))
    file.create_virtual_dataset("detected", layout)


def null(file):
    file["detected"][0, 3] = h5py.Reference()


def group(file):
    file["detected"][0, 3] = file["#refs#"].ref


def numbers(file):
    del file["detected"]
    file["detected"] = np.zeros((1, 5))


def endless(file):
    del file["detected"]
    file.create_dataset("detected", (10**6, 10**6), h5py.ref_dtype, chunks=(1000, 1000))


def short_chunk(file):
    table = file.create_dataset("#refs#/short", (3, 40, 30), "u1", chunks=(3, 40, 30), compression="gzip")
    table.id.write_direct_chunk((0, 0, 0), b"x\x9c\x03\x00\x00\x00\x00\x01")
    file["#refs#/detected3"][0, 0] = table.ref


def wide(file):
    table = file.create_dataset("#refs#/wide", (3, 2001, 1), "u1", chunks=(3, 2001, 1), fillvalue=1)
    table[...] = 1
    file["#refs#/detected3"][0, 0] = table.ref


@pytest.mark.parametrize(
    "harm",
    [soft_link, external, virtual, null, group, numbers, endless, short_chunk, wide],
    ids=lambda one: one.__name__,
)
def test_hostile_files_are_refused_and_leave_nothing(release, tmp_path, harm):
    with h5py.File(release, "r+") as file:
        harm(file)
    with pytest.raises(DatasetError, match=r"cuhk-03\.mat: cannot be read as CUHK03's file .*; extract it again"):
        open_dataset("cuhk03-1367-detected", tmp_path, any_counts=True)
    made = {"images_detected"} if harm is external else set()  # whose pictures are sound
    assert {path.name for path in release.parent.iterdir()} == {"cuhk-03.mat"} | made


@pytest.mark.parametrize("bytes_left", [0, 100, 3000])
def test_half_a_file_is_refused(release, tmp_path, bytes_left):
    release.write_bytes(release.read_bytes()[:bytes_left])
    with pytest.raises(DatasetError, match="cannot be read as CUHK03's file"):
        open_dataset("cuhk03-1367-labelled", tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DatasetError, match="images_labeled"):
        open_dataset("cuhk03-767-labelled", tmp_path)
    fill(tmp_path / "images_labeled")
    with pytest.raises(DatasetError, match=r"cuhk03_new_protocol_config_labeled\.mat"):
        open_dataset("cuhk03-767-labelled", tmp_path)
    with pytest.raises(DatasetError, match=r"cuhk-03\.mat"):
        open_dataset("cuhk03-1367-labelled", tmp_path)


def test_every_title_names_its_protocol_and_boxes():
    titles = [entry.title for name, entry in CATALOGUE.items() if name.startswith("cuhk03")]
    assert len(set(titles)) == 4 and all(re.search(r"\((1,367|767) / [17]00, \w+ boxes\)", title) for title in titles)
