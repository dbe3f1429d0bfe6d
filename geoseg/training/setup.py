"""What a run of training needs before its first step."""

from __future__ import annotations

import copy
import glob
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoseg.cards.card import ModelCard, Normalization
from geoseg.errors import GeosegError, ModelError, TrainingError
from geoseg.labels.vector_files import is_vector
from geoseg.networks import create_model, load_network
from geoseg.scene.scene import files_behind, first_line, open_scene
from geoseg.scene.sources import Rules
from geoseg.training.chips import ChipSource
from geoseg.training.held_out import quiet
from geoseg.training.losses import median_frequency_weights
from geoseg.training.recipe import TrainConfig
from geoseg.training.run_folder import RunFolder, Teller
from geoseg.training.scenes import TrainingScene, load_scene
from geoseg.training.split import VALIDATION
from geoseg.training.statistics import band_statistics, measure_normalization
from geoseg.zoo import find_model

__all__ = [
    "card_to_be",
    "class_weights",
    "create_network",
    "find_normalization",
    "parameter_groups",
    "read_scenes",
    "recipe_digest",
    "shown_split",
    "try_network",
    "white_of",
]

#: Parts of a network that are its encoder, by the names of their modules.
ENCODERS = {"encoder", "backbone", "groups", "features"}


def recipe_digest(config: TrainConfig) -> str:
    """Of the recipe and the state of its files: a checkpoint goes with these alone."""
    digest = hashlib.sha256(repr(config).encode())
    files: set[Path] = set()
    for model in (config.teacher, config.start):
        if model is not None:
            files.update(model.rglob("*") if model.is_dir() else [model])
    for scene in config.scenes:
        files.update(_scene_files(scene.path, scene.rules))
        for path in scene.labels:
            files.update(_label_files(path, scene.rules))
    for file in sorted(files):
        if file.is_file():
            about = file.stat()
            digest.update(f"{file}|{about.st_size}|{about.st_mtime_ns}".encode())
    return digest.hexdigest()


def _scene_files(path: Path, rules: Rules) -> list[Path]:
    """What a scene is read from, and all else that lies at the top of its folder.

    What is wrong with a scene is told when it is read.
    """
    inside = [*path.iterdir()] if path.is_dir() else [path]
    with suppress(GeosegError), quiet():
        inside += map(Path, open_scene(path, rules).files)
    return inside


def _label_files(path: Path, rules: Rules) -> list[Path]:
    """A label file and what belongs to it: a shapefile's tables lie beside it."""
    if path.is_dir():
        return [*path.rglob("*")]
    if is_vector(path):
        return [*path.parent.glob(f"{glob.escape(path.stem)}.*")]
    return [path, *map(Path, files_behind(str(path), rules))]


def create_network(config: TrainConfig) -> nn.Module:
    """The network with its first weights."""
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
    """Send zeros through a copy: what does not fit is told before the scenes are read.

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


def read_scenes(
    fabric: Any, config: TrainConfig, bands: Sequence[str], folder: RunFolder, tell: Teller
) -> list[TrainingScene]:
    """All scenes; the first process reads them into flat files, the others map these."""
    scenes: dict[int, TrainingScene] = {}
    asked = [i for i, s in enumerate(config.scenes) if s.labels or config.teacher is not None]
    for first in (True, False):
        if (fabric.global_rank == 0) == first:
            for done, i in enumerate(asked, start=1):
                scene = config.scenes[i]
                scenes[i] = load_scene(config, scene, bands, folder.scratch, i, fill=first)
                tell({"event": "progress", "stage": "scenes", "done": done, "total": len(asked)})
        fabric.barrier()
    kept = [i for i, s in scenes.items() if not s.fault or config.teacher is not None]
    if fabric.global_rank == 0 and not kept:
        raise TrainingError(next(s.fault for s in scenes.values() if s.fault))
    for i, scene in enumerate(config.scenes):
        if i not in asked:
            tell.warn(f"{scene.path} has no labels: it is left out")
        elif scenes[i].fault:
            tell.warn(scenes[i].fault)
    worst = max(scenes.values(), key=lambda scene: scene.disputed)
    if worst.disputed:
        pixels = sum(scene.disputed for scene in scenes.values())
        tell.warn(
            f"shapes of different classes overlap in {pixels} pixels, {worst.disputed} of them in "
            f"{worst.config.path}; these have no label"
        )
    return [scenes[i] for i in fabric.broadcast(kept)]


def find_normalization(config: TrainConfig, scenes: Sequence[TrainingScene]) -> Normalization:
    """The recipe's own, or that of the model to begin with, or measured on the training side."""
    if config.normalization_parameters:
        return Normalization(
            config.normalization, dict(config.normalization_parameters), config.clip
        )
    if config.start is not None:
        # What its weights are used to.
        return find_model(config.start).card.normalization
    return measure_normalization(scenes, len(config.bands), config.normalization, config.clip)


def white_of(config: TrainConfig, scenes: Sequence[TrainingScene]) -> float:
    """The value of white: 1 for reflectance, 255 for bytes, else what few pixels exceed."""
    if config.quantity == "reflectance":
        return 1.0
    if all(scene.pixels.dtype == np.uint8 for scene in scenes):
        return 255.0
    mean, deviation = band_statistics(scenes, len(config.bands))
    return float((mean + 3 * deviation).max())


def shown_split(config: TrainConfig, scenes: Sequence[TrainingScene]) -> str:
    """How the scenes were split, in words."""
    held = sum(int(s.usable(rows, VALIDATION).sum()) for s in scenes for rows in s.strips())
    return f"split by {config.split.by}, {held} pixels with a target held out"


def class_weights(
    config: TrainConfig, source: ChipSource
) -> Sequence[float] | NDArray[np.float64] | None:
    """The recipe's class weights, measured on the training side where it says so."""
    if isinstance(config.class_weights, tuple):
        return config.class_weights
    if config.class_weights == "none":
        return None
    return median_frequency_weights(source.class_pixels, source.class_appearances)


def parameter_groups(config: TrainConfig, network: nn.Module) -> list[dict[str, Any]]:
    """The optimizer's groups: those of the encoder may learn at a smaller rate.

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


def _temperature(config: TrainConfig) -> float:
    """What brings back a teacher's own softness where its sharpened answer was learned."""
    only_taught = config.teacher is not None and not any(s.labels for s in config.scenes)
    return 1 / config.teacher_temperature if only_taught else 1.0


def card_to_be(config: TrainConfig, normalization: Normalization, multiple: int) -> ModelCard:
    """The card of the model to be, made before training so that its errors come first."""
    try:
        return ModelCard(
            name=config.name,
            description=config.description,
            network=config.network,
            # The card's weights are the whole network's: nothing is to be fetched for its encoder.
            network_options={
                k: v for k, v in config.network_options.items() if k != "encoder_weights"
            },
            bands=config.bands,
            classes=config.classes,
            gsd=config.gsd,
            gsd_range=config.gsd_range,
            quantity=config.quantity,
            normalization=normalization,
            temperature=_temperature(config),
            plausible=config.plausible,
            license=config.license,
            provenance=config.provenance,
            **{"multiple": multiple, **config.inference},
        )
    except (ModelError, TypeError, ValueError) as error:
        raise TrainingError(f"the recipe makes no sound model card: {error}") from error
