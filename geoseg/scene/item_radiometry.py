"""What the numbers mean by a STAC item's scale and offset, and where these are not to be trusted.

Since processing baseline 04.00 ESA adds 1000 to the numbers of Sentinel-2. Some archives take it
off again and some don't, and what their items say of it differs:

- Earth Search, collection sentinel-2-l2a, took it off where ``earthsearch:boa_offset_applied`` is
  true, and gives an offset of -0.1 all the same: the flag is the truth, and the offset must not be
  added again (its maintainers, Element84/earth-search issues 9 and 23; stackstac issue 241 is what
  comes of adding it). The flag was found to be false on items whose numbers are without the 1000
  (issues 66 and 71; cirrus-earth-search issue 33), which no metadata show: so there is a doubt.
- Earth Search, collection sentinel-2-c1-l2a, and Copernicus have no such flag, and their offset of
  -0.1 is to be added.
- Planetary Computer has ESA's files and no offset, but the processing baseline.

What contradicts itself beyond that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.errors import RadiometryError
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import sentinel2_offset

__all__ = ["EITHER", "UNKNOWN", "Radiometry", "of_item", "sentinel2"]

#: Why a baseline is needed.
UNKNOWN = (
    "since baseline 04.00 numbers hold an offset of 1000 unless someone took it off, which a date "
    "does not tell"
)
#: What to do where it isn't known whether the offset is in the numbers.
EITHER = "say --scale 0.0001 --offset -0.1 if the 1000 is still in, else --scale 0.0001 --offset 0"


@dataclass(frozen=True)
class Radiometry:
    """What the numbers mean: quantity = number * gain + bias, band by band.

    Attributes:
        gain: one a band.
        bias: one a band.
        source: where they come from, in words.
        doubt: what the user should check, or "".
    """

    gain: tuple[float, ...]
    bias: tuple[float, ...]
    source: str
    doubt: str = ""


def sentinel2(scene: Scene) -> tuple[float | None, str]:
    """Find the reflectance offset of a Sentinel-2 scene by what its product and its item say.

    Args:
        scene: what was opened.

    Returns:
        See :func:`geoseg.scene.sensors.sentinel2_offset`.
    """
    item = scene.item
    if item is not None and item.offset_taken_off:
        return 0.0, "its item says that the offset was taken off already (boa_offset_applied)"
    baseline = None if item is None else item.baseline
    return sentinel2_offset(scene.texts, scene.tags, baseline)


def of_item(scene: Scene, bands: Sequence[SceneBand], gains: tuple[float, ...]) -> Radiometry:
    """Find what the numbers of a STAC item's scene mean by scale and offset.

    Args:
        scene: that was opened from the item.
        bands: the chosen ones, each with a scale or an offset, by the item or by the file.
        gains: of these.

    Raises:
        RadiometryError: the item contradicts itself.
    """
    told = any(b.by_item for b in bands)
    source = "scale and offset of the item" if told else "scale and offset tags of the file"
    biases = tuple(b.offset or 0.0 for b in bands)
    if scene.sensor is None or scene.sensor.name != "Sentinel-2" or scene.item is None:
        return Radiometry(gains, biases, source)
    found, why = sentinel2(scene)
    said = [b.offset for b in bands if b.offset is not None]
    if scene.item.offset_taken_off:
        given = f", so that its offset of {said[0]:g} is not added" if any(said) else ""
        return Radiometry(gains, (0.0,) * len(bands), f"scale of the item; {why}{given}")
    by_baseline = why.startswith("processing baseline") or why.startswith("tag ")
    if by_baseline and found is not None:
        if not all(math.isclose(offset, found, abs_tol=1e-6) for offset in said):
            raise RadiometryError(
                f"{scene.name}: its item gives an offset of {said[0]:g}, and {why} ({found:g} in "
                f"reflectance), which contradict each other: the offset may be in the numbers or "
                f"not; {EITHER}"
            )
        return Radiometry(gains, (found,) * len(bands), f"{source}; {why}", _doubt(scene, found))
    if said:
        return Radiometry(gains, biases, source)
    if found is None:
        raise RadiometryError(
            f"{scene.name}: its item gives a scale and no offset; Sentinel-2, {why}: {UNKNOWN}; "
            f"{EITHER}"
        )
    return Radiometry(gains, (found,) * len(bands), f"scale of the item; {why}")


def _doubt(scene: Scene, offset: float) -> str:
    """What to check where archives have said wrongly that the offset is in the numbers."""
    if offset == 0 or scene.item is None or scene.item.offset_taken_off is not False:
        return ""
    return (
        "the item says that the offset of 1000 is still in its numbers (boa_offset_applied is "
        "false), which is wrong of some items of Earth Search: if dark ground comes out below 0, "
        "give --scale 0.0001 --offset 0"
    )
