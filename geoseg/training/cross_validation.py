"""Scores on groups of places that were not seen: a run for each group, which leaves it out.

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
    """Make the recipes of the cross-validation, by the group that each leaves out.

    Args:
        config: the recipe; none are made where it asks for no cross-validation.

    Raises:
        TrainingError: what differs in them breaks a rule of recipes.
    """
    if not config.cross_validation:
        return {}
    plain = replace(config, cross_validation={}, stages=())
    try:
        # Keys as in a stage, and the same rules.
        *_, short = replace(plain, stages=(config.cross_validation,)).in_stages()
        runs = {
            group: replace(short, split=replace(config.split, left_out=(group,)))
            for group in config.groups()
            if group not in config.split.chosen_by
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
        folder: for the runs' model folders, one a group and called after it.
        train_one: trains a recipe, or finds that it has been trained; gives the card.

    Returns:
        ``by_group``, the scores of each; ``mean`` over groups; ``worst`` by agreement.
    """
    found: dict[str, dict[str, float]] = {}
    for group, run in runs_of(config).items():
        scores: Mapping[str, Any] = train_one(run, folder / group).scores
        found[group] = scores["left_out"]["by_group"][group]
    names = dict.fromkeys(name for scores in found.values() for name in scores)
    worst = min(found, key=lambda group: found[group]["agreement"])
    return {
        "chosen_by": list(config.split.chosen_by),
        "steps": run.steps,
        "by_group": found,
        "mean": {
            name: round(float(np.mean([s[name] for s in found.values() if name in s])), 4)
            for name in names
        },
        "worst": {"group": worst, **found[worst]},
    }
