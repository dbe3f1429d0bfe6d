"""Bands that a teacher needs and a scene has not: derived from those that it has.

Landsat has no red edge. Where a recipe says so (a scene's ``derive``), it is what the other bands
lead one to expect, by a fit over the scenes that have them all. The network itself never sees it:
it is for the teacher, whose answer is then as good as the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import TrainingError
from geoseg.training.scenes import TrainingScene

__all__ = ["derive_bands"]

#: Pixels that are taken of a scene.
SAMPLE = 4000
#: Of the squared coefficients, against the squared error of a pixel: terms that hardly differ in
#: the sample share what they explain.
RIDGE = 1e-3


def derive_bands(scenes: Sequence[TrainingScene], bands: Sequence[str], own: int) -> None:
    """Fill the derived bands of scenes, in place.

    In log(50 x + 1) of reflectance x, in which spectra are about normally distributed, a band is a
    polynomial of second degree of the recipe's own bands, fitted by least squares.

    Args:
        scenes: all of them.
        bands: names of the scenes' bands; the recipe's own come first.
        own: how many are the recipe's own.

    Raises:
        TrainingError: no scene has all bands.
    """
    asking = [scene for scene in scenes if scene.config.derive]
    if not asking:
        return
    whole = [scene for scene in scenes if not scene.config.derive]
    samples = [_sample(scene, number) for number, scene in enumerate(whole)]
    if not samples:
        raise TrainingError(
            f"{asking[0].config.path}: derive names {', '.join(asking[0].config.derive)}, and no "
            f"scene of the recipe has them, so nothing is known of them; add one that has"
        )
    values = np.concatenate(samples, axis=1)
    terms = _terms(values[:own])
    weights = np.linalg.solve(
        terms @ terms.T + RIDGE * terms.shape[1] * np.eye(len(terms)), terms @ values[own:].T
    )
    for scene in asking:
        for rows in scene.strips():
            known = _logarithm(scene, slice(own), rows)
            guess = np.expm1((weights.T @ _terms(known.reshape(own, -1))).clip(0, 5)) / 50
            for place, name in enumerate(bands[own:]):
                if name in scene.config.derive:
                    _write(scene, own + place, rows, guess[place].reshape(known.shape[1:]))


def _sample(scene: TrainingScene, number: int) -> NDArray[np.float64]:
    """Take some measured pixels of a scene, (C, N), in the logarithm."""
    rng = np.random.default_rng([7, number])
    places = np.flatnonzero(scene.measured)
    places = rng.choice(places, min(SAMPLE, len(places)), replace=False)
    rows, cols = np.divmod(np.sort(places), scene.shape[1])
    numbers = scene.pixels[:, rows, cols].astype(np.float64)
    return _log(numbers * scene.gain[:, None] + scene.bias[:, None])


def _logarithm(scene: TrainingScene, bands: slice, rows: slice) -> NDArray[np.float64]:
    numbers = scene.pixels[bands, rows].astype(np.float64)
    return _log(numbers * scene.gain[bands, None, None] + scene.bias[bands, None, None])


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log1p(50 * x.clip(0, 2)))


def _terms(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make 1, the bands and their products of two: (1 + C + C (C + 1) / 2, N)."""
    first, second = np.triu_indices(len(x))
    return np.concatenate([np.ones((1, x.shape[1])), x, x[first] * x[second]])


def _write(scene: TrainingScene, place: int, rows: slice, values: NDArray[np.float64]) -> None:
    """Write physical values as the scene's numbers."""
    numbers = (values - scene.bias[place]) / scene.gain[place]
    if np.issubdtype(scene.pixels.dtype, np.integer):
        limits = np.iinfo(scene.pixels.dtype)
        numbers = np.rint(numbers).clip(limits.min, limits.max)
    scene.pixels[place, rows] = numbers.astype(scene.pixels.dtype)
