"""How right a map is, and how large its classes are, from a stratified random sample of points.

The strata are the map's classes: points are drawn at random within each, and someone says what is
really there. Formulas and their numbers are those of Olofsson et al. 2014, "Good practices for
estimating area and assessing accuracy of land change", https://doi.org/10.1016/j.rse.2014.02.015.
The sample is taken as small against the map: there is no correction for a finite population, except
where a class was looked at everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import EvaluationError, UsageError

__all__ = ["Accuracy", "Estimate", "estimate", "sample_size"]

#: Half of a 95 % interval in standard errors.
Z = 1.96

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number, or one a class, estimated from a sample, and how sure it is.

    Attributes:
        value: float64, () or (K,).
        standard_error: float64, () or (K,); NaN where the sample is too small to know it.
    """

    value: Floats
    standard_error: Floats

    @property
    def margin(self) -> Floats:
        """Half of the 95 % interval, 1.96 standard errors."""
        return Z * self.standard_error

    @property
    def low(self) -> Floats:
        """Lower end of the 95 % interval; it may lie below 0, where the normal law fits badly."""
        return self.value - self.margin

    @property
    def high(self) -> Floats:
        """Upper end of the 95 % interval; that of an accuracy may lie above 1."""
        return self.value + self.margin


@dataclass(frozen=True)
class Accuracy:
    """What a sample says of a map of K classes.

    Attributes:
        matrix: (K, K) share of the map's area by map class (rows) and reference class (columns),
            eq. 4; adds up to 1.
        overall: share of the area that is called what it is, eq. 1 and 5.
        users: (K,) of what is called a class, the share that is of it, eq. 2 and 6. NaN for a
            class without mapped area.
        producers: (K,) of what is of a class, the share that is called it, eq. 3 and 7. NaN for a
            class that no point's reference is.
        areas: (K,) area of each reference class, in the unit of the mapped areas, eq. 9 to 11.
    """

    matrix: Floats
    overall: Estimate
    users: Estimate
    producers: Estimate
    areas: Estimate


def estimate(
    counts: NDArray[Any],
    areas: Sequence[float] | NDArray[Any],
    names: Sequence[str] = (),
    *,
    complete: Sequence[bool] | NDArray[np.bool_] | None = None,
) -> Accuracy:
    """Estimate accuracy and areas from a stratified random sample.

    Its strata are the map's classes.

    Args:
        counts: (K, K) whole numbers: points by map class (rows) and reference class (columns).
            ``metrics.confusion`` has truth in rows: give its transpose. A class that is in the
            reference but nowhere on the map has a row of zeros and the area 0.
        areas: (K,) mapped area of each class, in any unit, also as shares or pixels.
        names: (K,) of the classes, for messages.
        complete: (K,) True for a map class whose every pixel is among the points: nothing is left
            to chance there, so its shares have no error, even if it is a single pixel.

    Returns:
        Estimates, standard errors and 95 % intervals. Where a class with mapped area holds a
        single point, the standard errors of its shares are unknown, and all that depends on them
        is NaN. A share of 0 or 1 has the standard error 0, as the formulas have it, however few
        the points.

    Raises:
        EvaluationError: the shapes differ; a number is negative, broken or not finite; a class has
            mapped area and no point, so that nothing is known of that part of the map; a class
            has points and no mapped area; or there is no mapped area.

    Examples:
        Half of the map is water; a quarter of what is called land is water, too:

        >>> found = estimate(np.array([[10, 0], [5, 15]]), [50, 50])
        >>> found.matrix
        array([[0.5  , 0.   ],
               [0.125, 0.375]])
        >>> found.areas.value
        array([62.5, 37.5])
        >>> found.areas.margin.round(2)
        array([9.74, 9.74])
    """
    n, mapped = np.asarray(counts, np.float64), np.asarray(areas, np.float64)
    _check(n, mapped, names)
    total = mapped.sum()
    weight = mapped / total
    there = weight > 0
    share, spread = _shares(n, there)
    if complete is not None:
        spread[np.asarray(complete, bool)] = 0.0
    matrix, cells = weight[:, None] * share, weight[:, None] ** 2 * spread
    hits = np.diag(share)
    return Accuracy(
        matrix,
        Estimate(np.asarray(np.trace(matrix)), np.sqrt(np.asarray(np.trace(cells)))),
        Estimate(np.where(there, hits, np.nan), np.where(there, np.sqrt(np.diag(spread)), np.nan)),
        _producers(matrix, cells),
        Estimate(total * matrix.sum(axis=0), total * np.sqrt(cells.sum(axis=0))),
    )


def _shares(n: Floats, there: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Estimate each map class's shares of the reference classes, (K, K), and their variances.

    Args:
        n: (K, K) points by map class (rows) and reference class (columns).
        there: (K,) whether the class has mapped area.
    """
    points = n.sum(axis=1)[:, None]
    # Rows without mapped area are 0 in every sum, whatever is divided by their 0 points.
    share = _divide(n, points, where=there[:, None], otherwise=0.0)
    # V(share) = share (1 - share) / (points - 1); unknown for a single point.
    spread = _divide(share * (1 - share), points - 1, where=there[:, None], otherwise=0.0)
    return share, spread


def _producers(matrix: Floats, cells: Floats) -> Estimate:
    """Estimate the producer's accuracies, (K,), by eq. 3 and 7.

    Args:
        matrix: (K, K) share of the area by map class (rows) and reference class (columns).
        cells: (K, K) variances of these shares.
    """
    truth = matrix.sum(axis=0)
    producer = _divide(np.diag(matrix), truth, where=truth > 0, otherwise=np.nan)
    others = np.where(np.eye(len(matrix), dtype=bool), 0.0, cells).sum(axis=0)
    variance = _divide(
        (1 - producer) ** 2 * np.diag(cells) + producer**2 * others,
        truth**2,
        where=truth > 0,
        otherwise=np.nan,
    )
    return Estimate(producer, np.sqrt(variance))


def _divide(part: Any, whole: Any, *, where: Any, otherwise: float) -> Floats:
    """Divide; gives ``otherwise`` where not ``where``, and NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(where, np.divide(part, whole), otherwise)


def _check(n: Floats, mapped: Floats, names: Sequence[str]) -> None:
    """Refuse what no estimate can be made of.

    Raises:
        EvaluationError: see :func:`estimate`.
    """
    if mapped.ndim != 1 or not len(mapped) or n.shape != (len(mapped), len(mapped)):
        raise EvaluationError(
            f"the counts have the shape {n.shape} and the mapped areas {mapped.shape}; K classes "
            f"need (K, K) and (K,): give a class that is not mapped the area 0"
        )
    if not (np.isfinite(n).all() and (n >= 0).all() and (n == np.floor(n)).all()):
        raise EvaluationError("the counts must be numbers of points: whole, finite, at least 0")
    if not (np.isfinite(mapped).all() and (mapped >= 0).all() and mapped.sum() > 0):
        raise EvaluationError(
            f"the mapped areas are {mapped.tolist()}; they must be finite and at least 0, and one "
            f"of them above 0"
        )
    named = list(names) or [f"number {i}" for i in range(len(mapped))]
    points = n.sum(axis=1)
    empty = [named[i] for i in np.flatnonzero((mapped > 0) & (points == 0))]
    if empty:
        raise EvaluationError(
            f"no labelled point lies on the class {', '.join(empty)}, which is mapped: nothing is "
            f"known of that part of the map; label at least 2 points on every mapped class (geoseg "
            f"sample draws them)"
        )
    stray = [named[i] for i in np.flatnonzero((mapped == 0) & (points > 0))]
    if stray:
        raise EvaluationError(
            f"points lie on the class {', '.join(stray)}, whose mapped area is 0; counts have map "
            f"classes in rows, and counts and areas must be of one map"
        )


def sample_size(
    areas: Sequence[float] | NDArray[Any],
    users: Sequence[float] | NDArray[Any],
    standard_error: float,
) -> int:
    """Compute the points that a sample needs for a standard error of the overall accuracy.

    n = (sum W S / S(O))^2 with S = sqrt(U (1 - U)): Cochran 1977, eq. 5.25, as eq. 13 of Olofsson
    et al. 2014.

    Args:
        areas: (K,) mapped area of each class, in any unit.
        users: (K,) user's accuracies that are expected, above 0 and at most 1.
        standard_error: of the overall accuracy, above 0 and below 1.

    Returns:
        Points in all, rounded up, at least 1.

    Raises:
        UsageError: a number is outside its range.

    Examples:
        >>> sample_size([0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95], 0.01)
        641
    """
    mapped, expected = np.asarray(areas, np.float64), np.asarray(users, np.float64)
    if not (math.isfinite(standard_error) and 0 < standard_error < 1):
        raise UsageError(
            f"the target standard error is {standard_error}; it must be between 0 and 1, e.g. 0.01"
        )
    if not ((expected > 0) & (expected <= 1)).all():
        raise UsageError(
            f"the expected accuracies are {expected.tolist()}; each must be above 0 and at most 1, "
            f"e.g. 0.8"
        )
    deviation = float((mapped / mapped.sum()) @ np.sqrt(expected * (1 - expected)))
    return max(1, math.ceil((deviation / standard_error) ** 2))
