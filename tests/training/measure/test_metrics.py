import math
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from agnet.training.measure.metrics import MEASURES, Scores, measure
from agnet.training.tasks import CLASSIFY


def drawn(images, classes, seed=0, ties=False, skill=1.0):
    """Scores and labels of a network that knows something; with ``ties`` many scores are equal."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    logits = generator.normal(size=(images, classes)) * 2
    logits[np.arange(images), labels] += skill
    return (np.round(logits) if ties else logits).astype(np.float32), labels


def slow_calibration_error(logits, labels, bins=15):
    """Guo et al. 2017, Eq. 3, bin by bin: bin m holds confidences in ((m - 1)/M, m/M]."""
    probabilities = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    total = 0.0
    for m in range(1, bins + 1):
        members = [i for i, row in enumerate(probabilities) if (m - 1) / bins < row.max() <= m / bins]
        if members:
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in members])
            confidence = np.mean([probabilities[i].max() for i in members])
            total += len(members) / len(labels) * abs(accuracy - confidence)
    return total


def slow_average_precision(scores, positive):
    """Precision at each positive, ties ranked together, averaged: the area under the stepwise PR curve."""
    total, found = 0.0, 0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [p for s, p in zip(scores, positive, strict=True) if s >= threshold]
        new = sum(chosen) - found
        found += new
        total += new / sum(positive) * (sum(chosen) / len(chosen))
    return total


def test_every_measure_against_a_slow_one():
    generator = np.random.default_rng(0)
    classes = [f"class {k}" for k in range(7)]
    labels = generator.integers(0, 7, 60)
    logits = generator.normal(size=(60, 7)).astype(np.float32)
    logits[np.arange(60), labels] += 1
    metrics = measure(logits, labels, classes)

    ranks = [sorted(row, reverse=True).index(row[label]) for row, label in zip(logits.tolist(), labels, strict=True)]
    assert metrics.top1 == pytest.approx(np.mean([rank == 0 for rank in ranks]))
    assert metrics.top5 == pytest.approx(np.mean([rank < 5 for rank in ranks]))
    probabilities = np.array([np.exp(row) / np.exp(row).sum() for row in logits.astype(float)])
    for k, name in enumerate(classes):
        mine = [i for i in range(60) if labels[i] == k]
        right = sum(int(np.argmax(logits[i])) == k for i in mine)
        assert metrics.class_accuracy[name] == pytest.approx(right / len(mine))
        expected = slow_average_precision(probabilities[:, k].tolist(), (labels == k).tolist())
        assert metrics.average_precision[name] == pytest.approx(expected)
        for j in range(7):
            assert metrics.confusion[k][j] == sum(int(np.argmax(logits[i])) == j for i in mine)
    assert metrics.mean_average_precision == pytest.approx(np.mean(list(metrics.average_precision.values())))
    assert metrics.mean_class_accuracy == pytest.approx(np.mean(list(metrics.class_accuracy.values())))


def test_a_class_without_images_is_left_out_of_the_means():
    metrics = measure(np.array([[3.0, 0, 0], [0, 0, 2]]), np.array([0, 0]), ["a", "b", "c"])
    assert metrics.class_accuracy == {"a": 0.5, "b": None, "c": None}
    assert metrics.mean_class_accuracy == 0.5 and metrics.average_precision["b"] is None
    assert metrics.images == 2


def test_constant_scores_earn_chance_and_agree_with_the_confusion_matrix():
    metrics = measure(np.zeros((6, 6)), np.arange(6), list("abcdef"))
    assert metrics.top1 == pytest.approx(1 / 6) and metrics.top5 == pytest.approx(5 / 6)
    assert np.trace(metrics.confusion) == 1


def test_with_five_classes_or_fewer_top5_is_everything():
    assert measure(np.array([[0.0, 1, 2]]), np.array([0]), list("abc")).top5 == 1


def test_huge_scores_do_not_overflow():
    metrics = measure(np.array([[1e4, -1e4], [-1e4, 1e4]], dtype=np.float32), np.array([0, 1]), ["a", "b"])
    assert metrics.top1 == 1 and metrics.mean_average_precision == 1


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("images, classes", [(1, 3), (40, 2), (200, 9), (500, 60)])
def test_every_measure_agrees_with_scikit_learn(images, classes, ties):
    logits, labels = drawn(images, classes, ties=ties)
    metrics = measure(logits, labels, [f"class {k}" for k in range(classes)])
    odds = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))  # equal ones exactly equal
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    predicted, every = logits.argmax(axis=1), np.arange(classes)
    assert metrics.top1 == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    if classes > 5 and not ties:  # scikit-learn ranks equal scores the other way round
        top5 = sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
        assert metrics.top5 == pytest.approx(top5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that only predictions have
        balanced = sklearn_metrics.balanced_accuracy_score(labels, predicted)
    assert metrics.mean_class_accuracy == pytest.approx(balanced)
    for k, precision in enumerate(metrics.average_precision.values()):
        if (labels == k).any():
            assert precision == pytest.approx(sklearn_metrics.average_precision_score(labels == k, probabilities[:, k]))
        else:
            assert precision is None
    loss = sklearn_metrics.log_loss(labels, probabilities, labels=every)
    assert metrics.negative_log_likelihood == pytest.approx(loss)
    assert (sklearn_metrics.confusion_matrix(labels, predicted, labels=every) == metrics.confusion).all()
    assert metrics.calibration_error == pytest.approx(slow_calibration_error(logits, labels))


@pytest.mark.parametrize("ties", [False, True])
def test_the_map_of_validation_is_scikit_learns_and_evaluations(ties):
    logits, labels = drawn(120, 5, ties=ties)
    labels = np.where(labels == 4, 0, labels)  # of class 4 there are none
    (measure_of,) = (one.of for one in CLASSIFY.measures if one.name == "map")
    found = measure_of(logits, labels, np.zeros(120))
    probabilities = Scores(logits, labels).probabilities  # with its rounding, which makes ties
    expected = [sklearn_metrics.average_precision_score(labels == k, probabilities[:, k]) for k in range(4)]
    assert found == pytest.approx(np.mean(expected))
    assert found == pytest.approx(measure(logits, labels, list("abcde")).mean_average_precision)


def test_calibration_by_hand():
    """Two images of confidence 0.9, one right; one of 0.6, right: (2 · |0.5 − 0.9| + 1 · |1 − 0.6|) / 3."""
    odds = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    metrics = measure(odds, np.array([0, 1, 0]), ["a", "b"])
    assert metrics.calibration_error == pytest.approx((2 * 0.4 + 0.4) / 3)
    filled = {round(place.above * 15): place for place in metrics.calibration if place.images}
    assert {place: (found.images, found.accuracy) for place, found in filled.items()} == {8: (1, 1.0), 13: (2, 0.5)}
    assert filled[13].confidence == pytest.approx(0.9) and len(metrics.calibration) == 15


def test_accuracy_against_coverage_by_hand():
    """Confidences 0.9 (right), 0.8 and 0.8 (wrong, right: kept together), 0.6 (right)."""
    odds = np.log([[0.6, 0.4], [0.8, 0.2], [0.9, 0.1], [0.8, 0.2]])
    curve = measure(odds, np.array([0, 1, 0, 0]), ["a", "b"]).coverage
    assert [(point.images, point.coverage) for point in curve] == [(1, 0.25), (3, 0.75), (4, 1.0)]
    assert [point.accuracy for point in curve] == pytest.approx([1, 2 / 3, 3 / 4])
    assert [point.threshold for point in curve] == pytest.approx([0.9, 0.8, 0.6])
    many = measure(*drawn(500, 9), [str(k) for k in range(9)])
    assert len(many.coverage) == 50 and many.coverage[-1].accuracy == pytest.approx(many.top1)


def test_shares_of_classes_bins_and_thresholds_have_wilsons_interval():
    logits, labels = drawn(60, 4, skill=2.0)
    labels = np.where(labels == 3, 0, labels)
    metrics = measure(logits, labels, list("abcd"))
    right = logits.argmax(axis=1) == labels
    counted = [(metrics.class_intervals["abcd"[k]], right[labels == k].sum(), (labels == k).sum()) for k in range(3)]
    counted += [
        (place.interval, place.accuracy * place.images, place.images) for place in metrics.calibration if place.images
    ]
    counted += [(point.interval, point.accuracy * point.images, point.images) for point in metrics.coverage]
    for interval, hits, images in counted:
        expected = stats.binomtest(round(hits), int(images)).proportion_ci(method="wilson")
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert metrics.class_intervals["d"] is None and metrics.calibration[0].interval is None


def test_the_sign_of_the_miscalibration_is_told():
    """400 images of confidence 0.7: half of them right, then nine in ten; then as many as promised."""
    odds = np.log(np.tile([0.7, 0.3], (400, 1)))
    for wrong, gap, words in (
        (200, 0.2, "over-confident by 20.0 points (95% "),
        (40, -0.2, "under-confident by 20.0 points (95% "),
        (120, 0.0, "which holds 0)"),
    ):
        found = measure(odds, np.repeat([0, 1], [400 - wrong, wrong]), ["a", "b"]).miscalibration
        assert found.overconfidence == pytest.approx(gap) and words in found.text
        assert found.interval.low <= gap <= found.interval.high and ("holds 0" in found.text) == (gap == 0.0)


def test_certainty_and_even_odds_are_in_the_outermost_bins():
    sure = measure(np.array([[1000.0, 0]]), np.array([0]), ["a", "b"])
    assert sure.calibration[14].images == 1 and sure.calibration_error == 0
    twenty = measure(np.zeros((1, 20)), np.array([1]), [str(k) for k in range(20)])
    assert twenty.calibration[0].images == 1 and twenty.calibration_error == pytest.approx(1 / 20)


@pytest.mark.parametrize("ties", [False, True])
def test_an_image_that_counts_thrice_is_three_images(ties):
    """What a bootstrap's draw is worth, against measuring the drawn images themselves."""
    logits, labels = drawn(50, 7, ties=ties)
    counts = np.random.default_rng(1).integers(0, 4, (50, 3)).astype(np.float32)
    statistics = Scores(logits, labels).statistics()
    assert set(statistics) == set(MEASURES)
    for column in range(3):
        again = np.repeat(np.arange(50), counts[:, column].astype(int))
        wanted = measure(logits[again], labels[again], list("abcdefg"))
        for name, statistic in statistics.items():
            assert statistic(counts)[column] == pytest.approx(getattr(wanted, name), abs=1e-5), name


def test_a_class_that_a_draw_lacks_is_left_out_of_it():
    logits, labels = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), np.array([0, 0, 1])
    counts = np.array([[1.0], [1.0], [0.0]])
    scores = Scores(logits, labels)
    assert scores.mean_class_accuracy(counts) == 0.5
    assert np.isnan(scores.average_precisions(counts)[1:]).all() and scores.mean_average_precision(counts) == 1


def test_intervals_hold_what_they_are_of_and_shrink_with_the_images():
    few, many = (measure(*drawn(images, 7, skill=2), list("abcdefg")) for images in (60, 6000))
    for name in MEASURES:
        for metrics in (few, many):
            assert metrics.intervals[name].low <= getattr(metrics, name) <= metrics.intervals[name].high
        widths = [metrics.intervals[name].high - metrics.intervals[name].low for metrics in (few, many)]
        assert 5 < widths[0] / widths[1] < 20, name  # ten times, by the root of a hundred
    share = many.top1
    assert many.intervals["top1"].high - share == pytest.approx(1.96 * (share * (1 - share) / 6000) ** 0.5, rel=0.15)


@pytest.mark.parametrize("images", [1, 12, 100])
def test_images_that_are_all_right_do_not_make_sure(images):
    """Wilson's interval of n of n begins at n / (n + 1.96²)."""
    logits = np.tile([[0.0, 20, 0]], (images, 1))
    found = measure(logits, np.ones(images, dtype=np.int64), list("abc")).intervals
    low = images / (images + stats.norm.ppf(0.975) ** 2)
    for name in ("top1", "mean_average_precision", "mean_class_accuracy"):
        assert (found[name].low, found[name].high) == (pytest.approx(low), 1), name
    assert (found["top5"].low, found["top5"].high) == (1, 1)  # of three classes every image counts
    # Were that many wrong: confidence is 1, and each cost more than ln 2.
    assert found["calibration_error"].high == pytest.approx(1 - low, abs=1e-6)
    assert found["negative_log_likelihood"].high == pytest.approx((1 - low) * math.log(2), abs=1e-6)
    none = measure(logits, np.zeros(images, dtype=np.int64), list("abc")).intervals["top1"]
    assert (none.low, none.high) == (0, pytest.approx(1 - low))


def test_of_one_class_nothing_can_be_wrong():
    found = measure(np.zeros((3, 1)), np.zeros(3, dtype=np.int64), ["a"]).intervals
    assert all(found[name].low == found[name].high for name in MEASURES)
