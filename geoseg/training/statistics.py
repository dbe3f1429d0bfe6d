"""Means and spreads of bands, measured on the training side, and a normalization of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import Normalization
from geoseg.cards.taught import PIXELS
from geoseg.errors import TrainingError
from geoseg.training.scenes import TrainingScene
from geoseg.training.split import TRAIN

__all__ = ["band_statistics", "measure_normalization", "taught_pixels"]


def measure_normalization(
    scenes: Sequence[TrainingScene],
    bands: int,
    kind: str,
    clip: tuple[float, float] | None,
) -> Normalization:
    """Take a normalization's parameters from the training side, each scene counting the same.

    All measured pixels of the training side count, labelled or not, and no others: nodata would
    pull the mean down, and held-out pixels are not to be known.

    Args:
        scenes: all of them.
        bands: how many, from the first, the network sees.
        kind: ``z-score``, or ``log-logistic``: of the mean m and standard deviation s of
            y = log(50 x + 1), with center = m - s and spread = 5 s, so that the input becomes
            sigmoid((y - m) / s).
        clip: (low, high) for the quantity, or None.

    Raises:
        TrainingError: no pixel is valid, a band never changes, or the kind can't be measured.
    """
    if kind not in ("z-score", "log-logistic"):
        raise TrainingError(f"normalization is {kind!r}; training measures z-score or log-logistic")

    def change(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x.clip(*clip) if clip else x
        return np.log1p(50.0 * x) if kind == "log-logistic" else x

    mean, deviation = band_statistics(scenes, bands, change)
    if not np.isfinite(mean).all():
        raise TrainingError(
            "the training scenes hold numbers for which log(50 x + 1) is none: the quantity is no "
            "reflectance; give clip = [0.0, 2.0] or normalization = 'z-score'"
        )
    if not (deviation > 0).all():
        raise TrainingError(
            f"bands {np.flatnonzero(~(deviation > 0)).tolist()} hold one value in all training "
            f"scenes; a band that never changes teaches nothing: leave it out"
        )
    values = (
        {"center": mean - deviation, "spread": 5.0 * deviation}
        if kind == "log-logistic"
        else {"mean": mean, "stddev": deviation}
    )
    # Six digits are more than the data know, and keep the card readable.
    parameters = {k: tuple(float(f"{x:.6g}") for x in v) for k, v in values.items()}
    return Normalization(kind, parameters, clip)


def band_statistics(
    scenes: Sequence[TrainingScene],
    bands: int,
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda x: x,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure mean and deviation of each band on the training side, each scene counting the same.

    Args:
        scenes: all of them.
        bands: how many, from the first.
        change: applied to the values before.

    Returns:
        Two float64 (C,).

    Raises:
        TrainingError: no pixel of the training side is measured.
    """
    means, squares = [], []
    for scene in scenes:
        pixels, total, square = 0, np.zeros(bands), np.zeros(bands)
        gain = scene.gain[:bands, None].astype(np.float64)
        bias = scene.bias[:bands, None].astype(np.float64)
        for rows in scene.strips():
            keep = scene.measured[rows] & (scene.sides[rows] == TRAIN)
            x = change(scene.pixels[:bands, rows][:, keep].astype(np.float64) * gain + bias)
            pixels += x.shape[1]
            total += x.sum(axis=1)
            square += (x**2).sum(axis=1)
        if pixels:
            means.append(total / pixels)
            squares.append(square / pixels)
    if not means:
        raise TrainingError("no pixel of the training side is measured; look at nodata and split")
    mean = np.mean(means, axis=0)
    return mean, np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0.0))


def taught_pixels(scenes: Sequence[TrainingScene], bands: int) -> list[NDArray[np.float64]]:
    """Take pixels of the training side, evenly all over each scene.

    Args:
        scenes: all of them.
        bands: how many, from the first.

    Returns:
        (C, n) of each scene, of the quantity.
    """
    found = []
    for scene in scenes:
        masks = [scene.measured[r] & (scene.sides[r] == TRAIN) for r in scene.strips()]
        step = max(1, sum(int(mask.sum()) for mask in masks) // PIXELS)
        gain = scene.gain[:bands, None].astype(np.float64)
        bias = scene.bias[:bands, None].astype(np.float64)
        parts = [
            scene.pixels[:bands, rows][:, keep][:, ::step].astype(np.float64) * gain + bias
            for rows, keep in zip(scene.strips(), masks, strict=True)
        ]
        found.append(np.concatenate(parts, axis=1))
    return found
