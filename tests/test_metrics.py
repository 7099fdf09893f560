import numpy as np
import pytest

from agnet.training.metrics import measure


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
