"""Networks by name: built, or looked up."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg.core.importing import require
from geoseg.errors import ModelError
from geoseg.networks.table import NETWORKS, list_models

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelInfo", "chip_multiple", "create_model", "model_info"]


def create_model(
    name: str,
    encoder: str | None = None,
    in_channels: int = 3,
    classes: int = 21,
    *,
    encoder_weights: str | None = None,
    bands: Sequence[str] | None = None,
    output_stride: int | None = None,
    aux: bool = False,
    crf: bool | Mapping[str, Any] = False,
    **options: Any,
) -> nn.Module:
    """Build a network.

    Args:
        name: one of :func:`geoseg.list_models`.
        encoder: of timm (or of segmentation_models_pytorch for its networks); None for the
            network's own.
        in_channels: bands of the input.
        classes: channels of the output. The papers' networks have Pascal VOC's 21.
        encoder_weights: None for random ones; ``imagenet``, ``torchgeo:NAME``, ``package:NAME``
            (weights in an installed Python package) or the path of a file.
        bands: the input's bands by name, with which the weights of the first convolution are
            fitted: a band that they know keeps its filters, others get the mean.
        output_stride: of the encoder, where the network can choose.
        aux: whether there is an auxiliary head, where the network has one. In training it then
            gives a dict of ``out`` and ``aux``.
        crf: whether a CRF-RNN follows the network; True, or its options, such as
            ``{"filter": "window"}``.
        **options: the network's own options, as in a card's ``network_options``.

    Returns:
        A module that takes normalized float (N, C, H, W) and gives logits (N, K, H, W).

    Raises:
        MissingExtraError: torch and the like are not installed.
        ModelError: the name is unknown, the network does not take these options, or the weights
            are not here.
    """
    _check_name(name)
    if in_channels < 1 or classes < 1:
        raise ModelError(
            f"in_channels is {in_channels} and classes {classes}; both must be 1 at least"
        )
    require("torch", f"the network {name!r}")
    wanted = _wanted(
        name,
        encoder=encoder,
        encoder_weights=encoder_weights,
        output_stride=output_stride,
        aux=aux or None,
    )
    if encoder_weights is not None:
        wanted["bands"] = bands
    network = _build(name, in_channels, classes, wanted, options)
    from geoseg.networks.base import guard_batch_norm

    guard_batch_norm(network)
    if crf:
        from geoseg.networks.papers.crfrnn import CRFRNN

        network = CRFRNN(network, classes, **({} if crf is True else dict(crf)))
    return network


def _check_name(name: str) -> None:
    """Refuse a name that is not in the table.

    Raises:
        ModelError: it isn't.
    """
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, n=3, cutoff=0.4)
        raise ModelError(
            f"there is no network {name!r}{f'; did you mean {near}?' if near else ''}; geoseg "
            f"models list --networks shows all {len(NETWORKS)}"
        )


def _wanted(name: str, **given: Any) -> dict[str, Any]:
    """Leave out what was not given, and refuse what a network does not take.

    Raises:
        ModelError: it has no such argument.
    """
    wanted = {key: value for key, value in given.items() if value is not None}
    for key in wanted:
        if key not in _parameters(name):
            others = [n for n in list_models() if key in _parameters(n)]
            raise ModelError(
                f"the network {name!r} takes no {key}; leave it out, or choose one of {others}"
            )
    return wanted


def _build(
    name: str, in_channels: int, classes: int, wanted: dict[str, Any], options: dict[str, Any]
) -> nn.Module:
    """Call a network's class.

    Raises:
        ModelError: it does not take these options.
    """
    try:
        network: nn.Module = _constructor(name)(
            in_channels=in_channels,
            classes=classes,
            **{**NETWORKS[name].options, **wanted, **options},
        )
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the network {name!r} does not take in_channels={in_channels}, classes={classes}, "
            f"options {options} ({error}); its options are "
            f"{sorted(_parameters(name) - {'in_channels', 'classes', 'bands'})}"
        ) from error
    return network


def _constructor(name: str) -> Any:
    module, attribute = NETWORKS[name].target.split(":")
    return getattr(importlib.import_module(f"geoseg.networks.{module}"), attribute)


@functools.cache
def _parameters(name: str) -> frozenset[str]:
    return frozenset(inspect.signature(_constructor(name)).parameters)


def chip_multiple(network: nn.Module) -> int:
    """Give what chips' sides and places should be multiples of, px, for one phase throughout.

    Args:
        network: one of :func:`create_model`.
    """
    return max(int(getattr(network, key, 1)) for key in ("multiple", "size_multiple"))


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a network before it is built for good.

    Attributes:
        name: what :func:`create_model` calls it.
        paper: what people call it, and its authors.
        year: of the paper.
        url: of the paper.
        tag: ``paper``, ``smp``, ``torchvision`` or ``geoseg``: where the network comes from.
        options: the options that the name stands for.
        parameters: with these bands and classes, auxiliary heads left out.
        output_stride: as the paper counts it, px.
        multiple: chips should lie at multiples of it, px.
    """

    name: str
    paper: str
    year: int
    url: str
    tag: str
    options: Mapping[str, Any]
    parameters: int
    output_stride: int
    multiple: int


def model_info(
    name: str, encoder: str | None = None, in_channels: int = 3, classes: int = 21, **options: Any
) -> ModelInfo:
    """Look a network up. Its layers are counted, not allocated.

    Args:
        name: one of :func:`geoseg.list_models`.
        encoder: of timm; None for the network's own.
        in_channels: bands of the input.
        classes: channels of the output.
        **options: those of :func:`create_model`, and the network's own.

    Returns:
        Its paper, its number of parameters, and where its chips should lie.

    Raises:
        ModelError: as :func:`create_model`.
    """
    require("torch", f"the network {name!r}")
    import torch

    try:
        with torch.device("meta"):
            network = create_model(name, encoder, in_channels, classes, **options)
    except ModelError:
        # Some encoders, such as SegFormer's, need numbers to be built; a wrong option fails again.
        network = create_model(name, encoder, in_channels, classes, **options)
    entry = NETWORKS[name]
    return ModelInfo(
        name=name,
        paper=entry.paper.title,
        year=entry.paper.year,
        url=entry.paper.url,
        tag=entry.tag,
        options={**entry.options, **({"encoder": encoder} if encoder else {}), **options},
        parameters=sum(p.numel() for p in network.parameters()),
        output_stride=int(getattr(network, "output_stride", 1)),
        multiple=chip_multiple(network),
    )
