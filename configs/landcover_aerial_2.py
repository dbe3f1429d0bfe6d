"""Makes the scenes of landcover-aerial-2.toml that can't be read as they lie.

    GEOSEG_DATA=../shared python configs/landcover_aerial_2.py prepared

GEOSEG_DATA is the folder that holds data/aerial and data/imagery/naip. It takes half a minute and
writes 30 MB: pictures of red, green and blue, and labels whose ids are those of ``IDS``; 0 says
nothing.

What an index says is added where people's labels leave it open, and only where it is sure:

- By NAIP's near infrared. On the summer pictures of West Virginia NDVI is 0.3 or more on 94 % of
  the trees that people drew, 53 % of their low vegetation (most of that is leafless wood of
  another date) and 25 % of the 835 impervious pixels; 99.95 % of the pixels that reach it are
  vegetation. On the autumn pictures NDVI says nothing. Which vegetation it is, it does not say
  either: that what is green in North Dakota is low was looked at. It is prairie without woods;
  what is rough there, such as the trees of two farms, stays open. There is no water in West
  Virginia, and no summer pixel of it is called so; that NDWI of 0.25 and more, dark and smooth,
  is on lakes alone was looked at in North Dakota. Shores, reeds and mud stay open.
- By colours, where labels say that there is no building and no water: 2 g - r - b above 0.08 of r
  + g + b is vegetation. In West Virginia it holds on half of the vegetation, and 99.98 % of the
  pixels that reach it are vegetation (in autumn 99.999 %). In Dubai 63 % (of those above 0.06) to
  69 % (above 0.1) are labelled so: its polygons leave out gardens and single trees. What is below
  0.02 and not dark is lifeless, where the season is green: in the summer of West Virginia 2 % of
  the trees and 0.6 % of the low vegetation are that.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.merge import merge
from rasterio.warp import transform_geom
from scipy.ndimage import minimum_filter, uniform_filter

#: What the written labels say.
IDS = {
    "building": 1,
    "paved": 2,
    "bare": 3,
    "low_vegetation": 4,
    "trees": 5,
    "water": 6,
    "vegetation": 7,
    "impervious": 8,
    "not_building": 9,
    "not_water": 10,
    "dry": 11,
    "not_trees": 12,
    "ground": 13,
    "lifeless": 14,
}
#: Half the world's width on the web's Mercator map, m.
HALF_WORLD = 20037508.342789244
#: West Virginia's own ids.
CHESAPEAKE = {1: "water", 2: "trees", 3: "low_vegetation", 4: "bare", 5: "impervious", 6: "paved"}
#: Standard deviations of the near infrared over 5 x 5 px below which lakes, and fields at 5 m, are.
SMOOTH, FIELD = 6.0, 15.0
#: Excess of green, in parts of the sum of red, green and blue, from which on ground is alive.
GREEN = 0.08
#: What has less of it is not alive, in a green season.
LIFELESS = 0.02

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]


def write(path: Path, values: Bytes, **place: Any) -> None:
    """Write bands (C, H, W) as a GeoTIFF whose nodata is 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    if count == 3:
        place["photometric"] = "RGB"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", nodata=0, compress="deflate",
        count=count, height=height, width=width, **place,
    ) as dataset:  # fmt: skip
        dataset.write(values)


def spread(values: Floats) -> Floats:
    """Compute the standard deviation over 5 x 5 px."""
    mean = uniform_filter(values, 5)
    return np.asarray(np.sqrt(np.maximum(uniform_filter(values**2, 5) - mean**2, 0)))


def is_green(rgb: Bytes) -> NDArray[np.bool_]:
    """Say where (3, H, W) is green beyond doubt; what is nearly black has no colour."""
    excess, total = excess_green(rgb)
    return np.asarray((excess > GREEN) & (total > 60))


def is_lifeless(rgb: Bytes) -> NDArray[np.bool_]:
    """Say where (3, H, W) is neither green nor in the shade, in a green season."""
    excess, total = excess_green(rgb)
    return np.asarray((excess < LIFELESS) & (total > 200))


def excess_green(rgb: Bytes) -> tuple[Floats, Floats]:
    """Compute 2 g - r - b in parts of r + g + b, and r + g + b."""
    red, green, blue = rgb.astype(float)
    total = red + green + blue
    return (2 * green - red - blue) / np.maximum(total, 1), total


def west_virginia(data: Path, folder: Path) -> None:
    """Take the summer and the autumn picture of each patch out of its array, with the labels.

    The map calls some leafless wood of autumn low vegetation. Fields are not that green in summer,
    so what is stays open; so do trees that are not green then: houses and tracks lie there.
    """
    for path in sorted((data / "aerial/chesapeake_wv").glob("*.npz")):
        with np.load(path) as file:
            bands = file["arr_0"][0]
        labels = np.zeros(bands.shape[1:], np.uint8)
        for number, name in CHESAPEAKE.items():
            labels[bands[8] == number] = IDS[name]
        red, nir = bands[4], bands[7]
        ndvi = (nir - red) / np.maximum(nir + red, 1)
        labels[(bands[8] == 3) & (ndvi >= 0.25)] = IDS["vegetation"]
        labels[(bands[8] == 2) & (ndvi < 0.25)] = 0
        # Another map, of buildings alone, says which of the impervious ground is one.
        labels[(bands[8] == 5) & (bands[28] > 0)] = IDS["building"]
        number_of = path.stem.rpartition("-")[2]
        for season, first in (("autumn", 0), ("summer", 4)):
            name = f"{season}_{number_of}"
            place = folder / "west-virginia"
            write(place / "images" / f"{name}.tif", bands[first : first + 3].astype(np.uint8))
            write(place / "labels" / f"{name}.tif", labels[None])


def with_buildings(rgb: Bytes, shapes: Iterable[Any], transform: Affine) -> Bytes:
    """Make labels of buildings, and of what is green, what is ground and all else outside of them.

    There is no water in these pictures but a lake, which by its colour is left open but for 5 %.
    """
    labels = np.full(rgb.shape[1:], IDS["not_building"], np.uint8)
    labels[is_lifeless(rgb)] = IDS["ground"]
    labels[is_green(rgb)] = IDS["vegetation"]
    shapes = list(shapes)
    if shapes:
        rasterize(shapes, out=labels, transform=transform, default_value=IDS["building"])
    labels[(rgb == 0).all(axis=0)] = 0
    return labels


def shapes_in(path: Path, crs: Any) -> list[Any]:
    """Read the shapes of a GeoJSON file in another CRS."""
    features = json.loads(path.read_text())["features"]
    return [transform_geom("OGC:CRS84", crs, f["geometry"]) for f in features if f["geometry"]]


def kampala(data: Path, folder: Path) -> None:
    """Join the tiles of two zooms, 0.15 and 0.3 m, that lie side by side.

    The finest zoom shows the same ground in more detail than the model is made for.
    """
    source = data / "aerial/kampala"
    for zoom in (19, 20):
        side = 2 * HALF_WORLD / 2**zoom
        tiles: list[rasterio.MemoryFile] = []
        for path in sorted(source.glob(f"*-{zoom}.png")):
            found = re.fullmatch(r"OAM-(\d+)-(\d+)-\d+", path.stem)
            assert found is not None, path
            with rasterio.open(path) as dataset:
                rgba = dataset.read()
            west = int(found[1]) * side - HALF_WORLD
            north = HALF_WORLD - int(found[2]) * side
            transform = Affine(side / 256, 0, west, 0, -side / 256, north)
            # What is transparent is no ground; what is black there is dark.
            opaque = rgba[3] == 255 if len(rgba) == 4 else True
            rgb = np.where(opaque, np.maximum(rgba[:3], 1), 0).astype(np.uint8)
            tiles.append(rasterio.MemoryFile())
            with tiles[-1].open(
                driver="GTiff", dtype="uint8", count=3, height=256, width=256, nodata=0,
                crs="EPSG:3857", transform=transform,
            ) as dataset:  # fmt: skip
                dataset.write(rgb)
        for number, group in enumerate(side_by_side(tiles)):
            rgb, transform = merge(group)
            shapes = shapes_in(source / "buildings_osm.geojson", "EPSG:3857")
            labels = with_buildings(rgb, shapes, transform)
            # Without a place: a network that works at 0.5 m is shown them as fine as they are.
            write(folder / "kampala/images" / f"zoom{zoom}_{number}.tif", rgb)
            write(folder / "kampala/labels" / f"zoom{zoom}_{number}.tif", labels[None])


def side_by_side(tiles: list[rasterio.MemoryFile]) -> list[list[Any]]:
    """Group tiles that touch each other."""
    groups: list[list[Any]] = []
    for dataset in (tile.open() for tile in tiles):
        near = [g for g in groups if any(touch(dataset.bounds, d.bounds) for d in g)]
        groups = [g for g in groups if g not in near]
        groups.append([dataset, *(d for g in near for d in g)])
    return groups


def touch(one: Any, other: Any) -> bool:
    """Say whether two extents share a side or a corner."""
    slack = 0.01 * (one.right - one.left)
    return bool(
        one.left <= other.right + slack
        and other.left <= one.right + slack
        and one.bottom <= other.top + slack
        and other.bottom <= one.top + slack
    )


def rio(data: Path, folder: Path) -> None:
    """Draw the buildings of SpaceNet's pictures."""
    source = data / "aerial/spacenet_rio"
    for path in sorted(source.glob("*.tif")):
        with rasterio.open(path) as dataset:
            rgb, crs, transform = dataset.read(), dataset.crs, dataset.transform
        stem = path.stem.removeprefix("3band_")
        shapes = shapes_in(source / f"{stem}_Geo.geojson", crs)
        labels = with_buildings(rgb, shapes, transform)
        # Black ground ends in a rim that was smoothed.
        labels[minimum_filter(rgb.max(axis=0), 5) == 0] = 0
        write(
            folder / "rio/labels" / f"{path.stem}.tif", labels[None], crs=crs, transform=transform
        )


def tree_crowns(data: Path, folder: Path) -> None:
    """Take the crowns that people drew; what is green between them is low."""
    source = data / "aerial/oam_tcd"
    for path in sorted(source.glob("*.png")):
        with rasterio.open(path) as dataset:
            crowns = dataset.read(1)
        with rasterio.open(path.with_suffix(".tif")) as dataset:
            rgb = dataset.read()
        white = (rgb == 255).all(axis=0)
        labels = np.full(crowns.shape, IDS["not_trees"], np.uint8)
        labels[is_lifeless(rgb)] = IDS["lifeless"]
        labels[is_green(rgb)] = IDS["low_vegetation"]
        labels[crowns == 1] = IDS["trees"]
        # White stands for no ground.
        labels[white] = 0
        write(folder / "tree-crowns/images" / f"{path.stem}.tif", np.where(white, 0, rgb))
        write(folder / "tree-crowns/labels" / f"{path.stem}.tif", labels[None])


def coasts(data: Path, folder: Path) -> None:
    """Take water and land of the coasts' masks, and what is green of the land."""
    source = data / "aerial/obx"
    for path in sorted((source / "gt").glob("*_mask.jpg")):
        stem = path.stem.removesuffix("_mask").removesuffix("_label_greyscale")
        with rasterio.open(path) as dataset:
            mask = dataset.read(1)
        with rasterio.open(source / "img" / f"{stem}.jpg") as dataset:
            rgb = dataset.read()
        labels = np.zeros(mask.shape, np.uint8)
        labels[mask == 0] = IDS["water"]
        labels[mask == 2] = IDS["not_water"]
        labels[(mask == 2) & is_green(rgb)] = IDS["vegetation"]
        write(folder / "coasts/labels" / f"{stem}.tif", labels[None])


def north_dakota(data: Path, folder: Path) -> None:
    """Label prairie and lakes by the near infrared."""
    for path in sorted((data / "imagery/naip").glob("*.tif")):
        with rasterio.open(path) as dataset:
            bands = dataset.read()
        red, green, _, nir = bands.astype(float)
        ndvi = (nir - red) / np.maximum(nir + red, 1)
        ndwi = (green - nir) / np.maximum(green + nir, 1)
        rough = spread(nir)
        labels = np.zeros(red.shape, np.uint8)
        # Stubble, dry grass and soil are alike in it.
        labels[(ndwi < 0.05) & (ndvi < 0.2) & (red > 90)] = IDS["dry"]
        labels[ndvi >= 0.3] = IDS["vegetation"]
        labels[(ndvi >= 0.3) & (rough < FIELD)] = IDS["low_vegetation"]
        labels[(ndwi >= 0.25) & (nir < 60) & (rough < SMOOTH)] = IDS["water"]
        labels[(bands == 0).all(axis=0)] = 0
        # Without a place: at 5 m they are coarser than the model is made for, and blown up to its
        # pixels they would be all blur.
        write(folder / "north-dakota/images" / path.name, bands[:3])
        write(folder / "north-dakota/labels" / path.name, labels[None])


def main() -> None:
    """Write all of them into the folder that the command names."""
    data = Path(os.environ.get("GEOSEG_DATA", "")) / "data"
    if len(sys.argv) != 2 or not (data / "aerial").is_dir():
        sys.exit(
            f"usage: GEOSEG_DATA=FOLDER python {sys.argv[0]} PREPARED; FOLDER/data/aerial must be "
            f"there, and {data / 'aerial'} is not"
            if len(sys.argv) == 2
            else f"usage: GEOSEG_DATA=FOLDER python {sys.argv[0]} PREPARED"
        )
    for make in (west_virginia, kampala, rio, tree_crowns, coasts, north_dakota):
        make(data, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
