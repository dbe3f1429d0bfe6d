"""Mean field of a fully connected CRF as layers (CRF-RNN), for any network and any bands.

Every pixel is bound to every other: strongly where both are near (spatial kernel), and strongly
where both are near and of like colour (bilateral kernel). A few rounds of mean field bring each
pixel's classes into line with those of the pixels it is bound to, so that specks vanish and borders
move onto the image's edges.

Sources: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (2011) for the model; Zheng et al., "Conditional Random Fields as Recurrent Neural
Networks" (2015) for its layers; Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice" (2010) for the filter.

:data:`FILTERS` is the table of filters; to add one, write a class and put a line there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.errors import ModelError

__all__ = [
    "EXACT_PIXELS",
    "FILTERS",
    "DenseCRF",
    "ExactFilter",
    "Filter",
    "PermutohedralFilter",
    "WindowFilter",
]

#: The exact filter looks at all pairs of pixels: beyond this many pixels it takes minutes.
EXACT_PIXELS = 256 * 256
#: Numbers of one array that the exact filter and the window hold at a time. Larger arrays leave a
#: CPU's cache, and the system takes and clears their memory anew each time.
_BLOCK = 1 << 18
#: Codes of vertices below this are exact; beyond, they are hashes.
_CODE_LIMIT = 2**62


class Filter(Protocol):
    """A linear map over the pixels of one image: ``out_i = sum_j k(f_i, f_j) values_j``.

    ``k(a, b) = exp(-|a - b|^2 / 2)``, or an approximation of it up to one factor; ``f_i`` are pixel
    i's features, and j = i is among the sum. It is not normalised.
    """

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """Filter values of any number of channels.

        Args:
            values: (H * W, K), pixels row by row, of the features' dtype and device.
            transposed: apply the map's transpose, which carries gradients back.

        Returns:
            (H * W, K), like ``values``.
        """


class ExactFilter:
    """All pairs of pixels, a block of rows at a time: the reference, for small images."""

    def __init__(self, features: Tensor, radius: int) -> None:
        """Take the features.

        Args:
            features: float (D, H, W).
            radius: not used.

        Raises:
            ModelError: there are more than :data:`EXACT_PIXELS` pixels.
        """
        height, width = features.shape[1:]
        if height * width > EXACT_PIXELS:
            raise ModelError(
                f"the CRF's filter 'exact' got {height}x{width} px; it looks at all pairs of at "
                f"most 256x256 px: use filter 'permutohedral', or smaller chips"
            )
        self._features = features.flatten(1)

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """See :class:`Filter`; the map is its own transpose."""
        f = self._features
        pixels = f.shape[1]
        step = max(1, _BLOCK // pixels)
        blocks = []
        for start in range(0, pixels, step):
            # Differences rather than |a|^2 + |b|^2 - 2ab, which float32 can't subtract well.
            distance = f.new_zeros(min(step, pixels - start), pixels)
            for band in f:
                distance += (band[start : start + step, None] - band).square_()
            blocks.append(distance.mul_(-0.5).exp_() @ values)
        return torch.cat(blocks)


class WindowFilter:
    """Pairs of pixels that are at most ``radius`` rows and columns apart.

    Memory is a few images, whatever the radius: the offsets are taken one by one.
    """

    def __init__(self, features: Tensor, radius: int) -> None:
        """Take the features.

        Args:
            features: float (D, H, W).
            radius: px, at least 0.
        """
        height, width = features.shape[1:]
        self._rows, self._cols = min(radius, height - 1), min(radius, width - 1)
        self._features = features
        self._padded = self._pad(features)

    def _pad(self, x: Tensor) -> Tensor:
        return F.pad(x, (self._cols, self._cols, self._rows, self._rows))

    def __call__(self, values: Tensor, *, transposed: bool = False) -> Tensor:
        """See :class:`Filter`; the map is its own transpose."""
        height, width = self._features.shape[1:]
        # Beyond the image there are zeros, and what is zero adds nothing.
        padded = self._pad(values.T.reshape(-1, height, width))
        bands = max(len(self._features), len(padded))
        step = max(1, _BLOCK // (bands * width))
        blocks = []
        for top in range(0, height, step):
            here = self._features[:, top : top + step]
            out = padded.new_zeros(len(padded), *here.shape[1:])
            for down in range(top, top + 2 * self._rows + 1):
                for right in range(2 * self._cols + 1):
                    there = (
                        slice(None),
                        slice(down, down + here.shape[1]),
                        slice(right, right + width),
                    )
                    distance = (self._padded[there] - here).square_().sum(dim=0)
                    out.addcmul_(distance.mul_(-0.5).exp_(), padded[there])
            blocks.append(out)
        return torch.cat(blocks, dim=1).flatten(1).T


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
        """(rows, K) of the table (columns, K)."""
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
    """The simplex around each pixel.

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
    """What each coordinate counts in a vertex's code.

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
    """The codes of all vertices' neighbours: all coordinates less 1, that of direction plus d.

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
    """Each vertex, plus half of its two neighbours along a direction, where these exist.

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


#: Name -> from features (D, H, W) and the window's radius to a filter.
FILTERS: dict[str, Callable[[Tensor, int], Filter]] = {
    "exact": ExactFilter,
    "permutohedral": PermutohedralFilter,
    "window": WindowFilter,
}


class _Apply(torch.autograd.Function):
    """A filter whose gradient is its transpose: nothing is stored between the two."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, filter: Filter, transposed: bool) -> Tensor:
        ctx.filter, ctx.transposed = filter, transposed
        return filter(values, transposed=transposed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Apply.apply(gradient, ctx.filter, not ctx.transposed), None, None


class _Mean:
    """A filter that gives weighted means: over the pixels that count, weights adding up to 1."""

    def __init__(self, filter: Filter, counts: Tensor) -> None:
        """Filter what counts once, to divide by.

        Args:
            filter: made from the image's features.
            counts: (H * W, 1), 1 where a pixel counts and 0 where it does not.
        """
        self._filter = filter
        self._counts = counts
        # Where no pixel that counts is near, the mean is 0.
        self._total = filter(counts).clamp(min=torch.finfo(counts.dtype).tiny)

    def __call__(self, values: Tensor) -> Tensor:
        """(H * W, K) of (H * W, K)."""
        # Not a product: a NaN that does not count would still spread.
        values = torch.where(self._counts > 0, values, 0.0)
        if torch.is_grad_enabled() and values.requires_grad and not torch.compiler.is_compiling():
            summed: Tensor = _Apply.apply(values, self._filter, False)
        else:
            summed = self._filter(values)
        return summed / self._total


class DenseCRF(nn.Module):
    """Mean field over all pairs of pixels; put it behind a network's logits.

    One iteration on the logits x, which start as the network's U::

        q = softmax(x)
        m = spatial @ F_s(q) + bilateral @ F_b(q)
        x = U + compatibility @ m

    F_s and F_b are weighted means over the image, each pixel itself included, with the Gaussian
    kernels of the features ``(column, row) / theta_gamma`` and ``(column / theta_alpha,
    row / theta_alpha, bands / theta_beta)``. Gradients flow through q, the weights and the logits,
    not through the features.

    Compared with Zheng et al.'s Caffe layer, which starts the compatibility at -I (Potts) and
    subtracts, it starts at +I here and adds: the same. Krähenbühl and Koltun's own code normalises
    the kernels symmetrically instead.

    Learnable parameters: ``spatial``, ``bilateral`` and ``compatibility``, each (K, K).
    """

    def __init__(
        self,
        classes: int,
        *,
        filter: str = "permutohedral",
        iterations: int | tuple[int, int] = (5, 10),
        theta_alpha: float = 160.0,
        theta_beta: float = 3.0,
        theta_gamma: float = 3.0,
        spatial_weight: float = 3.0,
        bilateral_weight: float = 5.0,
        radius: int = 5,
    ) -> None:
        """Build it; the defaults are those of CRF-RNN for 8-bit photographs.

        Args:
            classes: K.
            filter: a key of :data:`FILTERS`.
            iterations: in training and in evaluation; 0 leaves the logits as they are.
            theta_alpha: how far the bilateral kernel reaches, px.
            theta_beta: how different colours it binds, in the image's units.
            theta_gamma: how far the spatial kernel reaches, px.
            spatial_weight: the diagonal that ``spatial`` starts with.
            bilateral_weight: the diagonal that ``bilateral`` starts with.
            radius: of the filter ``window``, px; the others don't use it.

        Raises:
            ModelError: one of them is out of range.
        """
        super().__init__()
        if filter not in FILTERS:
            raise ModelError(f"the CRF's filter is {filter!r}; it must be one of {list(FILTERS)}")
        rounds = (iterations, iterations) if isinstance(iterations, int) else tuple(iterations)
        if len(rounds) != 2 or min(rounds) < 0:
            raise ModelError(
                f"the CRF's iterations are {iterations}; give one number, or two for training and "
                f"evaluation, of at least 0"
            )
        thetas = {"alpha": theta_alpha, "beta": theta_beta, "gamma": theta_gamma}
        for name, value in thetas.items():
            if not (math.isfinite(value) and value > 0):
                raise ModelError(f"the CRF's theta_{name} is {value}; it must be above 0")
        for name, number, least in (("classes", classes, 1), ("radius", radius, 0)):
            if number < least:
                raise ModelError(f"the CRF's {name} is {number}; it must be at least {least}")
        self.filter = filter
        self.iterations = rounds
        self.theta_alpha, self.theta_beta, self.theta_gamma = theta_alpha, theta_beta, theta_gamma
        self.radius = radius
        identity = torch.eye(classes)
        self.spatial = nn.Parameter(spatial_weight * identity)
        self.bilateral = nn.Parameter(bilateral_weight * identity)
        self.compatibility = nn.Parameter(identity.clone())

    def forward(
        self,
        logits: Tensor,
        image: Tensor,
        valid: Tensor | None = None,
        origins: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Logits in line with the image.

        Args:
            logits: float (N, K, H, W), any H, W >= 1; log probabilities will do.
            image: real (N, C, H, W), C >= 1 bands in units of which 0..255 span what is common.
            valid: bool (N, H, W): pixels that were not measured are False and have no say in
                others' classes. By default all count.
            origins: (row, column) of each image's first pixel, for images cut out of a larger one.
                The lattice is then the larger one's, and overlapping images agree where both see
                enough. By default (0, 0).

        Returns:
            (N, K, H, W) in the logits' dtype, or in float32 where that is shorter; autocast has no
            effect.

        Raises:
            ModelError: the shapes don't fit each other or the classes.
        """
        self._check(logits, image, valid)
        # Half a float's eleven bits don't tell a lattice's vertices apart.
        dtype = torch.promote_types(logits.dtype, torch.float32)
        with torch.autocast(logits.device.type, enabled=False):
            out = [
                self._mean_field(
                    logits[n].to(dtype),
                    image[n].to(dtype),
                    None if valid is None else valid[n],
                    (0, 0) if origins is None else origins[n],
                )
                for n in range(len(logits))
            ]
        return torch.stack(out)

    def _mean_field(
        self, logits: Tensor, image: Tensor, valid: Tensor | None, origin: tuple[int, int]
    ) -> Tensor:
        """One image's (K, H, W)."""
        with torch.no_grad():
            make, size = FILTERS[self.filter], logits.shape[1:]
            counts = logits.new_ones(size.numel(), 1)
            if valid is not None:
                counts = valid.reshape(-1, 1).to(logits.dtype)
            near = _Mean(make(_place(image, self.theta_gamma, origin), self.radius), counts)
            place = _place(image, self.theta_alpha, origin)
            features = torch.cat([place, image / self.theta_beta])
            alike = _Mean(make(features, self.radius), counts)
        weights = (self.spatial, self.bilateral, self.compatibility)
        w_spatial, w_bilateral, compatibility = (w.to(logits.dtype) for w in weights)
        # Pixels by classes: what the filters read of a pixel then lies side by side.
        unary = logits.flatten(1).T
        x = unary
        for _ in range(self.iterations[0 if self.training else 1]):
            q = torch.softmax(x, dim=1)
            message = F.linear(near(q), w_spatial) + F.linear(alike(q), w_bilateral)
            x = unary + F.linear(message, compatibility)
        return x.T.reshape(logits.shape)

    def _check(self, logits: Tensor, image: Tensor, valid: Tensor | None) -> None:
        classes = len(self.compatibility)
        if logits.ndim != 4 or logits.shape[1] != classes:
            raise ModelError(
                f"the CRF got logits of shape {tuple(logits.shape)}; it was built for (N, "
                f"{classes}, H, W)"
            )
        wanted = (len(logits), *logits.shape[2:])
        if image.ndim != 4 or (len(image), *image.shape[2:]) != wanted or image.shape[1] < 1:
            raise ModelError(
                f"the CRF got an image of shape {tuple(image.shape)} with logits of "
                f"{tuple(logits.shape)}; both have the same N, H and W, so resize one of them"
            )
        if valid is not None and tuple(valid.shape) != wanted:
            raise ModelError(
                f"the CRF got valid of shape {tuple(valid.shape)}; it must be (N, H, W) = {wanted}"
            )


def _place(image: Tensor, theta: float, origin: tuple[int, int]) -> Tensor:
    """(column, row) / theta of each pixel of an image (C, H, W), as (2, H, W).

    A shift by sqrt(3) theta columns or 3 theta rows brings the lattice onto itself, whatever its
    dimensions (the lifted point moves by d + 1 times (1, -1, 0, ..) or (1, 1, -2, 0, ..)), so the
    origin is taken modulo these: float32 would not tell the pixels of a large scene apart.
    """
    height, width = image.shape[1:]
    rows = torch.arange(height, dtype=image.dtype, device=image.device)
    cols = torch.arange(width, dtype=image.dtype, device=image.device)
    rows = rows + origin[0] % (3 * theta)
    cols = cols + origin[1] % (math.sqrt(3) * theta)
    return torch.stack([cols.expand(height, width), rows[:, None].expand(height, width)]) / theta
