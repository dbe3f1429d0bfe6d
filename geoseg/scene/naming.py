"""What a scene's bands are called, which numbers are not measured, and what says so.

A band's own description comes first, then the metadata of its product, then the sensor's codes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from geoseg.core.gdal import over_network
from geoseg.scene.folders import PRODUCT_FOLDER
from geoseg.scene.products import told_of
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import Sensor, band_code, band_name, common_name, sensor_with_reason

__all__ = ["WHOLE", "named_bands", "told_by_products"]

#: Types of numbers as products have them.
WHOLE = re.compile("u?int(16|32)")


def named_bands(
    bands: list[SceneBand],
    told: Mapping[tuple[str, int], str],
    telling: Sequence[str],
    texts: Sequence[str],
) -> tuple[tuple[Sensor | None, str], list[SceneBand]]:
    """Find the sensor and why, and by it names of bands and what stands for "not measured".

    Args:
        bands: as the files have them.
        told: (file, index) -> name by a product's metadata.
        telling: what the files say of themselves and their own names, the most telling first.
        texts: names of folders, too.
    """
    codes = [code for band in bands if (code := band_code(band.label))]
    # Folders that are products come last; one that merely is called after a sensor is no evidence.
    found = sensor_with_reason([*telling, *(t for t in texts if PRODUCT_FOLDER.match(t))], codes)
    return found, [_with_nodata(_with_name(band, told, found[0]), found[0]) for band in bands]


def _with_name(
    band: SceneBand, told: Mapping[tuple[str, int], str], sensor: Sensor | None
) -> SceneBand:
    """Name a band as its description means, or a product says; else as its colour is."""
    by_label = band_name(band.label, sensor, band.wavelength) if band.has_words else None
    said = told.get((band.path, band.index))
    if by_label is not None:
        coded = common_name(band.label) is None
        return replace(band, name=by_label, named_by=_by_code(band, sensor) if coded else "")
    if said is not None:
        return replace(band, name=said, named_by="the product's metadata")
    if band.has_words:
        return replace(band, name=None)
    return replace(band, named_by="the file's colour interpretation" if band.name else "")


def _by_code(band: SceneBand, sensor: Sensor | None) -> str:
    """What turns a label without a band's name into one."""
    if sensor is not None and band_code(band.label) in sensor.codes:
        return f"{sensor.name}'s band codes"
    return "its wavelength"


def _with_nodata(band: SceneBand, sensor: Sensor | None) -> SceneBand:
    """Add what stands for "not measured" as the makers say, where the file does not say it."""
    if band.nodata is not None or sensor is None or WHOLE.match(band.dtype) is None:
        return band
    if sensor.name == "Sentinel-2":  # ESA's specification, for the files as ESA writes them
        nodata = 0.0 if band.path.endswith(".jp2") else None
    else:
        signed = not band.dtype.startswith("u")
        fits = sensor.nodata is not None and (sensor.nodata >= 0 or signed)
        nodata = sensor.nodata if fits else None
    if nodata is None:
        return band
    return replace(band, nodata=nodata, nodata_by=f"convention of {sensor.name}")


def told_by_products(
    bands: list[SceneBand], behind: dict[str, None], texts: list[str]
) -> tuple[list[SceneBand], dict[tuple[str, int], str], list[str]]:
    """Add what the metadata of products say of bands, and find the products' own names.

    Args:
        bands: of all files.
        behind: files that the scene is read from, as keys; the metadata are added.
        texts: names that the sensor's conventions are looked for in; the products' are added.

    Returns:
        The bands, (file, index) -> name where one is said, and the products' names.
    """
    counts = Counter(band.path for band in bands)
    out: list[SceneBand] = []
    names: dict[tuple[str, int], str] = {}
    products: dict[str, None] = {}
    for band in bands:
        said = (
            None if over_network(band.path) else told_of(band.path, band.index, counts[band.path])
        )
        if said is None:
            out.append(band)
            continue
        if os.path.isfile(said.by):
            behind[said.by] = None
        if said.product:
            products[said.product] = None
        # The file's own word comes first; and numbers of other types were changed by someone.
        whole = WHOLE.match(band.dtype) is not None
        tagged = band.scale is not None or band.offset is not None
        if whole and not tagged and said.scale is not None:
            band = replace(band, scale=said.scale, offset=said.offset, told_by=said.source)
        if whole and band.nodata is None and said.nodata is not None:
            band = replace(band, nodata=said.nodata, nodata_by="the product's metadata")
        if whole and band.bits is None:
            band = replace(band, bits=said.bits)
        if said.name:
            names[band.path, band.index] = said.name
        out.append(band)
    texts[:0] = products
    return out, names, list(products)
