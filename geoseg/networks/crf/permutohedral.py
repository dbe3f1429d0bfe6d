"""The permutohedral lattice: a Gaussian filter whose time grows with the pixels, not with pairs.

Names are those of Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["PermutohedralFilter"]

#: Codes of vertices below this are exact; beyond, they are hashes.
_CODE_LIMIT = 2**62


class _Sums:
    """Weighted sums of rows of a table: a sparse matrix, row after row.

    ``embedding_bag`` is torch's quickest way of doing this on a CPU: on 512x512 px, 9 classes and 3
    bands, splatting takes 3 ms, against 40 ms as a sparse CSR product and 86 ms by ``index_add``;
    it gives the same bits each time, on a GPU too.
    """

    def __init__(self, columns: Tensor, weights: Tensor, starts: Tensor) -> None:
        """Take the matrix.

        Args:
            columns: int (E,), the entries' columns, row after row.
            weights: float (E,).
            starts: int (rows + 1,), where each row's entries begin.
        """
        # Half the memory to go through, wherever the numbers fit.
        kind = torch.int32 if len(columns) < 2**31 else torch.int64
        self._columns, self._starts, self._weights = columns.to(kind), starts.to(kind), weights

    def __call__(self, table: Tensor) -> Tensor:
        """Sum rows (rows, K) of the table (columns, K)."""
        return F.embedding_bag(
            self._columns,
            table,
            self._starts,
            mode="sum",
            per_sample_weights=self._weights,
            include_last_offset=True,
        )


class PermutohedralFilter:
    """Gaussian filter on the permutohedral lattice: splat, blur, slice; time grows with the pixels.

    Features are lifted onto the hyperplane of d + 1 coordinates that add up to 0, and each pixel
    gives its values to the d + 1 vertices of the simplex it lies in (splat). The vertices exchange
    values with their neighbours along each of d + 1 directions (blur), and pixels take values from
    the vertices they gave to (slice). Only vertices that some pixel touches exist.

    It agrees well with the exact filter where neighbouring pixels are alike (beta 13 and more on a
    0..255 image); where noise makes each pixel its own neighbourhood it is rough.
    """

    def __init__(self, features: Tensor, radius: int) -> None:
        """Build the lattice.

        Args:
            features: float (D, H, W).
            radius: not used.
        """
        code, weight, multipliers = _simplices(features.flatten(1))
        corners, pixels = code.shape
        # One sort gives the distinct vertices, and each one's pixels side by side.
        ordered, order = torch.sort(code.flatten(), stable=True)
        codes, place, counts = torch.unique_consecutive(
            ordered, return_inverse=True, return_counts=True
        )
        starts = F.pad(counts.cumsum(0), (1, 0))
        self._splat = _Sums(order % pixels, weight.flatten()[order], starts)
        vertex = torch.empty_like(place)
        vertex[order] = place
        every = torch.arange(0, len(vertex) + 1, corners, device=code.device)
        self._slice = _Sums(vertex.view(corners, pixels).T.flatten(), weight.T.flatten(), every)
        remainder = order[starts[:-1]] // pixels
        self._blurs = [
            _blur(codes, _step(codes, remainder, multipliers, direction), weight.dtype)
            for direction in range(corners)
        ]

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """See :class:`Filter`; each blur is its own transpose, but they do not commute."""
        # The factor 1 / (1 + 2^-d) of the literature is left out: normalising removes it.
        table = self._splat(values.contiguous())
        for blur in reversed(self._blurs) if transposed else self._blurs:
            table = blur(table)
        return self._slice(table)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Find the simplex around each pixel.

    Vertex r of a simplex has d + 1 coordinates of remainder r modulo d + 1, so it is written as
    ``(d + 1) * t_i + r``; the last coordinate follows from the others. Names are those of Adams,
    Baek and Davis: section 3.1 for the lattice, 3.3 for the barycentric weights.

    Args:
        features: float (d, N).

    Returns:
        code: int64 (d + 1, N): ``sum_i multipliers_i * t_i + r`` of vertex r, of distinct vertices
            distinct.
        weight: (d + 1, N), barycentric, like ``features``; they add up to 1.
        multipliers: d + 1 of them, the last 0.
    """
    d = len(features)
    axis = torch.arange(1, d + 1, dtype=features.dtype, device=features.device)[:, None]
    # A Gaussian of standard deviation 1 in the features' units, once splat and blur have spread.
    scaled = features * ((d + 1) * math.sqrt(2 / 3) / (axis * (axis + 1)).sqrt())
    lifted = F.pad(scaled.flip(0).cumsum(0).flip(0), (0, 0, 0, 1))
    lifted[1:] -= axis * scaled

    nearest = (lifted / (d + 1)).round()
    order = (lifted - nearest * (d + 1)).sort(dim=0, descending=True, stable=True).indices
    places = torch.arange(d + 1, device=features.device)[:, None].expand_as(order)
    # The nearest points of remainder 0 may not add up to 0; what ranks first or last is moved.
    rank = torch.empty_like(order).scatter_(0, order, places) + nearest.sum(dim=0).long()
    move = (rank < 0).long() - (rank > d).long()
    rank += (d + 1) * move
    nearest += move
    order.scatter_(0, rank, places)

    by_rank = (lifted / (d + 1) - nearest).gather(0, order)
    weight = torch.cat([1 + by_rank[d:] - by_rank[:1], (by_rank[:d] - by_rank[1:]).flip(0)], dim=0)

    t = nearest[:d].long()
    low = t.amin(dim=1) - 2
    multipliers = _multipliers((t.amax(dim=1) + 2 - low).tolist())
    factors = torch.tensor(multipliers, device=t.device)[:, None]
    first = ((t - low[:, None]) * factors[:d]).sum(dim=0)
    # From vertex r to r + 1 all coordinates grow by 1, and that of rank d - r falls by d + 1.
    steps = 1 - factors[:, 0][order[1:].flip(0)]
    return torch.cat([first[None], first + steps.cumsum(0)]), weight, multipliers


def _multipliers(ranges: Sequence[int]) -> list[int]:
    """Choose what each coordinate counts in a vertex's code.

    Args:
        ranges: how many values each of the d coordinates t_i may take.

    Returns:
        d + 1 numbers, the last 0.
    """
    d = len(ranges)
    multipliers = [d + 1]
    for size in ranges:
        multipliers.append(multipliers[-1] * size)
    if multipliers.pop() < _CODE_LIMIT:
        return [*multipliers, 0]
    # Too many bands or too many values for 63 bits: random multipliers modulo 2^64. Two of a
    # million vertices then share a code with a probability of about 1e-7, and would be blurred as
    # one.
    draw = torch.Generator().manual_seed(0)
    return [*torch.randint(2**62, (d,), generator=draw).tolist(), 0]


def _step(codes: Tensor, remainder: Tensor, multipliers: Sequence[int], direction: int) -> Tensor:
    """Code all vertices' neighbours: all coordinates less 1, that of direction plus d.

    Args:
        codes: int64 (M,), of distinct vertices.
        remainder: int64 (M,), their r.
        multipliers: see :func:`_multipliers`.
        direction: 0 to d.
    """
    d = len(multipliers) - 1
    within = multipliers[direction] - 1
    # From remainder 0 to d, all t_i but that of the direction fall by 1. (Python's numbers don't
    # wrap around at 64 bits; torch's do.)
    across = multipliers[direction] - sum(multipliers) + d
    across = (across + 2**63) % 2**64 - 2**63
    return codes + torch.where(remainder > 0, within, across)


def _blur(codes: Tensor, neighbours: Tensor, dtype: torch.dtype) -> _Sums:
    """Sum each vertex and half of its two neighbours along a direction, where these exist.

    Args:
        codes: int64 (M,), ascending.
        neighbours: int64 (M,), the code of each one's neighbour on one side.
        dtype: of the weights.
    """
    count = len(codes)
    place = torch.searchsorted(codes, neighbours).clamp_(max=count - 1)
    one = torch.nonzero(codes[place] == neighbours)[:, 0]
    other = place[one]
    # A row holds the vertex itself, then its neighbour on the one side, then that on the other.
    entries = torch.ones_like(codes)
    entries[one] += 1
    third = entries[other]
    entries[other] += 1
    starts = F.pad(entries.cumsum(0), (1, 0))
    columns = torch.empty(count + 2 * len(one), dtype=torch.int64, device=codes.device)
    columns[starts[:-1]] = torch.arange(count, device=codes.device)
    columns[starts[one] + 1] = other
    columns[starts[other] + third] = one
    weights = torch.full(columns.shape, 0.5, dtype=dtype, device=codes.device)
    weights[starts[:-1]] = 1.0
    return _Sums(columns, weights, starts)
