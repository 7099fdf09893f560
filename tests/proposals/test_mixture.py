import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from agnet.proposals.mixture import EM, fit_mixture, fit_mixture_scikit_learn, initial_labels

SIDE = 224


class StartedMixture(GaussianMixture):
    """scikit-learn's mixture, started from given hard labels rather than from its own k-means."""

    def start_from(self, labels):
        self.start = np.zeros((len(labels), self.n_components))
        self.start[np.arange(len(labels)), labels] = 1
        return self

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.start)


def oracle(points, labels, components, **options):
    model = StartedMixture(components, **options).start_from(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model, model.fit_predict(points)


def uniform(generator, n):
    return generator.uniform(0, SIDE, (n, 2))


def clustered(generator, n):
    centres = generator.uniform(20, SIDE - 20, (8, 2))
    spread = generator.uniform(2, 12, (8, 1))
    member = generator.integers(8, size=n)
    return centres[member] + generator.normal(size=(n, 2)) * spread[member]


def with_duplicates(generator, n):
    points = clustered(generator, n)
    return points[generator.integers(n // 2, size=n)]


def collinear(generator, n):
    along = generator.uniform(0, 200, n)
    return np.column_stack([along + 5, 0.7 * along + 30])


def horizontal(generator, n):
    return np.column_stack([generator.uniform(0, SIDE, n), np.full(n, 100.5)])


def vertical_lines(generator, n):
    return np.column_stack([generator.integers(4, size=n) * 50.0 + 10, generator.uniform(0, SIDE, n)])


def ill_conditioned(generator, n):
    along = generator.uniform(0, 200, n)
    return np.column_stack([along, 0.5 * along + 20 + generator.normal(scale=1e-4, size=n)])


def few_places(generator, n):
    return generator.uniform(0, SIDE, (9, 2))[generator.integers(9, size=n)]


def fit_both(points_of, seed):
    """Our mixture, scikit-learn's from the same start, and the labels of the latter."""
    generator = np.random.default_rng([seed, *points_of.__name__.encode()])
    points = points_of(generator, int(generator.integers(40, 600)))
    start = initial_labels(points, 8, seed)
    model, labels = oracle(points, start, 8)
    return fit_mixture(points, start, 8), model, labels


def assert_the_same(mixture, model, labels):
    assert mixture.iterations == model.n_iter_
    assert mixture.converged == model.converged_
    assert mixture.bound == pytest.approx(model.lower_bound_, abs=1e-6)
    assert (mixture.labels == labels).mean() >= 0.999
    np.testing.assert_allclose(mixture.weights, model.weights_, atol=1e-6)
    np.testing.assert_allclose(mixture.means, model.means_, atol=1e-4)
    np.testing.assert_allclose(mixture.covariances, model.covariances_, atol=1e-3, rtol=1e-6)


SHAPES = [uniform, clustered, with_duplicates, collinear, horizontal, ill_conditioned, vertical_lines, few_places]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("points_of", SHAPES)
def test_the_closed_form_follows_scikit_learn_step_by_step(points_of, seed):
    assert_the_same(*fit_both(points_of, seed))


@pytest.mark.parametrize("seed", [16, 202, 241, 377])
def test_a_collapse_that_multiplies_rounding_errors_is_followed_too(seed):
    # A component of one line of points that reaches a little into the next: how far decides its variance, and
    # that, in the exponent, how far it reaches. Of 1000 seeds those with the most left of an error, or (16) with
    # a component that ends with 1e-13 points.
    assert_the_same(*fit_both(vertical_lines, seed))


def test_a_point_whose_densities_underflow_is_counted_by_their_logarithms():
    generator = np.random.default_rng(12)
    points = np.vstack([generator.normal(size=(4000, 2)), [(1e4, 2e4)]])
    start = (points[:, 0] < 0).astype(int)  # the far point among 2000: some 45 standard deviations off
    model, labels = oracle(points, start, 2)
    assert_the_same(fit_mixture(points, start, 2), model, labels)


def test_the_smallest_ridge_keeps_a_line_positive_definite():
    # On an image of 4096 pixels that ridge is below the covariances' rounding, at which scikit-learn gives up.
    points = collinear(np.random.default_rng(13), 200) * 18
    start = initial_labels(points, 8, 0)
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        oracle(points, start, 8, reg_covar=1e-12)
    mixture = fit_mixture(points, start, 8, EM(reg_covar=1e-12))
    assert np.isfinite(mixture.bound)
    assert np.isfinite(mixture.covariances).all()
    assert (mixture.covariances[:, [0, 1], [0, 1]] > 0).all()


@pytest.mark.parametrize("components", [2, 3, 4, 16])
def test_other_numbers_of_components_follow_scikit_learn_too(components):
    points = clustered(np.random.default_rng(components), 300)
    start = initial_labels(points, components, 0)
    model, labels = oracle(points, start, components)
    mixture = fit_mixture(points, start, components)
    assert mixture.iterations == model.n_iter_
    assert mixture.bound == pytest.approx(model.lower_bound_, abs=1e-6)
    assert (mixture.labels == labels).all()


def test_options_mean_what_they_mean_in_scikit_learn():
    points = uniform(np.random.default_rng(5), 300)
    start = initial_labels(points, 8, 0)
    for options in ({"max_iter": 3}, {"tol": 1e-6}, {"tol": 0.1}, {"reg_covar": 10.0}):
        model, labels = oracle(points, start, 8, **options)
        mixture = fit_mixture(points, start, 8, EM(**options))
        assert (mixture.iterations, mixture.converged) == (model.n_iter_, model.converged_), options
        assert mixture.bound == pytest.approx(model.lower_bound_, abs=1e-6)
        assert (mixture.labels == labels).mean() >= 0.999
    assert fit_mixture(points, start, 8, EM(max_iter=1)).iterations == 1
    assert not fit_mixture(points, start, 8, EM(max_iter=1)).converged


def test_as_many_points_as_components_is_enough():
    points = np.array([(10.0, 10), (200, 15), (100, 200)])
    mixture = fit_mixture(points, np.array([0, 1, 2]), 3)
    assert mixture.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(mixture.means, points, atol=1e-9)
    np.testing.assert_allclose(mixture.weights, 1 / 3, atol=1e-9)


def test_points_all_in_one_place_give_finite_numbers():
    points = np.full((20, 2), 112.3)
    start = np.arange(20) % 4
    model, _ = oracle(points, start, 4)
    mixture = fit_mixture(points, start, 4)
    assert mixture.bound == pytest.approx(model.lower_bound_, abs=1e-6)
    np.testing.assert_allclose(mixture.means, points[:4], atol=1e-9)


def test_a_component_that_starts_empty_is_survived():
    points = clustered(np.random.default_rng(3), 100)
    start = np.arange(100) % 3
    mixture = fit_mixture(points, start, 4)
    assert np.isfinite(mixture.bound)
    assert np.isfinite(mixture.means).all()
    assert mixture.weights[3] < 1e-9
    assert 3 not in mixture.labels


def test_a_shift_of_all_points_shifts_the_means_alone():
    points = clustered(np.random.default_rng(8), 200)
    start = initial_labels(points, 8, 0)
    shift = np.array([3000, 5000])
    here, there = fit_mixture(points, start, 8), fit_mixture(points + shift, start, 8)
    assert here.iterations == there.iterations
    assert (here.labels == there.labels).all()
    np.testing.assert_allclose(there.means - shift, here.means, atol=1e-6)
    np.testing.assert_allclose(there.covariances, here.covariances, atol=1e-6)


def test_the_start_separates_separate_clusters_and_repeats_itself():
    generator = np.random.default_rng(4)
    member = np.arange(120) % 4
    points = np.array([(20, 20), (200, 20), (20, 200), (200, 200)])[member] + generator.normal(size=(120, 2))
    labels = initial_labels(points, 4, 7)
    assert len(set(zip(member.tolist(), labels.tolist(), strict=True))) == 4
    assert (initial_labels(points, 4, 7) == labels).all()


def test_the_start_depends_on_its_seed_alone():
    points = uniform(np.random.default_rng(6), 200)
    first = [initial_labels(points, 8, seed).tolist() for seed in range(5)]
    backwards = [initial_labels(points, 8, seed).tolist() for seed in reversed(range(5))]
    assert first == backwards[::-1]
    assert len(set(map(tuple, first))) > 1


def test_scikit_learn_itself_stays_selectable():
    points = clustered(np.random.default_rng(9), 150)
    model = GaussianMixture(5, random_state=11)
    labels = model.fit_predict(points)
    mixture = fit_mixture_scikit_learn(points, 5, 11)
    assert (mixture.labels == labels).all()
    assert mixture.bound == model.lower_bound_
    assert mixture.iterations == model.n_iter_
    np.testing.assert_array_equal(mixture.means, model.means_)


def test_scikit_learn_stopped_early_warns_nobody():
    points = uniform(np.random.default_rng(10), 150)
    mixture = fit_mixture_scikit_learn(points, 8, 0, EM(max_iter=1, tol=1e-9))
    assert not mixture.converged
