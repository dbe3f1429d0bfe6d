"""A recipe: what a training run does, and its TOML file."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoseg.card import ClassInfo
from geoseg.data import LOOKS, Augmentation, SceneConfig
from geoseg.errors import TrainingError
from geoseg.losses import make_loss

__all__ = ["OPTIMIZERS", "SCHEDULES", "TrainConfig", "load_config"]


def _adamw(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)


def _sgd(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    # 0.9 is the momentum of FCN, DeepLab and PSPNet alike.
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=weight_decay)


#: Name in a recipe -> function of (parameters, learning rate, weight decay).
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}


def _cosine(done: float) -> float:
    """Half a cosine, Loshchilov and Hutter 2017 (https://arxiv.org/abs/1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _poly(done: float) -> float:
    """With the power of Chen et al. 2017, DeepLabV2 (https://arxiv.org/abs/1606.00915)."""
    return float((1.0 - done) ** 0.9)


#: Name in a recipe -> function of the share of the steps after warm-up that are done, 0 to 1, that
#: gives the learning rate as a share of the highest.
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": _cosine, "poly": _poly}


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The field names are the keys of the TOML file.

    Attributes:
        name: of the model, a slug.
        description: one paragraph for people.
        bands: the input bands by common name.
        classes: the legend.
        scenes: what to learn from and what to hold out.
        network: a name of :func:`geoseg.models.list_models`.
        network_options: keyword arguments of it.
        normalization: ``log-logistic`` or ``z-score``; measured on the training scenes.
        clip: (low, high) for the reflectance before it, or None.
        gsd: metres per pixel of the scenes.
        gsd_range: for the card.
        inference: the card's size, overlap, margin and multiple; the network's own multiple where
            none is given.
        plausible: for the card: band -> (low, high) of a sound scene's median.
        license: for the card.
        provenance: for the card.
        teacher: a model folder or .zip whose probabilities are learned, or None: labels only.
        teacher_haze: path radiances in blue (see :func:`geoseg.data.add_haze`) through which the
            teacher gets to see surface reflectance; its answers are averaged. For a teacher that
            was taught on top-of-atmosphere reflectance.
        steps: batches in all.
        batch: chips in one batch.
        chip: their side, px.
        loss: a sum such as ``ce+0.5*dice``, see :func:`geoseg.losses.make_loss`. Losses that take
            labels take each pixel's most likely class.
        aux_weight: factor of the loss of an auxiliary output, for networks that have one.
        class_weights: ``none``; ``median_frequency``, measured on the training scenes (see
            :func:`geoseg.losses.median_frequency_weights`); or a number a class. They come on top
            of ``balance``, which shows rare classes more often.
        optimizer: ``adamw``, or ``sgd`` with a momentum of 0.9.
        learning_rate: the highest.
        weight_decay: of the optimizer.
        warmup: steps over which the learning rate rises; then it falls to 0.
        schedule: how it falls: ``cosine``, half a cosine, or ``poly``, (1 - done)^0.9.
        ema: decay of the moving average of the weights, which is what is validated and saved.
        precision: ``float32``, or ``bfloat16`` for the network's forward and backward pass: quicker
            where the hardware has it; weights, loss and validation stay float32.
        balance: share of the chips laid around a class drawn evenly.
        every: steps between two rows of the log, each with a validation and a checkpoint.
        validation_gsds: multiples of gsd at which the held-out scenes are judged.
        seed: of everything random.
        augmentation: how chips are changed.
    """

    name: str
    description: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    scenes: tuple[SceneConfig, ...]
    network: str = "small_unet"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    normalization: str = "log-logistic"
    clip: tuple[float, float] | None = (0.0, 2.0)
    gsd: float = 10.0
    gsd_range: tuple[float, float] = (8.0, 13.0)
    inference: Mapping[str, Any] = field(default_factory=dict)
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    license: str = "other"
    provenance: str = ""
    teacher: Path | None = None
    teacher_haze: tuple[float, ...] = (0.0,)
    steps: int = 1000
    batch: int = 8
    chip: int = 96
    loss: str = "soft_ce"
    aux_weight: float = 0.4
    class_weights: str | tuple[float, ...] = "none"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    schedule: str = "cosine"
    ema: float = 0.998
    precision: str = "float32"
    balance: float = 0.5
    every: int = 250
    validation_gsds: tuple[float, ...] = (1.0,)
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, or not at all.

        Raises:
            TrainingError: a value breaks its rule.
        """
        sides: dict[str, set[str]] = {}
        for scene in self.scenes:
            if scene.split not in ("train", "validation"):
                raise TrainingError(
                    f"{scene.path}: split is {scene.split!r}; it is train or validation"
                )
            if scene.look not in LOOKS:
                raise TrainingError(f"{scene.path}: look is {scene.look!r}; it is one of {LOOKS}")
            sides.setdefault(scene.place, set()).add(scene.split)
        both = sorted(place for place, splits in sides.items() if len(splits) > 1)
        if both:
            raise TrainingError(
                f"the places {both} are on both sides of the split; all scenes of a place go to "
                f"one side, or the scores mean nothing"
            )
        for split in ("train", "validation"):
            if not any(scene.split == split for scene in self.scenes):
                raise TrainingError(
                    f"no scene has split = {split!r}; name at least one place for it"
                )
        if self.precision not in ("float32", "bfloat16"):
            raise TrainingError(f"precision is {self.precision!r}; it is float32 or bfloat16")
        names = [c.name for c in self.classes]
        for scene in self.scenes:
            if scene.relabel is not None and scene.relabel not in names:
                raise TrainingError(
                    f"{scene.path}: relabel is {scene.relabel!r}; the classes are {names}"
                )
            if scene.labels is None and scene.relabel is None and self.teacher is None:
                raise TrainingError(
                    f"{scene.path} has no labels and the recipe has no teacher; give one of them"
                )
        for name in ("steps", "batch", "chip", "every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be 1 at least")
        if self.chip < 8:
            raise TrainingError(f"chip is {self.chip} px; it must be 8 at least")
        for name, table in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in table:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}; it is one of {sorted(table)}"
                )
        self._check_loss()

    def _check_loss(self) -> None:
        given = self.class_weights
        weight: Sequence[float] | None = None
        if isinstance(given, tuple) and all(isinstance(w, int | float) for w in given):
            weight = given
            if len(given) != len(self.classes):
                raise TrainingError(
                    f"class_weights has {len(given)} numbers and the recipe {len(self.classes)} "
                    f"classes; give one a class"
                )
        elif given == "median_frequency":
            weight = [1.0] * len(self.classes)  # measured later; these stand for them
        elif given != "none":
            raise TrainingError(
                f"class_weights is {given!r}; it is 'none', 'median_frequency' or a list of "
                f"numbers, one a class"
            )
        make_loss(self.loss, weight=weight, aux_weight=self.aux_weight)


def load_config(path: str | Path) -> TrainConfig:
    """Read a recipe.

    ``${NAME}`` in a path stands for an environment variable; relative paths start at the recipe's
    folder, those of scenes at its ``folder``.

    Raises:
        TrainingError: the file is not TOML, a key is unknown or missing, or a variable is not set.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"the recipe {path} can't be read: {error}") from error
    base = path.resolve().parent
    folder = _path(document.pop("folder", "."), base)
    scenes = tuple(_scene(entry, folder) for entry in document.pop("scenes", []))
    classes = tuple(_make(ClassInfo, entry, "classes") for entry in document.pop("classes", []))
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
    }
    if "teacher" in values:
        values["teacher"] = _path(values["teacher"], base)
    if "plausible" in values:
        values["plausible"] = {k: tuple(v) for k, v in values["plausible"].items()}
    if "augmentation" in values:
        values["augmentation"] = _make(Augmentation, values["augmentation"], "augmentation")
    config: TrainConfig = _make(
        TrainConfig, {**values, "scenes": scenes, "classes": classes}, str(path)
    )
    return config


def _scene(entry: Mapping[str, Any], folder: Path) -> SceneConfig:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    for key in ("path", "labels", "answer"):
        if key in values:
            values[key] = _path(values[key], folder)
    if "ignore" in values:
        values["ignore"] = tuple(tuple(window) for window in values["ignore"])
    scene: SceneConfig = _make(SceneConfig, values, f"scene {entry.get('path')}")
    return scene


def _make(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Build a dataclass from a table; a misspelt key is an error, not a default in silence."""
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise TrainingError(f"{where}: the keys {unknown} are unknown; the keys are {names}")
    try:
        return kind(**values)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}") from error


def _path(text: str, base: Path) -> Path:
    def variable(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise TrainingError(
                f"the path {text!r} needs the environment variable {match[1]}, which is not set; "
                f"set it to the folder that the recipe's first lines describe"
            )
        return value

    return base / re.sub(r"\$\{(\w+)\}", variable, text)
