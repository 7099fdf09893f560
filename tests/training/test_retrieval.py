"""Ranking, CMC and mAP against a naive loop, scikit-learn and numbers by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from agnet.training import retrieval
from agnet.training.retrieval import JUNK, UNKNOWN, Embedded, retrieve


def embedded(vectors, persons, cameras):
    vectors = np.asarray(vectors, dtype=np.float32)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedded(vectors, np.asarray(persons, dtype=np.int64), np.asarray(cameras, dtype=np.int64))


def random_images(n, seed, persons=6, cameras=3):
    """Images on few axes, so that many similarities are equal, and exactly."""
    generator = np.random.default_rng(seed)
    axes = np.eye(4)[generator.integers(0, 4, n)]
    return embedded(axes, generator.integers(JUNK, persons, n), generator.integers(0, cameras, n))


def naive(query, gallery, among_themselves=False):
    """Average precision and rank of the first match of each query, image by image."""
    found = []
    for q in range(len(query.persons)):
        ranking = []
        for g in range(len(gallery.persons)):
            similarity = np.float32(query.vectors[q] @ gallery.vectors[g])
            same = gallery.persons[g] == query.persons[q]
            if gallery.persons[g] == JUNK or (among_themselves and q == g):
                continue
            if same and gallery.cameras[g] == query.cameras[q] != UNKNOWN:
                continue
            ranking.append((-similarity, g, same))
        precisions, seen = [], 0
        for rank, (_, _, same) in enumerate(sorted(ranking), 1):
            if same:
                seen += 1
                precisions.append(seen / rank)
        firsts = [rank for rank, (_, _, same) in enumerate(sorted(ranking)) if same]
        found.append((np.mean(precisions) if precisions else np.nan, firsts[0] if firsts else -1))
    return map(np.array, zip(*found, strict=True))


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_naive_loop(monkeypatch, seed, chunk):
    monkeypatch.setattr(retrieval, "_SIMILARITIES", chunk)
    query, gallery = random_images(12, seed), random_images(40, seed + 10)
    query = query._replace(persons=np.abs(query.persons))
    for found, wanted in (
        (retrieve(query, gallery), naive(query, gallery)),
        (retrieve(query), naive(query, query, among_themselves=True)),
    ):
        precisions, firsts = wanted
        np.testing.assert_allclose(found.average_precisions, precisions)
        np.testing.assert_array_equal(found.first_match, firsts)
        counted = firsts >= 0
        assert found.cmc(5) == pytest.approx((firsts[counted] < 5).mean())
        assert found.mean_average_precision == pytest.approx(np.nanmean(precisions))


def test_a_ranking_by_hand():
    """The query's own camera and junk are nearest but left out; a distractor stays and costs precision."""
    query = embedded([[1, 0]], [7], [1])
    gallery = embedded(
        [[1, 0], [1, 0.01], [1, 0.1], [1, 0.2], [1, 0.3], [0, 1]], [7, JUNK, 99, 7, 8, 7], [1, 2, 2, 2, 2, 3]
    )
    found = retrieve(query, gallery)
    assert found.first_match.tolist() == [1] and found.nearest.tolist() == [2]
    assert found.average_precisions[0] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (found.cmc(1), found.cmc(2)) == (0, 1)


def test_average_precision_is_that_of_scikit_learn_and_ignores_the_order_of_the_gallery():
    generator = np.random.default_rng(0)
    query = embedded(generator.normal(size=(5, 8)), range(5), [0] * 5)
    gallery = embedded(generator.normal(size=(60, 8)), generator.integers(0, 5, 60), [1] * 60)
    found, scores = retrieve(query, gallery), query.vectors @ gallery.vectors.T
    wanted = [average_precision_score(gallery.persons == person, row) for person, row in enumerate(scores)]
    np.testing.assert_allclose(found.average_precisions, wanted, rtol=1e-6)
    order = generator.permutation(60)
    other = retrieve(query, Embedded(*(column[order] for column in gallery)))
    np.testing.assert_allclose(found.average_precisions, other.average_precisions)


def test_identical_embeddings_are_ranked_in_the_order_of_the_gallery():
    gallery = embedded(np.ones((4, 2)), [3, 1, 2, 1], [0, 0, 0, 0])
    found = retrieve(embedded([[1, 1]], [1], [5]), gallery)
    assert found.first_match.tolist() == [1] and found.average_precisions[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_without_a_match_a_query_does_not_count():
    gallery = embedded([[1, 0], [0, 1]], [1, 2], [0, 0])
    found = retrieve(embedded([[1, 0], [0, 1]], [1, 2], [0, 1]), gallery)
    assert found.counted.tolist() == [False, True] and (found.cmc(1), found.mean_average_precision) == (1, 1)
    nothing = retrieve(embedded([[1, 0]], [9], [0]), gallery)
    assert np.isnan(nothing.cmc(1)) and np.isnan(nothing.mean_average_precision)


def test_without_cameras_only_the_image_itself_is_left_out():
    images = embedded([[1, 0], [1, 0.1], [0, 1]], [1, 1, 2], [UNKNOWN] * 3)
    assert retrieve(images).first_match.tolist() == [0, 0, -1]
