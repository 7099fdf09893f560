import numpy as np
import pytest

from agnet.data.errors import ConfigurationError, DatasetError
from agnet.data.index import build_index, cut_from_train, limit_index


def rows_of(**counts):
    """``(name, class, split)`` rows: so many training images of each class."""
    return [(f"{label}/{number:02d}.jpg", label, "train") for label, count in counts.items() for number in range(count)]


def split_by_name(index):
    return dict(zip(index.names, index.splits.tolist(), strict=True))


def test_an_index_keeps_the_order_of_images_and_sorts_classes(tmp_path):
    rows = [("b/2.jpg", "wolf", "test"), ("a/1.jpg", "bear", "train"), ("b/1.jpg", "wolf", "train")]
    index = build_index("some", tmp_path, rows)
    assert len(index) == 3
    assert index.names == ("b/2.jpg", "a/1.jpg", "b/1.jpg")
    assert index.classes == ("bear", "wolf")
    assert index.labels.tolist() == [1, 0, 1]
    assert index.splits.tolist() == ["test", "train", "train"]
    assert index.counts("train").tolist() == [1, 1]
    assert index.counts("test").tolist() == [0, 1]
    assert index.counts("val").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no images"),
        (rows_of(only=3), "only one class"),
        ([*rows_of(a=2, b=2), ("a/01.jpg", "a", "test")], "'a/01.jpg' is listed twice"),
        ([*rows_of(a=1, b=1), ("a/\udcff.jpg", "a", "train")], "not a plain relative path"),
        ([*rows_of(a=1, b=1), ("a/line\nbreak.jpg", "a", "train")], "not a plain relative path"),
        ([*rows_of(a=1, b=1), ("a\\b.jpg", "a", "train")], "not a plain relative path"),
        ([*rows_of(a=1, b=1), ("a:/b.jpg", "a", "train")], "not a plain relative path"),
        ([*rows_of(a=1, b=1), ("../b.jpg", "a", "train")], "not a plain relative path"),
    ],
)
def test_rows_that_make_no_data_set_are_refused(rows, complaint, tmp_path):
    with pytest.raises(DatasetError, match=complaint):
        build_index("some", tmp_path, rows)


def test_a_cut_takes_its_share_of_each_class(tmp_path):
    index = cut_from_train(build_index("some", tmp_path, rows_of(a=20, b=10, c=2, d=1)), 0.2, "val", seed=0)
    assert index.counts("val").tolist() == [4, 2, 1, 0]
    assert index.counts("train").tolist() == [16, 8, 1, 1]


def test_a_greedy_cut_leaves_every_class_an_image(tmp_path):
    index = cut_from_train(build_index("some", tmp_path, rows_of(a=5, b=2)), 0.99, "test", seed=0)
    assert index.counts("train").tolist() == [1, 1]


def test_a_cut_of_nothing_changes_nothing(tmp_path):
    index = build_index("some", tmp_path, rows_of(a=5, b=5))
    assert split_by_name(cut_from_train(index, 0, "val", seed=0)) == split_by_name(index)


def test_a_cut_takes_only_training_images(tmp_path):
    rows = [(name, label, "test" if name.endswith("0.jpg") else "train") for name, label, _ in rows_of(a=30, b=30)]
    before = build_index("some", tmp_path, rows)
    after = cut_from_train(before, 0.5, "val", seed=3)
    tests = {name for name, split in split_by_name(before).items() if split == "test"}
    assert tests == {name for name, split in split_by_name(after).items() if split == "test"}


def test_a_cut_depends_on_the_seed_and_not_on_the_order_of_images(tmp_path):
    rows = rows_of(a=20, b=20)
    shuffled = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    first = split_by_name(cut_from_train(build_index("some", tmp_path, rows), 0.3, "val", seed=1))
    assert split_by_name(cut_from_train(build_index("some", tmp_path, shuffled), 0.3, "val", seed=1)) == first
    assert split_by_name(cut_from_train(build_index("some", tmp_path, rows), 0.3, "val", seed=2)) != first


def test_an_image_more_in_one_class_leaves_the_cut_of_others(tmp_path):
    few = split_by_name(cut_from_train(build_index("some", tmp_path, rows_of(a=20, b=20)), 0.3, "val", seed=1))
    more = split_by_name(cut_from_train(build_index("some", tmp_path, rows_of(a=25, b=20)), 0.3, "val", seed=1))
    assert all(more[name] == split for name, split in few.items() if name.startswith("b/"))


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction, tmp_path):
    with pytest.raises(ConfigurationError, match="fraction"):
        cut_from_train(build_index("some", tmp_path, rows_of(a=5, b=5)), fraction, "val", seed=0)


def test_a_limit_keeps_the_shares_of_classes_and_splits(tmp_path):
    rows = [*rows_of(a=40, b=20), *((f"t/{label}{n}.jpg", label, "test") for label in "ab" for n in range(10))]
    index = build_index("some", tmp_path, rows)
    limited = limit_index(index, 20)
    assert np.abs(limited.counts("train") - [10, 5]).max() <= 1
    assert np.abs(limited.counts("test") - [2.5, 2.5]).max() <= 1
    assert len(limited) == 20
    smallest = limit_index(index, 4)
    assert smallest.counts("train").tolist() == smallest.counts("test").tolist() == [1, 1]
    assert limited.classes == index.classes
    assert list(limited.names) == [name for name in index.names if name in limited.names]
    expected = {name: label for name, label, _ in rows}
    assert all(
        limited.classes[label] == expected[name] for name, label in zip(limited.names, limited.labels, strict=True)
    )


def test_a_limit_above_the_size_changes_nothing(tmp_path):
    index = build_index("some", tmp_path, rows_of(a=2, b=2))
    assert limit_index(index, 4).names == index.names == limit_index(index, 400).names


def test_a_limit_below_one_of_each_class_and_split_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 2"):
        limit_index(build_index("some", tmp_path, rows_of(a=2, b=2)), 1)
