"""Which scenes are learned from and which are held out, so that neither sees the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.warp
import shapely
from numpy.typing import NDArray

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.errors import TrainingError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.training.class_pixels import pixels_by_class
from geoseg.training.recipe import TrainConfig
from geoseg.training.scenes import LARGE_CELL, TrainingScene
from geoseg.training.split import TRAIN, VALIDATION, deal, fill_blocks

__all__ = ["split_scenes"]


def split_scenes(config: TrainConfig, scenes: Sequence[TrainingScene]) -> list[str]:
    """Put every pixel on its side, in place.

    Scenes that show the same ground lie on one side there: those of one place, and those whose
    footprints overlap.

    Args:
        config: the recipe.
        scenes: all of them, with their targets.

    Returns:
        What makes the scores less sure.

    Raises:
        TrainingError: there are too few places, a side has nothing to learn or to judge, or scenes
            on different grids overlap and are to be split by blocks.
    """
    split, classes = config.split, len(config.classes)
    groups = _same_ground(scenes, whole=split.by in ("scenes", "files", "groups"))
    doubts: list[str] = []
    if split.by in ("scenes", "groups"):
        for scene in scenes:
            scene.sides[:] = _own_side(config, scene)
        for group in groups:
            if len({_own_side(config, scene) for scene in group}) > 1:
                names = ", ".join(str(scene.config.path) for scene in group)
                doubts.append(
                    f"{names} overlap and are on both sides of the split, so the scores flatter"
                )
    elif split.by == "files":
        totals = np.zeros((len(groups), classes), np.int64)
        for i, group in enumerate(groups):
            for scene in group:
                totals[i] += pixels_by_class(scene, classes, TRAIN, LARGE_CELL).sum(axis=(0, 1))
        fold = deal(totals, split.folds, split.seed)
        for i, group in enumerate(groups):
            for scene in group:
                scene.sides[:] = VALIDATION if fold[i] == split.fold - 1 else TRAIN
    else:
        block, margin = split.block, split.margin
        if split.by == "random":
            block, margin = config.chip, 0
        blocks: list[NDArray[np.int64]] = []
        for group in groups:
            check_one_grid(group)
            counts = [pixels_by_class(scene, classes, TRAIN, block) for scene in group]
            blocks.append(np.sum(counts, axis=0))
        flat = np.concatenate([b.reshape(-1, classes) for b in blocks])
        fold = deal(flat, split.folds, split.seed)
        start = 0
        for group, here in zip(groups, blocks, strict=True):
            down, across = here.shape[:2]
            held = (fold[start : start + down * across] == split.fold - 1).reshape(down, across)
            start += down * across
            for scene in group:
                fill_blocks(scene.sides, block, held, margin)
    check_sides(config, scenes)
    return doubts


def _own_side(config: TrainConfig, scene: TrainingScene) -> int:
    """Find the side that a scene's own entry in the recipe gives it."""
    if config.split.by == "groups":
        return config.split.side_of(scene.config.group)
    return TRAIN if scene.config.split == "train" else VALIDATION


def _same_ground(scenes: Sequence[TrainingScene], *, whole: bool) -> list[list[TrainingScene]]:
    """Group scenes: those whose footprints overlap, and those of one place.

    Where blocks are split, not whole scenes, those of one place that have no footprint are together
    if they are alike; windows of one file are not.
    """
    outlines = [_outline(scene.grid) for scene in scenes]
    group = list(range(len(scenes)))

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for i, scene in enumerate(scenes):
        for j, other in enumerate(scenes[:i]):
            alike = (scene.shape, scene.grid.transform) == (other.shape, other.grid.transform)
            same_place = scene.config.where == other.config.where and (
                whole or (alike and outlines[i] is None)
            )
            if same_place or _overlap(outlines[i], outlines[j]):
                group[root(i)] = root(j)
    found: dict[int, list[TrainingScene]] = {}
    for i, scene in enumerate(scenes):
        found.setdefault(root(i), []).append(scene)
    return list(found.values())


def _outline(grid: PixelGrid) -> Any:
    """Compute a grid's outline on WGS 84; None without a CRS that leads there."""
    if grid.crs is None:
        return None
    x, y = np.linspace(0, grid.width, 22), np.linspace(0, grid.height, 22)
    cols = np.concatenate([x, np.full(22, grid.width), x[::-1], np.zeros(22)])
    rows = np.concatenate([np.zeros(22), y, np.full(22, grid.height), y[::-1]])
    places = [grid.transform @ place for place in zip(cols.tolist(), rows.tolist(), strict=True)]
    try:
        lon, lat = rasterio.warp.transform(grid.crs, "EPSG:4326", *zip(*places, strict=True))
    except GDAL_ERRORS:
        return None
    outline = shapely.Polygon(np.column_stack((lon, lat)))
    return outline if outline.is_valid else None


def _overlap(a: Any, b: Any) -> bool:
    """Say whether two outlines share ground, and not only an edge."""
    if a is None or b is None or not a.intersects(b):
        return False
    return bool(a.intersection(b).area > 1e-6 * min(a.area, b.area))


def check_one_grid(group: Sequence[TrainingScene]) -> None:
    """Refuse scenes of one ground whose blocks are not the same.

    Raises:
        TrainingError: they lie on different grids.
    """
    first = group[0]
    for scene in group[1:]:
        if not scene.grid.same_pixels(first.grid, tolerance=0.5):
            raise TrainingError(
                f"{first.config.path} and {scene.config.path} show the same ground in different "
                f"grids or windows, so that blocks of one lie across those of the other; split by "
                f"files (--split files), which keeps them together"
            )


def check_sides(config: TrainConfig, scenes: Sequence[TrainingScene]) -> None:
    """Refuse a split that leaves a side without a pixel.

    Raises:
        TrainingError: it does.
    """
    for side, name in ((TRAIN, "training"), (VALIDATION, "validation")):
        if not any(scene.usable(rows, side).any() for scene in scenes for rows in scene.strips()):
            raise TrainingError(
                f"no pixel on the {name} side is measured and has a target; look at nodata, labels "
                f"and split (by {config.split.by}, fold {config.split.fold} of "
                f"{config.split.folds}, margin {config.split.margin} px)"
            )
