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


def test_an_image_returns_only_after_all_others_of_its_class():
    drawn = [row for batch in batches(per_class=2, batch_size=14)[1] for row in batch]
    for label in (0, 4, 6):
        own = [row for row in drawn if LABELS[row - 100] == label]
        size = int((label == LABELS).sum())
        for k in range(len(own) - size):
            assert len(set(own[k : k + size])) >= size - 1


def test_epochs_differ_repeat_and_resume_at_any_step():
    assert batches()[1] == batches()[1] and batches(epoch=1)[1] != batches()[1] != batches(seed=6)[1]
    assert batches(first_step=2)[1] == batches()[1][2:]


def test_of_fewer_classes_than_p_all_are_in_every_batch():
    sampler, found = batches(per_class=3, batch_size=30)
    assert sampler.batch_size == 21 and {len(batch) for batch in found} == {21}
