"""The VGG-16 trunk of Simonyan and Zisserman 2015 (https://arxiv.org/abs/1409.1556), in groups.

FCN, SegNet, DeepLab and the dilated networks differ in what stands between the groups (which
pooling, which dilation), so that is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.networks.stems import adapt_stem
from geoseg.networks.weights import encoder_state

__all__ = ["GROUPS", "load_vgg", "scaled", "vgg_groups"]

#: Convolutions and channels of each group.
GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def scaled(channels: int, width: float) -> int:
    """Count the channels of a network ``width`` times as wide as published, 1 at least."""
    return max(1, round(channels * width))


def vgg_groups(
    in_channels: int,
    *,
    width: float = 1.0,
    batch_norm: bool = False,
    padding: Sequence[int] = (1, 1, 1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1, 1, 1),
) -> nn.ModuleList:
    """Build the thirteen convolutions, each with bias and ReLU, in five groups.

    Args:
        in_channels: bands.
        width: times the published channels.
        batch_norm: whether one stands between convolution and ReLU.
        padding: of each group's convolutions, px.
        dilation: of each group's convolutions, px between taps.
    """
    groups = nn.ModuleList()
    before = in_channels
    for (count, published), pad, rate in zip(GROUPS, padding, dilation, strict=True):
        layers: list[nn.Module] = []
        for _ in range(count):
            channels = scaled(published, width)
            layers.append(nn.Conv2d(before, channels, 3, padding=pad, dilation=rate))
            layers += [nn.BatchNorm2d(channels)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            before = channels
        groups.append(nn.Sequential(*layers))
    return groups


def load_vgg(
    groups: nn.ModuleList,
    weights: str,
    bands: Sequence[str] | None,
    *,
    batch_norm: bool = False,
    classifier: Sequence[nn.Conv2d] = (),
) -> None:
    """Fill a trunk with released weights of VGG-16, such as ImageNet's.

    Args:
        groups: of :func:`vgg_groups`, at the published width.
        weights: see :func:`geoseg.networks.weights.encoder_state`.
        bands: the input's bands by name, for the first convolution.
        batch_norm: whether the trunk has them.
        classifier: fc6 and fc7 as convolutions, where they have the released shapes.

    Raises:
        ModelError: the weights are not here, or the trunk has another width.
    """
    source = encoder_state("vgg16_bn" if batch_norm else "vgg16", weights)
    layers = [m for m in groups.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    first = layers[0]
    assert isinstance(first, nn.Conv2d)
    in_channels = first.in_channels
    first.in_channels = source.in_channels
    first.weight = nn.Parameter(
        torch.empty(first.out_channels, source.in_channels, *first.kernel_size)
    )
    parts = [(k, v) for k, v in source.state.items() if k.startswith("features.")]
    released = [v for k, v in parts if not k.endswith("num_batches_tracked")]
    wanted = [
        tensor
        for layer in layers
        for key, tensor in layer.state_dict(keep_vars=True).items()
        if key != "num_batches_tracked"
    ]
    for number, layer in enumerate(classifier, start=1):
        released += [source.state[f"pre_logits.fc{number}.{p}"] for p in ("weight", "bias")]
        wanted += [layer.weight, layer.bias]
    _copy(wanted, released)
    adapt_stem(groups, source.bands, in_channels, bands)


def _copy(wanted: Sequence[Tensor], released: Sequence[Tensor]) -> None:
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (wanted, released)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            "the released VGG-16 weights have other shapes than this trunk; pretrained weights "
            "need width=1"
        )
    with torch.no_grad():
        for target, value in zip(wanted, released, strict=True):
            target.copy_(value)
