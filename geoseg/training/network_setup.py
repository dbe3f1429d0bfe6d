"""The network of a run: its first weights, a trial, and its groups of parameters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from geoseg.core.gdal import first_line
from geoseg.errors import TrainingError
from geoseg.networks import create_model, load_network
from geoseg.training.recipe import TrainConfig
from geoseg.zoo import find_model

__all__ = ["create_network", "parameter_groups", "try_network"]

#: Parts of a network that are its encoder, by the names of their modules.
ENCODERS = {"encoder", "backbone", "groups", "features"}


def create_network(config: TrainConfig) -> nn.Module:
    """Make the network with its first weights.

    Raises:
        TrainingError: the model to begin with does not fit.
        ModelError: it can't be read, or the network does not take its options.
    """
    options = dict(config.network_options)
    if options.get("encoder_weights") is not None:
        # Which of the bands the encoder has filters for already.
        options.setdefault("bands", config.bands)
    torch.manual_seed(config.seed)
    if config.start is not None:
        options.pop("encoder_weights", None)
    network = create_model(
        config.network,
        in_channels=len(config.bands),
        classes=len(config.classes),
        **options,
    )
    if config.start is not None:
        _begin_with(config, network)
    return network


def _begin_with(config: TrainConfig, network: nn.Module) -> None:
    """Take over a model's weights, all that have the same name and shape.

    Raises:
        TrainingError: the model takes other bands or values, or hardly anything of it fits.
    """
    assert config.start is not None
    model = find_model(config.start)
    for name in ("bands", "quantity"):
        theirs, ours = getattr(model.card, name), getattr(config, name)
        if theirs != ours:
            raise TrainingError(
                f"start: {config.start} has the {name} {theirs} and the recipe {ours}; they must "
                f"be the same, in the same order"
            )
    given = load_network(model).state_dict()
    own = network.state_dict()
    fits = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    known, total = (sum(v.numel() for v in state.values()) for state in (fits, own))
    if known < total / 2:
        raise TrainingError(
            f"start: {config.start} is {model.card.network!r} and fits {known} of the {total} "
            f"numbers of {config.network!r} with {dict(config.network_options)}; give its own "
            f"network and options: {dict(model.card.network_options)}"
        )
    network.load_state_dict(fits, strict=False)


def try_network(config: TrainConfig, network: nn.Module, device: torch.device) -> None:
    """Send zeros through a copy: what does not fit is found before the scenes are read.

    Raises:
        TrainingError: the network takes no such chips, or gives logits of another shape.
    """
    shape = (config.batch, len(config.bands), config.chip, config.chip)
    try:
        with torch.no_grad():
            zeros = torch.zeros(shape, device=device)
            output = copy.deepcopy(network).train()(zeros)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the network {config.network!r} fails on {config.batch} chips of {config.chip} px "
            f"({first_line(error)}); change batch, chip or network_options"
        ) from error
    logits = dict(output) if isinstance(output, Mapping) else {"out": output}
    wanted = (config.batch, len(config.classes), config.chip, config.chip)
    for name, value in logits.items():
        if tuple(value.shape) != wanted:
            raise TrainingError(
                f"the network {config.network!r} gives {name} of the shape {tuple(value.shape)}; "
                f"logits must have one channel a class at the chip's size, {wanted}: change chip "
                f"or network_options"
            )


def parameter_groups(config: TrainConfig, network: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters for the optimizer: those of the encoder may learn at a smaller rate.

    Raises:
        TrainingError: a smaller rate is asked for and the network has no encoder.
    """
    named = list(network.named_parameters())
    encoder = [p for name, p in named if ENCODERS & set(name.split("."))]
    if config.encoder_rate == 1.0:
        return [{"params": [p for _, p in named], "rate": 1.0}]
    if not encoder:
        raise TrainingError(
            f"encoder_rate is {config.encoder_rate} and the network {config.network!r} has no "
            f"encoder; leave it out"
        )
    ids = {id(p) for p in encoder}
    return [
        {"params": [p for _, p in named if id(p) not in ids], "rate": 1.0},
        {"params": encoder, "rate": config.encoder_rate},
    ]
