"""Does a scene look cloudy? By reflectance alone; it makes no mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.survey import Survey

__all__ = ["BANDS", "CLOUDY", "cloud_share", "cloudy_share"]

#: What the test looks at, in this order.
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
#: From this share of cloud-like pixels on a scene is called cloudy. Of 137 real scenes and chips
#: without clouds to speak of (deserts, snow, coasts, towns) none has more than 0.034, which is
#: 640 m of white roofs, and no other more than 0.021; of seven with clouds the least has 0.045:
#: small and thin ones. The bounds below were chosen on these same scenes.
CLOUDY = 0.04
#: Of the sampled pixels one in so many is looked at.
STEP = 4


def cloud_share(reflectance: NDArray[Any]) -> float:
    """Measure how much of a sample looks like cloud.

    The tests are those of Fmask, band by band on each pixel: whiteness, HOT (haze is bluer than
    ground), NDSI against snow, NDVI, and nir over swir1 against bright rock and sand (Zhu and
    Woodcock 2012, doi:10.1016/j.rse.2011.10.028; HOT: Zhang and others 2002,
    doi:10.1016/S0034-4257(02)00034-2). Their bounds are narrower here, since it is about scenes: a
    part of the clouds is enough to know them by, and ground must not pass.

    Args:
        reflectance: (6, n), in the order of :data:`BANDS`; surface or top of atmosphere, measured
            pixels alone.

    Returns:
        0 to 1; 0 for no pixel.
    """
    if reflectance.shape[1] == 0:
        return 0.0
    # What the correction for the air took below 0 is dark.
    blue, green, red, nir, swir1, swir2 = np.maximum(reflectance.astype(np.float32), 1e-4)
    mean = (blue + green + red) / 3
    colour = (abs(blue - mean) + abs(green - mean) + abs(red - mean)) / mean
    darkest = np.minimum(np.minimum(blue, green), red)
    snow, plants = (green - swir1) / (green + swir1), (nir - red) / (nir + red)
    thick = (darkest > 0.25) & (colour < 0.2) & (blue > 0.94 * red)
    thick &= (plants > -0.01) & (plants < 0.2)
    thick &= (snow < 0.5) & (nir > swir1) & (swir1 > swir2) & (swir2 > 0.15)
    # Ground is seen through a thin one: so it is bluer than any ground, with some green of plants.
    thin = (darkest > 0.12) & (colour < 0.5) & (blue > red) & (blue > green)
    thin &= (blue - red / 2 > 0.08) & (plants > 0.04) & (plants < 0.4)
    thin &= (snow < 0.15) & (nir > 1.15 * swir1) & (swir1 > 1.1 * swir2)
    return float((thick | thin).mean())


def cloudy_share(card: ModelCard, survey: Survey, radiometry: Radiometry) -> float:
    """Measure how much of a surveyed scene looks like cloud to whom it is to be mapped by.

    Args:
        card: of the map's model.
        survey: of the scene.
        radiometry: from its numbers to the card's quantity.

    Returns:
        0 to 1; 0 where the model does not take what the test looks at.
    """
    names = list(card.bands)
    if card.quantity != "reflectance" or not set(BANDS) <= set(names):
        return 0.0
    some = [names.index(name) for name in BANDS]
    return cloud_share(survey.quantity(radiometry)[some, ::STEP])
