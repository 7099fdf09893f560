"""Intervals and tests, against textbook tables, scipy's own, and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from agnet.training.statistics import (
    bootstrap,
    bootstrap_p,
    holm,
    mcnemar,
    percentile_interval,
    resamples,
    spread,
)


def test_spread_of_three_seeds_by_hand():
    """sd of 1, 2, 6 is sqrt(7); Student's t for 2 degrees of freedom and 95 % is 4.303 in every table."""
    found = spread([1, 2, 6])
    assert (found.mean, found.n) == (3, 3) and found.sd == pytest.approx(math.sqrt(7))
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))


def test_spread_agrees_with_scipys_interval():
    values = np.random.default_rng(0).normal(size=7)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = spread(values)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_one_value_has_no_spread():
    found = spread([0.5])
    assert found.mean == 0.5 and found.n == 1 and found.sd is found.low is found.high is None


def test_equal_values_have_an_interval_of_no_width():
    found = spread([0.25, 0.25])
    assert (found.sd, found.low, found.high) == (0, 0.25, 0.25)


@pytest.mark.parametrize("size", [None, 3])
def test_resamples_are_draws_with_replacement(size):
    blocks = list(resamples(5, draws=250, seed=1, size=size))
    counts = np.concatenate(blocks, axis=1)
    assert [block.shape for block in blocks] == [(5, 100), (5, 100), (5, 50)]
    assert (counts.sum(axis=0) == (size or 5)).all() and counts.max() > 1
    # The mean of 250 draws of a binomial count with variance below 1.
    assert np.abs(counts.mean(axis=1) - (size or 5) / 5).max() < 4 / math.sqrt(250)
    assert (np.concatenate(list(resamples(5, draws=250, seed=1, size=size)), axis=1) == counts).all()
    assert (np.concatenate(list(resamples(5, draws=250, seed=2, size=size)), axis=1) != counts).any()


def test_a_bootstrap_of_a_mean_is_scipys():
    values = np.random.default_rng(3).exponential(size=200)
    drawn = bootstrap([lambda counts: values @ counts / counts.sum(axis=0)], 200, draws=4000)[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert drawn.std() == pytest.approx(theirs.standard_error, rel=0.1)
    found, wanted = percentile_interval(drawn), theirs.confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.02) and found.high == pytest.approx(wanted.high, abs=0.02)


def test_an_interval_of_a_share_holds_the_truth_about_as_often_as_it_says():
    """300 data sets of 200 images with a true accuracy of 0.8: 95 % ± 3 standard errors of that count, and a little
    for the percentile interval's own shortness."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(300):
        right = (generator.random(200) < 0.8).astype(float)
        found = percentile_interval(bootstrap([lambda counts, right=right: right @ counts / 200], 200, draws=300)[0])
        hits += found.low <= 0.8 <= found.high
    assert 0.90 <= hits / 300 <= 0.985


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (1, 0), (3, 3), (2, 9), (9, 2), (40, 61), (500, 700)])
def test_mcnemar_by_counting_coins(only_first, only_second):
    """Two-sided: every outcome of as many fair coins that is as uneven as this one, or more."""
    coins, lopsided = only_first + only_second, max(only_first, only_second)
    as_uneven = sum(math.comb(coins, k) for k in range(coins + 1) if max(k, coins - k) >= lopsided)
    assert mcnemar(only_first, only_second) == pytest.approx(as_uneven / 2**coins)
    if coins:
        assert mcnemar(only_first, only_second) == pytest.approx(stats.binomtest(only_first, coins).pvalue)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


def test_mcnemar_cries_wolf_no_more_often_than_it_says():
    """2,000 pairs of equally good networks on 300 images: p below 0.05 in at most 5 % (the exact test errs on the safe
    side), and not hardly ever."""
    generator = np.random.default_rng(0)
    discordant = generator.binomial(300, 0.2, 2000)
    first = generator.binomial(discordant, 0.5)
    p_values = np.array([mcnemar(k, n - k) for n, k in zip(discordant, first, strict=True)])
    assert 0.02 < (p_values <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert 0.35 < np.median(p_values) < 0.65


def test_bootstrap_p_is_where_the_interval_begins_to_hold_zero():
    drawn = np.arange(-4, 96) + 0.5  # 4 of 100 below 0
    assert bootstrap_p(drawn) == pytest.approx(2 * 5 / 101)
    assert bootstrap_p(-drawn) == bootstrap_p(drawn)
    assert bootstrap_p(np.ones(99)) == pytest.approx(0.02)
    assert bootstrap_p(np.zeros(99)) == 1


def test_holm_by_hand():
    """The smallest of three times 3, the next times 2, none below the one before it, none above 1."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1, 1] and holm([0.02]) == [0.02] and holm([]) == []
