"""Tapers: the weights by which overlapping chips are blended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    starts: Sequence[int], chip: int, length: int, *, taper: str = "cosine", inner: int = 0
) -> list[FloatArray]:
    """The weights of each chip along one axis; they add up to 1 at every pixel.

    What a chip weighs at a pixel depends on its place and its neighbours' alone, and not on how
    many chips there are.

    Args:
        starts: first pixel of each chip, ascending; they may lie before the part.
        chip: pixels of a chip along this axis.
        length: pixels of the part along this axis.
        taper: a key of :data:`TAPERS`.
        inner: outermost pixels of a chip that get no weight where there is another chip. At the
            ground's ends there is none, and they do.

    Returns:
        One float32 (chip,) array a chip; pixels beyond the part have weight 0.

    Raises:
        UsageError: the taper is unknown.
    """
    if taper not in TAPERS:
        raise UsageError(f"taper is {taper!r}; it must be one of {', '.join(TAPERS)}")
    pixel = np.arange(chip) + 0.5
    edge = np.minimum(pixel, chip - pixel)
    shared = chip - (starts[1] - starts[0]) if len(starts) > 1 else chip
    weight = TAPERS[taper](np.maximum(edge - inner, 0.0), max(shared - 2.0 * inner, 1.0), chip)
    weight = np.where(edge > inner, weight, 0.0)
    low, high = min(starts[0], 0), max(starts[-1] + chip, length)
    total, best = np.zeros(high - low), np.zeros(high - low)
    for start in starts:
        here = slice(start - low, start - low + chip)
        total[here] += weight
        best[here] = np.maximum(best[here], edge)
    found: list[FloatArray] = []
    for start in starts:
        here = slice(start - low, start - low + chip)
        # Where no chip has a weight, the one whose edges are farthest away is taken.
        alone = np.where(edge == best[here], 1.0, 0.0)
        share = np.where(total[here] > 0, weight, alone)
        share /= np.where(total[here] > 0, total[here], 1.0)
        share[: max(0, -start)] = 0.0
        share[max(0, length - start) :] = 0.0
        found.append(share.astype(np.float32))
    return found
