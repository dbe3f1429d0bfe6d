"""What a scene's numbers mean."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.errors import RadiometryError, UsageError
from geoseg.scene.item_radiometry import EITHER, UNKNOWN, Radiometry, of_item, sentinel2
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import SENSORS

__all__ = ["TELL", "Convention", "Radiometry", "convention", "find_radiometry"]


#: What to do where the unit is unknown.
TELL = (
    "say what one unit means with --scale and --offset (reflectance = number * scale + offset; for "
    "reflectance x 10000: --scale 0.0001)"
)


@dataclass(frozen=True)
class Convention:
    """What a sensor's numbers mean, where they are as its product has them.

    Attributes:
        scale: reflectance per number.
        offset: reflectance at number 0.
        why: where that comes from.
        options: of the command line that say so.
    """

    scale: float
    offset: float
    why: str
    options: str


#: Bands of Landsat's Collection 2, level 2, as Earth Engine and the files name them.
SURFACE = re.compile(r"(.*_)?SR_B\d$", re.IGNORECASE)
#: Names of Landsat's level 1.
LEVEL_1 = re.compile(r"(?<![A-Z0-9])L[COTEM]0\d_L1", re.IGNORECASE)


def convention(scene: Scene, bands: Sequence[SceneBand]) -> Convention | None:
    """Find what the numbers of these bands would mean by their sensor, whatever their dtype.

    Args:
        scene: what was opened.
        bands: the chosen ones.
    """
    sensor = scene.sensor
    if sensor is None:
        return None
    if sensor.name == "Sentinel-2":
        offset, baseline = sentinel2(scene)
        name = f"Sentinel-2, {baseline}"
        if offset is None:
            return Convention(1e-4, 0.0, name, EITHER.removeprefix("say "))
        return Convention(1e-4, offset, name, _options(1e-4, offset))
    named = sensor.scale is None and all(SURFACE.match(b.label) for b in bands)
    if sensor.name.startswith("Landsat") and named and not any(map(LEVEL_1.match, scene.texts)):
        landsat = next(s for s in SENSORS if s.name == "Landsat 8-9 level 2")
        assert landsat.scale is not None
        why = f"bands named {bands[0].label} are of {landsat.why}"
        return Convention(landsat.scale, landsat.offset, why, _options(2.75e-5, -0.2))
    if sensor.scale is None:
        return None
    return Convention(
        sensor.scale, sensor.offset, sensor.why, _options(sensor.scale, sensor.offset)
    )


def _options(scale: float, offset: float) -> str:
    # 2.75e-05 is no number that people write.
    number = f"{scale:.10f}".rstrip("0")
    return f"--scale {number}" + (f" --offset {offset:g}" if offset else "")


def find_radiometry(
    scene: Scene,
    bands: Sequence[SceneBand],
    quantity: str,
    *,
    scale: float | None = None,
    offset: float | None = None,
) -> Radiometry:
    """Find what the numbers of these bands mean in a model's quantity.

    The user's word comes first, then the scale and offset of a STAC item, of the file's tags or of
    a product's metadata, then floating-point numbers as they are, then the sensor's convention.
    Nothing else is assumed.

    Args:
        scene: what was opened.
        bands: the chosen ones.
        quantity: the card's: ``reflectance`` or ``number``.
        scale: quantity per number, by the user.
        offset: quantity at number 0, by the user.

    Raises:
        RadiometryError: none of these says what the numbers mean.
        UsageError: the user's scale or offset is no number to multiply or add.
    """
    n = len(bands)
    if scale is not None or offset is not None:
        whole = not all(b.dtype.startswith("float") for b in bands)
        if scale is None and whole and quantity == "reflectance":
            raise UsageError(
                f"--offset {offset} without --scale would take one whole number for one unit; "
                f"give --scale too (for reflectance x 10000: --scale 0.0001)"
            )
        gain, bias = 1.0 if scale is None else scale, offset or 0.0
        if not (math.isfinite(gain) and gain != 0 and math.isfinite(bias)):
            raise UsageError(f"--scale {gain} --offset {bias}: finite, and scale not 0")
        return Radiometry((gain,) * n, (bias,) * n, "given by --scale/--offset")
    if quantity == "number":
        return Radiometry((1.0,) * n, (0.0,) * n, "the model takes the numbers as they are")
    tagged = [b for b in bands if b.scale is not None or b.offset is not None]
    plain = [b for b in bands if b not in tagged]
    floats = [b for b in plain if b.dtype.startswith("float")]
    if (tagged or floats) and len(floats) < len(plain):
        bare = next(b for b in plain if b not in floats)
        other = "has scale tags" if tagged else "holds floating-point numbers"
        raise RadiometryError(
            f"{scene.name}: {(tagged or floats)[0]} {other} and {bare} is {bare.dtype} without "
            f"them, so the bands' units differ; give all bands one kind of numbers, or {TELL}"
        )
    if tagged:
        gains = tuple(1.0 if b.scale is None else b.scale for b in bands)
        biases = tuple(b.offset or 0.0 for b in bands)
        if not all(math.isfinite(v) for v in (*gains, *biases)) or 0 in gains:
            raise RadiometryError(
                f"{scene.name}: its scale tags {gains} and offset tags {biases} can't be meant "
                f"so (finite, and scale not 0); {TELL}"
            )
        if scene.item is not None:
            return of_item(scene, bands, gains)
        said = dict.fromkeys(b.told_by or "scale and offset tags of the file" for b in bands)
        return Radiometry(gains, biases, "; ".join(said))
    if floats:
        return Radiometry(
            (1.0,) * n, (0.0,) * n, "floating-point numbers, taken as reflectance of 0 to 1"
        )
    return _by_sensor(scene, bands)


def _by_sensor(scene: Scene, bands: Sequence[SceneBand]) -> Radiometry:
    """Take the convention of the scene's sensor for whole numbers without tags.

    Raises:
        RadiometryError: there is none, or it leaves the unit open.
    """
    n = len(bands)
    if any(b.dtype in ("uint8", "int8") for b in bands):
        raise RadiometryError(
            f"{scene.name} is 8-bit: such numbers are stretched for the screen and no "
            f"reflectance, which the model needs; use the original product, or {TELL}"
        )
    if scene.sensor is None:
        raise RadiometryError(
            f"{scene.name}: {bands[0].dtype} numbers without scale tags or a known sensor, so "
            f"their unit is unknown; {TELL}"
        )
    hot = next((band for band in bands if band.name in ("thermal1", "thermal2")), None)
    if hot is not None:
        raise RadiometryError(
            f"{scene.name}: {hot} is no reflectance (of Landsat level 2: kelvin = number * "
            f"0.00341802 + 149), and nothing says what the model takes; write all bands as "
            f"floating-point numbers in the model's units, and give that"
        )
    known = convention(scene, bands)
    if scene.sensor.scale is None and known is not None:
        # As the product has them. In any other type they were changed by someone.
        if all(b.dtype == "uint16" for b in bands):
            return Radiometry((known.scale,) * n, (known.offset,) * n, known.why)
        raise RadiometryError(
            f"{scene.name}: {scene.sensor.name} {bands[0].dtype} numbers, and the product's are "
            f"uint16; {known.why}: if they are as they were exported, give {known.options}"
        )
    if scene.sensor.scale is None:
        raise RadiometryError(
            f"{scene.name}: {scene.sensor.name} {bands[0].dtype} numbers are no reflectance: "
            f"{scene.sensor.why}; {TELL}"
        )
    base, why = scene.sensor.offset, scene.sensor.why
    if scene.sensor.name == "Sentinel-2":
        found, baseline = sentinel2(scene)
        why = f"{why}; {baseline}"
        if found is None:
            raise RadiometryError(
                f"{scene.name}: Sentinel-2, {baseline} (in the names of the product, in its "
                f"MTD_MSIL2A.xml or MTD_MSIL1C.xml, or in a STAC item): {UNKNOWN}; {EITHER}"
            )
        base = found
    source = f"convention of {scene.sensor.name}: {why}"
    return Radiometry((scene.sensor.scale,) * n, (base,) * n, source)
