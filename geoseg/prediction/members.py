"""Which models a run uses."""

from __future__ import annotations

from collections.abc import Sequence

from geoseg.cards.files import ModelFiles
from geoseg.errors import UsageError
from geoseg.prediction.options import PredictOptions
from geoseg.scene.scene import Scene
from geoseg.zoo import choose_model, find_model

__all__ = ["find_members"]


def find_members(scene: Scene, options: PredictOptions) -> tuple[tuple[ModelFiles, ...], str]:
    """The models that were asked for, or the one that suits a scene, and why these.

    Args:
        scene: what was opened.
        options: the user's.

    Returns:
        The models, of which the first says how chips lie, and why they were taken, in words.

    Raises:
        GeosegError: there is none, or they can't be averaged.
    """
    if options.model is None:
        files, chosen = choose_model(scene, options.bands)
        return (files,), chosen
    members = tuple(map(find_model, options.models))
    if not members:
        raise UsageError("the list of models is empty; name one, or leave it out")
    _check_members(members)
    return members, "asked for"


def _check_members(members: Sequence[ModelFiles]) -> None:
    """Refuse models whose probabilities can't be averaged.

    Raises:
        UsageError: bands, quantity or classes differ.
    """
    first = members[0].card
    for other in (m.card for m in members[1:]):
        for what, mine, theirs in (
            ("bands", first.bands, other.bands),
            ("quantity", first.quantity, other.quantity),
            ("classes", *([(c.id, c.name) for c in card.classes] for card in (first, other))),
            ("gsd", first.gsd, other.gsd),
        ):
            if mine != theirs:
                raise UsageError(
                    f"-m {first.name} and -m {other.name} have other {what} ({mine} and {theirs}); "
                    f"models are averaged where these are the same"
                )
