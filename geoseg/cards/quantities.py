"""What the numbers of a model's quantity may be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geoseg.cards.card import Normalization

__all__ = ["darkest_ground", "possible_counts", "possible_range", "takes_8_bits"]

#: What ground may reflect, glint and the noise of dark water included.
REFLECTANCE = (-0.5, 3.0)
#: In all bands at a time no ground is darker than this.
DARKEST = -0.05
#: Pictures for the screen have 0 to 255; some that were sharpened or scaled go beyond.
SCREEN = (-255.0, 5 * 255.0)
#: Beyond so many times the spread that a model was taught with nothing is a measurement of its.
FAR = 20.0
#: No instrument measures this; and none that counts light has less than 0 by more than this.
NOTHING, DARK = 1e19, -1.0
#: Bands that pictures for the screen have.
OPTICAL = ("red", "green", "blue", "nir", "pan")


def possible_range(
    quantity: str, normalization: Normalization | None = None, bands: Sequence[str] = ()
) -> tuple[float, float]:
    """Find between which numbers all ground lies, in a model's quantity.

    Args:
        quantity: the card's.
        normalization: the card's; None where it isn't known yet.
        bands: the card's.
    """
    if quantity == "reflectance":
        return REFLECTANCE
    if normalization is None:
        return -NOTHING, NOTHING
    if takes_8_bits(quantity, normalization, bands):
        return SCREEN
    spans = _spans(normalization)
    if not spans:
        return -NOTHING, NOTHING
    return (
        min(low - FAR * (high - low) for low, high in spans),
        max(high + FAR * (high - low) for low, high in spans),
    )


def possible_counts() -> tuple[float, float]:
    """Find between which numbers all ground lies where a picture's numbers have no unit."""
    return DARK, NOTHING


def darkest_ground(quantity: str) -> float:
    """Find what all bands are above at a time wherever there is ground, in a model's quantity.

    Args:
        quantity: the card's.
    """
    return DARKEST if quantity == "reflectance" else -math.inf


def takes_8_bits(quantity: str, normalization: Normalization, bands: Sequence[str]) -> bool:
    """Whether a model takes the numbers of pictures for the screen, 0 to 255.

    Args:
        quantity: the card's.
        normalization: the card's.
        bands: the card's.
    """
    spans = _spans(normalization)
    if quantity != "number" or not spans or not set(bands) <= set(OPTICAL):
        return False
    return all(low >= -128 and 40 <= high <= 400 for low, high in spans)


def _spans(normalization: Normalization) -> list[tuple[float, float]]:
    """About what a network was taught with, band by band; none where the card does not say."""
    given = normalization.parameters
    if normalization.kind == "z-score":
        pairs = zip(given["mean"], given["stddev"], strict=True)
        return [(mean - 2 * spread, mean + 2 * spread) for mean, spread in pairs]
    if normalization.kind == "min-max":
        return list(zip(given["minimum"], given["maximum"], strict=True))
    return []
