"""A data set told by a CSV file."""

import json

import pytest

from agnet.data.errors import DatasetError
from agnet.data.sets.catalogue import open_dataset

pytestmark = pytest.mark.usefixtures("small_mobilenet")

TRAIN = ["--backbone", "mobilenet-v3-small", "--weights", "none", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def listed(tmp_path):
    """A function that writes the CSV file and the images it names, and opens the data set."""

    def make(text, images=(), encoding="utf-8", **options):
        path = tmp_path / "list.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        for name in images:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return open_dataset("csv", tmp_path, list_file=path, **options)

    return make


def rows_of(index):
    return {
        name: (index.classes[label], split)
        for name, label, split in zip(index.names, index.labels, index.splits.tolist(), strict=True)
    }


ROWS = {
    "a dog/été 1.jpg": ("dog", "train"),
    "b/x,y.jpg": ("cat, big", "train"),
    "b/2.jpg": ("dog", "val"),
    "b/3.jpg": ("cat, big", "test"),
}
COMMAS = 'path,label,split\na dog/été 1.jpg,dog,train\n"b/x,y.jpg","cat, big",Training\n\nb/2.jpg,dog,valid\n'
COMMAS += 'b/3.jpg,"cat, big",test\n'


def test_quotes_spaces_unicode_and_empty_lines(listed):
    assert rows_of(listed(COMMAS, ROWS)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(encoding, listed):
    assert rows_of(listed(COMMAS, ROWS, encoding)) == ROWS


def test_lines_of_windows_in_capitals_with_semicolons_backslashes_and_other_columns(listed):
    text = "Label ; Notes;PATH;Split\r\ndog;good, old;a dog\\été 1.jpg;TRAIN\r\ncat, big;;./b/x,y.jpg;train\r\n"
    text += "dog;;b/2.jpg;val\r\ncat, big;;B/3.JPG;test"
    assert rows_of(listed(text, ROWS)) == ROWS


def test_tabs(listed):
    index = listed("path\tlabel\n1.jpg\ta\n2.jpg\tb\n", ["1.jpg", "2.jpg"])
    assert index.classes == ("a", "b")


def test_without_a_split_column_parts_are_drawn_as_for_folders(listed):
    names = [f"{label}{number}.jpg" for label in "ab" for number in range(20)]
    text = "path,label\n" + "".join(f"{name},{name[0]}\n" for name in names)
    index = listed(text, names, val_fraction=0.25, split_seed=1)
    assert index.counts("test").tolist() == [4, 4] and index.counts("val").tolist() == [4, 4]
    assert index.splits.tolist() == listed(text, names, val_fraction=0.25, split_seed=1).splits.tolist()
    assert index.splits.tolist() != listed(text, names, val_fraction=0.25, split_seed=2).splits.tolist()


def test_a_lone_val_is_the_test_part(listed):
    names = [f"{number}.jpg" for number in range(6)]
    text = "path,label,split\n" + "".join(f"{n}.jpg,{'ab'[n % 2]},{'val' if n > 3 else 'train'}\n" for n in range(6))
    index = listed(text, names)
    assert rows_of(index)["4.jpg"] == ("a", "test") and rows_of(index)["5.jpg"] == ("b", "test")
    assert index.counts("val").tolist() == [1, 1]


def test_absolute_paths_below_the_root_become_relative(listed, tmp_path):
    index = listed(f"path,label\n{tmp_path}/1.jpg,a\n2.jpg,b\n", ["1.jpg", "2.jpg"])
    assert index.names == ("1.jpg", "2.jpg")


def test_the_name_of_the_list_is_recorded_without_its_folder(listed):
    assert listed(COMMAS, ROWS).opened_with["list_file"] == "list.csv"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\n1.jpg,a\n", "first line must name a column path .*got 'file, label'"),
        ("1.jpg,a\n2.jpg,b\n", "must name a column path and a column label"),
        ("path\n1.jpg\n", "must name a column label"),
        ("path,label,path\n1.jpg,a,2.jpg\n", "must name a column path"),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,holdout\n", "line 3: the split 'holdout' is not one of train"),
        ("path,label,split\n1.jpg,a,\n", "line 2: the split '' is not one of"),
        ("path,label\n1.jpg,\n", "line 2: the label '' is not a valid class name"),
        ('path,label\n1.jpg,"a\nb"\n', "line 3: the label 'a.nb' is not a valid class name"),
        ("path,label\n1.jpg,a,b\n", "line 2: expected 2 cells, got 3"),
        ('path,label\n"1.jpg,a\n', "line 2: unexpected end of data"),
        ("path,label\n../1.jpg,a\n", r"line 2: the path '\.\./1\.jpg' does not lead below .* --root"),
        ("path,label\n/etc/1.jpg,a\n", "line 2: the path '/etc/1.jpg' does not lead below"),
        ("path,label\na\x01.jpg,a\n", "does not lead below"),
        ("path,label\n,a\n", "line 2: the path '' does not lead below"),
        ("path,label\n", "lists no images"),
        ("", "lists no images"),
        (b"path,label\n\xe9.jpg,a\n", r"is not UTF-8; save it as CSV UTF-8 \(line 2 is"),
        ("path,label\n1.jpg,a\n2.jpg,b\n".encode("utf-16-le"), "is not UTF-8; save it as CSV UTF-8"),
        ("path,label\n1.jpg,a\n2.jpg,b\n1.JPG,a\n", r"line 4: '1\.jpg' is listed twice, first in line 2"),
        ("path,label\n1.jpg,a\n2.jpg,a\n", "only one class"),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,test\n", "class 'b' has images to test on but none in train"),
        (
            "path,label\n1.jpg,a\n7.jpg,b\n2.jpg,b\n8.jpg,b\n",
            "2 of the 4 images that .*list.csv names do not exist, first .*7.jpg; paths in it are relative to --root",
        ),
    ],
)
def test_a_list_that_cannot_be_used_says_where_and_why(text, expected, listed):
    with pytest.raises(DatasetError, match=expected):
        listed(text, ["1.jpg", "2.jpg"])


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no file .*none\.csv; name the list of images with --csv"):
        open_dataset("csv", tmp_path, list_file=tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="needs --csv"):
        open_dataset("csv", tmp_path)


def write_list(folder, where):
    lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted((folder / "train").rglob("*.png"))]
    lines = [f"{line},{'test' if '0.png' in line else 'train'}" for line in lines]
    where.write_text("\n".join(["path,label,split", *lines]), encoding="utf-8")
    return where


def test_from_a_list_to_an_evaluation(agnet, folder, monkeypatch):
    monkeypatch.setenv("AGNET_ROOT", "/nowhere")
    listing = write_list(folder, folder / "my list.csv")
    proposed = agnet("propose", "--dataset", "csv", "--csv", listing, "--jobs", 1, "--primary", 3)
    assert "my list: 12 images of 3 classes (6 train, 3 val, 3 test)" in proposed.stderr
    agnet("train", "--run", "run", "--epochs", 1, "--image-size", 64, *TRAIN)
    assert json.loads(agnet("evaluate", "--run", "run", "--workers", 0, "--json").stdout)["images"] == 3
    assert agnet("inspect", "--verify").stdout == "12 images are unchanged\n"


def test_the_paths_of_a_list_may_be_relative_to_another_folder(agnet, folder, tmp_path):
    listing = write_list(folder, tmp_path / "list.csv")
    agnet("propose", "--dataset", "csv", "--csv", listing, "--root", folder, "--jobs", 1, "--primary", 3)
    assert agnet("inspect", "--verify").stdout == "12 images are unchanged\n"
    wrong = agnet("propose", "--dataset", "csv", "--csv", listing, "--restart", code=1)
    assert "12 of the 12 images that" in wrong.stderr and "--root" in wrong.stderr


def test_csv_and_its_list_go_together(agnet):
    for arguments in (["--dataset", "csv"], ["--dataset", "demo", "--csv", "list.csv"]):
        assert "csv and --csv FILE need each other" in agnet("propose", *arguments, code=2).stderr
    refused = agnet("propose", "--dataset", "auc-v1", "--without-leaked-frames", code=2)
    assert "--without-leaked-frames is for --dataset auc-v2" in refused.stderr
