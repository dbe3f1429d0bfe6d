"""Dilated convolutions: Yu and Koltun 2016 (https://arxiv.org/abs/1511.07122).

The front end is VGG-16 without its last two poolings; the context module looks further and further
around at one resolution. After the authors' release (https://github.com/fyu/dilation), which uses
no padding at all: what lies beyond the input is reflected beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geoseg.networks.base import SegModel, init_convolutions, reflect, resize
from geoseg.networks.papers.fcn import bilinear_deconv
from geoseg.networks.vgg import load_vgg, scaled, vgg_groups

__all__ = ["DilationNet"]

#: How far the front end looks beyond each side of its outermost output cells, px: its receptive
#: field of 380 less a stride of 8, halved.
MARGIN = 186
#: Rates of the 3 x 3 convolutions of each context module and their channels, times the classes.
CONTEXTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "basic": ((1, 1, 2, 4, 8, 16, 1), (1, 1, 1, 1, 1, 1, 1)),
    "large": ((1, 1, 2, 4, 8, 16, 1), (2, 2, 4, 8, 16, 32, 32)),
    "cityscapes": ((1, 1, 2, 4, 8, 16, 32, 64, 1), (1,) * 9),
}


class DilationNet(SegModel):
    """The front end, alone or with a context module."""

    size_multiple = 8
    multiple = 8

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        context: str | None = "basic",
        padding: str = "valid",
        upsample: bool = False,
        width: float = 1.0,
        noise: float = 0.01,
        encoder_weights: str | None = None,
        bands: Sequence[str] | None = None,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            context: a key of :data:`CONTEXTS`, or None for the front end alone.
            padding: ``valid``: :meth:`forward` reflects 186 px around the input and the front end
                pads nothing, as released; or ``same``: every layer pads, for a fraction of the
                work. The weights are the same.
            upsample: end with a fixed bilinear transposed convolution by 8, as Dilation10 does.
            width: times the front end's published channels.
            noise: of the context's identity initialization, which it needs to learn at all.
            encoder_weights: of VGG-16 with fc6 and fc7, or None.
            bands: the input's bands by name, for fitting these.

        Raises:
            ValueError: context or padding is unknown.
        """
        super().__init__()
        if context is not None and context not in CONTEXTS:
            raise ValueError(f"context {context!r} must be None or one of {sorted(CONTEXTS)}")
        if padding not in ("valid", "same"):
            raise ValueError(f"padding {padding!r} must be valid or same")
        self.valid = padding == "valid"
        pad = (0, 0, 0, 0, 0) if self.valid else (1, 1, 1, 1, 2)
        hidden = scaled(4096, width)
        self.groups = vgg_groups(in_channels, width=width, padding=pad, dilation=(1, 1, 1, 1, 2))
        self.fc6 = nn.Conv2d(
            scaled(512, width), hidden, 7, dilation=4, padding=0 if self.valid else 12
        )
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.drop = nn.Dropout(0.5)
        self.score = nn.Conv2d(hidden, classes, 1)
        init_convolutions(self)
        init_convolutions(self.score, std=0.01)
        self.context = None if context is None else _context(classes, context, noise)
        self.output_stride = 1 if upsample else 8
        self.up = bilinear_deconv(classes, 16, 8, depthwise=True, padding=4) if upsample else None
        if encoder_weights is not None:
            load_vgg(self.groups, encoder_weights, bands, classifier=(self.fc6, self.fc7))

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at an eighth of the input, less the margin where nothing is padded."""
        for i, group in enumerate(self.groups):
            x = group(x)
            x = F.max_pool2d(x, 2) if i < 3 else x
        x = self.drop(torch.relu(self.fc6(x)))
        x = self.score(self.drop(torch.relu(self.fc7(x))))
        if self.context is not None:
            x = self.context(x)
        return (x if self.up is None else self.up(x),)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits at the input's size; see :meth:`geoseg.networks.base.SegModel.forward`."""
        height, width = x.shape[-2:]
        sides = (self._side(height), self._side(width))
        margin = MARGIN if self.valid else 0
        below, right = sides[0] - height, sides[1] - width
        y = reflect(x, above=margin, left=margin, below=below + margin, right=right + margin)
        return resize(self.forward_logits(y), sides, align_corners=False)[..., :height, :width]


def _context(classes: int, name: str, noise: float) -> nn.Sequential:
    """Build a context module that starts as the identity.

    The noise-free module gives relu(input): every 3 x 3 convolution is followed by a ReLU.
    """
    rates, widths = CONTEXTS[name]
    # The large module was released with all of its padding in the first layer.
    padding = (sum(rates), *[0] * (len(rates) - 1)) if name == "large" else rates
    layers: list[nn.Module] = []
    before = classes
    for rate, times, pad in zip(rates, widths, padding, strict=True):
        conv = nn.Conv2d(before, classes * times, 3, padding=pad, dilation=rate)
        layers += [_identity(conv, classes, noise), nn.ReLU(inplace=True)]
        before = classes * times
    layers.append(_identity(nn.Conv2d(before, classes, 1), classes, noise))
    return nn.Sequential(*layers)


def _identity(conv: nn.Conv2d, classes: int, noise: float) -> nn.Conv2d:
    """Begin by equations 4 and 5 of the paper: each output copies its own class's group."""
    out, into = conv.out_channels, conv.in_channels
    group_out = torch.arange(out) * classes // out
    group_in = torch.arange(into) * classes // into
    same = (group_out[:, None] == group_in[None, :]).float() * (classes / into)
    middle = conv.kernel_size[0] // 2
    with torch.no_grad():
        conv.weight.normal_(std=noise * classes / out) if noise > 0 else conv.weight.zero_()
        conv.weight[:, :, middle, middle] += same
        assert conv.bias is not None
        conv.bias.zero_()
    return conv
