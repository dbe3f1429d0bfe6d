"""How long maps take and how large they are: from maps that there are, or from probes.

A number is taken to be a fixed one for each scene, and one for each of its pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Line", "Measured", "Rates"]

#: Sizes that differ by less, as a share of their mean, say nothing of what a scene of none takes.
SPREAD = 0.25


@dataclass(frozen=True)
class Line:
    """What grows with the pixels.

    Attributes:
        fixed: of each scene.
        of_a_pixel: of each pixel, besides.
    """

    fixed: float
    of_a_pixel: float

    def at(self, pixels: float) -> float:
        """What a scene of so many pixels takes."""
        return self.fixed + self.of_a_pixel * pixels


@dataclass(frozen=True)
class Rates:
    """What scenes take.

    Attributes:
        seconds: of a worker.
        bytes: of all files.
        words: from what this is known.
    """

    seconds: Line
    bytes: Line
    words: str


@dataclass
class _Sums:
    """Of pairs of pixels and another number, so that none of them has to be kept."""

    count: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        self.count += 1
        self.x, self.y = self.x + x, self.y + y
        self.xx, self.xy = self.xx + x * x, self.xy + x * y

    def line(self) -> Line:
        """The line of least squares of which neither number is negative."""
        mean = self.x / self.count
        variance = max(0.0, self.xx / self.count - mean * mean)
        if math.sqrt(variance) < SPREAD * mean:
            return Line(0.0, self.y / self.x)
        slope = (self.xy / self.count - mean * self.y / self.count) / variance
        if slope <= 0:
            return Line(self.y / self.count, 0.0)
        fixed = self.y / self.count - slope * mean
        return Line(fixed, slope) if fixed >= 0 else Line(0.0, self.xy / self.xx)


@dataclass
class Measured:
    """Maps that were made: how large they are, how long they took."""

    seconds: _Sums = field(default_factory=_Sums)
    bytes: _Sums = field(default_factory=_Sums)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.seconds.count

    def add(self, pixels: int, seconds: float, size: int) -> None:
        """Add a map.

        Args:
            pixels: of it, at least 1.
            seconds: that it took.
            size: of all its files, bytes.
        """
        self.seconds.add(pixels, seconds)
        self.bytes.add(pixels, size)

    def rates(self, words: str) -> Rates:
        """What others are to be expected to take.

        Args:
            words: from what this is known.
        """
        return Rates(self.seconds.line(), self.bytes.line(), words)
