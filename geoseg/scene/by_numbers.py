"""What a scene's numbers decide before it is read: which of them are no ground.

Whoever reads a scene, to map it or to learn from it, asks here, so that the same is nodata to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.cards.card import Normalization
from geoseg.cards.quantities import darkest_ground, possible_range
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.dark_edges import said_of_dark_edges
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.scene import CloudLayer, FoundClouds, SceneBand
from geoseg.scene.survey import Survey, survey
from geoseg.scene.undeclared import Fill, declare, find_fill, said_of_fill

__all__ = ["Decided", "Taken", "decide_by_numbers"]


@dataclass(frozen=True)
class Taken:
    """What a model takes.

    Attributes:
        quantity: of its card.
        normalization: of its card; None where it is to be found yet.
        bands: of its card, by name.
    """

    quantity: str
    normalization: Normalization | None
    bands: tuple[str, ...]


@dataclass(frozen=True)
class Decided:
    """What a survey has decided.

    Attributes:
        bands: as they are to be read.
        survey: what was seen of them.
        fill: numbers that are nodata although no tag says so.
        notes: what the user should know.
    """

    bands: tuple[SceneBand, ...]
    survey: Survey
    fill: Fill
    notes: tuple[str, ...] = ()


def decide_by_numbers(
    bands: Sequence[SceneBand],
    ground: PixelGrid,
    radiometry: Radiometry,
    taken: Taken,
    *,
    src_nodata: float | None = None,
    clouds: CloudLayer | FoundClouds | None = None,
) -> Decided:
    """Look at all of a scene, whatever part of it is wanted.

    Args:
        bands: that are read.
        ground: the scene's pixels that all of them cover.
        radiometry: from numbers to the model's quantity.
        taken: what the model takes.
        src_nodata: the number that means "not measured", in place of what the files say.
        clouds: the layer that says which pixels are clouds.

    Raises:
        SceneError: a file can't be read.
    """
    seen = survey(bands, ground, src_nodata=src_nodata, clouds=clouds)
    possible = possible_range(taken.quantity, taken.normalization, taken.bands)
    fill = find_fill(seen, radiometry, possible, darkest_ground(taken.quantity))
    bands, seen = declare(bands, seen, fill)
    notes = said_of_fill(fill, taken.quantity)
    if src_nodata is None:
        notes += said_of_dark_edges(seen, bands)
    return Decided(bands, seen, fill, tuple(notes))
