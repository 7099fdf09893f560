"""Folds of training rows: an exact partition, stratified, that divides no unit."""

import numpy as np
import pytest

from agnet.data.errors import ConfigurationError
from agnet.data.folds import ALWAYS, fold_numbers, units_of


def components(*keys):
    """A slow twin of `units_of`: rows are joined until nothing changes."""
    rows = range(len(keys[0]))
    units = list(rows)
    for _ in rows:
        for one in rows:
            for other in rows:
                if any(key[one] == key[other] for key in keys):
                    units[one] = units[other] = min(units[one], units[other])
    return units


def test_units_join_rows_through_others():
    generator = np.random.default_rng(0)
    for _ in range(20):
        keys = generator.integers(0, 9, (2, 10)).astype(str)
        assert units_of(*keys).tolist() == components(*keys)
    assert units_of(np.array(["a", "b", "b", "c"]), np.array(["1", "2", "3", "3"])).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_of_single_images_are_as_even_as_can_be(folds):
    labels = np.repeat([0, 1, 2, 3], [40, 9, 23, 2])
    found = fold_numbers(labels, np.arange(len(labels)), folds, seed=0)
    counts = np.array([[np.sum((found == fold) & (labels == label)) for label in range(4)] for fold in range(folds)])
    assert counts.sum() == len(labels)  # each image in one fold
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 2


def test_folds_divide_no_unit_and_stay_near_even():
    generator = np.random.default_rng(1)
    for seed in range(5):
        units = generator.integers(0, 60, 600)  # of any classes
        labels = generator.integers(0, 5, 600)
        found = fold_numbers(labels, units, 4, seed)
        assert set(found.tolist()) == {0, 1, 2, 3}
        assert all(len(set(found[units == unit].tolist())) == 1 for unit in range(60))
        shares = [np.bincount(labels[found == fold], minlength=5) / np.bincount(labels) for fold in range(4)]
        assert np.abs(np.array(shares) - 1 / 4).max() < 0.1


def test_folds_depend_on_the_seed_alone():
    labels, units = np.repeat([0, 1], 30), np.arange(60)
    one, same, other = (fold_numbers(labels, units, 3, seed) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


def test_a_class_that_could_not_be_learnt_without_its_fold_is_never_left_out():
    labels = np.array([0, 0, 0, 0, 1, 2, 2])  # one image of 1; those of 2 are in one group
    found = fold_numbers(labels, np.array([0, 1, 2, 3, 4, 5, 5]), 2, seed=0)
    assert (found[4:] == ALWAYS).all() and sorted(found[:4].tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "units", "folds", "possible"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 3, "not even two are possible"),
        ([0, 0], [0, 1], 3, "at most 2 are possible"),
        ([], [], 3, "not even two are possible"),
        ([0] * 5 + [1] * 4, range(9), 99, "at most 5 are possible"),
        ([0] * 5 + [1] * 4, range(9), 6, "at most 5 are possible"),  # without an empty fold, but each lacks a class
        ([0] * 6 + [1] * 4, [0, 0, 0, 1, 1, 2, 3, 4, 5, 5], 4, "at most 3 are possible"),
    ],
)
def test_too_few_units_are_refused_with_the_largest_number(labels, units, folds, possible):
    labels, units = np.array(labels, int), np.array(units, int)
    with pytest.raises(ConfigurationError, match=f"too few images .* for {folds} folds: {possible}$"):
        fold_numbers(labels, units, folds, seed=0)
    if possible.startswith("at most"):
        most = int(possible.split()[2])
        assert {*fold_numbers(labels, units, most, seed=0).tolist()} >= set(range(most))
