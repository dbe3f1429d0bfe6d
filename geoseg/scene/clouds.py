"""What the numbers of a cloud layer mean: which pixels of a scene are left out for clouds.

A cloud layer is a raster of classes or of bits that comes with a product. Pure tables and text
matching; no file is opened here. To add a kind of layer: one entry in :data:`LAYERS`. Left out are
clouds, their shadows, cirrus and what a product adds around clouds, and what was not measured or
measured wrongly. Snow and water are ground, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.scene.sensors import Sensor

__all__ = ["CLOUDS", "LAYERS", "CloudRule", "rule_of"]

#: What a user may say of clouds.
CLOUDS = ("auto", "none")


@dataclass(frozen=True)
class CloudRule:
    """Which numbers of a layer mean that a pixel is left out.

    Attributes:
        name: of the kind of layer, as shown to people.
        values: numbers that are left out.
        bits: places of bits, from 0; a number with any of them set is left out.
        why: where that comes from.
        bands: of the layer's file, from 1, where it takes several: what any of them leaves out is
            left out.
    """

    name: str
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    why: str = ""
    bands: tuple[int, ...] = ()

    def left_out(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Find the pixels that are left out.

        Args:
            numbers: whole ones, of any shape.

        Returns:
            As many, True = left out.
        """
        out = np.isin(numbers, self.values) if self.values else np.zeros(numbers.shape, bool)
        if self.bits:
            # In 64 bits: a number of one byte can't be compared with a mask of more.
            out |= (numbers.astype(np.int64) & sum(1 << place for place in self.bits)) != 0
        return out


#: (a layer's key or name, in lower case; what its sensor's name begins with) -> the rule.
LAYERS: Mapping[tuple[str, str], CloudRule] = {
    ("scl", "Sentinel-2"): CloudRule(
        "Sentinel-2 scene classification (SCL)",
        values=(0, 1, 3, 8, 9, 10),
        why="Sen2Cor: 0 no data, 1 saturated or defective, 3 cloud shadow, 8 and 9 cloud of medium "
        "and high probability, 10 thin cirrus",
    ),
    ("qa_pixel", "Landsat"): CloudRule(
        "Landsat Collection 2 pixel quality (QA_PIXEL)",
        bits=(0, 1, 2, 3, 4),
        why="USGS: bit 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow",
    ),
    ("fmask", "HLS"): CloudRule(
        "HLS Fmask",
        bits=(0, 1, 2, 3),
        why="HLS user guide v2: bit 0 cirrus, 1 cloud, 2 beside cloud or shadow, 3 cloud shadow; "
        "255, which has all bits, is fill",
    ),
    ("clm", "MAJA"): CloudRule(
        "MAJA cloud mask (CLM)",
        bits=(0, 1, 2, 3, 4, 5, 6, 7),
        why="MAJA format of THEIA: bits 0 to 3 and 7 clouds, 4 thin cloud, 5 and 6 shadows",
    ),
    ("udm2", "PlanetScope"): CloudRule(
        "PlanetScope usable data mask (udm2)",
        values=(1,),
        why="Planet: bands 3 shadow, 4 light haze, 5 heavy haze, 6 cloud; 1 is yes",
        bands=(3, 4, 5, 6),
    ),
}

#: Names of classes and bits that are left out, and such that only sound like it.
_OUT = re.compile(
    r"cloud|cirrus|shadow|dilated|saturat|defect|no[ _-]?data|\bfill|invalid", re.IGNORECASE
)
_STAYS = re.compile(
    r"clear|free|low|(?:^|[ _-])(?:no|not|non)[ _-](?!data)|cast|terrain|topographic|dark",
    re.IGNORECASE,
)


def rule_of(
    name: str,
    sensor: Sensor | None,
    classes: Mapping[int, str] | None = None,
    bits: Mapping[int, str] | None = None,
) -> CloudRule | None:
    """Find the rule of a layer, or None where it isn't known to hold clouds.

    Args:
        name: the layer's key or name, such as ``SCL`` or ``scl-jp2``.
        sensor: of the scene, or None.
        classes: what the layer's numbers mean, as far as its metadata say so.
        bits: what its bits mean.

    Returns:
        An entry of :data:`LAYERS` for a layer and sensor that are known; else the rule that the
        names of classes or bits give, where there are clouds among them.
    """
    bare = re.sub(r"([_-]\d+m|-jp2)+$", "", name.lower())
    for (key, begin), rule in LAYERS.items():
        if bare == key and sensor is not None and sensor.name.startswith(begin):
            return rule
    numbers, places = (
        {n: text for n, text in (said or {}).items() if _is_out(text)} for said in (classes, bits)
    )
    if not any("cloud" in text.lower() for text in (*numbers.values(), *places.values())):
        return None
    names = [f"{n} {text}" for n, text in numbers.items()]
    names += [f"bit {n} {text}" for n, text in places.items()]
    return CloudRule(
        f"classes of {name}",
        values=tuple(sorted(numbers)),
        bits=tuple(sorted(places)),
        why=f"the item's names of its classes: {', '.join(names)}",
    )


def _is_out(name: str) -> bool:
    """Whether a class or bit of this name is left out."""
    return _OUT.search(name) is not None and _STAYS.search(name) is None
