"""Numbers that stand for "not measured" although no tag says so, found in a survey of the scene.

What no ground can have is not ground: -9999, -3.4e38, 1e20. A number is taken for such a fill if it
lies outside of all that the model's quantity can be, and if it, with few others, makes up what lies
there: numbers that were measured, or whose unit is another one, are many and seldom twice the same.
Infinities are never measured, see ``open_bands.py``. Where 0 in all bands could be ground it is
asked about; see ``dark_edges.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geoseg.core.wording import percent
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.survey import Survey

__all__ = ["Fill", "declare", "filled", "find_fill", "said_of_fill"]

#: A fill is seen so often at least, and is this share of what lies on its side of the possible;
#: all of them together are most of it. The rest are mixtures of fill and ground.
LEAST, EACH, TOGETHER = 16, 0.05, 0.75


@dataclass(frozen=True)
class Fill:
    """What no tag declares, and is nodata all the same.

    Attributes:
        numbers: as they stand in the files; 0, where that may be dark ground, only where all bands
            are 0.
        share: of the sampled pixels.
    """

    numbers: tuple[float, ...] = ()
    share: float = 0.0


def find_fill(
    bands: Sequence[SceneBand],
    seen: Survey,
    radiometry: Radiometry,
    possible: tuple[float, float],
    darkest: float,
) -> Fill:
    """Find numbers that can't be ground.

    Args:
        bands: that were chosen.
        seen: of them.
        radiometry: from numbers to the quantity.
        possible: between which numbers of the quantity all ground lies; see
            :func:`geoseg.cards.quantities.possible_range`.
        darkest: of the quantity; no ground is darker in all bands at a time, and none is constant
            below it.
    """
    pixels = seen.all_measured
    if pixels.shape[1] == 0:
        return Fill()
    found: set[float] = set()
    low, high = possible
    for values, gain, bias in zip(pixels, radiometry.gain, radiometry.bias, strict=True):
        quantity = values * gain + bias
        for beyond in (quantity < low, quantity > high, quantity < darkest):
            if beyond.any():
                found.update(_constant(values[beyond]))
    found.update(_too_dark(pixels, radiometry, darkest))
    numbers = tuple(sorted(found))
    if not numbers or filled(pixels, numbers, bands).all():
        return Fill()  # where nothing else is there, nothing says that it is no ground
    return Fill(numbers, float((filled(seen.pixels, numbers, bands) & seen.valid).mean()))


def _constant(values: NDArray[np.generic]) -> list[float]:
    """The few numbers that make up most of these (n,), or none."""
    numbers, counts = np.unique(values, return_counts=True)
    often = counts >= max(LEAST, EACH * len(values))
    if counts[often].sum() < TOGETHER * len(values):
        return []
    return [float(number) for number in numbers[often]]


def _too_dark(pixels: NDArray[np.generic], radiometry: Radiometry, least: float) -> list[float]:
    """Numbers that are below nothing in all bands at a time: mostly 0 that was scaled."""
    first = pixels[0]
    alike = (pixels == first).all(axis=0)
    for gain, bias in zip(radiometry.gain, radiometry.bias, strict=True):
        alike &= first * gain + bias < least
    return _constant(first[alike]) if alike.any() else []


def filled(
    pixels: NDArray[np.generic], numbers: Sequence[float], bands: Sequence[SceneBand]
) -> NDArray[np.bool_]:
    """Find pixels that hold a number in some band, or 0, where that may be dark ground, in all.

    Args:
        pixels: (C, ...), raw numbers.
        numbers: that are looked for.
        bands: the C of them.

    Returns:
        (...), True = found.
    """
    out = np.zeros(pixels.shape[1:], dtype=bool)
    dark = all(band.dark_zeros for band in bands)
    for number in numbers:
        same = pixels == pixels.dtype.type(number)
        out |= same.all(axis=0) if number == 0 and dark else same.any(axis=0)
    return out


def declare(
    bands: Sequence[SceneBand], seen: Survey, fill: Fill
) -> tuple[tuple[SceneBand, ...], Survey]:
    """Have numbers taken for nodata wherever bands are read, and in what was seen of them.

    Args:
        bands: of the scene.
        seen: of them.
        fill: what was found.
    """
    if not fill.numbers:
        return tuple(bands), seen
    declared = tuple(replace(band, fills=fill.numbers) for band in bands)
    return declared, seen.without(lambda sample: filled(sample.pixels, fill.numbers, bands))


def said_of_fill(fill: Fill, quantity: str, bands: Sequence[SceneBand]) -> list[str]:
    """Say what was taken for nodata.

    Args:
        fill: what was found.
        quantity: the model's.
        bands: in which.

    Returns:
        A line, or none.
    """
    if not fill.numbers:
        return []
    zero = "0 in all bands" if all(band.dark_zeros for band in bands) else "0"
    listed = ", ".join(zero if n == 0 else f"{n:.8g}" for n in fill.numbers)
    are = "is" if len(fill.numbers) == 1 else "are"
    return [
        f"{listed} {are} taken as nodata, though no tag says so: no ground has it as {quantity}; "
        f"that is {percent(fill.share)} of the scene (--src-nodata declares another number)"
    ]
