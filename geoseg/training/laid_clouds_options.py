"""Which clouds are laid over clear ground: the options of a recipe's ``laid_clouds``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from geoseg.core.jsontext import builtin_fields
from geoseg.errors import TrainingError

__all__ = ["CLOUD_BANDS", "LaidClouds"]


class CloudBand(NamedTuple):
    """What clouds and air do in a band.

    Attributes:
        wavelength: its centre, micrometres.
        water: (least, most) of what a thick cloud of water sends back, against what comes in.
        ice: the same of one of ice.
        skylight: share of the light on the ground under a clear sky that comes from the sky.
    """

    wavelength: float
    water: tuple[float, float]
    ice: tuple[float, float]
    skylight: float


CLOUD_BANDS: Mapping[str, CloudBand] = {
    "coastal": CloudBand(0.443, (1.0, 1.0), (1.0, 1.0), 0.38),
    "blue": CloudBand(0.492, (1.0, 1.0), (1.0, 1.0), 0.30),
    "green": CloudBand(0.560, (1.0, 1.0), (1.0, 1.0), 0.20),
    "red": CloudBand(0.665, (1.0, 1.0), (1.0, 1.0), 0.14),
    "rededge1": CloudBand(0.704, (1.0, 1.0), (1.0, 1.0), 0.12),
    "rededge2": CloudBand(0.741, (1.0, 1.05), (1.0, 1.05), 0.10),
    "rededge3": CloudBand(0.783, (1.0, 1.1), (1.0, 1.1), 0.09),
    "nir": CloudBand(0.833, (1.0, 1.15), (1.0, 1.15), 0.08),
    "nir08": CloudBand(0.865, (1.0, 1.15), (1.0, 1.15), 0.07),
    "swir1": CloudBand(1.614, (0.72, 1.0), (0.35, 0.75), 0.03),
    "swir2": CloudBand(2.202, (0.5, 0.85), (0.22, 0.6), 0.02),
}
#: A shadow's distance beyond which fields grow large, px.
_FARTHEST = 512


@dataclass(frozen=True)
class LaidClouds:
    """Which clouds are laid over chips, and what their pixels are called.

    Chips on which labels say a cloud or a shadow are left as they are.

    Attributes:
        thin: the class of pixels under a thin cloud or haze.
        thick: the class of those under a thick one.
        shadow: the class of those in its shadow.
        share: share of the chips with clouds.
        kinds: relative shares of cumulus, stratus, cirrus and haze.
        again: share of the clouded chips that get a second kind.
        thin_from: reflectance of a cloud, over black ground, from which on it is called thin.
        thick_from: the same of thick ones.
        shadow_from: share of the sun's own light that is lost where a shadow begins.
        visible: where a cloud or shadow changes no band by as much, in reflectance, nothing is
            learned: a thin cloud over snow, a shadow on dark water.
        distance: (smallest, largest) distance of a shadow from its cloud, px; drawn evenly in
            logarithm.
    """

    thin: str
    thick: str
    shadow: str
    share: float = 0.6
    kinds: tuple[float, float, float, float] = (0.5, 0.15, 0.15, 0.2)
    again: float = 0.3
    thin_from: float = 0.04
    thick_from: float = 0.2
    shadow_from: float = 0.35
    visible: float = 0.02
    distance: tuple[float, float] = (2.0, 60.0)

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            TrainingError: a value breaks its rule.
        """
        builtin_fields(self)
        for name in ("share", "again", "thin_from", "thick_from", "shadow_from", "visible"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise TrainingError(f"laid_clouds.{name} is {value}; it must be 0 to 1")
        if not 0 < self.thin_from < self.thick_from:
            raise TrainingError(
                f"laid_clouds.thin_from is {self.thin_from} and thick_from {self.thick_from}; give "
                f"thin_from above 0 and below thick_from"
            )
        if self.shadow_from <= 0:
            raise TrainingError("laid_clouds.shadow_from is 0; it must be above 0")
        kinds = self.kinds
        if len(kinds) != 4 or not 0 < sum(kinds) < math.inf or min(kinds) < 0:
            raise TrainingError(
                f"laid_clouds.kinds is {kinds}; give four shares (cumulus, stratus, cirrus, haze), "
                f"0 at least and not all 0"
            )
        if len(self.distance) != 2 or not 0 < self.distance[0] <= self.distance[1] <= _FARTHEST:
            raise TrainingError(
                f"laid_clouds.distance is {self.distance}; give (smallest, largest) in px, above 0 "
                f"and at most {_FARTHEST}"
            )

    @property
    def names(self) -> tuple[str, str, str]:
        """The classes of :data:`THIN`, :data:`THICK` and :data:`SHADOW`."""
        return self.thin, self.thick, self.shadow

    def check(self, classes: Sequence[str], bands: Sequence[str], quantity: str) -> None:
        """Refuse what doesn't suit the rest of the recipe.

        Args:
            classes: names of the recipe's.
            bands: that are seen.
            quantity: what pixels are.

        Raises:
            TrainingError: it is so.
        """
        if len(set(self.names) & set(classes)) < len(self.names) or len(classes) == len(self.names):
            raise TrainingError(
                f"laid_clouds names the classes {', '.join(self.names)}; give three of the "
                f"recipe's ({', '.join(classes)}), which has one at least for clear ground"
            )
        strange = [band for band in bands if band not in CLOUD_BANDS]
        if quantity != "reflectance" or strange:
            what = f"{strange[0]} is none" if strange else f"the quantity is {quantity}"
            raise TrainingError(
                f"laid_clouds knows how clouds reflect in {', '.join(CLOUD_BANDS)}, as "
                f"reflectance, and {what}; leave it out"
            )
