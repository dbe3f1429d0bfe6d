"""What the numbers of a cloud layer mean: which pixels of a scene are left out for clouds.

A cloud layer is a raster of classes or of bits that comes with a product. Pure tables and text
matching; no file is opened here. To add a kind of layer: one entry in :data:`LAYERS`. Left out are
clouds, their shadows and cirrus, and what lies near them; what a product adds around them, as it
is; and what was not measured or measured wrongly. Snow and water are ground, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import Sensor

__all__ = [
    "CLOUDS",
    "CLOUD_BUFFER",
    "CLOUD_MODEL",
    "LAYERS",
    "MOST_BUFFER",
    "CloudRule",
    "Numbers",
    "cloud_band",
    "rule_of",
]

#: What a user may say of clouds.
CLOUDS = ("auto", "none", "clouds-ms", "csmask")
#: The embedded model among them.
CLOUD_MODEL = "clouds-ms"

#: Metres around clouds that are left out where the user says nothing: the haze at their edges, and
#: shadows that lie a pixel off.
CLOUD_BUFFER = 60.0
#: Farther is another region, and much to read around each window.
MOST_BUFFER = 5000.0


@dataclass(frozen=True)
class Numbers:
    """Some of the numbers that a layer may have.

    Attributes:
        values: these themselves.
        bits: places of bits, from 0; a number with any of them set is one of these.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()

    def among(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Find them.

        Args:
            numbers: whole ones, of any shape.

        Returns:
            As many, True = one of these.
        """
        found = np.isin(numbers, self.values) if self.values else np.zeros(numbers.shape, bool)
        if self.bits:
            # In 64 bits: a number of one byte can't be compared with a mask of more.
            found |= (numbers.astype(np.int64) & sum(1 << place for place in self.bits)) != 0
        return found


@dataclass(frozen=True)
class CloudRule:
    """Which numbers of a layer mean that a pixel is left out.

    Attributes:
        name: of the kind of layer, as shown to people.
        clouds: clouds and their shadows; what lies near them is left out, too.
        rim: what the product itself adds around clouds; nothing more around that.
        unmeasured: not measured or measured wrongly, whatever else the number says; nothing around.
        why: where that comes from.
        bands: of the layer's file, from 1, where it takes several: what any of them leaves out is
            left out.
    """

    name: str
    clouds: Numbers
    rim: Numbers = Numbers()
    unmeasured: Numbers = Numbers()
    why: str = ""
    bands: tuple[int, ...] = ()

    def left_out(self, numbers: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Find the pixels that are left out.

        Args:
            numbers: whole ones, of any shape.

        Returns:
            As many each, True = a cloud or its shadow, and True = left out for another reason.
        """
        unmeasured = self.unmeasured.among(numbers)
        return self.clouds.among(numbers) & ~unmeasured, self.rim.among(numbers) | unmeasured


#: (a layer's key or name, in lower case; what its sensor's name begins with) -> the rule.
LAYERS: Mapping[tuple[str, str], CloudRule] = {
    ("scl", "Sentinel-2"): CloudRule(
        "Sentinel-2 scene classification (SCL)",
        Numbers((3, 8, 9, 10)),
        unmeasured=Numbers((0, 1)),
        why="Sen2Cor: 0 no data, 1 saturated or defective, 3 cloud shadow, 8 and 9 cloud of medium "
        "and high probability, 10 thin cirrus",
    ),
    ("qa_pixel", "Landsat"): CloudRule(
        "Landsat Collection 2 pixel quality (QA_PIXEL)",
        Numbers(bits=(2, 3, 4)),
        rim=Numbers(bits=(1,)),
        unmeasured=Numbers(bits=(0,)),
        why="USGS: bit 0 fill, 1 dilated cloud, 2 cirrus, 3 cloud, 4 cloud shadow",
    ),
    ("fmask", "HLS"): CloudRule(
        "HLS Fmask",
        Numbers(bits=(0, 1, 3)),
        rim=Numbers(bits=(2,)),
        unmeasured=Numbers((255,)),
        why="HLS user guide v2: bit 0 cirrus, 1 cloud, 2 beside cloud or shadow, 3 cloud shadow; "
        "255, which has all bits, is fill",
    ),
    ("clm", "MAJA"): CloudRule(
        "MAJA cloud mask (CLM)",
        Numbers(bits=(0, 1, 2, 3, 4, 5, 6, 7)),
        why="MAJA format of THEIA: bits 0 to 3 and 7 clouds, 4 thin cloud, 5 and 6 shadows",
    ),
    ("udm2", "PlanetScope"): CloudRule(
        "PlanetScope usable data mask (udm2)",
        Numbers((1,)),
        why="Planet: bands 3 shadow, 4 light haze, 5 heavy haze, 6 cloud; 1 is yes",
        bands=(3, 4, 5, 6),
    ),
}

#: Names of classes and bits that are left out, and such that only sound like it.
_CLOUD = re.compile(r"cloud|cirrus|shadow", re.IGNORECASE)
_RIM = re.compile(
    r"dilated|(adjacent|beside|buffer|near).*cloud|cloud.*(edge|buffer)", re.IGNORECASE
)
_UNMEASURED = re.compile(r"saturat|defect|no[ _-]?data|\bfill|invalid", re.IGNORECASE)
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
    said = (classes or {}, bits or {})
    kinds = [{n: kind for n, text in of.items() if (kind := _kind(text))} for of in said]
    names = [f"{n} {said[0][n]}" for n in kinds[0]] + [f"bit {n} {said[1][n]}" for n in kinds[1]]
    if not any("cloud" in text.lower() for text in names):
        return None
    clouds, rim, unmeasured = (
        Numbers(*(tuple(sorted(n for n, k in found.items() if k is kind)) for found in kinds))
        for kind in (_CLOUD, _RIM, _UNMEASURED)
    )
    why = f"the item's names of its classes: {', '.join(names)}"
    return CloudRule(f"classes of {name}", clouds, rim, unmeasured, why)


#: Names of layers that mean one sensor's, whatever else a file says of itself.
_OF_ONE_SENSOR = {"scl": "Sentinel-2", "qa_pixel": "Landsat"}


def cloud_band(
    bands: Sequence[SceneBand], sensor: Sensor | None
) -> tuple[SceneBand, CloudRule] | None:
    """Find the band that is a product's cloud layer, as exports of Earth Engine have it.

    Args:
        bands: of a scene, as its files call them.
        sensor: of the scene, or None.

    Returns:
        The band and its rule; None where there is none.
    """
    for band in bands:
        name = band.label.lower()
        if sensor is not None and not sensor.name.startswith(_OF_ONE_SENSOR.get(name, "")):
            continue
        rule = LAYERS.get((name, _OF_ONE_SENSOR.get(name, ""))) or rule_of(name, sensor)
        if rule is not None and not rule.bands:
            return band, rule
    return None


def _kind(name: str) -> re.Pattern[str] | None:
    """For what a class or bit of this name is left out; None where it is not."""
    if _STAYS.search(name) is not None:
        return None
    # "Dilated cloud" is no cloud, and "invalid, under cloud shadow" no shadow.
    return next((k for k in (_UNMEASURED, _RIM, _CLOUD) if k.search(name) is not None), None)
