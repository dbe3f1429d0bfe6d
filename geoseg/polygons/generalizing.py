"""Which arcs can be simplified by now, and on which threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.core.workers import Workers
from geoseg.geo.geodesy import Ints
from geoseg.polygons.kernels.arcs import Arcs
from geoseg.polygons.kernels.simplifying import simplify
from geoseg.polygons.options import METHODS, RingOptions
from geoseg.polygons.strips import TracedStrip

__all__ = ["Simplifier"]


class _Job(NamedTuple):
    """Arcs for one thread.

    Attributes:
        arcs: to be simplified.
        least: (A,) vertices that must stay between the ends of each; -1: all.
        marks: bits of the corners that any arc has, a copy of its own.
        top: the row of the first of them.
    """

    arcs: Arcs
    least: Ints
    marks: NDArray[np.uint8]
    top: int


@dataclass
class Simplifier:
    """Simplifies whole arcs as soon as nothing that is still to come can matter to them.

    Attributes:
        options: with the tolerance, px; where it is 0 arcs stay as they are.
        workers: that share the work.
        held: whole arcs that must wait.
        marks: rows of :attr:`TracedStrip.marks`, as far up as open arcs reach: (first row, bits).
    """

    options: RingOptions
    workers: Workers
    held: Arcs = field(default_factory=Arcs.none)
    marks: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)

    def add(self, arcs: Arcs, pieces: Arcs, strip: TracedStrip) -> Arcs:
        """Simplify whole arcs; those that must wait stay in ``held``.

        Args:
            arcs: that are whole since this strip.
            pieces: that go on below it.
            strip: whose marks are taken in.

        Returns:
            Those of ``held`` and ``arcs`` that are done.
        """
        arcs = self.held.add(arcs)
        if self.options.tolerance <= 0:
            return arcs
        assert strip.marks is not None
        self.marks.append((strip.top, strip.marks))
        # Of arcs between the same two nodes only one may become straight, or what lies between
        # them vanishes. So they go together: while an open arc hangs at either, all wait.
        hanging = pieces.ends[pieces.ends >= 0]
        hangs = np.isin(arcs.ends, hanging).all(axis=1)
        waits = np.asarray(hangs & (arcs.ends[:, 0] != arcs.ends[:, 1]))
        self.held = arcs.take(np.flatnonzero(waits))
        arcs = arcs.take(np.flatnonzero(~waits))
        simple = self._simplify(arcs) if len(arcs.ends) else arcs
        rows = [a.xy[:, 1].min() for a in (pieces, self.held) if len(a.xy)]
        needed = min([strip.top + len(strip.marks), *rows])
        self.marks = [m for m in self.marks if m[0] + len(m[1]) > needed]
        return simple

    def _simplify(self, arcs: Arcs) -> Arcs:
        """Share arcs among the threads; they come back in another order."""
        least = _least_vertices(arcs)
        chosen, jobs = [], []
        for numbers, top in self._by_height(arcs):
            bits = [m for m in self.marks if m[0] + len(m[1]) > top]
            marks = np.concatenate([m[1] for m in bits])
            for own in self._shares(arcs, numbers):
                chosen.append(own)
                jobs.append(_Job(arcs.take(own), least[own], marks.copy(), bits[0][0]))
        done = list(self.workers.map(self._work, jobs, len(jobs)))
        numbers = np.concatenate(chosen)
        lengths = np.concatenate([np.diff(offsets) for _, offsets in done])
        return Arcs(
            np.concatenate([xy for xy, _ in done]),
            np.concatenate(([0], np.cumsum(lengths))),
            arcs.ends[numbers],
            arcs.headings[numbers],
            arcs.sides[numbers],
        )

    def _work(self, job: _Job) -> tuple[NDArray[np.int32], Ints]:
        peucker = self.options.method != METHODS[0]
        tolerance = float(self.options.tolerance)
        return simplify(
            job.arcs.xy, job.arcs.offsets, job.least, tolerance, peucker, job.marks, job.top
        )

    def _by_height(self, arcs: Arcs) -> Iterator[tuple[Ints, int]]:
        """Arcs that reach no higher than the strip before, then the others, with their top row.

        Only the few others need marks from far up.
        """
        highest = np.minimum.reduceat(arcs.xy[:, 1], arcs.offsets[:-1])
        recent = self.marks[max(0, len(self.marks) - 2)][0]
        near = highest >= recent
        if near.any():
            yield np.flatnonzero(near), recent
        if not near.all():
            yield np.flatnonzero(~near), int(highest[~near].min())

    def _shares(self, arcs: Arcs, numbers: Ints) -> Iterator[Ints]:
        """Share numbers of arcs among the threads, with about the same vertices for each."""
        sizes = np.diff(arcs.offsets)[numbers]
        threads = self.workers.threads
        cuts = np.searchsorted(np.cumsum(sizes), np.arange(1, threads) * sizes.sum() / threads)
        for own in np.split(numbers, cuts):
            if len(own):
                yield own


def _least_vertices(arcs: Arcs) -> Ints:
    """Count the vertices that must stay between the ends of each arc, (A,); -1: all."""
    one, other = arcs.ends.T
    sizes = np.diff(arcs.offsets)
    least = np.where(one == other, 2, 0)
    rim = (arcs.sides == 0).any(axis=1)
    # Of those between the same nodes that are straight or may become so, the first one may,
    # straight ones before.
    able = np.flatnonzero(~rim | (sizes == 2))
    order = able[np.lexsort((arcs.headings[able, 0], sizes[able] > 2, other[able], one[able]))]
    same = (np.diff(one[order]) == 0) & (np.diff(other[order]) == 0)
    least[order[1:][same]] = np.maximum(least[order[1:][same]], 1)
    least[rim] = -1
    return least
