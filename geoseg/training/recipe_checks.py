"""What is checked of a recipe before anything is read: each function refuses one kind of fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from geoseg.cards.card import QUANTITIES
from geoseg.errors import TrainingError
from geoseg.training.loss_spec import make_loss, terms_of
from geoseg.training.losses import SOFT_LOSSES
from geoseg.training.schedules import OPTIMIZERS, SCHEDULES, TRAINING_PRECISIONS

if TYPE_CHECKING:
    from geoseg.training.recipe import TrainConfig

__all__ = [
    "check_clouds",
    "check_cross_validation",
    "check_derived",
    "check_loss",
    "check_sets",
    "check_split",
    "check_values",
]

#: Classes and sets of them at most: a target is a byte, of which one number means unknown.
MOST_TARGETS = 255
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


def check_sets(config: TrainConfig) -> None:
    """Refuse sets that are no sets of classes, and labels that are neither class nor set.

    Raises:
        TrainingError: there are some.
    """
    names = [c.name for c in config.classes]
    for name, members in config.sets.items():
        if name in names or not members or len(set(members) & set(names)) < len(members):
            raise TrainingError(
                f"sets.{name} is {members!r}; give a name that no class has, and classes out "
                f"of {', '.join(names)}, each once"
            )
    if len(names) + len(config.sets) > MOST_TARGETS:
        raise TrainingError(
            f"there are {len(names)} classes and {len(config.sets)} sets; at most "
            f"{MOST_TARGETS} together"
        )
    fit = SOFT_LOSSES if config.teacher is not None else {"set_ce", "set_dice"}
    unfit = [name for name in terms_of(config.loss) if name not in fit]
    if config.sets and unfit:
        raise TrainingError(
            f"the loss {config.loss!r} has {unfit[0]}, which takes each label for one class, and "
            f"labels may be sets (sets); with them it is a sum of {', '.join(sorted(fit))}"
        )
    known = {*names, *config.sets}
    for scene in config.scenes:
        strange = sorted({*scene.label_map.values(), scene.everywhere} - known - {""})
        if strange:
            raise TrainingError(
                f"{scene.path}: {strange[0]!r} is neither a class nor a set of the recipe; "
                f"they are {', '.join(sorted(known))}"
            )


def check_derived(config: TrainConfig) -> None:
    """Refuse bands that are the network's own to be derived: it would learn what nobody measured.

    Raises:
        TrainingError: there are some.
    """
    for scene in config.scenes:
        if scene.derive and config.teacher is None:
            raise TrainingError(
                f"{scene.path}: derive names bands for a teacher, and the recipe has none; leave "
                f"it out"
            )
        own = [band for band in scene.derive if band in config.bands]
        if own:
            raise TrainingError(
                f"{scene.path}: derive names {own[0]}, which the network itself takes; only bands "
                f"for the teacher can be derived"
            )


def check_values(config: TrainConfig) -> None:
    """Refuse words that are not among the choices, and numbers outside their range.

    Raises:
        TrainingError: there is one.
    """
    if config.clip is not None and not _is_range(config.clip):
        raise TrainingError(f"clip is {config.clip!r}; give [low, high], low below high")
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise TrainingError(
                f"{name} is {getattr(config, name)!r}; it is one of {', '.join(sorted(choices))}"
            )
    for names, is_right, rule in _RANGES:
        for name in names:
            if not is_right(getattr(config, name)):
                raise TrainingError(f"{name} is {getattr(config, name)}; it must be {rule}")
    if config.teacher_views != 1 and config.teacher_views not in range(4, 33, 4):
        raise TrainingError(
            f"teacher_views is {config.teacher_views}; it is 1, or a multiple of 4 up to 32"
        )
    config.invariance.check_light("invariance")
    if config.chip < 8:
        raise TrainingError(f"chip is {config.chip} px; it must be 8 at least")


def check_split(config: TrainConfig) -> None:
    """Refuse scenes whose sides contradict the split, or each other.

    Raises:
        TrainingError: they do.
    """
    sides: dict[str, set[str]] = {}
    for scene in config.scenes:
        sides.setdefault(scene.where, set()).add(scene.split)
    if config.split.by == "groups":
        _check_groups(config)
    if config.split.by != "scenes":
        named = [scene.name for scene in config.scenes if scene.split == "validation"]
        if named:
            raise TrainingError(
                f"the split is by {config.split.by} and {named[0]} says split = 'validation'; "
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
        if not any(scene.split == split for scene in config.scenes):
            raise TrainingError(
                f"no scene has split = {split!r}; name at least one place for it, or split by "
                f"blocks or files"
            )


def _check_groups(config: TrainConfig) -> None:
    """Refuse a split by groups that no scene, or not every scene, has a part in.

    Raises:
        TrainingError: it is one.
    """
    bare = [scene.name for scene in config.scenes if not scene.group]
    if bare:
        raise TrainingError(
            f"the split is by groups and {bare[0]} has no group; give each scene one"
        )
    for key in ("chosen_by", "left_out"):
        strange = sorted(set(getattr(config.split, key)) - set(config.groups()))
        if strange:
            raise TrainingError(
                f"split.{key} names {strange[0]!r}; the groups are {', '.join(config.groups())}"
            )
    if not config.split.chosen_by:
        raise TrainingError(
            f"split.chosen_by names no group; a run is judged by one at least of "
            f"{', '.join(config.groups())}"
        )
    groups: dict[str, set[str]] = {}
    for scene in config.scenes:
        groups.setdefault(scene.where, set()).add(scene.group)
    both = sorted(place for place, found in groups.items() if len(found) > 1)
    if both:
        raise TrainingError(
            f"the scenes of {both[0]} are in several groups; all scenes of a place are in one"
        )


def check_cross_validation(config: TrainConfig) -> None:
    """Refuse a cross-validation without groups to leave out, one at a time.

    Raises:
        TrainingError: there are none, or some are left out anyway.
    """
    if not config.cross_validation:
        return
    if config.split.by != "groups" or set(config.groups()) <= set(config.split.chosen_by):
        raise TrainingError(
            "cross_validation leaves out one group after the other; split by groups, with one "
            "at least that is not in split.chosen_by"
        )
    if config.split.left_out:
        raise TrainingError(
            f"cross_validation leaves out each group and split.left_out names "
            f"{config.split.left_out[0]!r}; leave one of them out"
        )


def check_clouds(config: TrainConfig) -> None:
    """Refuse clouds that are none of the classes, or can't be laid.

    Raises:
        TrainingError: there are some.
    """
    names = [c.name for c in config.classes]
    strange = sorted(set(config.clouds or ()) - set(names))
    if strange:
        raise TrainingError(f"clouds names {strange}; the classes are {names}")
    if config.laid_clouds is not None:
        config.laid_clouds.check(names, config.bands, config.quantity)


def check_loss(config: TrainConfig) -> None:
    """Refuse a loss that can't be made, or class weights that don't fit.

    Raises:
        TrainingError: so it is.
    """
    given = config.class_weights
    weight: Sequence[float] | None = None
    if isinstance(given, tuple) and all(isinstance(w, int | float) for w in given):
        weight = given
        if len(given) != len(config.classes):
            raise TrainingError(
                f"class_weights has {len(given)} numbers and the recipe {len(config.classes)} "
                f"classes; give one a class"
            )
    elif given == "median_frequency":
        weight = [1.0] * len(config.classes)  # measured later; these stand for them
    elif given != "none":
        raise TrainingError(
            f"class_weights is {given!r}; it is 'none', 'median_frequency' or a list of "
            f"numbers, one a class"
        )
    make_loss(config.loss, weight=weight, aux_weight=config.aux_weight)


def _is_range(value: Any) -> bool:
    """Say whether it is (low, high)."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(isinstance(v, int | float) for v in value) and value[0] < value[1]
