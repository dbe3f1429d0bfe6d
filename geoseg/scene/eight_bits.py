"""Pictures for models of 8 bits, where a scene has other numbers: refused, or stretched."""

from __future__ import annotations

import numpy as np

from geoseg.errors import RadiometryError
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.survey import Survey

__all__ = ["check_8_bits", "stretched"]

#: White, and what it is in pictures of 0 to 1.
WHITE = 255.0
#: Bit depths of cameras and sensors, whose numbers stand in 16 bits.
DEPTHS = range(9, 17)
#: Percentiles: where most of a picture lies, and all but single hot pixels.
MOST, ALL = 99.0, 99.9


def check_8_bits(seen: Survey, name: str, bits: int | None = None) -> None:
    """Refuse numbers that are not those of an 8-bit picture, as they stand in the files.

    Args:
        seen: of the scene.
        name: of it.
        bits: of its numbers, by its metadata; None where nothing says it.

    Raises:
        RadiometryError: they are others; with the options that bring them to 0 to 255.
    """
    values = seen.all_measured
    if values.dtype == np.uint8 or values.size == 0:
        return
    low, most, high = (float(v) for v in np.percentile(values, (100 - ALL, MOST, ALL)))
    if values.dtype.kind == "f" and 0 < high <= 1.0 and low >= 0:
        what = f"its numbers are 0 to {high:.3g}, a picture of 0 to 1: give --scale 255"
    elif most > WHITE:
        what = f"its numbers go up to {high:.6g}"
        depth = bits or next((d for d in DEPTHS if high < 2**d), None)
        if depth is not None and low >= 0:
            scale = 2.0 ** (8 - depth)
            what += f", which are {depth} bits: give --scale {scale:.8f}".rstrip("0")
    elif low < 0:
        what = f"its numbers begin at {low:.4g}"
    else:
        return
    known = "--scale" in what
    raise RadiometryError(
        f"{name}: {what}{', or' if known else '; give'} --stretch 2,98 if that leaves it too dark "
        f"or too pale to see; the model takes pictures of 8 bits, 0 to 255"
    )


def stretched(seen: Survey, percentiles: tuple[float, float], bands: int, name: str) -> Radiometry:
    """Bring a picture's numbers to 0 to 255 by two percentiles of all of it.

    All bands are stretched alike, so that colours stay what they are; numbers beyond the
    percentiles go beyond 0 and 255.

    Args:
        seen: of the whole scene.
        percentiles: that become 0 and 255.
        bands: how many there are.
        name: of the scene.

    Raises:
        RadiometryError: between the percentiles lies nothing.
    """
    values = seen.measured
    shown = f"--stretch {percentiles[0]:g},{percentiles[1]:g}"
    if values.size == 0:
        return Radiometry((1.0,) * bands, (0.0,) * bands, f"{shown}: no pixel was measured")
    low, high = (float(v) for v in np.percentile(values, percentiles))
    if not low < high:
        raise RadiometryError(
            f"{name}: {shown} finds {low:g} at both percentiles, so there is nothing to stretch; "
            f"give percentiles that lie further apart, or --scale and --offset"
        )
    gain = WHITE / (high - low)
    source = f"{shown}: {low:g} to {high:g}, of all bands and the whole scene, become 0 to 255"
    return Radiometry((gain,) * bands, (-low * gain,) * bands, source)
