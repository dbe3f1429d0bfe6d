"""What a user may ask of polygons; and how their rings are made, in pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from geoseg.cards.legend import ClassInfo
from geoseg.errors import UsageError

__all__ = ["METHODS", "MOST_POLYGONS", "MOST_THREADS", "PolygonOptions", "RingOptions", "by_id"]

#: Of simplification.
METHODS = ("visvalingam", "douglas-peucker")
#: Threads that are of use.
MOST_THREADS = 4
#: More polygons than this are not made unless asked for.
MOST_POLYGONS = 10_000_000


@dataclass(frozen=True)
class PolygonOptions:
    """How polygons are made of a class raster.

    Classes are named by their ids or names.

    Attributes:
        connectivity: 4; or 8, where pixels of a class that meet at a corner are one feature, of
            several parts.
        min_area: square metres, geodesic; regions below it go to the neighbour whose class has the
            highest mean probability over their pixels, or without probabilities to the one with
            which they share the longest border; the smallest first, until none is left. A region
            surrounded by nodata stays. One number, or class -> number. Measured before
            ``simplify`` and ``smooth``, after which a polygon may be somewhat smaller.
        min_hole: square metres, geodesic; regions that fill a hole of another one go to it when
            the hole is smaller than this. One number, or class of the other one -> number. A hole
            with nodata in it stays.
        sieve: regions of fewer pixels than this go to a neighbour, as with ``min_area``.
        simplify: tolerance, metres on the ground (see ``units``), 0 for the exact pixel borders.
            Borders stay shared, none cross and no polygon vanishes. Borders to nodata and to the
            scene's edge stay as they are, so that neighbouring scenes fit.
        algorithm: ``visvalingam`` (Visvalingam and Whyatt 1993: a corner goes when the triangle it
            makes is smaller than the tolerance squared) or ``douglas-peucker`` (1973: what lies
            nearer to the line than the tolerance goes).
        smooth: how often corners are cut (Chaikin 1974), each cut within half a pixel.
        units: of ``simplify``: ``m`` or ``px``.
        only: classes whose polygons are wanted; None for all. The others are still
            neighbours: they take what is small, and their borders are simplified.
        merge: class -> the class that it is made part of, before anything else.
        threads: in all; with 1 everything is done in the caller's. 0 for one a processor, up to
            four: a third of the work (reading, joining, writing) is always the caller's.
        strip_rows: rows of a strip; 0 for about two million pixels.
        most: more polygons than this are refused: beforehand, or where small ones are merged as
            soon as more are made. A part of a feature is one, too.
    """

    connectivity: int = 4
    min_area: float | Mapping[int | str, float] = 0.0
    min_hole: float | Mapping[int | str, float] = 0.0
    sieve: int = 0
    simplify: float = 0.0
    algorithm: str = METHODS[0]
    smooth: int = 0
    units: str = "m"
    only: Sequence[int | str] | None = None
    merge: Mapping[int | str, int | str] = field(default_factory=dict)
    threads: int = 1
    strip_rows: int = 0
    most: float = MOST_POLYGONS

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            UsageError: a value is outside its range.
        """
        numbers: list[tuple[str, float]] = [("simplify", self.simplify)]
        for name in ("min_area", "min_hole"):
            value = getattr(self, name)
            each = value.values() if isinstance(value, Mapping) else (value,)
            numbers += [(name, number) for number in each]
        for name, number in numbers:
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"{name} is {number}; it must be a finite number of at least 0")
        for name, value, allowed in (
            ("connectivity", self.connectivity, (4, 8)),
            ("algorithm", self.algorithm, METHODS),
            ("units", self.units, ("m", "px")),
        ):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}; it is one of {allowed}")
        for name, most in (("sieve", 1 << 40), ("smooth", 5), ("threads", 256)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 0 to {most}")

    @property
    def metric(self) -> list[str]:
        """The options in use that are in metres."""
        used = [("simplify", self.simplify if self.units == "m" else 0)]
        used += [(name, getattr(self, name)) for name in ("min_area", "min_hole")]
        return [
            name
            for name, value in used
            if (any(value.values()) if isinstance(value, Mapping) else value)
        ]


@dataclass(frozen=True)
class RingOptions:
    """How rings are made, in pixels.

    Attributes:
        connectivity: 4, or 8: what meets at corners only is one feature of several parts.
        tolerance: of simplification, px; 0 for none.
        method: of METHODS.
        smooth: how often corners are cut.
        reverse: have exterior rings run clockwise where rows go up, not down.
    """

    connectivity: int = 4
    tolerance: float = 0.0
    method: str = METHODS[0]
    smooth: int = 0
    reverse: bool = False


def by_id(options: PolygonOptions, legend: Sequence[ClassInfo], path: str | Path) -> PolygonOptions:
    """Give the options with ids in place of classes' names.

    Raises:
        UsageError: a class is not in the legend.
    """
    ids = {str(c.id): c.id for c in legend} | {c.name: c.id for c in legend}

    def one(name: int | str) -> int:
        if str(name) not in ids:
            raise UsageError(
                f"there is no class {name!r} in the legend of {path}, which has "
                f"{', '.join(f'{c.id} {c.name}' for c in legend)}"
            )
        return ids[str(name)]

    def each(option: float | Mapping[int | str, float]) -> float | Mapping[int | str, float]:
        return {one(k): v for k, v in option.items()} if isinstance(option, Mapping) else option

    return replace(
        options,
        min_area=each(options.min_area),
        min_hole=each(options.min_hole),
        only=None if options.only is None else [one(name) for name in options.only],
        merge={one(name): one(other) for name, other in options.merge.items()},
    )
