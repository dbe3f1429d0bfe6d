"""Tapers: the weights by which overlapping chips are blended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import UsageError

__all__ = ["TAPERS", "axis_weights"]

FloatArray = NDArray[np.float32]


def _cosine(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(0.5 * np.pi * np.clip(distance / ramp, 0.0, 1.0)) ** 2)


def _linear(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.clip(distance / ramp, 0.0, 1.0)


def _gaussian(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    # Sigma is an eighth of the side, as in nnU-Net's and MONAI's importance maps.
    return np.asarray(np.exp(-0.5 * ((side / 2 - np.minimum(distance, side / 2)) * 8 / side) ** 2))


def _none(distance: NDArray[np.float64], ramp: float, side: int) -> NDArray[np.float64]:
    return np.ones_like(distance)


#: Weight along one axis by the distance (px, from a pixel's centre) to the nearest inner edge of
#: the chip, less the margin; ``ramp`` is the px over which it rises, ``side`` the chip's length.
TAPERS: dict[str, Callable[[NDArray[np.float64], float, int], NDArray[np.float64]]] = {
    "cosine": _cosine,
    "linear": _linear,
    "gaussian": _gaussian,
    "none": _none,
}


def axis_weights(
    starts: list[int], chip: int, length: int, *, taper: str = "cosine", margin: int = 0
) -> list[FloatArray]:
    """The weights of each chip along one axis; they add up to 1 at every pixel.

    Args:
        starts: first pixel of each chip, ascending.
        chip: pixels of a chip along this axis.
        length: pixels of the scene along this axis.
        taper: a key of :data:`TAPERS`.
        margin: outermost pixels at a chip's inner edges that get no weight wherever another chip
            covers them better. With the taper ``none`` every chip counts alike.

    Returns:
        One float32 (chip,) array a chip; pixels beyond the scene have weight 0.

    Raises:
        UsageError: the taper is unknown.
    """
    if taper not in TAPERS:
        raise UsageError(f"taper is {taper!r}; it must be one of {', '.join(TAPERS)}")
    last = len(starts) - 1
    raw: list[NDArray[np.float64]] = []
    for i, start in enumerate(starts):
        pixel = np.arange(chip) + 0.5
        # The scene's own edge is no seam: no chip sees more there, so it doesn't count.
        left = pixel if i > 0 else np.full(chip, np.inf)
        right = chip - pixel if i < last else np.full(chip, np.inf)
        neighbours = [starts[j] for j in (i - 1, i + 1) if 0 <= j <= last]
        shared = min((chip - abs(start - other) for other in neighbours), default=chip)
        # A margin that leaves nothing of the overlap would leave pixels without any chip.
        inner = max(0, min(margin, (shared - 1) // 2)) if taper != "none" else 0
        distance = np.minimum(left, right) - inner
        weight = TAPERS[taper](np.maximum(distance, 0.0), max(shared - 2.0 * inner, 1.0), chip)
        weight = np.where(distance > 0, weight, 0.0)
        weight[max(0, length - start) :] = 0.0
        raw.append(weight)
    total = np.zeros(max(length, starts[-1] + chip))
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + chip] += weight
    total[length:] = 1.0
    return [
        (weight / total[start : start + chip]).astype(np.float32)
        for start, weight in zip(starts, raw, strict=True)
    ]
