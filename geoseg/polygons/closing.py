"""Regions of which nothing is open any more become features: rings, and sums over their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.geodesy import Ints
from geoseg.polygons.features import Features
from geoseg.polygons.kernels.arcs import Arcs
from geoseg.polygons.kernels.rings import HalfArcs, assemble
from geoseg.polygons.kernels.smoothing import CUT, smooth
from geoseg.polygons.options import RingOptions
from geoseg.polygons.strips import Regions

__all__ = ["close"]


def close(
    options: RingOptions,
    arcs: Arcs,
    rim: NDArray[np.bool_],
    regions: Regions,
    groups: NDArray[np.int32],
    is_open: NDArray[np.bool_],
) -> Features | None:
    """Make features of the regions of which nothing is open.

    Args:
        options: how often corners are cut, and which way round rings run.
        arcs: whole ones; all that such regions have are among them.
        rim: (A,) which of these have nodata on one side.
        regions: what is known of each.
        groups: (R + 1,) the smallest region of the feature that each belongs to.
        is_open: (R + 1,) by that region: whether the feature goes on below.

    Returns:
        The features, or None where there are none.
    """
    numbers, turned, region = _beside_closed(arcs, groups, is_open)
    if not len(numbers):
        return None
    members = _in_order(np.unique(region), regions, groups)
    rank = np.zeros(len(groups), np.int64)
    rank[members] = np.arange(len(members))
    half = _half_arcs(arcs, numbers, turned, rank[region], len(members))
    xy: NDArray[Any] = arcs.xy
    offsets = arcs.offsets
    if options.smooth > 0:
        used = np.unique(half.arc)
        some = arcs.take(used)
        loops = some.headings[:, 0] < 0
        xy, offsets = smooth(some.xy, some.offsets, rim[used], loops, options.smooth, CUT)
        half = half._replace(arc=np.searchsorted(used, half.arc))
    rings = assemble(xy, offsets, half, options.reverse)
    feature = groups[members]
    starts = np.flatnonzero(np.diff(feature, prepend=-1))
    confidence = regions.confidence[members]
    return Features(
        rings,
        np.append(starts, len(members)),
        regions.codes[members[starts]],
        np.add.reduceat(regions.pixels[members, 0], starts),
        regions.pixels[members[starts], 1],
        np.column_stack(
            (
                np.add.reduceat(confidence[:, 0], starts),
                np.add.reduceat(confidence[:, 1], starts),
                np.minimum.reduceat(confidence[:, 2], starts),
            )
        ),
        np.add.reduceat(regions.probs[members], starts),
    )


def _beside_closed(
    arcs: Arcs, groups: NDArray[np.int32], is_open: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.bool_], NDArray[np.int32]]:
    """Find the arcs beside closed regions: their numbers, whether turned round, and the region.

    An arc is there for its right region as it is, and turned round for its left one.
    """
    found, turned, regions = [], [], []
    for column, back in ((1, False), (0, True)):
        own = arcs.sides[:, column]
        some = np.flatnonzero((own > 0) & ~is_open[groups[own]])
        found.append(some)
        regions.append(own[some])
        turned.append(np.full(len(some), back))
    return np.concatenate(found), np.concatenate(turned), np.concatenate(regions)


def _in_order(
    members: NDArray[np.int32], regions: Regions, groups: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Sort regions by the first pixel of their feature, in each by their own."""
    first = regions.pixels[:, 1]
    first_of_group = np.full(len(groups), np.iinfo(np.int64).max)
    np.minimum.at(first_of_group, groups, first)
    return members[np.lexsort((first[members], first_of_group[groups[members]]))]


def _half_arcs(
    arcs: Arcs, numbers: Ints, turned: NDArray[np.bool_], rank: Ints, many: int
) -> HalfArcs:
    """Sort arcs by regions and by the nodes where they begin.

    Args:
        arcs: all of them.
        numbers: (M,) which ones.
        turned: (M,) whether they are taken from their end.
        rank: (M,) the region on their right, by its place among ``many``.
        many: how many regions.
    """
    ends, headings = arcs.ends[numbers], arcs.headings[numbers]
    begins = np.where(turned, ends[:, 1], ends[:, 0])
    arrives = np.where(turned, ends[:, 0], ends[:, 1])
    opposite = (headings + 2) & 3
    leaving = np.where(turned, opposite[:, 1], headings[:, 0])
    coming = np.where(turned, opposite[:, 0], headings[:, 1])
    order = np.lexsort((leaving, begins, rank))
    return HalfArcs(
        numbers[order],
        turned[order],
        begins[order],
        arrives[order],
        leaving[order].astype(np.int8),
        coming[order].astype(np.int8),
        np.searchsorted(rank[order], np.arange(many + 1)),
    )
