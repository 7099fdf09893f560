"""Labels that look wrong to networks that were not trained on them, by confident learning.

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...data.sets.label_conflicts import Conflict
from .out_of_sample import OutOfSample


@dataclass(frozen=True)
class Suspect:
    """An image whose label looks wrong."""

    image: str
    split: str
    given: str
    suggested: str  #: the likeliest class, or the label of ``same_as``
    score: float  #: probability of the given label (self-confidence): the lower, the more it looks wrong
    probability_suggested: float
    confident: bool  #: whether it confidently looks like another class than ``given`` (`confident_classes`)
    runs: int  #: number of runs that judged the image
    runs_that_agree: int  #: number of them whose own answer is ``suggested``
    same_as: str = ""  #: an image of another label that looks the same; empty if there is none


@dataclass(frozen=True)
class LabelReview:
    """The labels to review, and how many runs agree on another class by chance."""

    images: int  #: that were judged
    rows: str  #: what the rows are called, images or videos
    classes: int
    splits: dict[str, int]  #: number of images judged, by split
    runs: tuple[str, ...]
    left_out: int  #: number of scores that are not used, since the run was trained on the image
    accuracy: float  #: share of the images whose likeliest class is their label
    judged_by_all: int  #: number of images
    agreed: int  #: number of images that all runs call the same other class
    agreed_by_chance: float  #: see `agreements`
    suspects: tuple[Suspect, ...]  #: look-alikes of different labels first, then the lowest score first

    @property
    def confident(self) -> int:
        """Number of labels that confidently look wrong."""
        return sum(one.confident for one in self.suspects)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean probability of each class over the images that are labelled so, ``(K,)``: t_j of Eq. 2.

    Infinite for a class without images, which no image then looks like.

    Args:
        probabilities: Out-of-sample probabilities ``(n, K)``.
        labels: Given labels, int ``(n,)``.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class that each image confidently looks like, int64 ``(n,)``; -1 for none.

    Of the classes whose probability is at least their threshold t_j, it is the likeliest (Eq. 1). An image whose class
    here is another than its label is off the diagonal of the confident joint: its label looks wrong.
    """
    confident = probabilities >= class_thresholds(probabilities, labels)
    likeliest = np.where(confident, probabilities, -1.0).argmax(axis=1)
    return np.where(confident.any(axis=1), likeliest, -1)


def estimated_wrong(confident: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Number of wrong labels by the calibrated confident joint: n times the sum of Q_ij over j ≠ i (Eq. 3).

    Args:
        confident: The class that each image confidently looks like, int ``(n,)``; -1 for none.
        labels: Given labels, int ``(n,)``.
        classes: Number of classes K.
    """
    there = confident >= 0
    places = labels[there] * classes + confident[there]
    joint = np.bincount(places, minlength=classes**2).reshape(classes, classes)
    sums = joint.sum(axis=1, keepdims=True)
    calibrated = joint / np.maximum(sums, 1) * np.bincount(labels, minlength=classes)[:, None]
    return float(len(labels) * (1 - np.trace(calibrated) / calibrated.sum())) if there.any() else 0.0


def agreements(answers: np.ndarray, labels: np.ndarray, classes: int) -> tuple[int, int, float]:
    """Count the images that all runs call the same other class than their label.

    Args:
        answers: Class that each run calls each image, int ``(R, n)``; -1 where it does not judge it.
        labels: Given labels, int ``(n,)``.
        classes: Number of classes K.

    Returns: the number of images that all runs judge, the number of them that all call the same other class, and how
    many these would be by chance: the expectation if the answers of each run were shuffled among the images of a
    label, sum over i and j ≠ i of n_i · prod over runs of q_r(j | i), where q_r is the share of the n_i images of
    label i that run r calls j.
    """
    whole = (answers >= 0).all(axis=0)
    answers, labels = answers[:, whole], labels[whole]
    same = (answers == answers[0]).all(axis=0) & (answers[0] != labels)
    counts = np.bincount(labels, minlength=classes)
    tables = [np.bincount(labels * classes + row, minlength=classes**2).reshape(classes, classes) for row in answers]
    joint = counts * np.prod([table / np.maximum(counts, 1)[:, None] for table in tables], axis=0).T
    return int(whole.sum()), int(same.sum()), float(joint.sum() - np.trace(joint))


def review_labels(found: OutOfSample, conflicts: Sequence[Conflict] = ()) -> LabelReview:
    """List the labels that look wrong: of the images that are likelier of another class than their label, as many as
    the confident joint estimates, those with the least probability of their label (self-confidence) first.

    Of two images that look the same and have different labels, the one whose label looks less likely is listed, even if
    neither label looks wrong by itself.

    Args:
        found: Out-of-sample probabilities.
        conflicts: Pairs of its images that look the same and have different labels.
    """
    suggested = found.probabilities.argmax(axis=1)
    scores = found.probabilities[np.arange(len(found.labels)), found.labels]
    confident = confident_classes(found.probabilities, found.labels)
    count = round(estimated_wrong(confident, found.labels, len(found.classes)))
    same_as = {one.row: one.other for one in conflicts if scores[one.row] <= scores[one.other]}
    for row, other in same_as.items():
        suggested[row] = found.labels[other]
    ranked = np.argsort(scores, kind="stable").tolist()
    alike = [row for row in ranked if row in same_as]
    others = [row for row in ranked if row not in same_as and suggested[row] != found.labels[row]]
    order = [*alike, *others][: max(count, len(alike))]
    judged_by_all, agreed, by_chance = agreements(found.answers, found.labels, len(found.classes))
    sure = (confident >= 0) & (confident != found.labels)
    return LabelReview(
        images=len(found.labels),
        rows=found.rows,
        classes=len(found.classes),
        splits={split: found.splits.count(split) for split in sorted(set(found.splits))},
        runs=found.runs,
        left_out=found.left_out,
        accuracy=float((found.probabilities.argmax(axis=1) == found.labels).mean()),
        judged_by_all=judged_by_all,
        agreed=agreed,
        agreed_by_chance=by_chance,
        suspects=tuple(_suspect(found, row, int(suggested[row]), bool(sure[row]), same_as.get(row)) for row in order),
    )


def _suspect(found: OutOfSample, row: int, suggested: int, confident: bool, other: int | None) -> Suspect:
    answers = found.answers[:, row]
    return Suspect(
        image=found.names[row],
        split=found.splits[row],
        given=found.classes[found.labels[row]],
        suggested=found.classes[suggested],
        score=float(found.probabilities[row, found.labels[row]]),
        probability_suggested=float(found.probabilities[row, suggested]),
        confident=confident,
        runs=int((answers >= 0).sum()),
        runs_that_agree=int((answers == suggested).sum()),
        same_as="" if other is None else found.names[other],
    )
