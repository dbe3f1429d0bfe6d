"""The bands of one raster, as the file describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasterio.enums import ColorInterp

from geoseg.errors import SceneError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.scene.scene import SceneBand
from geoseg.scene.sensors import common_name
from geoseg.scene.sources import Rules

__all__ = ["bands_of", "stem_of"]

_COLORS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}


def stem_of(source: str) -> str:
    """The name of a file, or of what an address names, without suffix."""
    name = source.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return Path(name).stem or "scene"


def bands_of(dataset: Any, file: str, rules: Rules, *, alpha: bool = True) -> list[SceneBand]:
    """Describe the bands of an open dataset, without alpha.

    Args:
        dataset: rasterio's.
        file: its path or address, public.
        rules: what it may point to.
        alpha: whether a band that is marked as alpha is none of the scene's.

    Raises:
        SceneError: a band is of complex numbers.
    """
    grid = PixelGrid.of(dataset)
    # Each of these goes through all bands: asked for band by band, thousands take minutes.
    colors, dtypes, descriptions = dataset.colorinterp, dataset.dtypes, dataset.descriptions
    scales, offsets, nodatas = dataset.scales, dataset.offsets, dataset.nodatavals
    single = len(colors) - (ColorInterp.alpha in colors) == 1
    bands = []
    # A colour interpretation is a name only where it is given for three bands at once: a single
    # band that says "red" is how some writers mark their first band.
    coloured = set(_COLORS) <= set(colors)
    for i, interp in enumerate(colors):
        if alpha and interp == ColorInterp.alpha:
            continue
        if dtypes[i].startswith("complex"):
            raise SceneError(f"{file}: band {i + 1} is complex; geoseg reads real numbers")
        description = descriptions[i]
        label = description or (stem_of(file) if single else f"#{i + 1}")
        name = common_name(label)
        if name is None and not description and coloured:
            name = _COLORS.get(interp)
        scale, offset = scales[i], offsets[i]
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
            )
        )
    return bands
