"""What the segmentation networks share: any input size in, logits of that size out.

What the networks have in common:

- ``SegModel`` (this module) is what they share. ``heads()`` gives logits at the network's own
  stride, as the published code does, and ``forward_logits()`` is that; ``forward()`` reflects the
  input to sides that suit the network, resizes and crops. Where features lie at pixels 0, s, 2s,
  ... those sides are ``s * k + 1`` and corners are aligned, so that each feature comes back onto
  its own pixel; else they are multiples.
- A preset (``pspnet101``) is a name for options of a family (``pspnet``), and follows one published
  implementation down to its quirks: where the stride sits, what the first dilated block does, how
  corners are aligned. Families choose what is right for the encoder at hand.
- Dilation is worked out by tracing shapes on the meta device, so it needs no list of encoders.
- Batch norms that get one value a channel use their running statistics (``guard_batch_norm``).
- A card names a network and its options; ``encoder_weights`` in them are never fetched when a model
  is read.
- Every random thing of a training step, torch's included, is seeded by (seed, step).
- Scores come from one summed confusion matrix, never from a mean over chips or scenes; what is
  undefined is NaN. A batch without any known pixel has the loss 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "SegModel",
    "SeparableBlock",
    "conv_bn_relu",
    "guard_batch_norm",
    "init_convolutions",
    "reflect",
    "resize",
    "unit_length",
]


class SegModel(nn.Module):
    """A network that gives logits, at its own stride and at the input's size.

    A subclass implements :meth:`heads`, which takes a padded input and gives logits at whatever
    size they have. :meth:`forward` pads the input below and to the right by reflection, to sides
    of ``size_multiple * k + size_offset`` px, resizes the logits to the padded sides and crops
    them. Where features lie at pixels 0, s, 2s, ... (convolutions that pad by half their kernel)
    the offset is 1 and ``align_corners`` True: then every feature is put back exactly onto its
    own pixel, whatever the input's size.

    Attributes:
        output_stride: px of the input per px of the features that are classified, as the papers
            count it; a decoder may bring the logits back to a finer stride.
        multiple: px after which the network repeats itself; chips should lie at multiples of it.
        size_multiple: see above, px.
        size_offset: see above, px.
        size_least: least side that :meth:`heads` takes, px.
        align_corners: how logits are resized.
    """

    output_stride: int = 1
    multiple: int = 1
    size_multiple: int = 1
    size_offset: int = 0
    size_least: int = 1
    align_corners: bool = False

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits of a padded input.

        Args:
            x: float (N, C, H, W); sides as the class says.

        Returns:
            float (N, K, h, w); in training, the auxiliary head's logits after it where the network
            has one.
        """
        raise TypeError(f"{type(self).__name__} has no heads(); a SegModel must say what it does")

    def forward_logits(self, x: Tensor) -> Tensor:
        """Give logits at the network's own stride, as the published code gives them.

        Args:
            x: float (N, C, H, W), normalized; not padded here.

        Returns:
            float (N, K, h, w).
        """
        return self.heads(x)[0]

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Give logits at the input's size.

        Args:
            x: float (N, C, H, W), normalized; any H and W of 1 and more.

        Returns:
            float (N, K, H, W). In training, a network with an auxiliary head gives a dict of two
            such tensors, ``out`` and ``aux``.
        """
        height, width = x.shape[-2:]
        padded = (self._side(height), self._side(width))
        y = reflect(x, below=padded[0] - height, right=padded[1] - width)
        logits = [
            resize(head, padded, align_corners=self.align_corners)[..., :height, :width]
            for head in self.heads(y)
        ]
        return logits[0] if len(logits) == 1 else {"out": logits[0], "aux": logits[1]}

    def _side(self, length: int) -> int:
        """Find the least side that holds ``length`` px and suits the network."""
        length = max(length, self.size_least)
        steps = math.ceil((length - self.size_offset) / self.size_multiple)
        return steps * self.size_multiple + self.size_offset


def reflect(x: Tensor, *, below: int = 0, right: int = 0, above: int = 0, left: int = 0) -> Tensor:
    """Pad by reflection about the outermost pixels, as often as it takes.

    Unlike torch's own reflection it takes any width of padding, and a side of 1 px.

    Args:
        x: (..., H, W).
        below: rows to add.
        right: columns to add.
        above: rows to add.
        left: columns to add.

    Returns:
        (..., above + H + below, left + W + right).

    Examples:
        >>> reflect(torch.tensor([[1, 2, 3]]), right=4, below=1)
        tensor([[1, 2, 3, 2, 1, 2, 3],
                [1, 2, 3, 2, 1, 2, 3]])
    """
    height, width = x.shape[-2:]
    if not (below or right or above or left):
        return x
    if x.ndim == 4 and max(below, above) < height and max(right, left) < width:
        return F.pad(x, (left, right, above, below), mode="reflect")
    rows = _reflected(height, above, below, x.device)
    cols = _reflected(width, left, right, x.device)
    return x.index_select(-2, rows).index_select(-1, cols)


def _reflected(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Work out which pixel stands at each place of a side that is continued by reflection."""
    place = torch.arange(-before, length + after, device=device)
    if length == 1:
        return torch.zeros_like(place)
    period = 2 * (length - 1)
    place = place % period
    return torch.minimum(place, period - place)


def resize(x: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """Resize bilinearly, and do nothing at all where the size is right already.

    Args:
        x: float (N, C, h, w).
        size: (H, W).
        align_corners: whether the outermost pixels' centres lie on each other.

    Returns:
        float (N, C, H, W).
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    dilation: int = 1,
    separable: bool = False,
) -> nn.Sequential:
    """Build a convolution without bias and with same padding, batch norm and ReLU.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: odd, px.
        dilation: px between its taps.
        separable: a depthwise convolution, batch norm and ReLU before a pointwise one, as in
            DeepLabV3+ on Xception.
    """
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = []
    if separable:
        layers += [
            nn.Conv2d(
                in_channels,
                in_channels,
                kernel,
                padding=padding,
                dilation=dilation,
                groups=in_channels,
                bias=False,
            ),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
        ]
        kernel, padding, dilation = 1, 0, 1
    layers += [
        nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
    return nn.Sequential(*layers)


class SeparableBlock(nn.Module):
    """Three pairs of pointwise and depthwise convolutions, and a pointwise shortcut, added.

    The block of the Dynamic World network (Brown et al. 2022).
    """

    def __init__(
        self, in_channels: int, out_channels: int, layer: Callable[..., nn.Module]
    ) -> None:
        """Build the layers.

        Args:
            in_channels: of the input.
            out_channels: of the output, and of all layers.
            layer: from in_channels, out_channels, kernel and ``groups=`` to a convolution with
                whatever follows it.
        """
        super().__init__()
        body: list[nn.Module] = []
        for i in (in_channels, out_channels, out_channels):
            body += [
                layer(i, out_channels, 1),
                layer(out_channels, out_channels, 3, groups=out_channels),
            ]
        self.body = nn.Sequential(*body)
        self.shortcut = layer(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Give features (N, out_channels, H, W) of (N, in_channels, H, W)."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


def unit_length(x: Tensor, least: float = 1e-6) -> Tensor:
    """Keep the direction of each pixel's features, and bring their length to 1.

    Args:
        x: float (N, C, H, W).
        least: of the squared length that is divided by.

    Returns:
        Like ``x``.
    """
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True).clamp_min(least))


def init_convolutions(module: nn.Module, std: float | None = None) -> None:
    """Draw the weights of all convolutions below a module; biases become 0.

    Args:
        module: whose convolutions.
        std: of a normal distribution, or None for that of He et al. 2015
            (https://arxiv.org/abs/1502.01852), which keeps deep networks without batch norm alive.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if std is None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, std=std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def guard_batch_norm(network: nn.Module) -> None:
    """Let batch norms train on one value a channel, where there is no variance to divide by.

    Image pooling makes maps of one pixel, so with a batch of one chip torch refuses to train. Such
    a layer then uses its running statistics, as in evaluation.

    Args:
        network: its batch norms are changed in place; parameters and names stay.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and not isinstance(layer, _Guard):
            layer.__class__ = _guarded(type(layer))


class _Guard:
    """Mixed into a batch norm; see :func:`guard_batch_norm`."""

    training: bool

    def forward(self, x: Tensor) -> Tensor:
        alone = self.training and x.numel() == x.shape[1]
        if not alone:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        self.training = False
        try:
            return super().forward(x)  # type: ignore[misc, no-any-return]
        finally:
            self.training = True


#: One guarded class for each class of batch norm.
_GUARDED: dict[Any, Any] = {}


def _guarded(kind: Any) -> Any:
    if kind not in _GUARDED:
        _GUARDED[kind] = type(kind.__name__, (_Guard, kind), {})
    return _GUARDED[kind]
