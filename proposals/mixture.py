"""Gaussian mixture over keypoint positions: expectation maximisation in closed form for two dimensions.

Algorithm, initialisation, stopping rule and defaults are those of scikit-learn's ``GaussianMixture`` with full
covariances, which remains available and is the reference in the tests. Each half of an iteration is one matrix product
with the points' monomials 1, x, y, x², y², xy, without the Python overhead that takes most of scikit-learn's time on a
few hundred points. For a thin or nearly empty component, such sums lose too many digits to cancellation. These few
`tight` components are computed from the points' offsets from their mean, as scikit-learn computes all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .settings import EM

# scikit-learn's guard against a component without any responsibility.
_SMALLEST_MASS = 10 * np.finfo(np.float64).eps
# A component's scatter Σ r (p - mean)² is the difference of sums as large as Σ p² over all points, which are rounded to
# eps of that: from this much scatter on, it has nine digits. Fewer would not suffice, as a collapse was seen to
# multiply an error by 45 per iteration. An eighth of the points of a 224 pixel image is tight below about 0.06 square
# pixels.
_RESOLVED = 1e9 * np.finfo(np.float64).eps
# If a sum exceeds this, terms of it that underflow are below its rounding error.
_SMALLEST_EVIDENCE = 1e-280


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of κ Gaussians in the plane, and the most likely component of each point."""

    labels: np.ndarray  #: int64 ``(n,)``
    weights: np.ndarray  #: float64 ``(κ,)``, sum 1
    means: np.ndarray  #: float64 ``(κ, 2)``
    covariances: np.ndarray  #: float64 ``(κ, 2, 2)``
    bound: float  #: mean log-likelihood of a point at the start of the last iteration
    iterations: int
    converged: bool


_DEFAULT = EM()


def initial_labels(points_xy: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Labels from one run of k-means with k-means++ start, as in scikit-learn's mixture. ``(n, 2)`` -> int ``(n,)``."""
    cv2.setRNGSeed(seed & 0x7FFFFFFF)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 300, 1e-2)
    _, labels, _ = cv2.kmeans(  # type: ignore[call-overload] # the stubs do not allow None for the start
        points_xy.astype(np.float32), components, None, stop, 1, cv2.KMEANS_PP_CENTERS
    )
    return labels.ravel()


def fit_mixture(points_xy: np.ndarray, labels: np.ndarray, components: int, em: EM = _DEFAULT) -> Mixture:
    """Fit κ Gaussians with full covariance, starting from hard ``labels``.

    Args:
        points_xy: float64 points ``(n, 2)``, n ≥ κ; duplicates and collinear points are allowed.
        labels: Initial labels ``(n,)`` in 0..κ-1.
        components: Number of components, κ.
        em: Stopping rule and regularisation.
    """
    # Not centred: scikit-learn's guard pulls the mean of a nearly empty component to the origin.
    x, y = points_xy.T.copy()
    one, xx, yy, xy = np.ones_like(x), x * x, y * y, x * y
    moments = np.array([one, x, y, xx, yy, xy])
    # x and y are swapped, as on the diagonal of the inverse of a 2 x 2 matrix.
    terms = np.array([one / 2, y, x, yy / -2, xx / -2, xy])
    resolved = _RESOLVED * moments[3:5].sum()
    log_scale = float(np.log(2 * np.pi * len(x)))
    responsibilities = np.eye(components)[:, labels]  # (κ, n)

    bound, converged = -np.inf, False
    fitted = _maximise(moments, responsibilities, em.reg_covar, resolved)
    for iteration in range(1, em.max_iter + 1):  # noqa: B007
        previous = bound
        log_joint = _log_joint(terms, fitted)
        joint = np.exp(log_joint)
        evidence = joint.sum(axis=0)
        factored_out = log_scale
        if evidence.min() < _SMALLEST_EVIDENCE:  # a point is about 35 standard deviations from every component
            highest = log_joint.max(axis=0)
            joint = np.exp(log_joint - highest)
            evidence = joint.sum(axis=0)
            factored_out -= highest.mean()
        bound = float(np.log(evidence).sum() / len(x) - factored_out)
        joint /= evidence
        fitted = _maximise(moments, joint, em.reg_covar, resolved)
        if abs(bound - previous) < em.tol:
            converged = True
            break

    xx, yy, xy = fitted.covariances
    return Mixture(
        labels=_log_joint(terms, fitted).argmax(axis=0),
        weights=fitted.masses / fitted.masses.sum(),
        means=fitted.means.T,
        covariances=np.array([xx, xy, xy, yy]).T.reshape(-1, 2, 2),
        bound=bound,
        iterations=iteration,
        converged=converged,
    )


class _Components(NamedTuple):
    masses: np.ndarray  #: ``(κ,)``, weight times n
    means: np.ndarray  #: ``(2, κ)``, x and y
    covariances: np.ndarray  #: ``(3, κ)``, xx, yy, xy
    determinants: np.ndarray  #: ``(κ,)``, determinants of the covariances
    tight: np.ndarray  #: indices of components whose smallest scatter the sums of monomials do not resolve


def _maximise(moments: np.ndarray, responsibilities: np.ndarray, reg_covar: float, resolved: float) -> _Components:
    """Components from the ``moments`` 1, x, y, x², y², xy ``(6, n)``, weighted by ``responsibilities`` ``(κ, n)``.

    A component is tight if its mass times its variance, in the direction of least variance, is below ``resolved``.
    """
    sums = moments @ responsibilities.T
    masses = sums[0] + _SMALLEST_MASS
    sums /= masses
    means, variances = sums[1:3], sums[3:5]
    variances -= means * means
    variances += reg_covar
    xx, yy, xy = sums[3:]
    xy -= means[0] * means[1]
    determinants = xx * yy - xy * xy
    # Determinant / trace is between half the smaller variance and that variance. If rounding makes a variance negative,
    # the determinant is negative, too, or, with both negative, negligible beside the trace.
    tight = np.flatnonzero(masses * determinants <= resolved * np.abs(xx + yy))
    if len(tight):
        dx, dy = moments[1:3, None] - means[:, tight, None]
        share = responsibilities[tight] / masses[tight, None]
        share_dx = share * dx
        xx[tight] = c_xx = (share_dx * dx).sum(axis=1) + reg_covar
        xy[tight] = c_xy = (share_dx * dy).sum(axis=1)
        c_yy = (share * dy * dy).sum(axis=1) + reg_covar
        # For C + reg·I, the Schur complement is at least reg in exact arithmetic; enforcing this bound keeps collinear
        # points positive definite.
        schur = np.maximum(c_yy - c_xy * c_xy / c_xx, reg_covar)
        yy[tight] = c_xy * c_xy / c_xx + schur
        determinants[tight] = c_xx * schur
    return _Components(masses, means, sums[3:], determinants, tight)


def _log_joint(terms: np.ndarray, fitted: _Components) -> np.ndarray:
    """log(2π n · weight · density) ``(κ, n)``: ½ log(mass² / det) - ½ (p - mean)ᵀ C⁻¹ (p - mean).

    Expanded with C⁻¹ = [[yy, -xy], [-xy, xx]] / det, this is the sum of the ``terms`` ½, y, x, -½y², -½x², xy
    ``(6, n)`` times six factors per component.
    """
    masses, means, covariances, determinants, tight = fitted
    factors = np.empty((6, len(masses)))
    squares = np.divide(covariances, determinants, out=factors[3:])
    swapped = means[::-1].copy()
    linear = np.multiply(squares[:2], swapped, out=factors[1:3])  # C⁻¹ mean, y before x
    linear -= squares[2] * means
    log_height = np.log(masses * masses / determinants)
    from_y, from_x = linear * swapped
    factors[0] = log_height - from_x - from_y
    log_joint = factors.T @ terms
    if len(tight):
        dy, dx = terms[1:3, None] - swapped[:, tight, None]
        xx, _, xy = covariances[:, tight, None]
        across = dy - xy / xx * dx
        distances = dx * dx / xx + across * across * xx / determinants[tight, None]
        log_joint[tight] = (log_height[tight, None] - distances) / 2
    return log_joint


def fit_mixture_scikit_learn(points_xy: np.ndarray, components: int, seed: int, em: EM = _DEFAULT) -> Mixture:
    """The same fit by scikit-learn with its own k-means start: literally as in the paper, ten or more times slower."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(components, max_iter=em.max_iter, tol=em.tol, reg_covar=em.reg_covar, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `Mixture.converged` reports it
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
