"""The batch-hard triplet loss against a double loop, and what the learner does with it."""

import numpy as np
import pytest
import torch

from agnet.data.errors import ConfigurationError, TrainingError
from agnet.training.loop.learner import Learner, means
from agnet.training.loop.triplets import triplet_losses
from factories import BARE, CPU, CPU_IS_FULL, Small, batch_of, tiny

SEARCHING = BARE.override(images_per_class=2, triplet=0.5, margin=0.4)


def naive(vectors, labels, margin):
    losses = []
    for i in range(len(vectors)):
        distances = [float(np.linalg.norm(vectors[i] - other)) for other in vectors]
        positives = [d for j, d in enumerate(distances) if labels[j] == labels[i] and j != i]
        negatives = [d for j, d in enumerate(distances) if labels[j] != labels[i]]
        losses.append(max(0, max(positives) - min(negatives) + margin) if positives and negatives else 0)
    return losses


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 3], [4] * 6, range(6)])
def test_it_is_the_double_loop(labels):
    vectors = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = triplet_losses(vectors, torch.tensor(labels), 0.3)
    np.testing.assert_allclose(found.numpy(), naive(vectors.numpy(), list(labels), 0.3), atol=1e-12)


def test_identical_embeddings_have_finite_gradients_and_half_precision_is_not_used():
    vectors = torch.ones(4, 3, requires_grad=True)
    losses = triplet_losses(vectors, torch.tensor([0, 0, 1, 1]), 0.3)
    losses.sum().backward()
    assert vectors.grad.isfinite().all() and losses.tolist() == pytest.approx([0.3] * 4)
    close = 100 + torch.arange(4.0)[:, None] / 1000
    with torch.autocast("cpu", torch.bfloat16):
        found = triplet_losses(close, torch.tensor([0, 0, 1, 1]), 0.3)
    assert found.dtype == torch.float32 and found.tolist() == pytest.approx(naive(close.numpy(), [0, 0, 1, 1], 0.3))


def test_it_is_a_named_part_of_the_loss_of_each_batch():
    batches = [batch_of(6, seed) for seed in (1, 2)]
    model = tiny()
    learner = Learner(model, SEARCHING, CPU)
    wanted = [
        0.5 * triplet_losses(model(batch.images).embedding, batch.labels, 0.4).sum().item() / 12 for batch in batches
    ]
    learner.start()
    found = means(learner.step(batches, 0, 0, 1), learner.loss_names)
    assert found["triplet"] == pytest.approx(sum(wanted), rel=1e-5) and found["triplet"] > 0
    plain = Learner(tiny(), BARE, CPU)
    plain.start()
    without = means(plain.step(batches, 0, 0, 1))
    assert found["loss"] == pytest.approx(without["loss"] + found["triplet"], rel=1e-5)


def test_a_batch_is_not_halved_for_it():
    learner = Learner(Small(tiny(), 3, CPU_IS_FULL), SEARCHING, CPU)
    learner.start()
    with pytest.raises(TrainingError, match="the triplet loss compares all images of a batch"):
        learner.step([batch_of(6)], 0, 0, 1)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"images_per_class": 3}, "wanted a multiple of images_per_class"),
        ({"images_per_class": 2, "triplet": 1.0, "mixup": 0.2}, "excludes mixup"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(given, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        BARE.override(**given)
