"""Training scenes: pixels, validity, targets and sides, on disk rather than in memory.

A scene is read once, strip by strip, as :func:`geoseg.predict` reads it, into flat files that are
mapped into memory: chips come out of them at random places without decoding, and memory does not
depend on how large the scenes are.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import rasterio.warp
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.cards.card import Normalization
from geoseg.cards.legend import ClassInfo
from geoseg.core.gdal import GDAL_ERRORS, block_cache
from geoseg.errors import OutputError, TrainingError
from geoseg.geo.model_grid import on_model_grid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.chips import fill_nearest
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene import finest_grid, first_line, open_scene
from geoseg.training.recipe import SceneConfig, TrainConfig
from geoseg.training.split import MARGIN, TRAIN, VALIDATION, deal, fill_blocks
from geoseg.training.targets import UNKNOWN, Targets, Teacher, open_targets

__all__ = [
    "JUDGED",
    "TrainingScene",
    "band_statistics",
    "held_out_windows",
    "load_scene",
    "measure_normalization",
    "pixels_by_class",
    "quiet",
    "reflect",
    "short_names",
    "shown_size",
    "split_scenes",
    "teach",
    "write_held_out",
]

#: Pixels of a strip.
STRIP_PIXELS = 1 << 20
#: Side of the squares in which the pixels of a whole scene are counted, px: their rows are read at
#: a time.
LARGE_CELL = 256
#: GDAL's block cache while a scene is read, bytes.
CACHE_BYTES = 256 << 20


@dataclass
class TrainingScene:
    """One scene with its targets.

    Attributes:
        config: where it came from.
        grid: where its pixels lie.
        pixels: (C, H, W), numbers as read, of all bands that are needed.
        gain: float32 (C,), quantity per number.
        bias: float32 (C,), quantity at number 0.
        measured: bool (H, W).
        target: uint8 (H, W), place of the class in the legend; UNKNOWN where nothing says.
        labelled: bool (H, W), True where the target comes from labels; elsewhere a teacher says.
        sure: bool (H, W), True where a teacher gave its answer more than one half.
        sides: uint8 (H, W), see :mod:`geoseg.training.split`.
        fault: why none of its labels counts; empty where some do, or it has none.
        disputed: pixels without a label because shapes of different classes overlap there.
    """

    config: SceneConfig
    grid: PixelGrid
    pixels: NDArray[Any]
    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    measured: NDArray[np.bool_]
    target: NDArray[np.uint8]
    labelled: NDArray[np.bool_]
    sure: NDArray[np.bool_]
    sides: NDArray[np.uint8]
    fault: str = ""
    disputed: int = 0

    @property
    def name(self) -> str:
        """The file or folder name without suffix."""
        return self.config.name

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.measured.shape[0], self.measured.shape[1]

    def strips(self) -> Iterator[slice]:
        """Rows, about a million pixels at a time."""
        rows = max(1, STRIP_PIXELS // self.shape[1])
        for top in range(0, self.shape[0], rows):
            yield slice(top, min(top + rows, self.shape[0]))

    def cut(
        self,
        rows: slice | NDArray[np.int64],
        cols: slice | NDArray[np.int64],
        sides: Sequence[int],
        bands: Sequence[int] | slice = slice(None),
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """Physical values of a window, of which only some sides may be seen.

        What was not measured, or lies on another side, takes the value of the nearest pixel that
        may be seen, as in prediction.

        Args:
            rows: a slice, or row numbers.
            cols: likewise.
            sides: that may be seen.
            bands: places of the bands wanted.

        Returns:
            (float32 (C, H, W), bool (H, W): True where seen), or None where nothing is.
        """
        seen = self.measured[rows][:, cols] & np.isin(self.sides[rows][:, cols], sides)
        if not seen.any():
            return None
        # The window first: a list of bands would copy all of the scene.
        numbers = self.pixels[:, rows][:, :, cols][bands]
        gain, bias = self.gain[bands][:, None, None], self.bias[bands][:, None, None]
        values = numbers.astype(np.float32) * gain + bias
        return (values if seen.all() else fill_nearest(values, seen)), seen

    def usable(self, rows: slice, side: int) -> NDArray[np.bool_]:
        """Where rows are measured, have a target and lie on a side; bool (H, W)."""
        known = self.target[rows] != UNKNOWN
        return np.asarray(self.measured[rows] & known & (self.sides[rows] == side))


def load_scene(
    config: TrainConfig,
    scene: SceneConfig,
    bands: Sequence[str],
    scratch: Path,
    number: int,
    *,
    fill: bool = True,
) -> TrainingScene:
    """Read a scene and its labels.

    Args:
        config: the recipe.
        scene: one of its scenes.
        bands: names of the bands wanted; the recipe's own come first.
        scratch: a folder for the flat files.
        number: of the scene, for their names.
        fill: read the scene into the flat files; False maps those that another process filled.

    Returns:
        The scene; all of it on the training side, and targets from labels only.

    Raises:
        SceneError: a file can't be read, a band is missing, or the numbers' meaning is unknown.
        TrainingError: labels or windows do not fit the scene.
        OutputError: the disk is full.
    """
    opened = open_scene(scene.path, scene.rules)
    own = tuple(config.bands)
    spec = ",".join(scene.bands) or None
    chosen = opened.choose(own, spec)
    extra = tuple(b for b in bands if b not in own)
    chosen += opened.choose(extra, spec) if extra else ()
    radiometry = find_radiometry(
        opened,
        chosen,
        config.quantity,
        scale=config.scale if scene.scale is None else scene.scale,
        offset=config.offset if scene.offset is None else scene.offset,
    )
    full = finest_grid(chosen)
    whole, _ = on_model_grid(full, config.gsd, config.gsd_range, config.name)
    area = Window(0, 0, whole.height, whole.width)
    if scene.window is not None:
        area = _inside(scene.window, whole, scene)
    shape = (area.height, area.width)

    def array(name: str, dtype: Any, *leading: int) -> NDArray[Any]:
        path = scratch / f"{number}-{name}.npy"
        try:
            if not fill:
                return np.lib.format.open_memmap(path, mode="r")
            return np.lib.format.open_memmap(
                path, mode="w+", dtype=np.dtype(dtype), shape=(*leading, *shape)
            )
        except OSError as error:
            raise OutputError(f"{path} can't be written ({error}); free some space") from error

    with (
        block_cache(CACHE_BYTES),
        SceneReader(chosen, whole.crop(area), src_nodata=scene.src_nodata) as reader,
        open_targets(config, scene, whole) as targets,
    ):
        found = TrainingScene(
            config=scene,
            grid=reader.grid,
            pixels=array("pixels", reader.dtype, len(chosen)),
            gain=np.array(radiometry.gain, np.float32),
            bias=np.array(radiometry.bias, np.float32),
            measured=array("measured", bool),
            target=array("target", np.uint8),
            labelled=array("labelled", bool),
            sure=array("sure", bool),
            sides=array("sides", np.uint8),
        )
        if not fill:
            return found
        for rows in found.strips():
            height = rows.stop - rows.start
            window = Window(rows.start, 0, height, area.width)
            found.pixels[:, rows], found.measured[rows] = reader.read(window)
            found.target[rows] = targets.read(
                Window(area.row + rows.start, area.col, height, area.width)
            )
            found.labelled[rows] = found.target[rows] != UNKNOWN
        targets.check(", ".join(f"{c.id} {c.name}" for c in config.classes))
    for place in scene.ignore:
        here = _inside(place, whole, scene).intersection(area)
        if here is not None:
            rows = slice(here.row - area.row, here.bottom - area.row)
            cols = slice(here.col - area.col, here.right - area.col)
            found.measured[rows, cols] = False
    found.fault = _fault(found, targets)
    found.disputed = targets.disputed
    return found


def teach(scene: TrainingScene, teacher: Teacher, bands: Sequence[int]) -> None:
    """Fill in a teacher's most likely class where no label is, in place.

    It is what drawing is balanced by, and what the held-out side is compared with.

    Args:
        scene: all bands that the teacher needs are among its own.
        teacher: to be asked.
        bands: places of the teacher's bands in the scene.
    """
    card = teacher.card
    halo = min(max(card.margin, card.overlap // 2), card.size // 4)
    for core, window in _squares(scene.shape, card.size, halo):
        cut = scene.cut(window.rows, window.cols, (TRAIN, VALIDATION, MARGIN), bands)
        if cut is None:
            continue
        inner = np.s_[
            core.row - window.row : core.bottom - window.row,
            core.col - window.col : core.right - window.col,
        ]
        probs = teacher.probs(cut[0])[:, *inner]
        place = np.s_[core.rows, core.cols]
        answered = scene.measured[place] & ~scene.labelled[place]
        scene.target[place] = np.where(answered, probs.argmax(axis=0), scene.target[place])
        scene.sure[place] = answered & (probs.max(axis=0) > 0.5)


def _squares(shape: tuple[int, int], size: int, halo: int) -> Iterator[tuple[Window, Window]]:
    """Squares that cover a scene once, each with the window around it."""
    height, width = shape
    side = max(size - 2 * halo, 1)
    for row in range(0, height, side):
        for col in range(0, width, side):
            core = Window(row, col, min(side, height - row), min(side, width - col))
            top, left = max(row - halo, 0), max(col - halo, 0)
            bottom, right = min(core.bottom + halo, height), min(core.right + halo, width)
            yield core, Window(top, left, bottom - top, right - left)


def _inside(window: tuple[int, int, int, int], grid: PixelGrid, scene: SceneConfig) -> Window:
    row, col, height, width = window
    if not (0 <= row < row + height <= grid.height and 0 <= col < col + width <= grid.width):
        raise TrainingError(
            f"{scene.path}: the window {tuple(window)} (row, col, height, width) does not lie in "
            f"its {grid.height} x {grid.width} px"
        )
    return Window(row, col, height, width)


def _fault(scene: TrainingScene, targets: Targets) -> str:
    """What is wrong where no label lies on a measured pixel; both extents are in it."""
    if not scene.config.labels:
        return ""
    if any((scene.labelled[rows] & scene.measured[rows]).any() for rows in scene.strips()):
        return ""
    names = ", ".join(path.name for path in scene.config.labels)
    if targets.meet():
        radius = scene.config.radius
        thin = f"at the radius of {radius:g} m around lines (--radius), " if radius else ""
        return (
            f"no label of {names} lies on a measured pixel of {scene.config.path}, though their "
            f"extents meet; look {thin}at the ids, names or colours of the classes (--class, "
            f"label_values), at nodata and at what is ignored, or leave this image out"
        )
    return (
        f"no label of {names} lies on a measured pixel of "
        f"{scene.config.path}: {targets.extents()}; give labels of this place, or mend the CRS of "
        f"one of them"
    )


def short_names(scenes: Sequence[TrainingScene]) -> dict[str, str]:
    """Each scene's path -> its name without suffix, or as much as tells it from the others."""
    paths = sorted({str(scene.config.path) for scene in scenes})
    if len({Path(path).stem for path in paths}) == len(paths):
        return {path: Path(path).stem for path in paths}
    common = os.path.commonpath([Path(path).parent for path in paths])
    return {path: str(Path(path).relative_to(common)) for path in paths}


def pixels_by_class(scene: TrainingScene, classes: int, side: int, cell: int) -> NDArray[np.int64]:
    """Count usable pixels in square cells.

    Args:
        scene: the scene.
        classes: K.
        side: of the split.
        cell: side of a cell, px.

    Returns:
        int64 (rows of cells, columns of cells, K).
    """
    height, width = scene.shape
    down, across = -(-height // cell), -(-width // cell)
    counts = np.zeros((down, across, classes), np.int64)
    columns = np.arange(width) // cell
    for row in range(down):
        rows = slice(row * cell, min((row + 1) * cell, height))
        keep = scene.usable(rows, side)
        place = columns[None].repeat(rows.stop - rows.start, axis=0)[keep]
        flat = place * classes + scene.target[rows][keep]
        counts[row] = np.bincount(flat, minlength=across * classes).reshape(across, classes)
    return counts


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
    groups = _same_ground(scenes, whole=split.by in ("scenes", "files"))
    doubts: list[str] = []
    if split.by == "scenes":
        for scene in scenes:
            scene.sides[:] = TRAIN if scene.config.split == "train" else VALIDATION
        for group in groups:
            if len({scene.config.split for scene in group}) > 1:
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
            _check_one_grid(group)
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
    _check_sides(config, scenes)
    return doubts


def _same_ground(scenes: Sequence[TrainingScene], *, whole: bool) -> list[list[TrainingScene]]:
    """Scenes in groups: those whose footprints overlap, and those of one place.

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
    """A grid's outline on WGS 84; None without a CRS that leads there."""
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
    """Whether two outlines share ground, and not only an edge."""
    if a is None or b is None or not a.intersects(b):
        return False
    return bool(a.intersection(b).area > 1e-6 * min(a.area, b.area))


def _check_one_grid(group: Sequence[TrainingScene]) -> None:
    """Refuse scenes of one ground whose blocks are not the same.

    Raises:
        TrainingError: they lie on different grids.
    """
    first = group[0]
    for scene in group[1:]:
        a, b = first.grid, scene.grid
        corners = [(0, 0), (a.width, 0), (0, a.height)]
        relative = ~a.transform @ b.transform
        apart = max(abs(v - w) for at in corners for v, w in zip(relative @ at, at, strict=True))
        if (a.height, a.width, a.crs) != (b.height, b.width, b.crs) or apart > 0.5:
            raise TrainingError(
                f"{first.config.path} and {scene.config.path} show the same ground in different "
                f"grids or windows, so that blocks of one lie across those of the other; split by "
                f"files (--split files), which keeps them together"
            )


def _check_sides(config: TrainConfig, scenes: Sequence[TrainingScene]) -> None:
    for side, name in ((TRAIN, "training"), (VALIDATION, "validation")):
        if not any(scene.usable(rows, side).any() for scene in scenes for rows in scene.strips()):
            raise TrainingError(
                f"no pixel on the {name} side is measured and has a target; look at nodata, labels "
                f"and split (by {config.split.by}, fold {config.split.fold} of "
                f"{config.split.folds}, margin {config.split.margin} px)"
            )


def measure_normalization(
    scenes: Sequence[TrainingScene],
    bands: int,
    kind: str,
    clip: tuple[float, float] | None,
) -> Normalization:
    """Take a normalization's parameters from the training side, each scene counting the same.

    All measured pixels of the training side count, labelled or not, and no others: nodata would
    pull the mean down, and held-out pixels are not to be known.

    Args:
        scenes: all of them.
        bands: how many, from the first, the network sees.
        kind: ``z-score``, or ``log-logistic``: of the mean m and standard deviation s of
            y = log(50 x + 1), with center = m - s and spread = 5 s, so that the input becomes
            sigmoid((y - m) / s).
        clip: (low, high) for the quantity, or None.

    Raises:
        TrainingError: no pixel is valid, a band never changes, or the kind can't be measured.
    """
    if kind not in ("z-score", "log-logistic"):
        raise TrainingError(f"normalization is {kind!r}; training measures z-score or log-logistic")

    def change(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x.clip(*clip) if clip else x
        return np.log1p(50.0 * x) if kind == "log-logistic" else x

    mean, deviation = band_statistics(scenes, bands, change)
    if not np.isfinite(mean).all():
        raise TrainingError(
            "the training scenes hold numbers for which log(50 x + 1) is none: the quantity is no "
            "reflectance; give clip = [0.0, 2.0] or normalization = 'z-score'"
        )
    if not (deviation > 0).all():
        raise TrainingError(
            f"bands {np.flatnonzero(~(deviation > 0)).tolist()} hold one value in all training "
            f"scenes; a band that never changes teaches nothing: leave it out"
        )
    values = (
        {"center": mean - deviation, "spread": 5.0 * deviation}
        if kind == "log-logistic"
        else {"mean": mean, "stddev": deviation}
    )
    # Six digits are more than the data know, and keep the card readable.
    parameters = {k: tuple(float(f"{x:.6g}") for x in v) for k, v in values.items()}
    return Normalization(kind, parameters, clip)


def band_statistics(
    scenes: Sequence[TrainingScene],
    bands: int,
    change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda x: x,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each band on the training side, each scene counting the same.

    Args:
        scenes: all of them.
        bands: how many, from the first.
        change: applied to the values before.

    Returns:
        Two float64 (C,).

    Raises:
        TrainingError: no pixel of the training side is measured.
    """
    means, squares = [], []
    for scene in scenes:
        pixels, total, square = 0, np.zeros(bands), np.zeros(bands)
        gain = scene.gain[:bands, None].astype(np.float64)
        bias = scene.bias[:bands, None].astype(np.float64)
        for rows in scene.strips():
            keep = scene.measured[rows] & (scene.sides[rows] == TRAIN)
            x = change(scene.pixels[:bands, rows][:, keep].astype(np.float64) * gain + bias)
            pixels += x.shape[1]
            total += x.sum(axis=1)
            square += (x**2).sum(axis=1)
        if pixels:
            means.append(total / pixels)
            squares.append(square / pixels)
    if not means:
        raise TrainingError("no pixel of the training side is measured; look at nodata and split")
    mean = np.mean(means, axis=0)
    return mean, np.sqrt(np.maximum(np.mean(squares, axis=0) - mean**2, 0.0))


def held_out_windows(scene: TrainingScene, size: int, halo: int) -> Iterator[tuple[Window, Window]]:
    """Squares that cover the held-out pixels of a scene once, each with the window around it.

    Args:
        scene: the scene.
        size: side of the window with its halo, px.
        halo: px around a square that the network sees besides.

    Yields:
        (core, window): the core lies in the window, and both in the scene.
    """
    for core, window in _squares(scene.shape, size, halo):
        if scene.usable(core.rows, VALIDATION)[:, core.cols].any():
            yield core, window


#: Sides that a network may see when it is judged: held-out pixels and the margin around them.
JUDGED = (VALIDATION, MARGIN)


def reflect(start: int, side: int, length: int) -> slice | NDArray[np.int64]:
    """``side`` px from ``start`` on; a scene that is too small is continued by mirror.

    Args:
        start: first px; moved so that the span lies in the scene where that is long enough.
        side: px.
        length: of the scene.
    """
    if side <= length:
        start = min(max(start, 0), length - side)
        return slice(start, start + side)
    index = np.arange(start, start + side) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


def shown_size(scenes: Sequence[TrainingScene]) -> str:
    """How much there is to learn from, for people."""
    pixels = sum(math.prod(scene.shape) for scene in scenes)
    return f"{len(scenes)} scenes, {pixels / 1e6:.3g} Mpx"


def write_held_out(
    folder: Path, scenes: Sequence[TrainingScene], classes: Sequence[ClassInfo]
) -> list[Path]:
    """Write the held-out labels as class rasters, for ``geoseg evaluate``.

    Args:
        folder: for the files, one a scene with held-out labels, named after it.
        scenes: all of them, split.
        classes: the legend.

    Returns:
        The files.

    Raises:
        OutputError: one can't be written.
    """
    written: list[Path] = []
    names = {path: name.replace(os.sep, "-") for path, name in short_names(scenes).items()}
    ids = np.array([c.id for c in classes], np.uint8)
    for scene in scenes:
        parts = (scene.usable(rows, VALIDATION) & scene.labelled[rows] for rows in scene.strips())
        if not any(part.any() for part in parts):
            continue
        path = (
            folder / f"{names[str(scene.config.path)].removesuffix(scene.config.path.suffix)}.tif"
        )
        number = 2
        while path in written:  # windows of one file
            path, number = path.with_stem(f"{path.stem}-{number}"), number + 1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (
                quiet(),
                rasterio.open(
                    path,
                    "w",
                    driver="GTiff",
                    height=scene.shape[0],
                    width=scene.shape[1],
                    count=1,
                    dtype="uint8",
                    nodata=255,
                    crs=scene.grid.crs,
                    transform=scene.grid.transform,
                    compress="deflate",
                    tiled=True,
                ) as dataset,
            ):
                for rows in scene.strips():
                    held = scene.usable(rows, VALIDATION) & scene.labelled[rows]
                    values = np.where(held, ids[scene.target[rows].clip(0, len(ids) - 1)], 255)
                    area = RasterioWindow(0, rows.start, scene.shape[1], rows.stop - rows.start)
                    dataset.write(values.astype(np.uint8), 1, window=area)
                dataset.update_tags(1, **{f"class_{c.id}": c.name for c in classes})
                dataset.write_colormap(1, {c.id: (*c.rgb, 255) for c in classes})
        except GDAL_ERRORS as error:
            raise OutputError(f"{path} can't be written ({first_line(error)})") from error
        written.append(path)
    return written


@contextmanager
def quiet() -> Iterator[None]:
    """Scenes without a place on Earth can be learned from; rasterio's warning does not help."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield
