"""What a scene's numbers decide before it is read: which of them are no ground, and what they mean.

Whoever reads a scene, to map it or to learn from it, asks here, so that the same is nodata to all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard, Normalization
from geoseg.cards.quantities import (
    darkest_ground,
    possible_counts,
    possible_range,
    takes_8_bits,
)
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.collar import Collar, find_collar
from geoseg.scene.dark_edges import said_of_dark_edges, said_of_flat_edges
from geoseg.scene.eight_bits import check_8_bits, stretched
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.scene import CloudLayer, FoundClouds
from geoseg.scene.scene_band import SceneBand, finest_grid
from geoseg.scene.survey import SampledWindow, Survey, survey
from geoseg.scene.undeclared import Fill, declare, find_fill, said_of_fill

__all__ = ["Asked", "Decided", "Taken", "decide_by_numbers"]


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

    @classmethod
    def of(cls, card: ModelCard) -> Taken:
        """Take it from a card."""
        return cls(card.quantity, card.normalization, card.bands)


@dataclass(frozen=True)
class Asked:
    """What the user says of a scene's numbers.

    Attributes:
        src_nodata: the number that means "not measured", in place of what the files say.
        nearblack: whether a near-black collar was not measured.
        stretch: percentiles of the scene that become 0 and 255; None for none.
        scaled: whether scale or offset are given.
    """

    src_nodata: float | None = None
    nearblack: bool = False
    stretch: tuple[float, float] | None = None
    scaled: bool = False

    def __post_init__(self) -> None:
        """Check what can be checked without a scene.

        Raises:
            UsageError: the percentiles are none, or scale is given as well.
        """
        if self.stretch is None:
            return
        if len(self.stretch) != 2 or not 0 <= self.stretch[0] < self.stretch[1] <= 100:
            raise UsageError(
                f"--stretch {','.join(map(str, self.stretch))}: give two percentiles, such as 2,98"
            )
        if self.scaled:
            raise UsageError(
                "--stretch and --scale or --offset both say what the numbers mean; give one of them"
            )


@dataclass(frozen=True)
class Decided:
    """What a survey has decided.

    Attributes:
        bands: as they are to be read.
        radiometry: from their numbers to the model's quantity.
        survey: what was seen of them.
        fill: numbers that are nodata although no tag says so.
        notes: what the user should know.
    """

    bands: tuple[SceneBand, ...]
    radiometry: Radiometry
    survey: Survey
    fill: Fill
    notes: tuple[str, ...] = ()


def decide_by_numbers(
    name: str,
    bands: Sequence[SceneBand],
    ground: PixelGrid,
    radiometry: Radiometry,
    taken: Taken,
    asked: Asked,
    clouds: CloudLayer | FoundClouds | None = None,
) -> Decided:
    """Look at all of a scene, whatever part of it is wanted.

    Args:
        name: of the scene.
        bands: that are read.
        ground: the scene's pixels that all of them cover.
        radiometry: from numbers to the model's quantity, by all but the numbers.
        taken: what the model takes.
        asked: by the user.
        clouds: the layer that says which pixels are clouds.

    Raises:
        SceneError: a file can't be read.
        RadiometryError: the model takes pictures of 8 bits, and this is none.
        UsageError: what is asked for does not go with the scene or the model.
    """
    eight_bits = taken.normalization is not None and takes_8_bits(
        taken.quantity, taken.normalization, taken.bands
    )
    if asked.stretch is not None and not eight_bits:
        raise UsageError(
            f"--stretch is for models that take pictures of 8 bits, and this one takes "
            f"{taken.quantity}s of its own; leave it out"
        )
    darkest = darkest_ground(taken.quantity)
    bands = [
        replace(band, dark_zeros=bias >= darkest)
        for band, bias in zip(bands, radiometry.bias, strict=True)
    ]
    # To find clouds takes as long as a part of the run; a raster of them is only read.
    layer = clouds if isinstance(clouds, CloudLayer) else None
    seen = survey(bands, ground, src_nodata=asked.src_nodata, clouds=layer)
    if asked.nearblack:
        collar = find_collar(bands, asked.src_nodata)
        bands = [replace(band, collar=collar) for band in bands]
        seen = seen.without(_Within(collar, seen, finest_grid(bands)))
    possible = possible_range(taken.quantity, taken.normalization, taken.bands)
    if asked.stretch is not None:
        possible = possible_counts()
    fill = find_fill(bands, seen, radiometry, possible, darkest)
    bands, seen = declare(bands, seen, fill)
    notes = said_of_fill(fill, taken.quantity, bands)
    if asked.src_nodata is None and not asked.nearblack:
        notes += said_of_dark_edges(seen, bands) or said_of_flat_edges(seen, bands)
    if asked.stretch is not None:
        radiometry = stretched(seen, asked.stretch, len(bands), name)
    elif eight_bits and not asked.scaled:
        depths = {band.bits for band in bands}
        check_8_bits(seen, name, depths.pop() if len(depths) == 1 else None)
    return Decided(bands, radiometry, seen, fill, tuple(notes))


@dataclass(frozen=True)
class _Within:
    """Which of a sample's pixels are collar."""

    collar: Collar
    seen: Survey
    file: PixelGrid

    def __call__(self, sample: SampledWindow) -> NDArray[np.bool_]:
        place = self.seen.grid.place_in(self.file)
        assert place is not None, "the survey's pixels are the file's"
        mask = self.collar.mask(sample.window.shifted(*place))
        if mask is None:
            return np.zeros(sample.valid.shape, dtype=bool)
        step = self.seen.step
        top, left = (min(step, length) // 2 for length in mask.shape)
        return mask[top::step, left::step]
