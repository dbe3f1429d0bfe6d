"""The dense CRF as a layer: a few rounds of mean field with two Gaussian filters.

:data:`FILTERS` is the table of filters; to add one, write a class and put a line there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.networks.crf.filters import ExactFilter, Filter, WindowFilter
from geoseg.networks.crf.permutohedral import PermutohedralFilter

__all__ = ["FILTERS", "DenseCRF"]

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
        """Take the means: (H * W, K) of (H * W, K)."""
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
        """Bring logits into line with the image.

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
        """Refine one image's logits (K, H, W)."""
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
    """Give (column, row) / theta of each pixel of an image (C, H, W), as (2, H, W).

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
