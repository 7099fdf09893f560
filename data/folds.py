"""Folds of training rows for cross-validation: about equally many rows of each class, and no group divided."""

from __future__ import annotations

import numpy as np

from .errors import ConfigurationError

ALWAYS = -1  #: in place of a fold's number: rows that no fold leaves out


def units_of(*keys: np.ndarray) -> np.ndarray:
    """Number of the unit of each row, int64 ``(n,)``: rows that share a key of any kind, also by way of others.

    Args:
        keys: One array ``(n,)`` for each kind of key, such as the rows' groups and the hashes of their contents.
    """
    columns = [np.unique(key, return_inverse=True)[1].ravel() for key in keys]
    numbers = np.arange(len(columns[0]))
    while True:
        before = numbers
        for column in columns:
            lowest = np.full(column.max(initial=0) + 1, len(column))
            np.minimum.at(lowest, column, numbers)
            numbers = lowest[column]
        if (numbers == before).all():
            return numbers


def fold_numbers(labels: np.ndarray, units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal rows into folds, stratified by class, without dividing a unit.

    Units are dealt in a seeded order, the larger ones first, each to the fold that has least of its classes. Where
    every unit is one row, the folds' numbers of a class differ by one at most.

    Args:
        labels: Class of each row, int ``(n,)``.
        units: Unit of each row, int ``(n,)``, as from `units_of`.
        folds: Number of folds.
        seed: Random seed. The folds depend on it and on the order of the rows.

    Returns: the fold of each row from 0, int64 ``(n,)``. It is `ALWAYS` for the rows of a class that would be in a
    single fold, since a network trained without that fold would not know the class.

    Raises: `ConfigurationError`, with the largest possible number, if no class has as many units as there are folds, or
        a fold would be empty.
    """
    if (found := _dealt(labels, units, folds, seed)) is not None:
        return found
    fewer = range(min(folds - 1, _most_units(labels, units)), 1, -1)
    most = next((number for number in fewer if _dealt(labels, units, number, seed) is not None), 0)
    possible = f"at most {most} are possible" if most else "not even two are possible"
    raise ConfigurationError(f"train has too few images (or groups) of each class for {folds} folds: {possible}")


def _most_units(labels: np.ndarray, units: np.ndarray) -> int:
    """Number of units of the class that has most of them."""
    pairs = np.unique(np.stack([labels, units]), axis=1)
    return int(np.bincount(pairs[0]).max(initial=0))


def _dealt(labels: np.ndarray, units: np.ndarray, folds: int, seed: int) -> np.ndarray | None:
    """As `fold_numbers`; None where that raises."""
    if folds > _most_units(labels, units):
        return None
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    rows_of = np.split(order, starts[1:])
    drawn = np.random.default_rng([seed, folds]).permutation(len(rows_of))
    sizes = np.array([len(rows) for rows in rows_of])
    there = np.bincount(labels)
    held = np.zeros((folds, len(there)))  # rows of each fold and class
    found = np.full(len(labels), ALWAYS)
    for unit in drawn[np.argsort(-sizes[drawn], kind="stable")].tolist():
        own = labels[rows_of[unit]]
        crowded = (held[:, own] / there[own]).sum(axis=1)
        fold = min(range(folds), key=lambda one: (crowded[one], held[one].sum(), one))
        np.add.at(held[fold], own, 1)
        found[rows_of[unit]] = fold
    lone = (held > 0).sum(axis=0) == 1  # classes in a single fold
    found[np.isin(units, units[lone[labels]])] = ALWAYS
    return found if len(np.unique(found[found != ALWAYS])) == folds else None
