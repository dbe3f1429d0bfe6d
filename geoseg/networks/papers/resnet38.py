"""ResNet-38, "Wider or Deeper": Wu, Shen and van den Hengel 2019 (https://arxiv.org/abs/1611.10080).

Model A1 of the authors' release (https://github.com/itijyou/ademxapp): convolutions with strides
instead of poolings, blocks of batch norm, ReLU, convolution, at an eighth of the input.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from geoseg.networks.base import SegModel, init_convolutions
from geoseg.networks.vgg import scaled

__all__ = ["ResNet38"]

#: Of MXNet's batch norm as the release sets it.
EPSILON = 1.001e-5


class _Level(NamedTuple):
    blocks: int
    channels: tuple[int, ...]
    stride: int
    rates: tuple[int, int]  # of the first block's first spatial convolution, and of all others
    dropout: float


#: Levels 2 to 7. A level of two convolutions has 3 x 3 twice, one of three 1 x 1, 3 x 3, 1 x 1.
LEVELS = (
    _Level(3, (128, 128), 2, (1, 1), 0.0),
    _Level(3, (256, 256), 2, (1, 1), 0.0),
    _Level(6, (512, 512), 2, (1, 1), 0.0),
    _Level(3, (512, 1024), 1, (1, 2), 0.0),
    _Level(1, (512, 1024, 2048), 1, (4, 4), 0.3),
    _Level(1, (1024, 2048, 4096), 1, (4, 4), 0.5),
)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=EPSILON), nn.ReLU(inplace=True))


class _Block(nn.Module):
    """Batch norm, ReLU and convolution, two or three times, beside a shortcut."""

    def __init__(
        self, in_channels: int, level: _Level, channels: tuple[int, ...], first: bool
    ) -> None:
        super().__init__()
        kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
        stride = level.stride if first else 1
        self.norms = nn.ModuleList()
        self.convs = nn.ModuleList()
        before = in_channels
        spatial = 0
        for i, (out, kernel) in enumerate(zip(channels, kernels, strict=True)):
            rate = 1
            if kernel == 3:
                rate = level.rates[0] if first and spatial == 0 else level.rates[1]
                spatial += 1
            self.norms.append(_norm_relu(before))
            self.convs.append(
                nn.Conv2d(
                    before,
                    out,
                    kernel,
                    stride=stride if i == 0 else 1,
                    padding=rate * (kernel // 2),
                    dilation=rate,
                    bias=False,
                )
            )
            before = out
        self.drop = nn.Dropout2d(level.dropout)
        # A shortcut that changes the shape starts behind the first batch norm and ReLU.
        self.shortcut = (
            nn.Conv2d(in_channels, before, 1, stride=stride, bias=False) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = activated = self.norms[0](x)
        last = len(self.convs) - 1
        for i, conv in enumerate(self.convs):
            if i > 0:
                y = self.norms[i](y)
            y = conv(self.drop(y) if i == last else y)
        out: Tensor = y + (x if self.shortcut is None else self.shortcut(activated))
        return out


class ResNet38(SegModel):
    """The network with its head of two dilated convolutions."""

    output_stride = 8
    multiple = 8
    size_multiple = 8
    size_offset = 1
    align_corners = True

    def __init__(self, in_channels: int, classes: int, *, width: float = 1.0) -> None:
        """Build the layers.

        Args:
            in_channels: bands.
            classes: classes.
            width: times the published channels.
        """
        super().__init__()
        before = scaled(64, width)
        self.stem = nn.Conv2d(in_channels, before, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for level in LEVELS:
            channels = tuple(scaled(c, width) for c in level.channels)
            for number in range(level.blocks):
                blocks.append(_Block(before, level, channels, first=number == 0))
                before = channels[-1]
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm_relu(before)
        hidden = scaled(512, width)
        self.head = nn.Sequential(
            nn.Conv2d(before, hidden, 3, padding=12, dilation=12),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, classes, 3, padding=12, dilation=12),
        )
        init_convolutions(self)
        init_convolutions(self.head[2], std=0.01)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give logits at an eighth of the input."""
        y: Tensor = self.head(self.norm(self.blocks(self.stem(x))))
        return (y,)
