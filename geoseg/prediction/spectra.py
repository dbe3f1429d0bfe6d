"""What a scene's reflectance speaks for: the order of its bands, and their offset.

What grounds reflect is distinguished from other orders of the same bands by a mixture of normal
distributions, of log(50 x reflectance + 1) in six bands. It was fitted to pixels of some 150 real
scenes of Sentinel-2 and Landsat, of all biomes (``benchmarks/spectra.py``, which also measures how
often a sound order is doubted, and a wrong one found). A scene's bands are doubted only where one
of the orders that people get wrong is far likelier, and is likely at all; so is their offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "Likelier", "Mixture", "likelier", "mixture", "transformed", "unlike"]

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
#: Other bands that reflect as one of these does.
ALIKE = {"nir08": "nir"}
#: Orders that are mistaken for that of :data:`BANDS`, or for what is left of it without bands that
#: a scene does not have: as displayed, by the names of files (B11 before B2), backwards,
#: colour-infrared and what follows it, and with the last ones changed.
MISTAKEN: tuple[tuple[str, ...], ...] = (
    ("red", "green", "blue", "nir", "swir1", "swir2"),
    ("swir1", "swir2", "blue", "green", "red", "nir"),
    ("swir2", "swir1", "nir", "red", "green", "blue"),
    ("nir", "red", "green", "blue", "swir1", "swir2"),
    ("nir", "blue", "green", "red", "swir1", "swir2"),
    ("blue", "green", "red", "swir1", "swir2", "nir"),
    ("blue", "green", "red", "nir", "swir2", "swir1"),
)
#: What takes off an offset that was left in: that of Sentinel-2 since baseline 04.00. Where it was
#: taken off twice, numbers below 0 say so; snow in low sun looks as if it had been.
SHIFTS = (-0.1,)
#: Mean log-likelihoods: another order must be so much likelier, and have this much a band itself.
#: With these none of the 150 scenes is doubted by a mixture that other places were fitted to.
LIKELIER, LIKELY = 1.3, -0.5
#: What no ground gives counts as this unlikely, so that a few pixels do not decide.
LEAST = -60.0
#: Log-likelihood below which half a percent of the fitted pixels lie.
STRANGE = -6.0
#: Pixels that are looked at; more change the mean by less than 0.1.
MOST = 1000


@dataclass(frozen=True)
class Mixture:
    """A mixture of M normal distributions in d dimensions.

    Attributes:
        weights: (M,), of sum 1.
        means: (M, d).
        covariances: (M, d, d).
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]

    def only(self, dimensions: Sequence[int]) -> Mixture:
        """Take some of the dimensions, in this order."""
        picked = list(dimensions)
        return Mixture(
            self.weights,
            self.means[:, picked],
            self.covariances[:, picked][:, :, picked],
        )

    def log_density(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the natural logarithm of the density.

        Args:
            points: (n, d).

        Returns:
            (n,).
        """
        parts = []
        for weight, mean, covariance in zip(
            self.weights, self.means, self.covariances, strict=True
        ):
            lower = np.linalg.cholesky(covariance)
            away = np.linalg.solve(lower, (points - mean).T)
            scale = np.log(np.diag(lower)).sum() + len(mean) / 2 * np.log(2 * np.pi)
            parts.append(np.log(weight) - scale - 0.5 * (away**2).sum(axis=0))
        return np.asarray(np.logaddexp.reduce(parts, axis=0))

    def mean_log_density(self, points: NDArray[np.float64]) -> float:
        """Give the mean of it over (n, d) points, none of which counts below :data:`LEAST`."""
        return float(np.maximum(self.log_density(points), LEAST).mean())


@cache
def mixture() -> Mixture:
    """Read the mixture that was fitted, of :data:`BANDS` in their order."""
    text = Path(__file__).with_name("spectra.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    arrays = (np.array(found[key], np.float64) for key in ("weights", "means", "covariances"))
    return Mixture(*arrays)


def transformed(reflectance: NDArray[Any]) -> NDArray[np.float64]:
    """Turn reflectance (d, n) into points (n, d) of the mixture."""
    return np.log(np.maximum(50.0 * reflectance.astype(np.float64), -0.5) + 1.0).T


@dataclass(frozen=True)
class Likelier:
    """What a scene's numbers rather are.

    Attributes:
        names: what each band rather is, in the order in which they were given.
        shift: that makes the reflectance likely: 0, or that of an offset.
    """

    names: tuple[str, ...]
    shift: float


def likelier(reflectance: NDArray[Any], names: Sequence[str]) -> Likelier | None:
    """Find whether a scene's bands rather lie in another order, or an offset is wrong.

    Args:
        reflectance: (C, n), of pixels from all over the scene.
        names: what the bands are said to be.

    Returns:
        None where the numbers are as likely as they are, or where fewer than three of the bands
        are known here.
    """
    known = [ALIKE.get(name, name) for name in names]
    slots = [i for i, name in enumerate(known) if name in BANDS]
    own = tuple(known[i] for i in slots)
    if len(own) < 3 or len(set(own)) < len(own) or reflectance.shape[1] == 0:
        return None
    step = -(-reflectance.shape[1] // MOST)
    seen = reflectance[slots, ::step]

    def score(order: Sequence[str], shift: float = 0.0) -> float:
        order_only = mixture().only([BANDS.index(name) for name in order])
        return order_only.mean_log_density(transformed(seen + shift))

    tried = [(order, 0.0) for order in _mistaken(own)] + [(own, shift) for shift in SHIFTS]
    likely, best, shift = max((score(*each), *each) for each in tried)
    if likely - score(own) < LIKELIER or likely < LIKELY * len(own):
        return None
    said = dict(zip(own, (names[i] for i in slots), strict=True))
    found = list(names)
    for slot, name in zip(slots, best, strict=True):
        found[slot] = said[name]
    return Likelier(tuple(found), shift)


def unlike(reflectance: NDArray[Any], names: Sequence[str]) -> float | None:
    """Measure which share of a scene's pixels is unlike all ground that the mixture was fitted to.

    Args:
        reflectance: (C, n), of pixels from all over the scene.
        names: of the bands.

    Returns:
        0 to 1; None where not all six bands are there.
    """
    known = [ALIKE.get(name, name) for name in names]
    if not set(BANDS) <= set(known) or reflectance.shape[1] == 0:
        return None
    step = -(-reflectance.shape[1] // MOST)
    slots = [known.index(name) for name in BANDS]
    return float((mixture().log_density(transformed(reflectance[slots, ::step])) < STRANGE).mean())


def _mistaken(own: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """What the bands may really be that are said to be these: each order but the same, once."""
    usual = [name for name in BANDS if name in own]
    orders = dict.fromkeys(tuple(n for n in order if n in own) for order in MISTAKEN)
    for order in orders:
        really = dict(zip(usual, order, strict=True))
        if any(a != b for a, b in really.items()):
            yield tuple(really[name] for name in own)
