import itertools

import numpy as np
import pytest

from agnet.training.answers.video_labels import Label, Segment, VideoLabels, label_of

CLASSES = ("ant", "bee")


def smoothed(times, ants, width):
    """The exponential mean by its definition: weights e^(-age/width) of each stretch between frames."""
    means = []
    for now in range(len(times)):
        weights = [np.exp(-(times[now] - times[0]) / width)]
        for k in range(1, now + 1):
            weights.append(np.exp(-(times[now] - times[k]) / width) - np.exp(-(times[now] - times[k - 1]) / width))
        assert sum(weights) == pytest.approx(1)
        means.append(float(np.dot(weights, ants[: now + 1])))
    return means


def test_labels_are_of_the_exponential_mean_by_the_frames_own_times():
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.uniform(0.01, 0.5, 40))
    ants = generator.uniform(size=40)
    labels = VideoLabels(CLASSES, width=0.7)
    got = [labels.add(time, np.array([ant, 1 - ant], np.float32)) for time, ant in zip(times, ants, strict=True)]
    for label, mean in zip(got, smoothed(times, ants, 0.7), strict=True):
        assert label.name == ("ant" if mean > 0.5 else "bee")
        assert label.probability == pytest.approx(max(mean, 1 - mean), abs=1e-6)


def test_one_odd_frame_changes_nothing_and_a_lasting_change_does():
    ants = [0.9] * 10 + [0.1] + [0.9] * 9 + [0.2] * 20
    for width, expected in ((0.5, ["ant", "bee"]), (0, ["ant", "bee", "ant", "bee"])):
        labels = VideoLabels(CLASSES, width)
        for number, ant in enumerate(ants):
            labels.add(number / 10, np.array([ant, 1 - ant]))
        segments = labels.segments()
        assert [segment.label for segment in segments] == expected
        assert segments[0].start == 0 and segments[-1].end == pytest.approx(3.9)
        for before, after in itertools.pairwise(segments):
            assert before.end == after.start
    assert segments[0] == Segment(0.0, 1.0, "ant", pytest.approx(0.9))
    assert segments[1] == Segment(1.0, 1.1, "bee", pytest.approx(0.9))


def test_what_is_unlikely_is_unsure():
    assert label_of(CLASSES, np.array([0.6, 0.4]), 0.7) == Label("unsure", 0.6)
    assert label_of(CLASSES, np.array([0.4, 0.6]), 0.6) == Label("bee", 0.6)
    labels = VideoLabels(CLASSES, 0, threshold=0.7)
    for number, ant in enumerate([0.9, 0.6, 0.6, 0.1]):
        labels.add(number, np.array([ant, 1 - ant]))
    assert [segment.label for segment in labels.segments()] == ["ant", "unsure", "bee"]


def test_a_video_without_frames_has_no_segments():
    assert VideoLabels(CLASSES, 0.5).segments() == []
