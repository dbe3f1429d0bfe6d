"""Arcs, or pieces of them, as flat arrays: the table that the other kernels share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.jit import kernel

__all__ = ["Arcs", "reverse"]


class Arcs(NamedTuple):
    """A arcs or pieces of arcs, with V vertices in all. Kernels take and return it as it is.

    Attributes:
        xy: (V, 2) int32 corners (col, row), one arc after another.
        offsets: (A + 1,) int64; arc a is ``xy[offsets[a]:offsets[a + 1]]``.
        ends: (A, 2) int64, where an arc begins and ends: row * (width + 1) + col of a node (of
            its first vertex for a loop); or -1 - 2 col where a piece goes on above its strip, and
            -2 - 2 col where it goes on below.
        headings: (A, 2) int8, in which it leaves its first node and comes to its last one; -1
            where there is no node.
        sides: (A, 2) int32, the regions on its left and on its right.
    """

    xy: NDArray[np.int32]
    offsets: NDArray[np.int64]
    ends: NDArray[np.int64]
    headings: NDArray[np.int8]
    sides: NDArray[np.int32]

    @classmethod
    def none(cls) -> Arcs:
        """Make a table without arcs."""
        return cls(
            np.empty((0, 2), np.int32),
            np.zeros(1, np.int64),
            np.empty((0, 2), np.int64),
            np.empty((0, 2), np.int8),
            np.empty((0, 2), np.int32),
        )

    def take(self, chosen: NDArray[Any]) -> Arcs:
        """Take those of a mask or of numbers, in the order of the numbers."""
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        xy, offsets = _pick(self.xy, self.offsets, chosen)
        return Arcs(xy, offsets, self.ends[chosen], self.headings[chosen], self.sides[chosen])

    def add(self, other: Arcs) -> Arcs:
        """Put others after these."""
        if not len(self.ends):
            return other
        return Arcs(
            np.concatenate((self.xy, other.xy)),
            np.concatenate((self.offsets, other.offsets[1:] + self.offsets[-1])),
            np.concatenate((self.ends, other.ends)),
            np.concatenate((self.headings, other.headings)),
            np.concatenate((self.sides, other.sides)),
        )


@kernel
def _pick(
    xy: NDArray[np.int32], offsets: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Copy xy and offsets of the chosen arcs, in their order."""
    out_offsets = np.zeros(len(chosen) + 1, np.int64)
    for k in range(len(chosen)):
        out_offsets[k + 1] = out_offsets[k] + offsets[chosen[k] + 1] - offsets[chosen[k]]
    out = np.empty((out_offsets[len(chosen)], 2), np.int32)
    for k in range(len(chosen)):
        low, at = offsets[chosen[k]], out_offsets[k]
        for i in range(out_offsets[k + 1] - at):
            out[at + i, 0], out[at + i, 1] = xy[low + i, 0], xy[low + i, 1]
    return out, out_offsets


@kernel
def reverse(xy: NDArray[Any]) -> None:
    """Turn the order of vertices round, in place."""
    for k in range(len(xy) // 2):
        other = len(xy) - 1 - k
        for axis in range(2):
            xy[k, axis], xy[other, axis] = xy[other, axis], xy[k, axis]
