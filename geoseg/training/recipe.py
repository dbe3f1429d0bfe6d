"""A recipe: what a training run does. Its file is read in :mod:`geoseg.training.recipe_file`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.legend import ClassInfo
from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError
from geoseg.training import recipe_checks as checks
from geoseg.training.augment_options import Augmentation
from geoseg.training.laid_clouds_options import LaidClouds
from geoseg.training.scene_config import SceneConfig
from geoseg.training.split import TRAIN, SplitConfig
from geoseg.training.tables import check_kinds, make_table

__all__ = ["STAGED", "TrainConfig"]


#: Keys of a recipe that a stage may change.
STAGED = (
    *("steps", "batch", "accumulate", "chip", "pool", "fresh", "teacher_temperature"),
    *(
        "teacher_halo",
        "teacher_views",
        "invariance",
        "loss",
        "class_weights",
        "optimizer",
        "learning_rate",
        "encoder_rate",
    ),
    *("weight_decay", "warmup", "schedule", "ema", "freeze_norm", "precision", "balance"),
    *("every", "patience", "keep", "seed", "augmentation", "scenes"),
)


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. The field names are the keys of the TOML file.

    Attributes:
        name: of the model, a slug.
        description: one paragraph for people.
        bands: the input bands by common name.
        classes: the legend.
        scenes: what to learn from and what to hold out.
        split: how the scenes are split.
        label_values: class name -> what stands for it in the labels: an id, a text in a vector's
            column, or a colour ``#RRGGBB``. By default the class's id (rasters), id or name
            (vectors) or own colour (colour rasters).
        sets: name -> classes, for labels that say less than the legend: what they call
            "low vegetation" is grass, shrub or crops. A teacher's answer is kept to the classes of
            the set; without one the loss is of ``set_ce`` and ``set_dice``.
        network: a name of :func:`geoseg.networks.list_models`.
        network_options: its options, such as ``encoder``.
        quantity: what the network is fed with: ``reflectance``, or ``number`` as in the file.
        normalization: ``log-logistic`` or ``z-score``.
        normalization_parameters: its parameters by name, one number a band; measured on the
            training side where none are given.
        clip: (low, high) for the quantity before it, or None.
        gsd: metres per pixel that the network works at; scenes outside ``gsd_range`` are
            resampled to it. Scenes without a place on Earth are taken as they are.
        gsd_range: the finest and coarsest gsd at which scenes are taken as they are.
        scale: quantity per number, for scenes that have no scale of their own.
        offset: quantity at number 0, for scenes that have no offset of their own.
        inference: the card's ``size``, ``overlap``, ``margin`` and ``multiple``; the network's own
            multiple where none is given.
        plausible: for the card: band -> (low, high) of a sound scene's median.
        license: for the card.
        provenance: for the card.
        clouds: for the card: which classes are clouds, haze and their shadows; an empty list where
            they are no class, so that ``predict`` has them found by another model.
        teacher: a model whose probabilities are learned where there are no labels, or None.
        teacher_temperature: its probabilities are raised to the power of one over this, and made
            to add up to 1: below 1 they are sharpened, which brings out which class is the
            likeliest.
        teacher_halo: px around a chip that only the teacher sees.
        teacher_views: how many of its answers are averaged: 1, or a multiple of 4 up to 32. Four
            show it a chip at all places that a network which halves its input tells apart, each
            turned otherwise.
        steps: steps of the optimizer, in all.
        batch: chips in one forward pass.
        accumulate: forward passes to one step.
        chip: side of the chips, px.
        pool: chips that are kept and drawn from again, 0 for none: where making a chip costs more
            than learning from it, as with a teacher.
        fresh: new chips in the pool at each step.
        loss: a sum such as ``ce+0.5*dice`` or ``focal(gamma=2)``, of ``ce``, ``dice``, ``focal``,
            ``logits``, ``lovasz``, ``ohem``, ``set_ce``, ``set_dice`` and ``soft_ce``.
            With a teacher, losses of labels take each pixel's most likely class.
        aux_weight: factor of the loss of an auxiliary output, for networks that have one.
        class_weights: ``none``; ``median_frequency``, by which rare classes count more, measured on
            the training side; or a number a class.
            They come on top of ``balance``, which shows rare classes more often.
        optimizer: ``adamw``, or ``sgd`` with a momentum of 0.9.
        learning_rate: the highest.
        encoder_rate: the encoder's learning rate as a share of it.
        weight_decay: the optimizer's weight decay.
        warmup: steps over which the learning rate rises; then it falls to 0.
        schedule: how it falls: ``cosine``, half a cosine, or ``poly``, (1 - done)^0.9.
        ema: decay of the moving average of the weights, which is what is validated and saved.
        freeze_norm: share of the steps after which batch norms use their running statistics, as in
            prediction, and these stay as they are; 1 is never. Small batches of unlike scenes have
            statistics of their own, which the network otherwise goes on learning around.
        precision: ``float32``; or ``bfloat16`` or, on a GPU, ``float16`` for the network's forward
            and backward pass: quicker where the hardware has it. Weights, loss and validation stay
            float32.
        balance: share of the chips that are laid around a pixel of a class, each class as often as
            another.
        every: steps between two rows of the log, each with a validation and a checkpoint.
        patience: validations without a better mean IoU after which training ends; 0 is never.
        keep: whose weights become the model: those of the ``best`` validation by mean IoU, or the
            ``last``.
        validation_gsds: multiples of gsd at which the held-out side is judged.
        seed: of everything random but the split.
        augmentation: how chips are changed; a teacher answers for what they have become.
        invariance: how they are changed after that, each time that one is drawn, so that the
            network learns to give the same answer: the keys of ``augmentation`` that are of light.
        laid_clouds: clouds of known depth that are laid over chips, and which classes they are; or
            None.
        start: a model, by path or name, with whose weights the network begins; those of another
            shape, such as a head for other classes, begin anew. None is random weights, or the
            encoder's as ``network_options`` says.
        stages: what the run does after that: each is a table of keys that
            differ from the recipe's (of ``augmentation`` only those that differ), begins with the
            weights that the stage before ended with, and has steps and a rise and fall of the
            learning rate of its own. Where one has ``scenes`` of its own, it holds out the same.
        cross_validation: for a split by groups: before the model itself, a model is trained for
            each group that nothing is chosen by, without that group, and judged on it; the model's
            card has each group's score, their mean and the worst. With ``folds`` there are so many
            models, each without several groups. The table's other keys are those of a stage: what
            differs in these runs, which have no stages.
    """

    name: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    scenes: tuple[SceneConfig, ...]
    description: str = ""
    split: SplitConfig = field(default_factory=SplitConfig)
    label_values: Mapping[str, Any] = field(default_factory=dict)
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    network: str = "small_unet"
    network_options: Mapping[str, Any] = field(default_factory=dict)
    quantity: str = "reflectance"
    normalization: str = "z-score"
    normalization_parameters: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    clip: tuple[float, float] | None = None
    gsd: float = 10.0
    gsd_range: tuple[float, float] = (8.0, 13.0)
    scale: float | None = None
    offset: float | None = None
    inference: Mapping[str, Any] = field(default_factory=dict)
    plausible: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    license: str = "other"
    provenance: str = ""
    clouds: tuple[str, ...] | None = None
    teacher: Path | None = None
    teacher_temperature: float = 1.0
    teacher_halo: int = 0
    teacher_views: int = 1
    steps: int = 1000
    batch: int = 8
    accumulate: int = 1
    chip: int = 96
    pool: int = 0
    fresh: int = 2
    loss: str = "soft_ce"
    aux_weight: float = 0.4
    class_weights: str | tuple[float, ...] = "none"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    encoder_rate: float = 1.0
    weight_decay: float = 1e-4
    warmup: int = 100
    schedule: str = "cosine"
    ema: float = 0.998
    freeze_norm: float = 1.0
    precision: str = "float32"
    balance: float = 0.5
    every: int = 250
    patience: int = 0
    keep: str = "best"
    validation_gsds: tuple[float, ...] = (1.0,)
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    invariance: Augmentation = field(default_factory=Augmentation)
    laid_clouds: LaidClouds | None = None
    start: Path | None = None
    stages: tuple[Mapping[str, Any], ...] = ()
    cross_validation: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what would otherwise fail late, or not at all.

        Raises:
            TrainingError: a value breaks its rule.
        """
        builtin_fields(self)
        if not self.scenes:
            raise TrainingError("the recipe names no scene; it takes one at least")
        if not self.bands or not self.classes:
            raise TrainingError("the recipe needs bands and classes, one at least of each")
        if not isinstance(self.bands, tuple) or not all(isinstance(b, str) for b in self.bands):
            raise TrainingError(f"bands is {self.bands!r}; it must be a list of names")
        checks.check_split(self)
        names = [c.name for c in self.classes]
        strange = sorted(set(self.label_values) - set(names))
        if strange:
            raise TrainingError(f"label_values names {strange}; the classes are {names}")
        if self.teacher is None and not any(s.has_labels for s in self.scenes):
            raise TrainingError(
                f"{self.scenes[0].path} has no labels, nor has any other scene, and the recipe has "
                f"no teacher; give one of them"
            )
        checks.check_sets(self)
        checks.check_values(self)
        checks.check_derived(self)
        if self.pool and self.pool < self.batch * self.accumulate:
            raise TrainingError(
                f"pool is {self.pool} chips and a step takes {self.batch * self.accumulate}; make "
                f"it 0 or larger than that"
            )
        if not self.validation_gsds or not all(1 <= f < math.inf for f in self.validation_gsds):
            raise TrainingError(
                f"validation_gsds is {self.validation_gsds}; give multiples of gsd, each 1 at least"
            )
        checks.check_loss(self)
        checks.check_cross_validation(self)
        checks.check_clouds(self)
        self.in_stages()

    def targets(self) -> dict[str, int]:
        """Number what a label may say: classes by their place in the legend, then sets."""
        return {name: n for n, name in enumerate((*(c.name for c in self.classes), *self.sets))}

    def members(self) -> NDArray[np.float32]:
        """Say which classes are in which set: (sets + 1, K), 1 or 0; number 0 is no set, all 1."""
        names = [c.name for c in self.classes]
        rows = [[name in found for name in names] for found in self.sets.values()]
        return np.array([[True] * len(names), *rows], np.float32)

    def in_stages(self) -> tuple[TrainConfig, ...]:
        """Make the recipe of each stage, the first one's included; none has stages itself.

        Raises:
            TrainingError: a stage has a key that is unknown or of the model as a whole, or a value
                breaks its rule.
        """
        more = self.stages or self.cross_validation
        first = replace(self, stages=(), cross_validation={}) if more else self
        configs = [first]
        for number, table in enumerate(self.stages, start=2):
            where = f"stage {number}"
            strange = sorted(set(table) - set(STAGED))
            if strange:
                raise TrainingError(
                    f"{where}: {strange} can't change from stage to stage; the keys are "
                    f"{', '.join(STAGED)}"
                )
            check_kinds(TrainConfig, table, where)
            values = dict(table)
            for key in {"augmentation", "invariance"} & set(values):
                changes = {**asdict(getattr(self, key)), **values[key]}
                values[key] = make_table(Augmentation, changes, where)
            try:
                configs.append(replace(first, **values))
            except TrainingError as error:
                raise TrainingError(f"{where}: {error}") from error
            self._check_held_out(configs[-1], where)
        return tuple(configs)

    def _check_held_out(self, stage: TrainConfig, where: str) -> None:
        """Refuse a stage with scenes of its own that holds out others.

        Raises:
            TrainingError: it does, or what is held out does not depend on the scenes alone.
        """
        if stage.scenes == self.scenes:
            return
        mine, others = (config._held_out() for config in (stage, self))
        if self.split.by not in ("scenes", "groups") or mine != others:
            raise TrainingError(
                f"{where}: with scenes of its own a stage holds out the same scenes as the first "
                f"one (split = 'validation'), or what one is judged by another one has learned"
            )

    def _held_out(self) -> set[Path]:
        """List the scenes that are held out, where that depends on the scenes alone."""
        if self.split.by == "groups":
            return {s.path for s in self.scenes if self.split.side_of(s.group) != TRAIN}
        return {scene.path for scene in self.scenes if scene.split == "validation"}

    def groups(self) -> tuple[str, ...]:
        """List the groups of the scenes, in the order of the recipe."""
        return tuple(dict.fromkeys(scene.group for scene in self.scenes))
