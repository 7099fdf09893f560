import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from agnet.data.boxes_reader import read_boxes, read_header
from agnet.data.boxes_writer import Part, Proposal, build_part, write_boxes
from agnet.data.errors import BoxesFileError
from agnet.data.index import build_index
from agnet.data.regions import Regions

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
            "aa" * 8,
        ),
        Proposal(None, 12, "bb" * 8, "not a readable image (é" + "x" * 400 + ")"),
        Proposal(hulls_of(corners, corners, size_wh=(30, 20), keypoints=(0, 0)), 13, "cc" * 8),
        Proposal(hulls_of([(4, 4)], [(3, 5), (6, 5)], size_wh=(8, 8), keypoints=(1, 2)), 14, "dd" * 8),
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
        {"fingerprint": "f" * 32, "request": "0" * 32},
        SETTINGS,
        {"one": (picture, "ünder")},
    )


def test_what_is_written_is_read_again(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    assert path == tmp_path / "boxes.h5"
    boxes = read_boxes(path)
    assert boxes.dataset == "handmade"
    assert boxes.classes == ("ant", "crème")
    assert boxes.primaries == 2
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
        assert file["settings"][1].tolist() == (b"proposals: primary", b"2")
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
    part = build_part(index, 0, [Proposal(None, 0, "", "gone")] * 4)
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
    attributes, settings = read_header(write(tmp_path / "boxes.h5", index))
    assert settings["proposals"]["primary"] == 2
    assert attributes["request"] == "0" * 32
    assert attributes["complete"] == 1


# From here on, files that must be refused.


def remake(file, name, rows=None, **options):
    """Replace a table, keeping its rows unless others are given."""
    old = file[name][:]
    del file[name]
    if "shape" not in options:
        options["data"] = old if rows is None else rows
    return file.create_dataset(name, dtype=options.pop("dtype", None), **options)


def with_cell(table, row, column, value):
    def damage(file):
        rows = file[table][:]
        rows[column][row] = value
        file[table][:] = rows

    return damage


def with_column_type(table, column, kind):
    def damage(file):
        old = file[table][:]
        dtype = np.dtype([(name, kind if name == column else old.dtype[name]) for name in old.dtype.names])
        rows = np.zeros(len(old), dtype)
        remake(file, table, rows)

    return damage


def without_column(file):
    old = file["primary"][:]
    remake(file, "primary", old[[name for name in old.dtype.names if name != "weight"]].copy())


def with_variable_length_text(file):
    rows = [(row["label"], row["name_of_the_class"].decode(), 0, 0, 0) for row in file["labels"][:]]
    kinds = [("label", "<i2"), ("name_of_the_class", h5py.string_dtype()), *file["labels"].dtype.descr[2:]]
    remake(file, "labels", np.array(rows, np.dtype(kinds)))


def with_external_storage(file):
    aside = Path(file.filename).with_name("aside.bin")
    old = file["primary"][:]
    aside.write_bytes(old.tobytes())
    remake(file, "primary", shape=old.shape, dtype=old.dtype, external=[(str(aside), 0, h5py.h5f.UNLIMITED)])


def with_virtual_table(file):
    aside = Path(file.filename).with_name("aside.h5")
    old = file["primary"][:]
    with h5py.File(aside, "w") as other:
        other["primary"] = old
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[:] = h5py.VirtualSource(str(aside), "primary", shape=old.shape, dtype=old.dtype)
    del file["primary"]
    file.create_virtual_dataset("primary", layout)


def with_soft_link(file):
    file.move("primary", "elsewhere")
    file["primary"] = h5py.SoftLink("/elsewhere")


def with_external_link(file):
    aside = Path(file.filename).with_name("aside.h5")
    with h5py.File(aside, "w") as other:
        other["primary"] = file["primary"][:]
    del file["primary"]
    file["primary"] = h5py.ExternalLink(str(aside), "/primary")


def with_a_group_for_a_table(file):
    del file["hulls"]
    file.create_group("hulls")


def with_attribute(name, value):
    def damage(file):
        file.attrs[name] = value

    return damage


def without_attribute(name):
    return lambda file: file.attrs.__delitem__(name)


def with_primaries(value):
    def damage(file):
        settings = json.loads(file.attrs["settings"])
        settings["proposals"]["primary"] = value
        file.attrs["settings"] = np.bytes_(json.dumps(settings))

    return damage


def with_fewer_rows(table, start, stop):
    return lambda file: remake(file, table, file[table][start:stop])


def with_a_moved_hull(file):
    rows = file["primary"][:]
    rows["hull_count"][0] += 1
    rows["hull_count"][1] -= 1
    file["primary"][:] = rows


def with_swapped_images(file):
    rows = file["primary"][:]
    rows[:6] = np.concatenate([rows[3:6], rows[:3]])
    file["primary"][:] = rows


def with_a_name_twice(file):
    rows = file["images"][:]
    rows[PATH][1] = rows[PATH][0]
    file["images"][:] = rows


REFUSED = {
    "no mark complete": (without_attribute("complete"), "incomplete"),
    "mark complete taken back": (with_attribute("complete", 0), "incomplete"),
    "another format": (with_attribute("format", "other boxes"), "not a boxes file"),
    "another version": (with_attribute("format_version", 2), "format version 2, this program reads 1"),
    "no settings": (without_attribute("settings"), "damaged"),
    "settings that are no JSON": (with_attribute("settings", "{"), "damaged"),
    "settings that are no object": (with_attribute("settings", "[1]"), "settings is not a JSON object"),
    "settings without sections": (
        with_attribute("settings", '{"primary": 3}'),
        "settings is not a JSON object",
    ),
    "settings nested thousands deep": (with_attribute("settings", "[" * 60_000), "damaged"),
    "no fingerprint": (without_attribute("fingerprint"), "fingerprint"),
    "an array for an attribute": (with_attribute("seeds", np.arange(4)), "'seeds' is not a single value"),
    "an empty attribute": (with_attribute("nothing", h5py.Empty("i4")), "'nothing' is not a single value"),
    "no primaries": (with_primaries(0), "primary'"),
    "absurdly many primaries": (with_primaries(10**9), "primary'"),
    "primaries in words": (with_primaries("3"), "primary'"),
    "another number of primaries": (with_primaries(2), "not 2 rows for each usable image"),
    "a missing table": (lambda file: file.__delitem__("hulls"), "'hulls' is missing"),
    "a group for a table": (with_a_group_for_a_table, "'hulls' is not a one-dimensional table"),
    "two dimensions": (
        lambda file: remake(file, "hulls", file["hulls"][:].reshape(1, -1)),
        "'hulls' is not a one-dimensional table",
    ),
    "a scalar for a table": (lambda file: remake(file, "hulls", file["hulls"][0]), "one-dimensional"),
    "external storage": (with_external_storage, "other files"),
    "a virtual table": (with_virtual_table, "other files"),
    "a soft link": (with_soft_link, "link to another place"),
    "an external link": (with_external_link, "link to another place"),
    "a foreign filter": (lambda file: remake(file, "hulls", compression="lzf"), "filters other than gzip"),
    "doubles for floats": (
        with_column_type("primary", "x0", "<f8"),
        "float64 in column 'x0', wanted float32",
    ),
    "floats for integers": (with_column_type("images", "label", "<f4"), "column 'label'"),
    "big-endian numbers": (with_column_type("hulls", "y", ">f4"), "column 'y'"),
    "numbers for text": (
        with_column_type("labels", "name_of_the_class", "<i4"),
        "column 'name_of_the_class'",
    ),
    "text of a megabyte a cell": (
        with_column_type("labels", "name_of_the_class", "S2000000"),
        "name_of_the_class",
    ),
    "a column of arrays": (with_column_type("primary", "weight", ("<f4", (3,))), "column 'weight'"),
    "variable-length text": (with_variable_length_text, "name_of_the_class"),
    "a column missing": (without_column, "has columns"),
    "no columns": (lambda file: remake(file, "hulls", np.zeros(5, "<f4")), "has columns"),
    "a million million rows": (
        lambda file: remake(file, "primary", shape=(10**12,), dtype=file["primary"].dtype, chunks=(64,)),
        "announces 1,000,000,000,000 rows",
    ),
    "more rows than it holds": (
        lambda file: remake(file, "hulls", shape=(10**8,), dtype=file["hulls"].dtype, chunks=(64,)),
        "more rows than it holds",
    ),
    "chunks that need gigabytes": (
        lambda file: remake(
            file,
            "hulls",
            shape=file["hulls"].shape,
            dtype=file["hulls"].dtype,
            chunks=(2**27,),
            maxshape=(None,),
        ),
        "chunks of 134,217,728 rows",
    ),
    "no rows": (with_fewer_rows("images", 0, 0), "none is usable"),
    "an image too few": (with_fewer_rows("images", 0, -1), "rows for each usable image"),
    "a class too few": (with_fewer_rows("labels", 0, -1), "a label without a class"),
    "classes from 1": (with_fewer_rows("labels", 1, 3), "not numbered"),
    "hulls too few": (with_fewer_rows("hulls", 0, -1), "hull_count does not fit"),
    "an unknown status": (with_cell("images", 0, "status", b"fine"), "a status other than"),
    "an unknown split": (with_cell("images", 0, "split", b"dev"), "a split other than"),
    "a label below 0": (with_cell("images", 0, "label", -1), "a label without a class"),
    "an image no pixel wide": (with_cell("images", 0, "width", 0), "width or height"),
    "a box with NaN": (with_cell("primary", 2, "x0", np.nan), "not finite"),
    "a box without end": (with_cell("primary", 2, "y1", np.inf), "not finite"),
    "a box from right to left": (with_cell("primary", 2, "x1", 0), "a box that is empty"),
    "a box left of its image": (with_cell("primary", 2, "x0", -1), "not in its image"),
    "a box below its image": (with_cell("primary", 2, "y1", 1000), "not in its image"),
    "a weight that is NaN": (with_cell("primary", 2, "weight", np.nan), "weight"),
    "a weight above 1": (with_cell("primary", 2, "weight", 7), "weight"),
    "keypoints below 0": (with_cell("primary", 2, "keypoints", -5), "keypoints"),
    "a vertex with NaN": (with_cell("hulls", 2, "x", np.nan), "a vertex outside"),
    "a vertex outside": (with_cell("hulls", 2, "y", 1e6), "a vertex outside"),
    "regions out of order": (with_cell("primary", 2, "region", 0), "regions out of order"),
    "images out of order": (with_swapped_images, "not sorted by image"),
    "an image that does not exist": (with_cell("primary", 2, "image", 10_000), "not sorted by image"),
    "an empty hull": (with_cell("primary", 2, "hull_count", 0), "hull_count"),
    "a hull of another region": (with_a_moved_hull, "hull_first"),
    "a vertex of another image": (with_cell("hulls", 0, "image", 1), "hulls: rows are not sorted"),
    "a vertex of another region": (with_cell("hulls", 0, "region", 1), "hulls: rows are not sorted"),
    "vertices that were never written": (
        lambda file: remake(file, "hulls", np.zeros(file["hulls"].shape, file["hulls"].dtype)),
        "hulls: rows are not sorted",
    ),
    "a hull before the first": (with_cell("primary", 0, "hull_first", -1), "hull_first"),
    "a path up": (with_cell("images", 1, PATH, b"../secret.png"), "leaves the data set's root"),
    "a path up from within": (with_cell("images", 1, PATH, b"a/../../secret"), "leaves the data set's root"),
    "an absolute path": (with_cell("images", 1, PATH, b"/etc/hosts"), "leaves the data set's root"),
    "a path with a drive": (with_cell("images", 1, PATH, b"C:secret"), "leaves the data set's root"),
    "a path of another system": (with_cell("images", 1, PATH, b"a\\b"), "leaves the data set's root"),
    "a path with a hole": (with_cell("images", 1, PATH, b"a\0b"), "leaves the data set's root"),
    "a path of no length": (with_cell("images", 1, PATH, b""), "leaves the data set's root"),
    "a path that is no text": (with_cell("images", 1, PATH, b"a\xff\xfe"), "utf-8"),
    "a class that is no text": (with_cell("labels", 1, "name_of_the_class", b"\xff\xfe"), "utf-8"),
    "a path named twice": (with_a_name_twice, "twice"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_damaged_or_hostile_file_is_refused(what, boxes_file):
    damage, complaint = REFUSED[what]
    read_boxes(boxes_file)
    with h5py.File(boxes_file, "r+") as file:
        damage(file)
    with pytest.raises(BoxesFileError, match=complaint) as refusal:
        read_boxes(boxes_file)
    assert str(refusal.value).startswith(str(boxes_file))
    assert "\n" not in str(refusal.value)


def test_a_hard_link_within_the_file_is_fine(boxes_file):
    with h5py.File(boxes_file, "r+") as file:
        file["another name"] = file["primary"]
        file["a stray link"] = h5py.ExternalLink("/nowhere.h5", "/x")
    assert read_boxes(boxes_file).primaries == 3


def test_an_absent_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(BoxesFileError, match=r"there is no boxes file .*agnet propose"):
        read_boxes(tmp_path / "absent.h5")


@pytest.mark.parametrize("read", [read_boxes, read_header])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_a_file_that_is_not_hdf5_is_refused(content, read, tmp_path):
    path = tmp_path / "boxes.h5"
    path.write_bytes(content)
    with pytest.raises(BoxesFileError, match="not an HDF5 file"):
        read(path)


@pytest.mark.parametrize("read", [read_boxes, read_header])
def test_someone_elses_hdf5_file_is_refused(read, tmp_path):
    path = tmp_path / "boxes.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 3))
    with pytest.raises(BoxesFileError, match="not a boxes file"):
        read(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(share, boxes_file):
    content = boxes_file.read_bytes()
    boxes_file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BoxesFileError, match="not an HDF5 file, or damaged"):
        read_boxes(boxes_file)


# Run in a process of its own: should the C library crash or run away, the test fails rather than the suite.
FLIPS = """
import sys
from pathlib import Path
import numpy as np
from agnet.data.boxes_reader import read_boxes
from agnet.data.errors import BoxesFileError

try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
except (ImportError, ValueError):
    pass
path, flips = Path(sys.argv[1]), int(sys.argv[2])
content = path.read_bytes()
good = read_boxes(path)
generator = np.random.default_rng(20)
refused = unchanged = 0
for flip in range(flips):
    damaged = np.frombuffer(content, np.uint8).copy()
    places = generator.integers(len(damaged), size=generator.integers(1, 4))
    damaged[places] ^= generator.integers(1, 256, len(places)).astype(np.uint8)
    path.write_bytes(damaged.tobytes())
    try:
        boxes = read_boxes(path)
    except BoxesFileError:
        refused += 1
        continue
    except BaseException as error:
        sys.exit(f"flip {flip} at {places.tolist()}: {type(error).__name__}: {error}")
    arrays = "names labels splits sizes_wh status usable primary_xyxy keypoints weights hull_xy hull_counts"
    same = all(np.array_equal(getattr(boxes, name), getattr(good, name)) for name in arrays.split())
    if not same or boxes.classes != good.classes:
        sys.exit(f"flip {flip} at {places.tolist()}: accepted with other content")
    unchanged += 1
print(refused, unchanged)
"""


def test_flipped_bytes_are_refused_or_harmless(tmp_path, index):
    path = write(tmp_path / "boxes.h5", index)
    done = subprocess.run([sys.executable, "-c", FLIPS, path, "400"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, unchanged = map(int, done.stdout.split())
    assert refused + unchanged == 400
    assert refused > 40
    assert unchanged > 40
