"""A recipe: what a training run does. Its file is read in :mod:`geoseg.training.recipe_file`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from geoseg.cards.card import QUANTITIES
from geoseg.cards.legend import ClassInfo
from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError
from geoseg.training.augment_options import Augmentation
from geoseg.training.loss_spec import make_loss
from geoseg.training.scene_config import SceneConfig
from geoseg.training.schedules import OPTIMIZERS, SCHEDULES, TRAINING_PRECISIONS
from geoseg.training.split import SplitConfig
from geoseg.training.tables import check_kinds, make_table

__all__ = ["STAGED", "TrainConfig"]


#: Keys of a recipe that a stage may change.
STAGED = (
    *("steps", "batch", "accumulate", "chip", "pool", "fresh", "teacher_temperature"),
    *("teacher_halo", "loss", "class_weights", "optimizer", "learning_rate", "encoder_rate"),
    *("weight_decay", "warmup", "schedule", "ema", "freeze_norm", "precision", "balance"),
    *("every", "patience", "keep", "seed", "augmentation", "scenes"),
)
#: Field of a recipe -> the words that it may be.
_CHOICES: dict[str, Collection[str]] = {
    "precision": TRAINING_PRECISIONS,
    "quantity": QUANTITIES,
    "keep": ("best", "last"),
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
#: Fields of a recipe that are numbers, whether one is in their range, and the range in words.
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("steps", "batch", "accumulate", "chip", "fresh", "every"), lambda n: n >= 1, "1 at least"),
    (
        (
            *("pool", "warmup", "patience", "teacher_halo", "seed"),
            *("learning_rate", "encoder_rate", "weight_decay"),
        ),
        lambda n: 0 <= n < math.inf,
        "0 at least",
    ),
    (("balance", "ema", "freeze_norm"), lambda n: 0 <= n <= 1, "0 to 1"),
    (("gsd", "teacher_temperature"), lambda n: 0 < n < math.inf, "above 0"),
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
        teacher: a model whose probabilities are learned where there are no labels, or None.
        teacher_temperature: its probabilities are raised to the power of one over this, and made
            to add up to 1: below 1 they are sharpened, which brings out which class is the
            likeliest.
        teacher_halo: px around a chip that only the teacher sees.
        steps: steps of the optimizer, in all.
        batch: chips in one forward pass.
        accumulate: forward passes to one step.
        chip: side of the chips, px.
        pool: chips that are kept and drawn from again, 0 for none: where making a chip costs more
            than learning from it, as with a teacher.
        fresh: new chips in the pool at each step.
        loss: a sum such as ``ce+0.5*dice`` or ``focal(gamma=2)``, of ``ce``, ``dice``, ``focal``,
            ``logits``, ``lovasz``, ``ohem`` and ``soft_ce``. With a teacher, losses that take
            labels take each pixel's most likely class.
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
        augmentation: how chips are changed.
        start: a model, by path or name, with whose weights the network begins; those of another
            shape, such as a head for other classes, begin anew. None is random weights, or the
            encoder's as ``network_options`` says.
        stages: what the run does after that: each is a table of keys that
            differ from the recipe's (of ``augmentation`` only those that differ), begins with the
            weights that the stage before ended with, and has steps and a rise and fall of the
            learning rate of its own. Where one has ``scenes`` of its own, it holds out the same.
    """

    name: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    scenes: tuple[SceneConfig, ...]
    description: str = ""
    split: SplitConfig = field(default_factory=SplitConfig)
    label_values: Mapping[str, Any] = field(default_factory=dict)
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
    teacher: Path | None = None
    teacher_temperature: float = 1.0
    teacher_halo: int = 0
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
    start: Path | None = None
    stages: tuple[Mapping[str, Any], ...] = ()

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
        if self.clip is not None and not _is_range(self.clip):
            raise TrainingError(f"clip is {self.clip!r}; give [low, high], low below high")
        self._check_split()
        names = [c.name for c in self.classes]
        strange = sorted(set(self.label_values) - set(names))
        if strange:
            raise TrainingError(f"label_values names {strange}; the classes are {names}")
        if self.teacher is None and not any(scene.labels for scene in self.scenes):
            raise TrainingError(
                f"{self.scenes[0].path} has no labels, nor has any other scene, and the recipe has "
                f"no teacher; give one of them"
            )
        self._check_values()
        if self.pool and self.pool < self.batch * self.accumulate:
            raise TrainingError(
                f"pool is {self.pool} chips and a step takes {self.batch * self.accumulate}; make "
                f"it 0 or larger than that"
            )
        if not self.validation_gsds or not all(1 <= f < math.inf for f in self.validation_gsds):
            raise TrainingError(
                f"validation_gsds is {self.validation_gsds}; give multiples of gsd, each 1 at least"
            )
        self._check_loss()
        self.in_stages()

    def _check_values(self) -> None:
        """Refuse words that are not among the choices, and numbers outside their range.

        Raises:
            TrainingError: there is one.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}; it is one of {', '.join(sorted(choices))}"
                )
        for names, is_right, rule in _RANGES:
            for name in names:
                if not is_right(getattr(self, name)):
                    raise TrainingError(f"{name} is {getattr(self, name)}; it must be {rule}")
        if self.chip < 8:
            raise TrainingError(f"chip is {self.chip} px; it must be 8 at least")

    def in_stages(self) -> tuple[TrainConfig, ...]:
        """Make the recipe of each stage, the first one's included; none has stages itself.

        Raises:
            TrainingError: a stage has a key that is unknown or of the model as a whole, or a value
                breaks its rule.
        """
        first = replace(self, stages=()) if self.stages else self
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
            if "augmentation" in values:
                changes = {**asdict(self.augmentation), **values["augmentation"]}
                values["augmentation"] = make_table(Augmentation, changes, where)
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
        mine, others = (
            {scene.path for scene in config.scenes if scene.split == "validation"}
            for config in (stage, self)
        )
        if self.split.by != "scenes" or mine != others:
            raise TrainingError(
                f"{where}: with scenes of its own a stage holds out the same scenes as the first "
                f"one (split = 'validation'), or what one is judged by another one has learned"
            )

    def _check_split(self) -> None:
        """Refuse scenes whose sides contradict the split, or each other.

        Raises:
            TrainingError: they do.
        """
        sides: dict[str, set[str]] = {}
        for scene in self.scenes:
            sides.setdefault(scene.where, set()).add(scene.split)
        if self.split.by != "scenes":
            named = [scene.name for scene in self.scenes if scene.split == "validation"]
            if named:
                raise TrainingError(
                    f"the split is by {self.split.by} and {named[0]} says split = 'validation'; "
                    f"leave one of them out"
                )
            return
        both = sorted(place for place, splits in sides.items() if len(splits) > 1)
        if both:
            raise TrainingError(
                f"the places {both} are on both sides of the split; all scenes of a place go to "
                f"one side, or the scores mean nothing"
            )
        for split in ("train", "validation"):
            if not any(scene.split == split for scene in self.scenes):
                raise TrainingError(
                    f"no scene has split = {split!r}; name at least one place for it, or split by "
                    f"blocks or files"
                )

    def _check_loss(self) -> None:
        """Refuse a loss that can't be made, or class weights that don't fit.

        Raises:
            TrainingError: so it is.
        """
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


def _is_range(value: Any) -> bool:
    """Say whether it is (low, high)."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(isinstance(v, int | float) for v in value) and value[0] < value[1]
