"""What a network has seen while it was taught: how its bands' numbers lie, as a card keeps it.

Pixels of the taught ground are put into clusters, of each of which mean and covariance are kept.
How far a pixel is from all of them, in deviations (Mahalanobis 1936), says how strange it is; how
many taught pixels are as strange, how far the model can be trusted there. Reflectance is taken as
log(50 x + 1), as :mod:`geoseg.prediction.spectra` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNLIKE", "TaughtGround", "taught_ground"]

#: Less than this share of the taught pixels is as strange as what is called unlike them.
UNLIKE = 0.01
#: Clusters at most, and pixels of a scene; more of either changed nothing that matters.
CLUSTERS, PIXELS = 40, 1000
#: Shares of the taught pixels whose distances are kept.
LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
#: Of each band's variance is added to that of a cluster, so that none is flat.
LEAST_VARIANCE = 1e-2


@dataclass(frozen=True, eq=False)
class TaughtGround:
    """Where the numbers of the taught pixels lie.

    Attributes:
        scenes: that they are of.
        means: (M, C), as :func:`_changed` gives them.
        covariances: (M, C, C).
        distances: of taught pixels to their nearest cluster, in deviations, at :data:`LEVELS`.
    """

    scenes: int
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    distances: NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same."""
        return isinstance(other, TaughtGround) and self.as_json() == other.as_json()

    def __hash__(self) -> int:
        """For sets."""
        return hash((self.scenes, self.distances.tobytes()))

    @cached_property
    def _whitening(self) -> NDArray[np.float64]:
        """Matrices that make a cluster's covariance the unit matrix, (M, C, C)."""
        found: NDArray[np.float64] = np.linalg.inv(np.linalg.cholesky(self.covariances))
        return found

    def applicability(self, values: NDArray[Any], quantity: str) -> NDArray[np.float32]:
        """Give the share of the taught pixels that are at least as strange.

        Args:
            values: (C, n), of the card's quantity.
            quantity: the card's.

        Returns:
            (n,), 0 to 1.
        """
        points = _changed(values, quantity)
        nearest = np.full(len(points), np.inf)
        for mean, white in zip(self.means, self._whitening, strict=True):
            away = (points - mean) @ white.T
            np.minimum(nearest, np.einsum("ij,ij->i", away, away), out=nearest)
        share = np.interp(np.sqrt(nearest), self.distances, 1 - np.array(LEVELS), left=1, right=0)
        return np.asarray(share, np.float32)

    def as_json(self) -> dict[str, Any]:
        """Give it as it stands in a card."""
        return {
            "scenes": self.scenes,
            "distances": self.distances.tolist(),
            "means": self.means.tolist(),
            "covariances": self.covariances.tolist(),
        }

    @classmethod
    def from_json(cls, value: Any) -> TaughtGround:
        """Read it as it stands in a card.

        Raises:
            ValueError: it does not fit together.
        """
        keys = ("means", "covariances", "distances")
        means, covariances, distances = (np.array(value[key], np.float64) for key in keys)
        bands = means.shape[-1]
        if covariances.shape != (len(means), bands, bands) or distances.shape != (len(LEVELS),):
            raise ValueError("means, covariances and distances are of other shapes")
        if not all(np.isfinite(a).all() for a in (means, covariances, distances)):
            raise ValueError("a number is not finite")
        if (np.linalg.eigvalsh(covariances) <= 0).any() or (np.diff(distances) < 0).any():
            raise ValueError("a covariance is none, or distances don't rise")
        return cls(int(value["scenes"]), means, covariances, distances)


def _changed(values: NDArray[Any], quantity: str) -> NDArray[np.float64]:
    """Bring numbers (C, n) to where distances mean something, (n, C)."""
    numbers = values.astype(np.float64)
    if quantity == "reflectance":
        numbers = np.log(np.maximum(50.0 * numbers, -0.5) + 1.0)
    return numbers.T


def taught_ground(scenes: Sequence[NDArray[Any]], quantity: str) -> TaughtGround | None:
    """Learn where the numbers of taught pixels lie; scenes count alike.

    Args:
        scenes: (C, n) each, of the card's quantity; any n.
        quantity: the card's.

    Returns:
        None where there are too few pixels to say.
    """
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(0)
    parts = [
        _changed(s[:, np.sort(rng.choice(s.shape[1], min(PIXELS, s.shape[1]), False))], quantity)
        for s in scenes
        if s.shape[1]
    ]
    points = np.concatenate(parts) if parts else np.zeros((0, 1))
    bands = points.shape[1]
    least = 10 * bands
    if len(points) < least:
        return None
    deviation = np.maximum(points.std(axis=0), 1e-9)
    many = max(1, min(CLUSTERS, len(points) // (5 * least)))
    _, own = kmeans2(points / deviation, many, minit="++", rng=0, iter=20, missing="warn")
    ridge = LEAST_VARIANCE * np.diag(deviation**2)
    groups = [g for g in (points[own == k] for k in range(many)) if len(g) >= 3 * bands]
    means = np.array([g.mean(axis=0) for g in groups or [points]])
    spreads = [np.atleast_2d(np.cov(g.T)) + ridge for g in groups or [points]]
    means, covariances = _rounded(means), _rounded(np.array(spreads))
    found = TaughtGround(len(parts), means, covariances, np.zeros(len(LEVELS)))
    away = [
        np.square((points - m) @ w.T).sum(axis=1)
        for m, w in zip(found.means, found._whitening, strict=True)
    ]
    distances = np.quantile(np.sqrt(np.min(away, axis=0)), LEVELS)
    distances = np.maximum.accumulate(_rounded(distances))
    return TaughtGround(len(parts), means, covariances, distances)


def _rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep five digits: the card stays readable."""
    texts = [float(f"{x:.5g}") for x in numbers.ravel().tolist()]
    return np.array(texts, np.float64).reshape(numbers.shape)
