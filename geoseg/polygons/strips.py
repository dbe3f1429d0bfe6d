"""One strip of a map for itself: its regions, and the pieces of arcs between them.

Nothing here knows of other strips but for the row above, so strips are done on any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.geodesy import Ints
from geoseg.polygons.kernels.arcs import Arcs
from geoseg.polygons.kernels.regions import corner_pairs, label
from geoseg.polygons.kernels.tracing import mark, trace
from geoseg.polygons.options import RingOptions

__all__ = [
    "CodeRows",
    "PaddedStrip",
    "Regions",
    "TracedStrip",
    "padded_strips",
    "trace_strip",
    "with_row_above",
]


class CodeRows(NamedTuple):
    """Rows of a class map.

    Attributes:
        codes: (N, W) uint8, 0 is nodata.
        confidence: (N, W) float32, NaN where unknown; or (0, W).
        probs: (C - 1, N, W) float32, that of codes 1 to C - 1, NaN where unknown; or (0, N, W).
    """

    codes: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probs: NDArray[np.float32]


class Regions(NamedTuple):
    """What is known of regions 1..R; entry 0 is nodata.

    Attributes:
        codes: (R + 1,) uint8.
        pixels: (R + 1, 2) how many, and the number of the first one.
        confidence: (R + 1, 3): sum, number of pixels where it is known, and minimum.
        probs: (R + 1, C) sums of each code's; (R + 1, 0) without.
    """

    codes: NDArray[np.uint8]
    pixels: Ints
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64]

    @classmethod
    def none(cls) -> Regions:
        """Make a table without regions but entry 0."""
        return cls(
            np.zeros(1, np.uint8), np.zeros((1, 2), np.int64), np.zeros((1, 3)), np.zeros((1, 0))
        )

    def add(self, other: Regions, roots: Ints | NDArray[np.int32]) -> Regions:
        """Put others after these; what is united is added up in the root's entry.

        Args:
            other: with an entry 0, which is left out.
            roots: (R + S + 1,) the region that each is a part of.
        """
        codes = np.concatenate((self.codes, other.codes[1:]))
        pixels = np.concatenate((self.pixels, other.pixels[1:]))
        confidence = np.concatenate((self.confidence, other.confidence[1:]))
        merged = np.flatnonzero(roots != np.arange(len(roots)))
        into = roots[merged]
        np.add.at(pixels[:, 0], into, pixels[merged, 0])
        np.minimum.at(pixels[:, 1], into, pixels[merged, 1])
        for column in (0, 1):
            np.add.at(confidence[:, column], into, confidence[merged, column])
        np.minimum.at(confidence[:, 2], into, confidence[merged, 2])
        before = self.probs
        if not before.shape[1]:
            before = np.zeros((len(self.codes), other.probs.shape[1]))
        probs = np.concatenate((before, other.probs[1:]))
        np.add.at(probs, into, probs[merged])
        return Regions(codes, pixels, confidence, probs)


class PaddedStrip(NamedTuple):
    """A strip with the row above it, and at the raster's end one of nodata below.

    Attributes:
        rows: codes of all these rows; confidence and probabilities of the strip's own.
        top: the strip's first row in the raster.
        last: whether the raster ends with it.
    """

    rows: CodeRows
    top: int
    last: bool


class TracedStrip(NamedTuple):
    """What one strip gives.

    Attributes:
        top: its first row in the raster.
        last: whether the raster ends with it.
        above: (W,) regions of the row above, as they are numbered here.
        below: (W,) regions of its last row.
        regions: its regions; those of the row above have no pixels.
        diagonal: pairs of regions of one class that meet at a corner only; None where such are
            two features.
        pieces: of arcs; those with an end above or below go on there.
        marks: bits of (N, W + 1), the corners from its first row on at which an arc has a vertex;
            None where arcs are not simplified.
    """

    top: int
    last: bool
    above: NDArray[np.int32]
    below: NDArray[np.int32]
    regions: Regions
    diagonal: tuple[NDArray[np.int32], NDArray[np.int32]] | None
    pieces: Arcs
    marks: NDArray[np.uint8] | None


def with_row_above(codes: Iterable[NDArray[np.uint8]], width: int) -> Iterator[NDArray[np.uint8]]:
    """Parts of a map, each with the row above it."""
    above = np.zeros((1, width), np.uint8)
    for part in codes:
        yield np.concatenate((above, part))
        above = part[-1:]


def padded_strips(strips: Iterable[CodeRows], width: int, height: int) -> Iterator[PaddedStrip]:
    """Strips from above to below, each with the row above it.

    Args:
        strips: all rows of the map.
        width: of the map.
        height: of the map.
    """
    above = np.zeros((1, width), np.uint8)
    top = 0
    for strip in strips:
        bottom = top + len(strip.codes)
        parts = [above, strip.codes]
        if bottom == height:
            parts.append(np.zeros((1, width), np.uint8))
        padded = strip._replace(codes=np.concatenate(parts))
        yield PaddedStrip(padded, top, bottom == height)
        above = strip.codes[-1:]
        top = bottom


def trace_strip(options: RingOptions, strip: PaddedStrip) -> TracedStrip:
    """Label a strip and trace the arcs in it."""
    (codes, confidence, probs), top, last = strip
    labels, own, pixels, known = label(codes, top * codes.shape[1], confidence)
    sums = np.zeros((len(own), len(probs) + 1 if len(probs) else 0))
    for code, one in enumerate(probs, start=1):
        flat = labels[1 : len(one) + 1].ravel()
        sums[:, code] = np.bincount(flat, np.nan_to_num(one).ravel(), len(sums))
    diagonal = corner_pairs(codes, labels) if options.connectivity == 8 else None
    corners, vertices = mark(codes)
    pieces = trace(corners, vertices, labels, top)
    marks = None
    if options.tolerance > 0:
        bits = corners[1:] >> 4
        marks = np.packbits((bits != 0) & (bits != 5) & (bits != 10), axis=1)
    return TracedStrip(
        top,
        last,
        labels[0].copy(),
        labels[-1].copy(),
        Regions(own, pixels, known, sums),
        diagonal,
        pieces,
        marks,
    )
