"""Batches of P classes with K images each."""

from collections import Counter

import numpy as np
import pytest

from agnet.training.samples.loader import ClassSampler

LABELS = np.repeat(np.arange(7), [9, 4, 1, 3, 8, 2, 13])
ROWS = np.arange(100, 100 + len(LABELS))


def batches(per_class=3, batch_size=9, epoch=0, first_step=0, seed=5):
    sampler = ClassSampler(ROWS, LABELS, batch_size, per_class, seed)
    sampler.epoch, sampler.first_step = epoch, first_step
    return sampler, [[row for _, row in batch] for batch in sampler]


@pytest.mark.parametrize("epoch", range(3))
def test_a_batch_has_p_classes_with_k_images_each(epoch):
    sampler, found = batches(epoch=epoch)
    assert len(found) == len(sampler) == -(-len(ROWS) // 9) and sampler.images == 9 * len(found)
    classes = Counter()
    for batch in found:
        labels = LABELS[np.array(batch) - 100]
        assert sorted(Counter(labels.tolist()).values()) == [3, 3, 3]
        classes.update(set(labels.tolist()))
        for label in set(labels.tolist()):
            own = [row for row in batch if LABELS[row - 100] == label]
            assert len(set(own)) == min(3, (label == LABELS).sum())
    assert max(classes.values()) - min(classes.values()) <= 1


def test_every_image_is_drawn_as_often_as_any_other_of_its_class():
    labels = np.repeat([0, 1, 2], [61, 5, 3])
    counts = np.zeros(len(labels), int)
    for batch in ClassSampler(np.arange(len(labels)), labels, 6, 2, shuffle_seed=4):
        counts[[row for _, row in batch]] += 1
        assert max(np.bincount([row for _, row in batch])) == 1
        for label in range(3):
            own = counts[labels == label]
            assert own.max() - own.min() <= 1
    assert counts[labels == 1].min() > 3


def test_epochs_differ_repeat_and_resume_at_any_step():
    assert batches()[1] == batches()[1] and batches(epoch=1)[1] != batches()[1] != batches(seed=6)[1]
    assert batches(first_step=2)[1] == batches()[1][2:]


def test_of_fewer_classes_than_p_all_are_in_every_batch():
    sampler, found = batches(per_class=3, batch_size=30)
    assert sampler.batch_size == 21 and {len(batch) for batch in found} == {21}
