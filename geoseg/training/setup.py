"""What a run has before its first step: scenes, where its chips come from, and the card to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from geoseg.cards.card import ModelCard, Normalization
from geoseg.cards.taught import taught_ground
from geoseg.errors import ModelError, TrainingError
from geoseg.networks.create import chip_multiple
from geoseg.training.chips import ChipSource
from geoseg.training.derived_bands import derive_bands
from geoseg.training.held_out import shown_size, write_held_out
from geoseg.training.process import Process
from geoseg.training.recipe import TrainConfig
from geoseg.training.recipe_file import dump_config
from geoseg.training.run_folder import RECIPE_NAME
from geoseg.training.scenes import TrainingScene, load_scene
from geoseg.training.sides import split_scenes
from geoseg.training.split import VALIDATION
from geoseg.training.statistics import band_statistics, measure_normalization, taught_pixels
from geoseg.training.teacher import Teacher, load_teacher, teach
from geoseg.training.validation import check_gsds
from geoseg.zoo import find_model

__all__ = ["Setup", "set_up"]


@dataclass(frozen=True)
class Setup:
    """What a run has before its first step.

    Attributes:
        scenes: what it learns from and what is held out.
        source: makes training chips of them.
        card: of the model to be, without scores.
    """

    scenes: list[TrainingScene]
    source: ChipSource
    card: ModelCard


def set_up(process: Process, network: nn.Module) -> Setup:
    """Read the scenes and split them, measure what the network needs, and make the card.

    The first process reads and writes; the others map what it has read into memory.

    Args:
        process: what this process works on.
        network: that will learn.

    Raises:
        SceneError: a scene can't be read.
        TrainingError: labels, teacher, split or recipe don't fit the scenes.
        OutputError: the run's folder can't be written.
    """
    config, report = process.config, process.report
    teacher = load_teacher(config, process.fabric.device)
    bands = tuple(dict.fromkeys((*config.bands, *(teacher.card.bands if teacher else ()))))
    scenes = _read_scenes(process, bands)
    if process.first:
        if teacher is not None:
            _ask(teacher, scenes, bands, process)
        for doubt in split_scenes(config, scenes):
            report.warn(doubt)
        process.folder.write(RECIPE_NAME, dump_config(config).encode())
        write_held_out(process.folder.held_out, scenes, config.classes)
    process.fabric.barrier()
    if config.split.by == "random":
        report.warn(
            "the split is random: training and validation chips are neighbours and look alike, so "
            "the scores flatter; split by blocks or files for honest ones"
        )
    normalization = _find_normalization(config, scenes)
    source = ChipSource(config, scenes, bands, _white_of(config, scenes), teacher)
    laid = () if config.laid_clouds is None else config.laid_clouds.names
    counted = zip(config.classes, source.class_pixels, strict=True)
    missing = [c.name for c, n in counted if n == 0 and c.name not in laid]
    if missing and teacher is None:
        report.warn(f"no training pixel is {', '.join(missing)}: the model can't learn it")
    report.note(f"{shown_size(scenes)}; {_shown_split(config, scenes)}")
    card = _card_to_be(config, normalization, chip_multiple(network))
    seen = taught_ground(taught_pixels(scenes, len(config.bands)), config.quantity)
    card = replace(card, taught=seen)
    if process.first:
        check_gsds(config, scenes, card)
    return Setup(scenes, source, card)


def _ask(
    teacher: Teacher, scenes: Sequence[TrainingScene], bands: Sequence[str], process: Process
) -> None:
    """Fill in a teacher's answers where scenes have no label."""
    places = [bands.index(b) for b in teacher.card.bands]
    for number, scene in enumerate(scenes, start=1):
        teach(scene, teacher, places)
        process.report(
            {"event": "progress", "stage": "teacher", "done": number, "total": len(scenes)}
        )


def _read_scenes(process: Process, bands: Sequence[str]) -> list[TrainingScene]:
    """Read all scenes in the first process into flat files, and map these in the others.

    Scenes without labels are left out, unless there is a teacher.
    """
    config, fabric, report = process.config, process.fabric, process.report
    scenes: dict[int, TrainingScene] = {}
    asked = [i for i, s in enumerate(config.scenes) if s.has_labels or config.teacher is not None]
    for first in (True, False):
        if process.first == first:
            for done, i in enumerate(asked, start=1):
                scratch = process.folder.scratch
                scenes[i] = load_scene(config, config.scenes[i], bands, scratch, i, fill=first)
                report({"event": "progress", "stage": "scenes", "done": done, "total": len(asked)})
        fabric.barrier()
    if process.first:
        derive_bands(list(scenes.values()), bands, len(config.bands))
    fabric.barrier()
    kept = [i for i, s in scenes.items() if not s.fault or config.teacher is not None]
    if process.first and not kept:
        raise TrainingError(next(s.fault for s in scenes.values() if s.fault))
    for i, scene in enumerate(config.scenes):
        if i not in asked:
            report.warn(f"{scene.path} has no labels: it is left out")
        elif scenes[i].fault:
            report.warn(scenes[i].fault)
    for read in scenes.values():
        for note in read.notes:
            report.warn(f"{read.name}: {note}")
    worst = max(scenes.values(), key=lambda scene: scene.disputed)
    if worst.disputed:
        pixels = sum(scene.disputed for scene in scenes.values())
        report.warn(
            f"shapes of different classes overlap in {pixels} pixels, {worst.disputed} of them in "
            f"{worst.config.path}; these have no label"
        )
    return [scenes[i] for i in fabric.broadcast(kept)]


def _find_normalization(config: TrainConfig, scenes: Sequence[TrainingScene]) -> Normalization:
    """Take the recipe's normalization or that of the model to begin with, or measure one."""
    if config.normalization_parameters:
        return Normalization(
            config.normalization, dict(config.normalization_parameters), config.clip
        )
    if config.start is not None:
        # What its weights are used to.
        return find_model(config.start).card.normalization
    return measure_normalization(scenes, len(config.bands), config.normalization, config.clip)


def _white_of(config: TrainConfig, scenes: Sequence[TrainingScene]) -> float:
    """Find the value of white: 1 for reflectance, 255 for bytes, else what few pixels exceed."""
    if config.quantity == "reflectance":
        return 1.0
    if all(scene.pixels.dtype == np.uint8 for scene in scenes):
        return 255.0
    mean, deviation = band_statistics(scenes, len(config.bands))
    return float((mean + 3 * deviation).max())


def _shown_split(config: TrainConfig, scenes: Sequence[TrainingScene]) -> str:
    """Say how the scenes were split."""
    held = sum(int(s.usable(rows, VALIDATION).sum()) for s in scenes for rows in s.strips())
    return f"split by {config.split.by}, {held} pixels with a target held out"


def _temperature(config: TrainConfig) -> float:
    """Find the temperature that undoes the sharpening of a teacher's answers, if any."""
    only_taught = config.teacher is not None and not any(s.has_labels for s in config.scenes)
    return 1 / config.teacher_temperature if only_taught else 1.0


def _card_to_be(config: TrainConfig, normalization: Normalization, multiple: int) -> ModelCard:
    """Make the card of the model to be; before training, so that its errors come first."""
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
            clouds=config.clouds,
            **{"multiple": multiple, **config.inference},
        )
    except (ModelError, TypeError, ValueError) as error:
        raise TrainingError(f"the recipe makes no sound model card: {error}") from error
