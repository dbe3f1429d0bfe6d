"""What a finished model was taught on, by its recipe: ``geoseg models taught``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from geoseg.cards.card import ModelCard
from geoseg.cards.replacing import replace_card
from geoseg.cards.taught import UNLIKE, taught_ground
from geoseg.errors import TrainingError, UsageError
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.training.recipe_file import load_config
from geoseg.zoo import check_changeable, find_model

__all__ = ["Taught", "add_taught"]


@dataclass(frozen=True)
class Taught:
    """What :func:`add_taught` has found.

    Attributes:
        card: with it.
        unlike: path of each scene -> the share of its pixels that is called unlike.
        held_out: of these, the scenes that did not teach it.
        written: the card's file where it was written.
    """

    card: ModelCard
    unlike: dict[str, float]
    held_out: tuple[str, ...]
    written: Path | None


def add_taught(model: str | Path, recipe: str | Path, *, write: bool = False) -> Taught:
    """Look at the scenes that a recipe teaches a model with.

    Of each scene a sample is taken from all over it, whichever part of it was taught.

    Args:
        model: an embedded model's name, or a model folder or .zip.
        recipe: its recipe.
        write: put it into the card in the model's folder.

    Raises:
        UsageError: the card can't be changed, or the recipe is of other bands.
        TrainingError: the recipe can't be read, or has too few pixels.
        GeosegError: a scene can't be read.
    """
    files, config = find_model(model), load_config(recipe)
    if write:
        check_changeable(files, "--write")
    card = files.card
    if tuple(config.bands) != tuple(card.bands):
        raise UsageError(
            f"{recipe} has the bands {', '.join(config.bands)} and {card.name} "
            f"{', '.join(card.bands)}; give the recipe that it was taught with"
        )
    values, held_out = {}, []
    for scene in config.scenes:
        options = PredictOptions(
            model=model,
            no_vector=True,
            clouds="none",
            bands=",".join(scene.bands) or None,
            band_names=",".join(scene.band_names) or None,
            scale=config.scale if scene.scale is None else scene.scale,
            offset=config.offset if scene.offset is None else scene.offset,
            src_nodata=scene.src_nodata,
            nearblack=scene.nearblack,
            input_root=scene.input_root,
            allow_vrt=scene.allow_vrt,
        )
        plan = make_plan(scene.path, options, files=files)
        values[str(scene.path)] = plan.survey.quantity(plan.radiometry)
        if scene.split != "train":
            held_out.append(str(scene.path))
    seen = [v for path, v in values.items() if path not in held_out]
    found = taught_ground(seen, card.quantity)
    if found is None:
        raise TrainingError(f"{recipe}: its scenes have too few measured pixels to learn from")
    unlike = {
        path: float((found.applicability(v, card.quantity) < UNLIKE).mean())
        for path, v in values.items()
        if v.size
    }
    card = replace(card, taught=found)
    written = replace_card(card, files.path) if write else None
    return Taught(card, unlike, tuple(held_out), written)
