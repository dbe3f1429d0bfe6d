"""Scores on groups of places that were not seen: a run for each fold of groups leaves it out.

The model itself learns from these groups, too, since places are few; so what its card says of them
comes from runs of the same recipe that did not, shorter ones where the recipe says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.cards.card import ModelCard
from geoseg.errors import TrainingError
from geoseg.training.recipe import TrainConfig

__all__ = ["SCORES_NAME", "leave_each_out", "runs_of"]

#: In the folder of a run: the scores of all groups, for the model's card.
SCORES_NAME = "left_out.json"


def runs_of(config: TrainConfig) -> dict[str, TrainConfig]:
    """Make the recipes of the cross-validation, by the groups that each leaves out.

    Args:
        config: the recipe; none are made where it asks for no cross-validation.

    Returns:
        The recipes; their keys are the groups' names, joined by ``+``.

    Raises:
        TrainingError: what differs in them breaks a rule of recipes.
    """
    if not config.cross_validation:
        return {}
    plain = replace(config, cross_validation={}, stages=())
    table = dict(config.cross_validation)
    groups = [g for g in config.groups() if g not in config.split.chosen_by]
    folds = table.pop("folds", len(groups))
    if not isinstance(folds, int) or isinstance(folds, bool) or not 2 <= folds <= len(groups):
        raise TrainingError(
            f"cross_validation: folds is {folds!r}; it is a number from 2 to {len(groups)}, one "
            f"group each"
        )
    try:
        # Keys as in a stage, and the same rules.
        *_, short = replace(plain, stages=(table,)).in_stages()
        runs = {
            "+".join(fold): replace(short, split=replace(config.split, left_out=fold))
            for fold in (tuple(groups[number::folds]) for number in range(folds))
        }
    except TrainingError as error:
        text = str(error).removeprefix("stage 2: ")
        raise TrainingError(f"cross_validation: {text}") from error
    return runs


def leave_each_out(
    config: TrainConfig, folder: Path, train_one: Callable[[TrainConfig, Path], ModelCard]
) -> dict[str, Any]:
    """Train the runs of a cross-validation, and gather what they say of the groups.

    Args:
        config: the recipe.
        folder: for the runs' model folders, one a fold and called after its groups.
        train_one: trains a recipe, or finds that it has been trained; gives the card.

    Returns:
        ``by_group``, the scores of each; ``mean`` over groups; ``worst`` by agreement.
    """
    found: dict[str, dict[str, float]] = {}
    runs = runs_of(config)
    for name, one in runs.items():
        scores: Mapping[str, Any] = train_one(one, folder / name).scores
        found.update({group: scores["left_out"]["by_group"][group] for group in one.split.left_out})
    names = dict.fromkeys(name for scores in found.values() for name in scores)
    worst = min(found, key=lambda group: found[group]["agreement"])
    return {
        "chosen_by": list(config.split.chosen_by),
        "folds": len(runs),
        "steps": next(iter(runs.values())).steps,
        "by_group": found,
        "mean": {
            name: round(float(np.mean([s[name] for s in found.values() if name in s])), 4)
            for name in names
        },
        "worst": {"group": worst, **found[worst]},
    }
