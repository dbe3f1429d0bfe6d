"""The pieces of arcs in one strip, walked edge by edge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel
from geoseg.polygons.kernels.arcs import Arcs

__all__ = ["mark", "trace"]

#: Four bits, one a heading in which an edge leaves -> is the corner a node?
_NODE = np.array([bin(bits).count("1") >= 3 for bits in range(16)])
#: The same four bits -> the only heading, where there is only one.
_ONLY = np.array([{1: 0, 2: 1, 4: 2, 8: 3}.get(bits, -1) for bits in range(16)], np.int8)


@kernel
def mark(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Mark the edges at each corner.

    Args:
        codes: (N, W) classes; row 0 is the row above the strip.

    Returns:
        (N, W + 1): row j is the lattice's between rows j - 1 and j, row 0 is empty. Bit h and bit
        h + 4 are set where an edge leaves with heading h. And the number of corners with a turn or
        a node.
    """
    rows, width = codes.shape
    corners = np.zeros((rows, width + 1), np.uint8)
    vertices = 0
    for j in range(1, rows):
        above, below, out = codes[j - 1], codes[j], corners[j]
        # 17 sets a bit in both halves.
        out[0] = 17 * (
            np.uint8(above[0] != below[0])
            | np.uint8(below[0] != 0) << 1
            | np.uint8(above[0] != 0) << 3
        )
        for x in range(1, width):
            nw, ne, sw, se = above[x - 1], above[x], below[x - 1], below[x]
            bits = (
                np.uint8(ne != se)
                | np.uint8(sw != se) << 1
                | np.uint8(nw != sw) << 2
                | np.uint8(nw != ne) << 3
            )
            out[x] = np.uint8(17 * bits)
        out[width] = 17 * (
            np.uint8(below[width - 1] != 0) << 1
            | np.uint8(above[width - 1] != below[width - 1]) << 2
            | np.uint8(above[width - 1] != 0) << 3
        )
        turns = 0
        for x in range(width + 1):
            bits = out[x]
            turns += (bits != 0) & (bits != 17 * 5) & (bits != 17 * 10)
        vertices += turns
    return corners, vertices


@kernel
def _walk(
    corners: NDArray[np.uint8],
    j: int,
    x: int,
    heading: int,
    top: int,
    xy: NDArray[np.int32],
    count: int,
) -> tuple[int, int, int, int]:
    """Follow edges to a node, to the strip's rim or round a loop; take them out of ``corners``.

    Returns:
        Row and col of the corner reached (row 0 above the strip, N below), the heading there and
        the number of vertices.
    """
    rows = len(corners)
    while True:
        if 0 < j < rows:
            corners[j, x] &= ~np.uint8(1 << heading)
        if heading == 0:
            x += 1
        elif heading == 1:
            j += 1
        elif heading == 2:
            x -= 1
        else:
            j -= 1
        if j <= 0 or j >= rows:
            return j, x, heading, count
        corners[j, x] &= ~np.uint8(1 << ((heading + 2) & 3))
        bits = corners[j, x]
        if _NODE[bits >> 4] or bits & 15 == 0:
            xy[count, 0], xy[count, 1] = x, top + j - 1
            return j, x, heading, count + 1
        following = _ONLY[bits & 15]
        if following != heading:
            xy[count, 0], xy[count, 1] = x, top + j - 1
            count += 1
            heading = following


@kernel
def _side(labels: NDArray[np.int32], j: int, x: int, heading: int, right: int) -> Any:
    """Look up the region beside the edge that leaves a corner."""
    # Heading east, the left is at (-1, 0) and the right at (0, 0) from the corner, in pixels.
    if heading == 0:
        dj, dx = (0, 0) if right else (-1, 0)
    elif heading == 1:
        dj, dx = (0, -1) if right else (0, 0)
    elif heading == 2:
        dj, dx = (-1, -1) if right else (0, -1)
    else:
        dj, dx = (-1, 0) if right else (-1, -1)
    j, x = j + dj, x + dx
    if j < 0 or j >= labels.shape[0] or x < 0 or x >= labels.shape[1]:
        return 0
    return labels[j, x]


@kernel
def _number(j: int, x: int, top: int, rows: int, width: int) -> int:
    """Give a corner its number in :attr:`Arcs.ends`; row 0 is above the strip, ``rows`` below."""
    if j <= 0:
        return -1 - 2 * x
    if j >= rows:
        return -2 - 2 * x
    return (top + j - 1) * (width + 1) + x


@kernel
def _at_node(corners: NDArray[np.uint8], j: int, x: int) -> Any:
    """Whether a corner is a node; those on the strip's rim never are."""
    return 0 < j < len(corners) and _NODE[corners[j, x] >> 4]


@kernel
def _add_piece(
    corners: NDArray[np.uint8],
    labels: NDArray[np.int32],
    top: int,
    start: tuple[int, int, int],
    pieces: Arcs,
    number: int,
) -> None:
    """Walk a piece from its start (row, col, heading), and write it down under its number."""
    rows, width = corners.shape[0], corners.shape[1] - 1
    j, x, heading = start
    count = pieces.offsets[number]
    for right in range(2):
        pieces.sides[number, right] = _side(labels, j, x, heading, right)
    pieces.ends[number, 0] = _number(j, x, top, rows, width)
    if 0 < j < rows:
        pieces.xy[count, 0], pieces.xy[count, 1] = x, top + j - 1
        count += 1
    if _at_node(corners, j, x):
        pieces.headings[number, 0] = heading
    j, x, heading, count = _walk(corners, j, x, heading, top, pieces.xy, count)
    pieces.ends[number, 1] = _number(j, x, top, rows, width)
    if _at_node(corners, j, x):
        pieces.headings[number, 1] = heading
    pieces.offsets[number + 1] = count


@kernel
def trace(corners: NDArray[np.uint8], vertices: int, labels: NDArray[np.int32], top: int) -> Arcs:
    """Trace the pieces of arcs in a strip.

    Args:
        corners: of :func:`mark`; the lower halves are empty after.
        vertices: of :func:`mark`.
        labels: (N, W) of :func:`~geoseg.polygons.kernels.regions.label`. Row 0 is the row above
            the strip.
        top: the strip's first row in the raster.
    """
    # Whoever walks an edge takes it out of the corners at both of its ends. So walk from every
    # node along every edge that is left there; then from the rim above and from the rim below,
    # where pieces without a node come in; what is left are loops within the strip.
    rows, width = corners.shape[0], corners.shape[1] - 1
    most = 2 * vertices + 2 * width + 8
    pieces = Arcs(
        np.empty((4 * vertices + 8, 2), np.int32),
        np.zeros(most + 1, np.int64),
        np.empty((most, 2), np.int64),
        np.full((most, 2), -1, np.int8),
        np.empty((most, 2), np.int32),
    )
    # numba would compile what is called for the literal 0, and again for numbers.
    number: Any = np.int64(0)
    for j in range(1, rows):
        for x in range(width + 1):
            bits = corners[j, x]
            if bits & 15 == 0 or not _NODE[bits >> 4]:
                continue
            for heading in range(4):
                if corners[j, x] & (1 << heading):
                    _add_piece(corners, labels, top, (j, x, heading), pieces, number)
                    number += 1
    if rows > 1:
        for heading in (1, 3):  # south from the rim above, then north from the one below
            rim = 0 if heading == 1 else rows
            inside = 1 if heading == 1 else rows - 1
            for x in range(width + 1):
                if corners[inside, x] & (1 << ((heading + 2) & 3)):
                    _add_piece(corners, labels, top, (rim, x, heading), pieces, number)
                    number += 1
    for j in range(1, rows):
        for x in range(width + 1):
            if corners[j, x] & 15 == 0:
                continue
            for heading in range(4):
                if corners[j, x] & (1 << heading):
                    _add_piece(corners, labels, top, (j, x, heading), pieces, number)
                    number += 1
    return Arcs(
        pieces.xy[: pieces.offsets[number]].copy(),
        pieces.offsets[: number + 1].copy(),
        pieces.ends[:number].copy(),
        pieces.headings[:number].copy(),
        pieces.sides[:number].copy(),
    )
