"""Intervals and tests, against textbook tables, scipy's own, and simulations whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from agnet.training.measure.intervals import possible
from agnet.training.measure.metrics import Scores
from agnet.training.measure.statistics import (
    Interval,
    basic_interval,
    bootstrap,
    holm,
    joined_test,
    mcnemar,
    percentile_interval,
    resamples,
    share_difference,
    share_interval,
    share_interval_of_means,
    spread,
    wilson_interval,
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


def near(interval):
    return pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize("hits, images", [(0, 12), (12, 12), (9, 12), (1, 1), (37, 300)])
def test_a_share_of_one_seed_has_wilsons_interval(hits, images):
    theirs = stats.binomtest(hits, images).proportion_ci(method="wilson")
    right = (np.arange(images) < hits).astype(float)
    for found in (
        wilson_interval(hits / images, images),
        share_interval(right[None]),
        share_interval_of_means([hits / images], images),
    ):
        assert (found.low, found.high) == near(theirs)
    assert (wilson_interval(0.3, 0).low, wilson_interval(0.3, 0).high) == (0, 1)


def test_two_seeds_that_agree_are_as_sure_as_their_images():
    """0.7500 twice on twelve images: the same nine are right, or it is not known which."""
    theirs = stats.binomtest(9, 12).proportion_ci(method="wilson")
    right = np.tile(np.arange(12) < 9, (2, 1)).astype(float)
    for found in (share_interval(right), share_interval_of_means([0.75, 0.75], 12)):
        assert (found.low, found.high) == near(theirs)
    # Where each is right about others, the mean over both varies less with the images.
    other = share_interval(np.stack([right[0], np.roll(right[0], 3)]))
    assert theirs.low < other.low < 0.75 < other.high < theirs.high


def test_seeds_that_differ_by_far_are_students_interval_on_so_many_images():
    """A million images, whose own variance is nothing beside the seeds'."""
    right = np.stack([np.arange(1_000_000) < 1_000_000 * share for share in (0.48, 0.5, 0.52)]).astype(float)
    students = stats.ttest_1samp([0.48, 0.5, 0.52], 0).confidence_interval()
    assert share_interval(right).low == pytest.approx(students.low, abs=1e-3)
    assert share_interval(right).high == pytest.approx(students.high, abs=1e-3)


@pytest.mark.parametrize("seeds, images, middle", [(1, 12, 3.0), (2, 12, 1.0), (2, 12, 3.0), (3, 50, 1.0)])
def test_a_share_over_seeds_holds_the_truth_about_as_often_as_it_says_and_students_does_not(seeds, images, middle):
    """An image's difficulty is the same for all seeds, a seed's luck the same for all images; the truth is of endless
    images and seeds. 95 % within three standard errors of 400 simulations, or safer."""
    generator, hits, students = np.random.default_rng(0), 0, 0
    truth = stats.norm.cdf(middle / math.sqrt(1.5**2 + 0.1**2 + 1))
    for _ in range(400):
        difficulty, luck = generator.normal(middle, 1.5, (1, images)), generator.normal(0, 0.1, (seeds, 1))
        right = (difficulty + luck + generator.normal(size=(seeds, images)) > 0).astype(float)
        found, seeds_alone = share_interval(right), spread(right.mean(axis=1).tolist())
        hits += found.low <= truth <= found.high
        students += seeds > 1 and seeds_alone.low <= truth <= seeds_alone.high
    assert hits / 400 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400) and students / 400 < 0.9


def test_a_mean_of_the_classes_shares_by_hand():
    """Two classes of 3 and 1 images; of the two right and two wrong that are added each class has one of either."""
    right, classes = np.array([[1.0, 1.0, 0.0, 1.0]]), np.array([4, 4, 4, 9])
    shares = [3 / 5, 2 / 3]
    variance = (shares[0] * (1 - shares[0]) / 5 + shares[1] * (1 - shares[1]) / 3) / 4
    share = sum(shares) / 2
    found, wanted = share_interval(right, classes), wilson_interval(5 / 6, share * (1 - share) / variance - 4)
    assert (found.low, found.high) == near(wanted)


def test_a_difference_of_shares_is_bonett_and_prices():
    first, second = np.zeros((1, 30)), np.zeros((1, 30))
    first[0, :3] = second[0, 3:11] = 1  # 3 only the first, 8 only the second
    only_first, only_second = 4 / 32, 9 / 32
    middle, variance = share_difference(first, second)
    assert middle == pytest.approx(only_second - only_first)
    assert variance == pytest.approx((only_first + only_second - (only_second - only_first) ** 2) / 32)
    assert share_difference(first, first) == (0, pytest.approx(2 / 32**2))


def test_equal_values_are_equal_whatever_else_is_known():
    found = spread([0.25, 0.25])
    assert (found.sd, found.low, found.high) == (0, 0.25, 0.25)  # over these values alone


def test_resamples_are_draws_with_replacement():
    blocks = list(resamples(5, draws=250, seed=1))
    counts = np.concatenate(blocks, axis=1)
    assert [block.shape for block in blocks] == [(5, 100), (5, 100), (5, 50)]
    assert (counts.sum(axis=0) == 5).all() and counts.max() > 1
    # The mean of 250 draws of a binomial count with variance below 1.
    assert np.abs(counts.mean(axis=1) - 1).max() < 4 / math.sqrt(250)
    assert (np.concatenate(list(resamples(5, draws=250, seed=1)), axis=1) == counts).all()
    assert (np.concatenate(list(resamples(5, draws=250, seed=2)), axis=1) != counts).any()


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


def test_the_basic_interval_holds_a_true_calibration_error_that_the_percentile_interval_misses():
    """200 images of a network whose true error, that of 100,000, is 0.07; noise adds another 0.03 to what they show."""
    generator, hits, missed, images = np.random.default_rng(0), 0, 0, 200

    def scores(n):
        logits = generator.normal(size=(n, 10)) * 3
        truth = np.exp(0.8 * logits)
        shares = (truth / truth.sum(axis=1, keepdims=True)).cumsum(axis=1)
        return Scores(logits, np.minimum((shares < generator.random((n, 1))).sum(axis=1), 9))

    true_error = scores(100_000).calibration_error(np.ones((100_000, 1)))[0]
    for _ in range(100):
        sample = scores(images)
        value = sample.calibration_error(np.ones((images, 1)))[0]
        drawn = bootstrap([sample.calibration_error], images, draws=200)[0]
        basic, percentile = basic_interval(value, drawn), percentile_interval(drawn)
        hits += basic.low <= true_error <= basic.high
        missed += not percentile.low <= true_error <= percentile.high
    assert hits >= 80 and missed >= 50


def test_the_basic_interval_holds_a_true_average_precision_that_the_percentile_interval_misses():
    """20 images of each of 15 classes and a network that is right about a quarter: an image that a resample holds twice
    stands beside itself in the ranking, which raises precision."""
    generator, hits, percentile_hits = np.random.default_rng(0), 0, 0

    def scores(each):
        labels = np.arange(15 * each) % 15
        logits = generator.normal(size=(len(labels), 15))
        logits[np.arange(len(labels)), labels] += 1
        return Scores(logits, labels)

    truth = scores(2000).mean_average_precision(np.ones((30_000, 1)))[0]
    for _ in range(100):
        sample = scores(20)
        value = sample.mean_average_precision(np.ones((300, 1)))[0]
        drawn = bootstrap([sample.mean_average_precision], 300, draws=200)[0]
        basic, percentile = basic_interval(value, drawn), percentile_interval(drawn)
        hits += basic.low <= truth <= basic.high
        percentile_hits += percentile.low <= truth <= percentile.high
    assert hits >= 80 and percentile_hits <= 50, (hits, percentile_hits)


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


def test_joined_with_images_that_do_not_matter_is_students_paired_test():
    differences = [0.01, 0.04, 0.02]
    interval, p = joined_test(np.mean(differences), 0.0, 50, [differences])
    theirs = stats.ttest_1samp(differences, 0)
    assert p == pytest.approx(theirs.pvalue)
    assert interval.low == pytest.approx(theirs.confidence_interval().low)
    assert interval.high == pytest.approx(theirs.confidence_interval().high)


def test_joined_of_two_samples_is_welchs_test():
    one, other = [0.6, 0.64, 0.7], [0.71, 0.7]
    value = np.mean(other) - np.mean(one)
    assert joined_test(value, 0.0, 50, [one, other])[1] == pytest.approx(
        stats.ttest_ind(other, one, equal_var=False).pvalue
    )


def test_joined_of_one_value_against_a_sample_is_crawford_and_howells_test():
    """t = (x − mean) / (sd · sqrt(1 + 1/n)) with n − 1 degrees of freedom, whichever of the two is the single one."""
    sample = [0.6, 0.64, 0.7]
    t = (0.8 - np.mean(sample)) / (np.std(sample, ddof=1) * math.sqrt(1 + 1 / 3))
    for sign, seeds in ((1, [sample, [0.8]]), (-1, [[0.8], sample])):
        value = sign * (0.8 - np.mean(sample))
        interval, p = joined_test(value, 0.0, 50, seeds)
        assert p == pytest.approx(2 * stats.t.sf(t, 2))
        assert (interval.high - interval.low) / 2 == pytest.approx(abs(value) / t * stats.t.ppf(0.975, 2))


def test_joined_with_seeds_that_agree_is_a_normal_interval_over_images():
    drawn = np.random.default_rng(0).normal(0.02, 0.01, 1000)
    interval, p = joined_test(0.02, drawn.var(), 100_000, [[0.02, 0.02]])
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * drawn.std(), rel=1e-3)
    assert p == pytest.approx(2 * stats.norm.sf(0.02 / drawn.std()), rel=0.01)


def test_what_does_not_vary_proves_nothing():
    interval, p = joined_test(0.5, 0.0, 1, [[0.5, 0.5]])
    assert (interval.low, interval.high, p) == (0.5, 0.5, 1.0)


@pytest.mark.parametrize("count", [2, 3])
def test_equally_good_networks_are_rarely_told_apart_whatever_their_seeds_do(count):
    """Two networks of a few seeds each on 300 images whose difficulty they share, with large effects of the seed. The
    joined test errs less often than pairing the seeds by number or resampling them as well, and far less than
    resampling the images alone."""
    generator = np.random.default_rng(0)
    counts = np.concatenate(list(resamples(300, draws=200)), axis=1) / 300
    seed_counts = np.concatenate(list(resamples(count, draws=200, seed=1)), axis=1) / count
    wrong = {"joined": 0, "seeds paired": 0, "images and seeds resampled": 0, "images resampled": 0}
    for _ in range(400):
        difficulty, right = generator.normal(1, 1.5, 300), []
        for _ in range(2):
            seeds, chance = generator.normal(0, 0.2, (count, 1)), generator.normal(0, 0.5, (count, 300))
            right.append(difficulty + generator.normal(0, 0.4, 300) + seeds + chance > 0)
        differences = right[1].astype(float) - right[0]
        by_seed = differences @ counts
        drawn = by_seed.mean(axis=0)
        samples = [answers.mean(axis=1).tolist() for answers in right]
        wrong["joined"] += joined_test(differences.mean(), drawn.var(), 300, samples)[1] < 0.05
        wrong["seeds paired"] += joined_test(differences.mean(), drawn.var(), 300, [differences.mean(axis=1)])[1] < 0.05
        for name, values in (
            ("images and seeds resampled", (by_seed * seed_counts).sum(axis=0)),
            ("images resampled", drawn),
        ):
            interval = percentile_interval(values)
            wrong[name] += not interval.low <= 0 <= interval.high
    shares = {name: times / 400 for name, times in wrong.items()}
    assert shares["joined"] < 0.07 < shares["images resampled"] / 3, shares
    assert shares["joined"] < shares["seeds paired"] < shares["images and seeds resampled"], shares


def test_holm_by_hand():
    """The smallest of three times 3, the next times 2, none below the one before it, none above 1."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1, 1] and holm([0.02]) == [0.02] and holm([]) == []


def test_an_interval_holds_only_what_can_be():
    """A measure is a share; a difference of two goes from one end to the other; a log-likelihood has no upper end."""
    wide = Interval(-2.27, 2.15)
    assert possible("mean_average_precision", wide) == Interval(0.0, 1.0)
    assert possible("mean_average_precision", wide, difference=True) == Interval(-1.0, 1.0)
    assert possible("negative_log_likelihood", wide, difference=True) == wide
