"""A picture for people: the scene beside its class raster, with a legend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling

from geoseg.geo.window import Window
from geoseg.rasters.writing import NODATA
from geoseg.scene.reader import SceneReader

if TYPE_CHECKING:
    from geoseg.prediction.plan import Plan

__all__ = ["write_preview"]

#: Longest side of each picture, px.
PREVIEW_SIDE = 900
#: Stands for the coordinates of a scene that has no CRS.
PLANE = CRS.from_epsg(3857)
_TRUE_COLOUR = ("red", "green", "blue")


def write_preview(plan: Plan, raster: Path, path: Path) -> None:
    """Write the PNG.

    Args:
        plan: of the run.
        raster: the class raster, finished.
        path: of the PNG.
    """
    # The object interface: pyplot would open a window system and keep the figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with rasterio.open(raster) as dataset:
        shape = _shape(dataset.height, dataset.width)
        ids = dataset.read(1, out_shape=shape, resampling=Resampling.nearest)
    aspect = 1.0
    if plan.grid.gsd is not None:
        aspect = (plan.grid.gsd[1] / plan.grid.gsd[0]) * _ratio(plan, shape)
    panels: list[tuple[str, NDArray[Any]]] = []
    picture = _picture(plan, shape, ids != NODATA)
    if picture is not None:
        panels.append(picture)
    panels.append((f"{plan.card.name}", _colour(plan, ids)))
    tall = shape[0] / shape[1] * aspect
    width = 5.0 * len(panels) + 2.4
    figure = Figure(figsize=(width, max(2.6, 5.0 * tall + 0.5)), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.imshow(image, interpolation="nearest", aspect=aspect)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    total = max(1, int((ids != NODATA).sum()))
    shares = [(c, int((ids == c.id).sum()) / total) for c in plan.legend]
    handles = [
        Patch(facecolor=c.color, edgecolor="0.3", label=f"{c.name.replace('_', ' ')}  {s:.1%}")
        for c, s in shares
        if s > 0
    ]
    figure.subplots_adjust(left=0.01, right=1 - 2.3 / width, top=0.93, bottom=0.02, wspace=0.03)
    figure.legend(handles=handles, loc="center right", fontsize=9, frameon=False)
    figure.savefig(path, metadata={"Software": "geoseg"})


def _shape(height: int, width: int) -> tuple[int, int]:
    factor = max(1.0, max(height, width) / PREVIEW_SIDE)
    return max(1, round(height / factor)), max(1, round(width / factor))


def _ratio(plan: Plan, shape: tuple[int, int]) -> float:
    """Compute what rounding the picture's size to whole pixels did to its shape."""
    return (plan.grid.height / shape[0]) / (plan.grid.width / shape[1])


def _colour(plan: Plan, ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids as RGB; nodata is white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    for c in plan.legend:
        table[c.id] = c.rgb
    return table[ids]


def _picture(
    plan: Plan, shape: tuple[int, int], valid: NDArray[np.bool_]
) -> tuple[str, NDArray[Any]] | None:
    """The scene in true colour where it has the bands, else its first band; stretched 2 to 98 %."""
    by_name = {b.name: b for b in plan.scene.bands if b.name is not None}
    by_name.update(zip(plan.card.bands, plan.bands, strict=True))
    names: tuple[str, ...] = _TRUE_COLOUR
    if not set(names) <= set(by_name):
        names = plan.card.bands[:1]
    factor = (plan.grid.width / shape[1], plan.grid.height / shape[0])
    grid = replace(plan.grid.zoom(*factor), height=shape[0], width=shape[1])
    bands = [by_name[n] for n in names]
    if grid.crs is None:
        # Resampling asks for a CRS; the bands share their coordinates, and any plane will do.
        grid = replace(grid, crs=PLANE)
        bands = [replace(band, grid=replace(band.grid, crs=PLANE)) for band in bands]
    with SceneReader(bands, grid) as reader:
        pixels, measured = reader.read(Window(0, 0, *shape))
    valid = valid & measured
    if not valid.any():
        return None
    planes = []
    for plane in pixels.astype(np.float32):
        low, high = np.percentile(plane[valid], (2, 98))
        stretched = np.clip((plane - low) / max(high - low, 1e-12), 0, 1)
        planes.append(np.where(valid, stretched, 1.0))
    if len(planes) == 1:
        planes *= 3
    title = "true colour" if names == _TRUE_COLOUR else names[0]
    return f"{plan.scene.name[:32]}: {title}", np.stack(planes, axis=-1)
