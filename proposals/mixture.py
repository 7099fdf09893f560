"""A Gaussian mixture over keypoint positions: expectation maximisation in closed form for two dimensions.

The same algorithm, start, stopping rule and defaults as scikit-learn's ``GaussianMixture`` with full
covariances, which stays selectable and is the tests' oracle. Both halves of an iteration are a matrix
product here, without the Python overhead that takes most of scikit-learn's time on a few hundred points.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .settings import EM

# scikit-learn's guard against a component without any responsibility.
_SMALLEST_MASS = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of κ Gaussians in the plane, and the component each point most likely came from."""

    labels: np.ndarray  #: int64 ``(n,)``
    weights: np.ndarray  #: float64 ``(κ,)``, sum 1
    means: np.ndarray  #: float64 ``(κ, 2)``
    covariances: np.ndarray  #: float64 ``(κ, 2, 2)``
    bound: float  #: mean log-likelihood of a point at the last iteration's start
    iterations: int
    converged: bool


_DEFAULT = EM()


def initial_labels(points_xy: np.ndarray, components: int, seed: int) -> np.ndarray:
    """k-means with k-means++ start, once, as scikit-learn's mixture does. ``(n, 2)`` -> int ``(n,)``."""
    cv2.setRNGSeed(seed & 0x7FFFFFFF)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 300, 1e-2)
    _, labels, _ = cv2.kmeans(  # type: ignore[call-overload] # the stubs forget that the start may be None
        points_xy.astype(np.float32), components, None, stop, 1, cv2.KMEANS_PP_CENTERS
    )
    return labels.ravel()


def fit_mixture(points_xy: np.ndarray, labels: np.ndarray, components: int, em: EM = _DEFAULT) -> Mixture:
    """Fit κ Gaussians with full covariance, starting from hard ``labels``.

    Args:
        points_xy: float64 ``(n, 2)``, n ≥ κ; duplicates and collinear points are fine.
        labels: ``(n,)`` in 0..κ-1, the start.
        components: κ.
        em: when to stop.
    """
    centre = points_xy.mean(axis=0)
    x, y = (points_xy - centre).T  # centred, so that second moments lose no digits to the offset
    moments = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])  # (6, n)
    responsibilities = np.eye(components)[:, labels]  # (κ, n)

    bound, converged = -np.inf, False
    parameters = _maximise(moments, responsibilities, em.reg_covar)
    for iteration in range(1, em.max_iter + 1):  # noqa: B007
        previous = bound
        log_joint, evidence = _expect(moments, parameters)
        bound = float(evidence.mean())
        parameters = _maximise(moments, np.exp(log_joint - evidence), em.reg_covar)
        if abs(bound - previous) < em.tol:
            converged = True
            break

    log_joint, _ = _expect(moments, parameters)
    weights, means, (xx, xy, yy) = parameters
    return Mixture(
        labels=log_joint.argmax(axis=0),
        weights=weights,
        means=means.T + centre,
        covariances=np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2),
        bound=bound,
        iterations=iteration,
        converged=converged,
    )


_Parameters = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]


def _maximise(moments: np.ndarray, responsibilities: np.ndarray, reg_covar: float) -> _Parameters:
    """Weights ``(κ,)``, means ``(2, κ)`` and covariances' xx, xy, yy ``(κ,)`` each, from the moments' sums."""
    mass, *sums = moments @ responsibilities.T  # (6, κ)
    mass = mass + _SMALLEST_MASS
    mean_x, mean_y, xx, xy, yy = np.stack(sums) / mass
    # For C + reg·I both xx and the Schur complement yy - xy²/xx are at least reg in exact arithmetic; holding
    # rounding to that keeps collinear and coinciding points positive definite.
    xx = np.maximum(xx - mean_x * mean_x + reg_covar, reg_covar)
    xy = xy - mean_x * mean_y
    yy = np.maximum(yy - mean_y * mean_y + reg_covar, xy * xy / xx + reg_covar)
    return mass / mass.sum(), np.stack([mean_x, mean_y]), (xx, xy, yy)


def _expect(moments: np.ndarray, parameters: _Parameters) -> tuple[np.ndarray, np.ndarray]:
    """log(weight · density), ``(κ, n)``, and its log-sum over the components, ``(n,)``."""
    weights, (mean_x, mean_y), (xx, xy, yy) = parameters
    # Cholesky factor of the covariance, and the point in its coordinates: u = L⁻¹ (p - mean).
    l_xx = np.sqrt(xx)
    l_xy = xy / l_xx
    l_yy = np.sqrt(yy - l_xy * l_xy)
    zero = np.zeros_like(l_xx)
    whiten = np.stack(
        [
            np.concatenate([-mean_x / l_xx, (l_xy * mean_x / l_xx - mean_y) / l_yy]),
            np.concatenate([1 / l_xx, -l_xy / (l_xx * l_yy)]),
            np.concatenate([zero, 1 / l_yy]),
        ]
    )  # (3, 2κ)
    u = whiten.T @ moments[:3]
    u *= u
    half = len(weights)
    log_joint = u[:half] + u[half:]
    log_joint *= -0.5
    log_joint += (np.log(weights) - np.log(2 * np.pi * l_xx * l_yy))[:, None]
    highest = log_joint.max(axis=0)
    return log_joint, highest + np.log(np.exp(log_joint - highest).sum(axis=0))


def fit_mixture_scikit_learn(points_xy: np.ndarray, components: int, seed: int, em: EM = _DEFAULT) -> Mixture:
    """The same by scikit-learn, its own k-means start included: the paper's letter, about five times slower."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(components, max_iter=em.max_iter, tol=em.tol, reg_covar=em.reg_covar, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `Mixture.converged` tells
        labels = model.fit_predict(points_xy)
    return Mixture(
        labels=labels,
        weights=model.weights_,
        means=model.means_,
        covariances=model.covariances_,
        bound=float(model.lower_bound_),
        iterations=model.n_iter_,
        converged=model.converged_,
    )
