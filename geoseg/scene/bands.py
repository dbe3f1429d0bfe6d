"""The bands of one raster, as the file describes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.alpha import is_alpha
from geoseg.scene.file_blocks import blocks_of
from geoseg.scene.scene_band import SceneBand
from geoseg.scene.sensors import band_name
from geoseg.scene.sources import Rules
from geoseg.scene.spelling import wavelength_of

__all__ = ["bands_of", "said_of_alpha", "stem_of"]

_COLORS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}
#: Which GDAL tells apart since 3.10.
if hasattr(ColorInterp, "nir"):
    _COLORS[ColorInterp.nir] = "nir"


def stem_of(source: str) -> str:
    """The name of a file, or of what an address names, without suffix."""
    name = source.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return Path(name).stem or "scene"


def bands_of(
    dataset: Any, file: str, rules: Rules, *, alpha: bool | None = None
) -> list[SceneBand]:
    """Describe the bands of an open dataset, without alpha.

    Args:
        dataset: rasterio's.
        file: its path or address, public.
        rules: what it may point to.
        alpha: whether a band that is marked as alpha is one; None: its values tell.

    Raises:
        SceneError: a band is of complex numbers.
    """
    grid, blocks = PixelGrid.of(dataset), blocks_of(dataset)
    # Each of these goes through all bands: asked for band by band, thousands take minutes.
    colors, dtypes, descriptions = dataset.colorinterp, dataset.dtypes, dataset.descriptions
    scales, offsets, nodatas = dataset.scales, dataset.offsets, dataset.nodatavals
    if alpha is None:
        alpha = ColorInterp.alpha not in colors or is_alpha(dataset, file)
    single = len(colors) - (alpha and ColorInterp.alpha in colors) == 1
    bands = []
    # A colour interpretation is a name only where it is given for three bands at once: a single
    # band that says "red" is how some writers mark their first band.
    envi, bits = _envi_scale(dataset), _bits(dataset)
    coloured = {ColorInterp.red, ColorInterp.green, ColorInterp.blue} <= set(colors)
    for i, interp in enumerate(colors):
        if alpha and interp == ColorInterp.alpha:
            continue
        if dtypes[i].startswith("complex"):
            raise SceneError(f"{file}: band {i + 1} is complex; geoseg reads real numbers")
        description = descriptions[i]
        tags = _tags(dataset, i + 1)
        wavelength = wavelength_of(tags)
        description = description or tags.get("NETCDF_VARNAME")
        label = description or (stem_of(file) if single else f"#{i + 1}")
        name = band_name(label, None, wavelength)
        if name is None and not description and coloured:
            name = _COLORS.get(interp)
        scale, offset = scales[i], offsets[i]
        if (scale, offset) == (1.0, 0.0):
            scale = envi
        tagged = scale != 1.0 or offset != 0.0
        bands.append(
            SceneBand(
                name=name,
                label=label,
                path=file,
                index=i + 1,
                dtype=dtypes[i],
                nodata=nodatas[i],
                scale=float(scale) if tagged else None,
                offset=float(offset) if tagged else None,
                grid=grid,
                rules=rules,
                alpha=alpha,
                wavelength=wavelength,
                bits=bits,
                blocks=blocks,
            )
        )
    return bands


def said_of_alpha(dataset: Any, file: str, bands: Sequence[SceneBand]) -> list[str]:
    """Say which band is marked as alpha and is read as a band all the same.

    Args:
        dataset: rasterio's.
        file: its path or address, public.
        bands: of it.

    Returns:
        A note for the user, or none.
    """
    if not bands or bands[0].alpha or ColorInterp.alpha not in dataset.colorinterp:
        return []
    band = bands[dataset.colorinterp.index(ColorInterp.alpha)]
    what = "" if band.name else "; say what it is with --band-names (red,green,blue,nir)"
    return [
        f"{Path(file).name}: band {band.index} is marked as alpha, but its values are not those of "
        f"a mask (0 and full): it is read as a band{what}"
    ]


def _envi_scale(dataset: Any) -> float:
    """Reflectance per number by an ENVI header's "reflectance scale factor"; 1 without one."""
    said = dataset.tags(ns="ENVI").get("reflectance_scale_factor", "")
    with suppress(ValueError):
        factor = float(said)
        if math.isfinite(factor) and factor > 0:
            return 1 / factor
    return 1.0


def _bits(dataset: Any) -> int | None:
    """How many bits of its dtype a file uses, as it says (TIFF, JPEG 2000, NITF)."""
    said = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "") if dataset.count else ""
    return int(said) if said.isdecimal() else None


def _tags(dataset: Any, index: int) -> dict[str, str]:
    """A band's metadata; wavelengths stand in a domain of their own since GDAL 3.10."""
    return {**dataset.tags(index), **dataset.tags(index, ns="IMAGERY")}
