"""Maps for tests of mosaics: class rasters with a legend, as geoseg predict writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from tests.helpers import COLORS

NAMES = {0: "water", 1: "trees", 2: "crops", 7: "built"}
#: Of the first pixel of maps, in UTM zone 33: at its eastern edge, in Saxony.
WEST, NORTH = 700_000.0, 5_700_000.0


def place(row: int = 0, col: int = 0, gsd: float = 10.0) -> Affine:
    """The transform of a map whose first pixel is at a row and column of the common grid."""
    return Affine(gsd, 0, WEST + col * gsd, 0, -gsd, NORTH - row * gsd)


def land(height: int, width: int, seed: int = 0, nodata: float = 0.0) -> NDArray[np.uint8]:
    """Patches of the four classes, and a share of nodata in patches."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((height, width)), 4) for _ in NAMES]
    ids = np.array([*NAMES], np.uint8)[np.argmax(fields, axis=0)]
    if nodata:
        holes = ndimage.gaussian_filter(rng.standard_normal((height, width)), 6)
        ids[holes < np.quantile(holes, nodata)] = 255
    return ids


def write_map(
    path: Path,
    ids: NDArray[np.uint8],
    transform: Affine | None = None,
    *,
    crs: Any = "EPSG:32633",
    names: dict[int, str] = NAMES,
    nodata: int | None = 255,
    date: str | None = None,
    confidence: NDArray[np.uint8] | None = None,
    **tags: str,
) -> Path:
    """Write a map; with a date also an item, and with confidence (in steps of 1/254) a raster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        **{"driver": "GTiff", "height": ids.shape[0], "width": ids.shape[1], "count": 1},
        **{"dtype": "uint8", "crs": crs, "transform": transform or place()},
        **{"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"},
    }
    tags = {"GEOSEG_VERSION": "0.1.0", "GEOSEG_SCENE": path.parent.name, **tags}
    with rasterio.open(path, "w", nodata=nodata, **profile) as dataset:
        dataset.write(ids, 1)
        rgb = {i: tuple(bytes.fromhex(COLORS[n][1:])) for n, i in enumerate(names)}
        dataset.write_colormap(1, {i: (*colour, 255) for i, colour in rgb.items()})
        dataset.update_tags(1, **{f"class_{i}": name for i, name in names.items()})
        dataset.update_tags(**tags)
    if date is not None:
        item = {"type": "Feature", "properties": {"datetime": date}}
        item["assets"] = {"map": {"href": f"./{path.name}"}}
        path.with_name("item.json").write_text(json.dumps(item))
    if confidence is not None:
        with rasterio.open(path.with_name("confidence.tif"), "w", nodata=255, **profile) as dataset:
            dataset.write(confidence, 1)
            dataset.scales = (1 / 254,)
            dataset.update_tags(**tags)
    return path


def read(path: Path) -> NDArray[np.uint8]:
    """The pixels of a raster."""
    with rasterio.open(path) as dataset:
        ids: NDArray[np.uint8] = dataset.read(1)
        return ids
