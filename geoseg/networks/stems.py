"""The first convolution of an encoder, fitted to the bands at hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.scene.sensors import STAND_INS

__all__ = ["adapt_stem", "stem_channels", "stem_convolutions"]


def adapt_stem(
    network: nn.Module,
    source_bands: Sequence[str | None],
    in_channels: int,
    bands: Sequence[str] | None,
) -> None:
    """Let the first convolution take other bands.

    A band that the weights know keeps its own filter, or else that of its stand-in (nir for nir08
    and the other way round); any other gets the mean over all the filters. All are multiplied by
    the number of source bands over that of the new ones, so that grey pixels give the response
    that they gave before. Where neither side has names and the numbers are equal, nothing changes.

    Args:
        network: takes as many channels as there are source bands; changed in place.
        source_bands: what the weights were made for, None where unknown.
        in_channels: bands C of the new input.
        bands: of the new input by name, or None where unknown.

    Raises:
        ModelError: the bands are not C, or no convolution takes the source bands.
    """
    if bands is not None and len(bands) != in_channels:
        raise ModelError(
            f"in_channels is {in_channels} and the named bands are {list(bands)}; name as many, or "
            f"none"
        )
    mixing = _mixing(source_bands, in_channels, bands)
    if torch.equal(mixing, torch.eye(*mixing.shape)):
        return
    for convolution in stem_convolutions(network, len(source_bands)):
        old = convolution.weight
        mixed = torch.einsum("oshw,sb->obhw", _dense(convolution), mixing.to(old))
        convolution.weight = nn.Parameter(mixed, requires_grad=old.requires_grad)
        convolution.in_channels, convolution.groups = in_channels, 1


def stem_convolutions(network: nn.Module, in_channels: int) -> list[nn.Conv2d]:
    """Find the convolutions that take the input: one, or several side by side as in MobileOne.

    Args:
        network: any.
        in_channels: bands that it takes.

    Raises:
        ModelError: there is none.
    """
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    later = itertools.dropwhile(lambda layer: layer.in_channels != in_channels, convolutions)
    # Only the first ones in a row: further down the same number may be a coincidence.
    first = list(itertools.takewhile(lambda layer: layer.in_channels == in_channels, later))
    if not first:
        raise ModelError(
            f"no convolution of this encoder takes its {in_channels} bands, so pretrained weights "
            f"can't be fitted to others; choose another encoder, or encoder_weights=None"
        )
    return first


def stem_channels(network: nn.Module, state: dict[str, Tensor], in_channels: int) -> int | None:
    """Find how many bands weights take; None where they have no first convolution.

    Args:
        network: of that kind, for any number of bands; the meta device will do.
        state: weights in the network's names.
        in_channels: bands that the network takes.
    """
    first = stem_convolutions(network, in_channels)[0]
    name = next(name for name, layer in network.named_modules() if layer is first)
    weight = state.get(f"{name}.weight")
    return None if weight is None or weight.ndim != 4 else int(weight.shape[1]) * first.groups


def _mixing(
    source_bands: Sequence[str | None], in_channels: int, bands: Sequence[str] | None
) -> Tensor:
    """Work out how much each new band takes of each source band: float (source, C)."""
    sources = len(source_bands)
    named = bands if any(source_bands) else None
    if named is None and in_channels == sources:
        return torch.eye(sources)
    mixing = torch.full((sources, in_channels), 1 / sources)
    for column, band in enumerate(named or ()):
        row = next(
            (source_bands.index(b) for b in (band, *STAND_INS.get(band, ())) if b in source_bands),
            None,
        )
        if row is not None:
            mixing[:, column] = 0
            mixing[row, column] = 1
    return mixing * (sources / in_channels)


def _dense(convolution: nn.Conv2d) -> Tensor:
    """Write the weight of a grouped convolution as that of an ungrouped one: (out, in, h, w)."""
    weight = convolution.weight.detach()
    outputs, inputs = weight.shape[:2]
    groups = convolution.groups
    if groups == 1:
        return weight
    dense = weight.new_zeros((outputs, inputs * groups, *weight.shape[2:]))
    step = outputs // groups
    for group in range(groups):
        rows = slice(group * step, (group + 1) * step)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense
