"""Scenes, recipes and teachers for the tests of training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard, Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.networks import create_model, save_model
from geoseg.training.augment_options import Augmentation
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.scenes import TrainingScene, load_scene
from geoseg.training.sides import split_scenes
from geoseg.training.split import SplitConfig
from geoseg.training.targets import UNKNOWN
from tests.helpers import make_raster

BANDS = ("blue", "red", "nir")
CLASSES = (
    ClassInfo(0, "water", "#0000FF"),
    ClassInfo(3, "trees", "#00FF00"),
    ClassInfo(7, "bare", "#AAAAAA"),
)
IDS = np.array([c.id for c in CLASSES], np.uint8)
#: Reflectance of each class in each band.
SPECTRA = np.array([[0.06, 0.03, 0.02], [0.03, 0.03, 0.35], [0.15, 0.25, 0.30]])
SIZE = 96
SPLIT = SplitConfig("blocks", folds=3, fold=1, block=32, margin=6)
#: Everything that can be done to a chip, at once.
WILD = Augmentation(
    zoom=(0.7, 1.6),
    gsd_max=1.8,
    gain=0.05,
    band_gain=0.05,
    tilt=0.05,
    band_offset=0.01,
    haze=0.05,
    veil=0.3,
    contrast=0.2,
    brightness=0.05,
    gamma=0.2,
    saturation=0.2,
    saturation_share=0.8,
    hue=20.0,
    grey_share=0.1,
    shuffle_share=0.1,
    blur=1.0,
    sharpen=1.5,
    speckle=0.2,
    shadow=0.2,
    noise=0.01,
    dropout=0.2,
    mix=0.5,
    mix_again=0.5,
    mix_kinds=(1.0, 1.0, 1.0, 1.0),
    statistics=0.3,
    covariance=0.3,
)


def place_of(number: int) -> Affine:
    """Scenes lie side by side, with 10 m pixels."""
    return Affine(10, 0, 500000 + number * 10 * SIZE, 0, -10, 5000000)


def draw_classes(seed: int, size: int = SIZE) -> NDArray[np.int64]:
    """Places in the legend, in squares of 8 px."""
    blocks = np.random.default_rng(seed).integers(3, size=(size // 8, size // 8))
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def draw_pixels(seed: int, size: int = SIZE) -> NDArray[np.uint16]:
    """What a sensor sees of them, x 10000."""
    noise = np.random.default_rng([seed, 1]).normal(0, 0.01, (3, size, size))
    pixels = SPECTRA[draw_classes(seed, size)].transpose(2, 0, 1) + noise
    return np.clip(pixels * 10000, 1, 65535).astype(np.uint16)


def write_scene(folder: Path, number: int, size: int = SIZE) -> SceneConfig:
    """A scene and its raster of class ids."""
    folder.mkdir(exist_ok=True, parents=True)
    where = {"transform": place_of(number)}
    path = make_raster(
        folder / f"scene{number}.tif",
        draw_pixels(number, size),
        descriptions=BANDS,
        nodata=0,
        **where,
    )
    labels = make_raster(
        folder / f"scene{number}_labels.tif", IDS[draw_classes(number, size)][None], **where
    )
    return SceneConfig(path, labels=(labels,))


def tiny_recipe(folder: Path, scenes: int = 1, **changes: Any) -> TrainConfig:
    """A run of 12 steps that takes less than a second."""
    config = TrainConfig(
        name="tiny",
        bands=BANDS,
        classes=CLASSES,
        scenes=tuple(write_scene(folder, number) for number in range(scenes)),
        split=SPLIT,
        scale=1e-4,
        offset=0.0,
        network_options={"width": 4, "depth": 1},
        inference={"size": 64, "overlap": 16, "margin": 4, "multiple": 2},
        steps=12,
        batch=4,
        chip=16,
        learning_rate=1e-2,
        warmup=2,
        ema=0.9,
        every=4,
        augmentation=Augmentation(gain=0.02, haze=0.02, noise=0.002, mix=0.3, gsd_max=2.0),
    )
    return replace(config, **changes)


def split_kinds() -> list[SplitConfig]:
    """One split of each kind that has folds."""
    return [
        SPLIT,
        SplitConfig("files", folds=3, fold=2),
        SplitConfig("random", folds=4, fold=2),
    ]


def load_scenes(
    config: TrainConfig, scratch: Path, bands: Sequence[str] = BANDS
) -> list[TrainingScene]:
    """Read and split the scenes of a recipe."""
    scratch.mkdir(exist_ok=True, parents=True)
    scenes = [load_scene(config, s, bands, scratch, i) for i, s in enumerate(config.scenes)]
    split_scenes(config, scenes)
    return scenes


def scene_of(
    pixels: NDArray[Any],
    target: NDArray[Any],
    measured: NDArray[np.bool_] | None = None,
    sides: NDArray[np.uint8] | None = None,
) -> TrainingScene:
    """A scene in memory; all of it is measured and on the training side unless told otherwise."""
    shape = target.shape
    return TrainingScene(
        config=SceneConfig(Path("memory.tif"), labels=(Path("memory_labels.tif"),)),
        grid=PixelGrid(*shape, Affine.identity(), None),
        pixels=pixels.astype(np.float32),
        gain=np.ones(len(pixels), np.float32),
        bias=np.zeros(len(pixels), np.float32),
        measured=np.ones(shape, bool) if measured is None else measured,
        target=target.astype(np.uint8),
        labelled=target != UNKNOWN,
        sure=np.zeros(shape, bool),
        sides=np.zeros(shape, np.uint8) if sides is None else sides,
    )


def write_teacher(folder: Path, network: str = "small_unet", **changes: Any) -> ModelCard:
    """A teacher of random weights that has opinions; its bands are in another order."""
    torch.manual_seed(3)
    options = {"width": 4, "depth": 1} if network == "small_unet" else {}
    net = create_model(network, in_channels=3, classes=3, **options).eval()
    with torch.no_grad():
        net.head.weight *= 60
    values: dict[str, Any] = {
        "name": "teacher",
        "description": "",
        "network": network,
        "network_options": options,
        "bands": ("nir", "blue", "red"),
        "classes": CLASSES,
        "gsd": 10.0,
        "gsd_range": (8.0, 13.0),
        "normalization": Normalization("z-score", {"mean": (0.1,) * 3, "stddev": (0.1,) * 3}),
        "size": 32,
        "overlap": 16,
        "margin": 8,
        "multiple": 2,
    }
    card = ModelCard(**{**values, **changes})
    save_model(card, net, folder)
    return card


def rows_of(log: Path) -> list[dict[str, float]]:
    """The rows of a log."""
    with log.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
