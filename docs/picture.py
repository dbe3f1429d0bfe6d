"""Draw the picture of README: a scene beside the polygons of its map.

Made by these commands::

    geoseg train --images examples/landsat7_nc_2000.tif \
      --labels examples/landsat7_nc_2000_labels.tif -o raleigh
    geoseg predict examples/landsat7_nc_2000.tif -m raleigh -o raleigh.tif
    geoseg vectorize raleigh.tif -o raleigh.fgb --min-area 5000 --simplify 15 --smooth 3
    python docs/picture.py examples/landsat7_nc_2000.tif raleigh.fgb docs/img/map.png
"""

from __future__ import annotations

import sys

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import rasterio
from matplotlib.patches import Patch
from PIL import Image

#: Quiet colours, which let the shapes speak.
COLORS = {
    "forest": "#3f7d55",
    "herbaceous": "#b5cf7c",
    "developed": "#cfa28d",
    "water": "#3f8fc4",
}
BANDS = ("swir1", "nir", "red")


def main(scene: str, polygons: str, output: str) -> None:
    """Draw both side by side, cut to what the scene shows in all of its corners."""
    with rasterio.open(scene) as dataset:
        bands = [dataset.descriptions.index(name) + 1 for name in BANDS]
        values = dataset.read(bands, masked=True).astype(np.float32)
        west, south, east, north = dataset.bounds
    low, high = (np.nanpercentile(values.filled(np.nan), p, axis=(1, 2)) for p in (1, 98.5))
    span = (high - low)[:, None, None]
    picture = ((values.filled(np.nan) - low[:, None, None]) / span).clip(0, 1) ** 0.8
    picture = picture.mean(axis=0) + 0.6 * (picture - picture.mean(axis=0))
    table = geopandas.read_file(polygons)
    _, axes = plt.subplots(1, 2, figsize=(9.6, 5.0), dpi=100)
    axes[0].imshow(np.moveaxis(picture, 0, 2), extent=(west, east, south, north))
    colors = [COLORS[name] for name in table["class_name"]]
    table.plot(ax=axes[1], color=colors, edgecolor="#ffffff", linewidth=0.35)
    inside = table.total_bounds + np.array([1, 1, -1, -1]) * 450
    for axis in axes:
        axis.set(xlim=inside[[0, 2]], ylim=inside[[1, 3]], aspect="equal")
        axis.set_axis_off()
    handles = [Patch(color=color, label=name) for name, color in COLORS.items()]
    axes[1].figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=12)
    plt.subplots_adjust(left=0.005, right=0.995, top=0.995, bottom=0.08, wspace=0.015)
    plt.savefig(output, facecolor="white")
    with Image.open(output) as image:
        image.convert("RGB").quantize(200).save(output, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
