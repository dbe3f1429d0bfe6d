"""How far chips overlap, and which of their outermost pixels are not trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from geoseg.cards.card import ChipBorder, ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.prediction.options import PredictOptions

__all__ = ["border_of", "overlap_of"]


#: Px over which chips are blended with --overlap auto. What is left of the border's error there
#: turns less than a label in a thousand, but its probabilities should not step at a line.
BLEND = 8


def overlap_of(
    options: PredictOptions,
    members: Sequence[ModelFiles],
    size: int,
    multiple: int,
    grid: PixelGrid,
) -> tuple[int, int]:
    """Overlap and margin of the chips, px.

    Args:
        options: the user's.
        members: the models; the first says how chips lie, the margin is the widest.
        size: chip side, px.
        multiple: chip sides and places are multiples of this, px.
        grid: that the network sees.

    Raises:
        UsageError: a card does not say what is asked for, or the chips are too small for it.
    """
    if options.exact and options.overlap is not None:
        raise UsageError("--exact chooses the overlap; leave --overlap out")
    margin = max(files.card.margin for files in members)
    if isinstance(options.overlap, int):
        return options.overlap, margin
    if options.overlap is None and not options.exact:
        # A smaller chip than the card's keeps the card's overlap as far as it can.
        return min(members[0].card.overlap, 3 * size // 4), margin
    option = "--exact" if options.exact else "--overlap auto"
    names = options.models or [files.card.name for files in members]
    borders = [
        _border(files.card, option, name) for files, name in zip(members, names, strict=True)
    ]
    distances = [border.exact if options.exact else border.enough for border in borders]
    if None in distances:
        number = distances.index(None)
        raise UsageError(
            f"{option}: the predictions of {names[number]} change up to the middle of a chip of "
            f"{borders[number].size} px, so it looks at the whole chip (global pooling, attention) "
            f"or farther; leave {option} out, or probe it with larger chips (geoseg models probe "
            f"--size)"
        )
    margin = max(distance for distance in distances if distance is not None)
    # One px more than both margins, so that each pixel has a chip whose edge is far enough.
    overlap = 2 * margin + (1 if options.exact else BLEND)
    if all(border.exact == 0 for border in borders):  # each pixel is seen by itself
        overlap = 0
    overlap = math.ceil(overlap / multiple) * multiple
    side = math.ceil(size / multiple) * multiple
    known = border_of(options, members)
    alone = min(grid.height, grid.width) <= 2 * (side if known is None else known)
    if max(grid.height, grid.width) <= side and alone:  # one chip
        return min(overlap, size - 1), margin
    if side < overlap + multiple:
        raise UsageError(
            f"{option}: predictions change up to {margin} px from a chip's edge, and chips of "
            f"{size} px have too little inside; give --size {overlap + multiple} or more"
        )
    return overlap, margin


def border_of(options: PredictOptions, members: Sequence[ModelFiles]) -> int | None:
    """Px from an end of the ground within which chips' answers change with what lies beyond.

    Args:
        options: the user's.
        members: the models.

    Returns:
        The widest border of the cards; None where one does not know it, or a CRF follows, which
        looks at the whole chip.
    """
    if options.crf:
        return None
    widest = 0
    for files in members:
        if files.card.border is None or files.card.border.exact is None:
            return None
        widest = max(widest, files.card.border.exact)
    return widest


def _border(card: ModelCard, option: str, name: str | Path) -> ChipBorder:
    """Give the border that a card holds.

    Raises:
        UsageError: nothing.
    """
    if card.border is None:
        raise UsageError(
            f"{option} needs to know how far from a chip's edge the predictions of {name} still "
            f"change, and its card does not say; measure it once with geoseg models probe {name} "
            f"--write"
        )
    return card.border
