"""Which labels belong to which image."""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from geoseg.core.gdal import GDAL_ERRORS, first_line, gdal_options
from geoseg.errors import TrainingError
from geoseg.labels.vector_files import is_vector, vector_file
from geoseg.scene.files import opened
from geoseg.scene.opening import RASTER_SUFFIXES, open_scene
from geoseg.scene.products import layout_of
from geoseg.scene.sensors import band_code
from geoseg.scene.sources import LOCAL, Rules

__all__ = ["find_files", "pair"]

#: What a folder of labels may hold; single files may be any that geopandas reads.
VECTOR_SUFFIXES = (".gpkg", ".shp", ".geojson", ".json", ".fgb", ".parquet", ".kml", ".gml")


def find_files(given: Iterable[Path]) -> list[Path]:
    """Find the files that paths, folders and globs stand for.

    A folder of one-band files of one product stays a folder: it is one scene. Any other folder
    stands for the rasters and vector files in it and below.

    Args:
        given: what the user names.

    Returns:
        Sorted within each of them, none twice.

    Raises:
        TrainingError: nothing is there.
    """
    found: list[Path] = []
    for path in given:
        here = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not here:
            raise TrainingError(f"{path}: no such file or folder, and none matches; correct it")
        for place in here:
            if place.is_file() or place.suffix.lower() == ".gdb" or _is_product(place):
                found.append(place)
                continue
            inside = sorted(
                p
                for p in place.rglob("*")
                if p.suffix.lower() in (*RASTER_SUFFIXES, *VECTOR_SUFFIXES)
                and not p.name.startswith(".")
            )
            if not inside:
                raise TrainingError(f"{place}: no raster or vector file in this folder")
            found += inside
    return list(dict.fromkeys(found))


def _is_product(folder: Path) -> bool:
    """Say whether a folder's files are the bands of one scene."""
    if folder.suffix.upper() == ".SAFE" or layout_of(str(folder)) is not None:
        return True
    codes = [
        code
        for p in folder.iterdir()
        if p.suffix.lower() in (".tif", ".tiff", ".jp2") and (code := band_code(p.stem))
    ]
    return len(codes) > 1 and len(set(codes)) == len(codes)


def pair(
    images: Sequence[Path], labels: Sequence[Path], rules: Rules = LOCAL
) -> list[tuple[Path, tuple[Path, ...]]]:
    """Bring images and labels together.

    By name, where each image has one label file of its own: the same name but for the suffix (or
    the label's begins with the image's: ``a.tif`` and ``a_labels.tif``), in the same folder but
    for those that only images or only labels have (``tile_1/images/a.jpg`` and
    ``tile_1/masks/a.png``). Else by place: each image gets all labels whose extent meets its own.
    A single label file with a CRS goes with all images. What is given as image and as labels, as
    where both lie in one folder, is labels.

    Args:
        images: scenes.
        labels: label files; none pairs every image with nothing.
        rules: what the files may point to.

    Returns:
        Each image with its labels; by place, an image that no label reaches has none.

    Raises:
        TrainingError: neither way works; the message says what has no partner.
    """
    masks = {path.resolve() for path in labels}
    given, images = images, [path for path in images if path.resolve() not in masks]
    if not images:
        raise TrainingError(
            f"{given[0]} and all other images are given as labels, too; name the labels alone, "
            f"such as --labels '{given[0].parent}/*_labels.tif': they are left out of the images"
        )
    if not labels:
        return [(image, ()) for image in images]
    if len(images) == 1 and len(labels) == 1:
        return [(images[0], (labels[0],))]
    by_name = _by_name(images, labels)
    if by_name is not None:
        return by_name
    return _by_place(images, labels, rules)


def _by_name(
    images: Sequence[Path], labels: Sequence[Path]
) -> list[tuple[Path, tuple[Path, ...]]] | None:
    """Pair by name; None where an image has no partner or several."""
    known_images = {part for path in images for part in path.parent.parts}
    known_labels = {part for path in labels for part in path.parent.parts}
    shared = known_images & known_labels

    def folder(path: Path) -> tuple[str, ...]:
        return tuple(part for part in path.parent.parts if part in shared)

    partners: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in labels:
        partners[folder(path)].append(path)
    stems: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for image in images:
        stems[folder(image)].add(image.stem)
    pairs: list[tuple[Path, tuple[Path, ...]]] = []
    used = Counter[Path]()
    for image in images:
        here = partners[folder(image)]
        same = [p for p in here if p.stem == image.stem]
        # tile_10_labels begins with tile_1, too, but is of tile_10.
        longer = [
            p
            for p in here
            if image.stem
            == max(filter(p.stem.startswith, stems[folder(image)]), key=len, default=None)
        ]
        found = same or longer
        if len(found) != 1:
            return None
        used[found[0]] += 1
        pairs.append((image, (found[0],)))
    return pairs if max(used.values()) == 1 else None


def _by_place(
    images: Sequence[Path], labels: Sequence[Path], rules: Rules
) -> list[tuple[Path, tuple[Path, ...]]]:
    """Pair every image with all labels that reach over it, on WGS 84."""
    footprints = [_footprint(path, rules) for path in labels]
    bare = [path for path, box in zip(labels, footprints, strict=True) if box is None]
    if bare:
        raise TrainingError(
            f"{len(images)} images and {len(labels)} label files: the names don't pair them one to "
            f"one ({images[0].name}, {labels[0].name}), and {bare[0]} has no CRS to pair them by "
            f"place; name them alike, or give it a CRS (gdal_edit.py -a_srs)"
        )
    pairs = []
    for image in images:
        box = _scene_footprint(image, rules)
        if box is None:
            raise TrainingError(
                f"{image} has no CRS, so its labels can't be found by place; name images and "
                f"labels alike, or give it a CRS (gdal_edit.py -a_srs)"
            )
        meets = tuple(
            path
            for path, other in zip(labels, footprints, strict=True)
            if other is not None and box.intersects(other)
        )
        pairs.append((image, meets))
    if not any(meets for _, meets in pairs):
        box, other = _scene_footprint(images[0], rules), footprints[0]
        assert box is not None and other is not None
        raise TrainingError(
            f"no label file overlaps an image: {images[0].name} reaches over {_shown(box)}, "
            f"{labels[0].name} over {_shown(other)} (west, south, east, north on WGS 84)"
        )
    return pairs


def _shown(box: Any) -> str:
    return ", ".join(f"{v:.6g}" for v in box.bounds)


def _scene_footprint(path: Path, rules: Rules) -> Any:
    """Read a scene's outline on WGS 84; None without a CRS."""
    grid = open_scene(path, rules).grid
    if grid.crs is None:
        return None
    corners = [(0, 0), (grid.width, grid.height), (0, grid.height), (grid.width, 0)]
    x, y = zip(*(grid.transform @ corner for corner in corners), strict=True)
    return _on_wgs84(grid.crs.to_wkt(), (min(x), min(y), max(x), max(y)), path)


def _footprint(path: Path, rules: Rules) -> Any:
    """Read a label file's extent on WGS 84; None without a CRS."""
    import pyogrio
    import pyogrio.errors

    if not is_vector(path):
        with gdal_options(str(path)), opened(str(path), rules) as dataset:
            crs = dataset.crs
            return None if crs is None else _on_wgs84(crs.to_wkt(), tuple(dataset.bounds), path)
    try:
        with vector_file(path, rules) as full:
            about = pyogrio.read_info(full, force_total_bounds=True)
    except (pyogrio.errors.DataSourceError, OSError, ValueError) as error:
        raise TrainingError(
            f"the labels {path} can't be read as a vector file ({first_line(error)})"
        ) from error
    if about["crs"] is None or about["total_bounds"] is None:
        return None
    return _on_wgs84(about["crs"], tuple(about["total_bounds"]), path)


def _on_wgs84(crs: str, bounds: tuple[float, ...], path: Path) -> Any:
    import rasterio.warp
    from shapely.geometry import box

    try:
        return box(*rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds))
    except GDAL_ERRORS as error:
        raise TrainingError(
            f"{path} can't be brought to WGS 84 ({first_line(error)}); give it a geographic or "
            f"projected CRS"
        ) from error
