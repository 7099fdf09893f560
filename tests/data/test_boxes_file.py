import shutil
import subprocess
import warnings
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from agnet.data.boxes.reader import read_boxes, read_listing, sizes_of
from agnet.data.boxes.summary import summarise, summary_text
from agnet.data.boxes.writer import Part, build_part, read_me, write_boxes
from agnet.data.errors import BoxesFileError, MismatchError
from agnet.data.index import build_index
from agnet.data.regions import NO_REGIONS, Layout, Proposal, Regions

PATH = "path_relative_to_the_dataset_root"


def hulls_of(*hulls, size_wh, keypoints):
    """`Regions` from lists of points, one for each region."""
    return Regions(
        hull_xy=np.array([point for hull in hulls for point in hull], dtype=np.float32),
        hull_counts=np.array([len(hull) for hull in hulls], dtype=np.int32),
        keypoints=np.array(keypoints, dtype=np.int32),
        weights=np.array([0.75, 0.25], dtype=np.float32),
        size_wh=size_wh,
        total_keypoints=sum(keypoints) + 2,
        distinct_keypoints=sum(keypoints),
        layout=Layout(len(hulls)),
    )


@pytest.fixture
def index(tmp_path):
    rows = [
        ("crème/1.jpg", "crème", "train"),
        ("crème/broken.jpg", "crème", "train"),
        ("ant/a.jpg", "ant", "val"),
        ("ant/🐜.jpg", "ant", "test"),
    ]
    return build_index("handmade", tmp_path, rows)


def proposals():
    corners = [(0, 0), (30, 0), (30, 20), (0, 20)]
    return [
        Proposal(
            hulls_of([(1, 2), (9, 2), (5, 8)], [(20, 3), (28, 19)], size_wh=(40, 30), keypoints=(7, 2)),
            11,
            1_700_000_000_123_456_789,
            "aa" * 8,
        ),
        Proposal(None, 12, 1, "bb" * 8, "not a readable image (é" + "x" * 400 + ")", "broken data"),
        Proposal(hulls_of(corners, corners, size_wh=(30, 20), keypoints=(0, 0)), 13, 1, "cc" * 8),
        Proposal(hulls_of([(4, 4)], [(3, 5), (6, 5)], size_wh=(8, 8), keypoints=(1, 2)), 14, 1, "dd" * 8),
    ]


SETTINGS = {"dataset": {"name": "handmade"}, "proposals": {"primary": 2, "tol": 1e-3}}


def write(path, index, parts=None):
    if parts is None:
        first, second = build_part(index, 0, proposals()[:3]), build_part(index, 3, proposals()[3:])
        parts = [lambda: first, lambda: second]
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    return write_boxes(
        path,
        index,
        parts,
        Layout(2),
        {"fingerprint": "f" * 32},
        SETTINGS,
        {"one": (picture, "ünder")},
        idle=["tol"],
    )


def test_what_is_written_is_read_again(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    assert path == tmp_path / "boxes.h5"
    boxes = read_boxes(path)
    assert boxes.dataset == "handmade"
    assert boxes.classes == ("ant", "crème")
    assert boxes.layout == Layout(2)
    assert boxes.settings == {"dataset": {"name": "handmade"}, "proposals": {"primary": 2, "tol": 0.001}}
    assert boxes.fingerprint == "f" * 32
    assert [name.decode() for name in boxes.names] == list(index.names)
    assert boxes.labels.tolist() == [1, 1, 0, 0]
    assert boxes.splits.tolist() == ["train", "train", "val", "test"]
    assert boxes.status.tolist() == ["ok", "unreadable", "few keypoints", "ok"]
    assert boxes.usable.tolist() == [0, 2, 3]
    assert boxes.sizes_wh.tolist() == [[40, 30], [0, 0], [30, 20], [8, 8]]
    assert boxes.primary_xyxy.tolist() == [
        [[1, 2, 9, 8], [20, 3, 28, 19]],
        [[0, 0, 30, 20], [0, 0, 30, 20]],
        [[3.5, 3.5, 4.5, 4.5], [3, 4.5, 6, 5.5]],
    ]
    assert boxes.keypoints.tolist() == [[7, 2], [0, 0], [1, 2]]
    assert boxes.weights.tolist() == [[0.75, 0.25]] * 3
    assert boxes.hull_counts.tolist() == [[3, 2], [4, 4], [1, 2]]
    assert boxes.hull_first.tolist() == [0, 5, 13]
    assert boxes.total_keypoints.tolist() == [11, 0, 2, 5]
    assert boxes.distinct_keypoints.tolist() == [9, 0, 0, 3]
    ((name, reason),) = boxes.failures
    assert name == "crème/broken.jpg"
    assert boxes.faults == ("broken data",)
    assert reason.startswith("not a readable image (éxxx")
    assert 290 < len(reason.encode()) <= 300


def test_regions_come_back_one_image_at_a_time(tmp_path, index):
    boxes = read_boxes(write(tmp_path / "boxes.h5", index))
    for row, written in enumerate(proposal.regions for proposal in proposals() if proposal.regions):
        regions = boxes.regions(row)
        assert regions.hull_xy.tolist() == written.hull_xy.tolist()
        assert regions.hull_counts.tolist() == written.hull_counts.tolist()
        assert regions.keypoints.tolist() == written.keypoints.tolist()
        assert regions.size_wh == written.size_wh
        assert (regions.total_keypoints, regions.distinct_keypoints) == (
            written.total_keypoints,
            written.distinct_keypoints,
        )


def test_rows_of_a_split_leave_unreadable_images(tmp_path, index):
    boxes = read_boxes(write(tmp_path / "boxes.h5", index))
    assert {split: boxes.rows(split).tolist() for split in ("train", "val", "test")} == {
        "train": [0],
        "val": [1],
        "test": [2],
    }


def test_secondary_rows_are_the_unions_of_their_pair(boxes_file):
    with h5py.File(boxes_file) as file:
        primary, secondary = file["primary"][:], file["secondary"][:]
    box_of = {(row["image"], row["region"]): [row[side] for side in ("x0", "y0", "x1", "y1")] for row in primary}
    images = sorted({row["image"] for row in primary})
    pairs = [(image, *pair) for image in images for pair in ((3, 0, 1), (4, 0, 2), (5, 1, 2))]
    assert [(row["image"], row["region"], row["first"], row["second"]) for row in secondary] == pairs
    for row in secondary:
        a, b = box_of[row["image"], row["first"]], box_of[row["image"], row["second"]]
        expected = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
        assert [row[side] for side in ("x0", "y0", "x1", "y1")] == expected


def test_tables_suit_people_and_foreign_programs(tmp_path, index):
    with h5py.File(write(tmp_path / "boxes.h5", index)) as file:
        assert sorted(file) == [
            "00_read_me",
            "failures",
            "hulls",
            "images",
            "labels",
            "preview",
            "primary",
            "secondary",
            "settings",
        ]
        for name in set(file) - {"preview"}:
            table = file[name]
            assert table.ndim == 1
            assert (table.compression, table.shuffle, table.fletcher32) == ("gzip", True, True)
            assert isinstance(table.attrs["description"], np.bytes_)
            for column in table.dtype.names:
                text = h5py.check_string_dtype(table.dtype[column])
                assert text is None or (text.encoding, text.length is None) == ("utf-8", False)
        assert file["labels"][:].tolist() == [(0, b"ant", 0, 1, 1), (1, "crème".encode(), 2, 0, 0)]
        assert file["settings"][1].tolist() == (b"proposals: primary", b"2", b"yes")
        assert file["images"]["distinct_regions"].tolist() == [3, 0, 1, 3]
        picture = file["preview/one"]
        assert picture.attrs["CLASS"] == b"IMAGE"
        assert picture.attrs["IMAGE_SUBCLASS"] == b"IMAGE_TRUECOLOR"
        assert picture.shape == (5, 7, 3)


def test_a_file_without_failures_has_no_such_table(boxes_file):
    with h5py.File(boxes_file) as file:
        assert "failures" not in file
    assert read_boxes(boxes_file).failures == ()


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed")
def test_h5dump_shows_the_tables(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    shown = subprocess.run(["h5dump", path], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    for text in (
        '"ant',
        '"unreadable',
        '"ok',
        'DATASET "hulls"',
        'DATASET "secondary"',
        "H5T_CSET_UTF8",
        '"complete"',
    ):
        assert text in shown.stdout


@pytest.mark.skipif(shutil.which("h5ls") is None, reason="h5ls is not installed")
def test_h5ls_lists_the_tables(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    shown = subprocess.run(["h5ls", path], capture_output=True, text=True, check=True).stdout
    sizes = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.splitlines()}
    assert sizes["primary"] == "Dataset {6}"
    assert sizes["secondary"] == "Dataset {3}"
    assert sizes["hulls"] == "Dataset {16}"
    assert sizes["images"] == "Dataset {4}"


def test_equal_content_makes_equal_bytes(tmp_path, index):
    one, other = write(tmp_path / "one.h5", index), write(tmp_path / "other.h5", index)
    assert one.read_bytes() == other.read_bytes()


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    before = path.read_bytes()
    calls = []

    def failing():
        calls.append(None)
        if len(calls) > 1:  # the first call counts rows, the second is amid writing
            raise KeyboardInterrupt
        return build_part(index, 3, proposals()[3:])

    first = build_part(index, 0, proposals()[:3])
    with pytest.raises(KeyboardInterrupt):
        write(path, index, parts=[lambda: first, failing])
    assert len(calls) == 2
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_any_usable_image_is_not_written(tmp_path, index):
    part = build_part(index, 0, [Proposal(None, reason="gone")] * 4)
    with pytest.raises(BoxesFileError, match="none of the 4 images"):
        write(tmp_path / "boxes.h5", index, parts=[lambda: part])
    assert list(tmp_path.iterdir()) == []


def test_a_part_comes_back_from_disk(tmp_path, index):
    part = build_part(index, 0, proposals())
    part.save(tmp_path / "part.npz")
    back = Part.load(tmp_path / "part.npz")
    for name in ("images", "primary", "hulls", "failures"):
        assert getattr(back, name).dtype == getattr(part, name).dtype
        assert getattr(back, name).tolist() == getattr(part, name).tolist()
    assert list(tmp_path.iterdir()) == [tmp_path / "part.npz"]


def test_the_header_alone_can_be_read(tmp_path, index):
    listing = read_listing(write(tmp_path / "boxes.h5", index))
    attributes, settings = listing.attributes, listing.settings
    assert settings["proposals"]["primary"] == 2
    assert attributes["complete"] == 1


def test_what_a_person_reads_stands_in_the_window(tmp_path, index):
    """HDFView opens a table 694 pixels wide, some 99 letters, each column as wide as its header."""
    with h5py.File(write(tmp_path / "boxes.h5", index)) as file:
        telling = {
            "images": ("status_of_the_image", "first_row_in_primary"),
            "failures": ("what_is_wrong_with_it", "name_of_the_image_file"),
            "settings": ("name_of_the_setting_of_the_run", "used_by_this_method"),
        }
        for table, (widest, last) in telling.items():
            names = file[table].dtype.names
            assert sum(len(name) + 1 for name in names[: names.index(last)]) < 95
            assert max(map(len, file[table][widest])) <= len(widest)
        (read_me,) = file["00_read_me"].dtype.names
        sentences = [line.decode() for line in file["00_read_me"][read_me]]
        assert max(map(len, sentences)) <= 60 <= len(read_me) <= 70
        (reason,) = file["failures"].dtype.names[3:]
        assert 60 <= len(reason) <= 70


def test_an_image_is_found_in_the_tables_by_hand(tmp_path, index):
    with h5py.File(write(tmp_path / "boxes.h5", index)) as file:
        images, primary, failures = file["images"][:], file["primary"][:], file["failures"][:]
        assert file["settings"]["used_by_this_method"].tolist() == [b"yes", b"yes", b"no"]
    assert images["image"].tolist() == [0, 1, 2, 3]
    assert images["name_of_the_image_file_and_ending"][3].decode() == "🐜.jpg"
    assert [name.decode() for name in images["class_of_the_image"]] == ["crème", "crème", "ant", "ant"]
    assert images["first_row_in_primary"].tolist() == [0, -1, 2, 4]
    assert primary["image"][images["first_row_in_primary"][3]] == 3
    assert failures[["image", "what_is_wrong_with_it", "name_of_the_image_file"]].tolist() == [
        (1, b"broken data", b"broken.jpg")
    ]


def test_the_first_table_tells_the_numbers_and_stays_short(index):
    def sentences(**changes):
        return read_me(replace(index, **changes), Layout(36, "primary"), unreadable=123_456, few=123_456)

    assert "It has 4 images of 2 classes:" in sentences() and "   2 train" in sentences()
    assert "123,456 have few keypoints: regions are the whole image." in sentences()
    long = sentences(title="ひ" * 80)
    assert max(map(len, long)) <= 60 and "The data set is ひひ" in "".join(long)
    assert "   1 gallery" in sentences(splits=np.array(["train", "train", "query", "gallery"]))
    assert not any("pixels" in line for line in read_me(index, NO_REGIONS, 0, 0))


def test_groups_cameras_and_parts_to_search_in_are_kept(tmp_path, index):
    splits = np.array(["train", "train", "query", "gallery"])
    index = replace(index, splits=splits, groups=("Åsa", "Åsa", "b", "b"), cameras=("1", "2", "1", "2"))
    boxes = read_boxes(write(tmp_path / "boxes.h5", index))
    assert (boxes.groups, boxes.cameras, boxes.clips) == (index.groups, index.cameras, None)
    assert boxes.splits.tolist() == splits.tolist() and boxes.rows("query").tolist() == [1]
    summary = summarise(boxes, sizes_of(boxes.path), "", 0)
    assert summary.splits == {"train": 2, "val": 0, "query": 1, "gallery": 1}
    assert "person  train  val  query  gallery  all" in summary_text(summary)
    with h5py.File(boxes.path) as file:
        assert file["labels"]["images_in_gallery"].tolist() == [1, 0]


def test_a_file_may_have_no_regions(tmp_path, index):
    none = [
        replace(
            proposal,
            regions=proposal.regions
            and replace(
                proposal.regions,
                hull_xy=np.zeros((0, 2), np.float32),
                **{name: getattr(proposal.regions, name)[:0] for name in ("hull_counts", "keypoints", "weights")},
                layout=NO_REGIONS,
            ),
        )
        for proposal in proposals()
    ]
    part, settings = build_part(index, 0, none), {"proposals": {"primary": 0, "kinds": "none"}}
    path = write_boxes(
        tmp_path / "boxes.h5", index, [lambda: part], NO_REGIONS, {"fingerprint": "f"}, settings, previews={}
    )
    with h5py.File(path) as file:
        assert sorted(file) == ["00_read_me", "failures", "images", "labels", "settings"]
    boxes = read_boxes(path)
    assert boxes.layout == NO_REGIONS and boxes.layout.count == 0
    assert boxes.status.tolist() == ["ok", "unreadable", "ok", "ok"]
    assert boxes.primary_xyxy.shape == (3, 0, 4) and boxes.regions(2).boxes_xyxy.shape == (0, 4)
    with pytest.raises(MismatchError, match=r"the model needs regions, and .* has none: .* --method"):
        boxes.require_regions("the model")


def test_version_2_says_the_same(tmp_path, index, as_version_2):
    new = read_boxes(write(tmp_path / "boxes.h5", index))
    old = read_boxes(as_version_2(write(tmp_path / "old.h5", index)))
    assert (new.format_version, old.format_version, old.faults) == (3, 2, ())
    for field in fields(new):
        if field.name not in ("path", "format_version", "attributes", "faults"):
            assert np.array_equal(getattr(new, field.name), getattr(old, field.name)), field.name


def test_tables_and_pictures_are_sized_apart(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    sizes = sizes_of(path)
    with h5py.File(path) as file:
        tables = [file[name].id.get_storage_size() for name in file if name != "preview"]
        assert sizes.previews == file["preview/one"].id.get_storage_size() > 0
    assert sizes.tables == sum(tables) and sizes.file == path.stat().st_size > sizes.tables + sizes.previews


def test_pandas_reads_every_table(tmp_path, index):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("tables")
    path = write(tmp_path / "boxes.h5", index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that begins with digits is no attribute
        tables = {name: pandas.read_hdf(path, name) for name in ("00_read_me", "images", "primary", "failures")}
    assert tables["images"]["class_of_the_image"].tolist() == ["crème", "crème", "ant", "ant"]
    assert tables["primary"]["x1"].tolist()[:2] == [9, 28]
    assert len(tables["00_read_me"]) > 10 and tables["failures"]["what_is_wrong_with_it"][0] == "broken data"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of zipfile, half an archive
def test_an_interrupt_while_a_part_is_written_is_one(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("zipfile._get_compressor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Part(*[np.zeros(1)] * 4).save(tmp_path / "part.npz")
    assert not list(tmp_path.iterdir())
