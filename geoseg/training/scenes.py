"""Training scenes: pixels, validity, targets and sides, on disk rather than in memory.

A scene is read once, strip by strip, as :func:`geoseg.predict` reads it, into flat files that are
mapped into memory: chips come out of them at random places without decoding, and memory does not
depend on how large the scenes are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.gdal import block_cache
from geoseg.errors import OutputError, TrainingError
from geoseg.geo.model_grid import on_model_grid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.scene.by_numbers import Asked, Decided, Taken, decide_by_numbers
from geoseg.scene.fill import fill_nearest
from geoseg.scene.opening import open_scene
from geoseg.scene.radiometry import Radiometry, find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.resampling import shared_ground
from geoseg.scene.scene_band import SceneBand, finest_grid
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig
from geoseg.training.targets import UNKNOWN, Targets, open_targets

__all__ = ["LARGE_CELL", "TrainingScene", "load_scene", "short_names", "squares"]

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
        notes: what is odd about its numbers.
        sets: uint8 (H, W), number of the recipe's set that a label says, from 1; 0 where none does;
            None where the recipe has no sets. The target there is a teacher's, or without one the
            set's first class, by which chips are drawn; it counts as no label.
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
    notes: tuple[str, ...] = ()
    sets: NDArray[np.uint8] | None = None

    @property
    def name(self) -> str:
        """The file or folder name without suffix."""
        return self.config.name

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.measured.shape[0], self.measured.shape[1]

    def strips(self) -> Iterator[slice]:
        """Yield rows, about a million pixels at a time."""
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
        """Cut out the physical values of a window, of which only some sides may be seen.

        What was not measured, or lies on another side, takes the value of the nearest pixel that
        may be seen, as in prediction.

        Args:
            rows: a slice, or row numbers.
            cols: a slice, or column numbers.
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

    def known(self, rows: slice) -> NDArray[np.bool_]:
        """Say where labels say something, a class or a set; bool (H, W)."""
        known = self.labelled[rows]
        return known if self.sets is None else np.asarray(known | (self.sets[rows] > 0))

    def usable(self, rows: slice, side: int) -> NDArray[np.bool_]:
        """Say where rows are measured, have a target and lie on a side; bool (H, W)."""
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
    chosen, radiometry = _choose(config, scene, bands)
    notes: tuple[str, ...] = ()
    if fill:  # no one else reads
        decided = _decide(config, scene, chosen, radiometry)
        chosen, notes = decided.bands, decided.notes
    seen, _ = on_model_grid(finest_grid(chosen), config.gsd, config.gsd_range, config.name)
    whole = seen.grid
    area = Window(0, 0, whole.height, whole.width)
    if scene.window is not None:
        area = _inside(scene.window, whole, scene)
    shape = (area.height, area.width)
    # Derived bands stand empty until all scenes are read.
    places = [i for i, band in enumerate(bands) if band not in scene.derive]
    array = partial(_flat_file, scratch, number, shape, fill)
    with (
        block_cache(CACHE_BYTES),
        SceneReader(chosen, whole.crop(area), src_nodata=scene.src_nodata) as reader,
        open_targets(config, scene, whole) as targets,
    ):
        found = TrainingScene(
            config=scene,
            grid=reader.grid,
            pixels=array("pixels", reader.dtype, len(bands)),
            gain=_each(radiometry.gain, places, len(bands)),
            bias=_each(radiometry.bias, places, len(bands)),
            measured=array("measured", bool),
            target=array("target", np.uint8),
            labelled=array("labelled", bool),
            sure=array("sure", bool),
            sides=array("sides", np.uint8),
            notes=notes,
            sets=array("sets", np.uint8) if config.sets else None,
        )
        if fill:
            _fill(config, found, reader, targets, area, places)
            targets.check(", ".join(f"{c.id} {c.name}" for c in config.classes))
    if fill:
        _ignore(found, whole, area)
        found.fault = _fault(found, targets)
        found.disputed = targets.disputed
    return found


def _each(values: Sequence[float], places: Sequence[int], bands: int) -> NDArray[np.float32]:
    """Give each band its number; derived bands take the first one's."""
    result = np.full(bands, values[0], np.float32)
    result[places] = values
    return result


def _choose(
    config: TrainConfig, scene: SceneConfig, bands: Sequence[str]
) -> tuple[tuple[SceneBand, ...], Radiometry]:
    """Choose a scene's bands, the recipe's own first, and find what their numbers mean."""
    names = ",".join(scene.band_names) or None
    opened = open_scene(scene.path, scene.rules, band_names=names)
    own = tuple(config.bands)
    chosen = opened.choose(own, ",".join(scene.bands) or None)
    # Those of a teacher's, which the scene must name.
    extra = tuple(b for b in bands if b not in own and b not in scene.derive)
    chosen += opened.choose(extra) if extra else ()
    radiometry = find_radiometry(
        opened,
        chosen,
        config.quantity,
        scale=config.scale if scene.scale is None else scene.scale,
        offset=config.offset if scene.offset is None else scene.offset,
    )
    return chosen, radiometry


def _decide(
    config: TrainConfig,
    scene: SceneConfig,
    bands: tuple[SceneBand, ...],
    radiometry: Radiometry,
) -> Decided:
    """Find what is nodata although no tag says so, as prediction does."""
    full = finest_grid(bands)
    ground = full.crop(shared_ground(bands, full))
    taken = Taken(config.quantity, None, tuple(config.bands))
    asked = Asked(scene.src_nodata, scene.nearblack)
    return decide_by_numbers(scene.name, bands, ground, radiometry, taken, asked)


def _flat_file(
    scratch: Path,
    number: int,
    shape: tuple[int, int],
    fill: bool,
    name: str,
    dtype: Any,
    *leading: int,
) -> NDArray[Any]:
    """Map one flat file of a scene into memory; makes it where it is to be filled.

    Raises:
        OutputError: it can't be made.
    """
    path = scratch / f"{number}-{name}.npy"
    try:
        if not fill:
            return np.lib.format.open_memmap(path, mode="r")
        return np.lib.format.open_memmap(
            path, mode="w+", dtype=np.dtype(dtype), shape=(*leading, *shape)
        )
    except OSError as error:
        raise OutputError(f"{path} can't be written ({error}); free some space") from error


def _fill(
    config: TrainConfig,
    scene: TrainingScene,
    reader: SceneReader,
    targets: Targets,
    area: Window,
    places: list[int],
) -> None:
    """Read pixels and labels of a scene's window into its flat files, strip by strip."""
    for rows in scene.strips():
        height = rows.stop - rows.start
        numbers, scene.measured[rows] = reader.read(Window(rows.start, 0, height, area.width))
        scene.pixels[places, rows] = numbers
        scene.target[rows] = targets.read(
            Window(area.row + rows.start, area.col, height, area.width)
        )
        if scene.sets is not None:
            scene.sets[rows], scene.target[rows] = _apart(config, scene.target[rows])
            scene.labelled[rows] = (scene.target[rows] != UNKNOWN) & (scene.sets[rows] == 0)
        else:
            scene.labelled[rows] = scene.target[rows] != UNKNOWN


def _apart(
    config: TrainConfig, target: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Take labels that are sets of classes apart: (number of the set from 1, its first class)."""
    places = config.targets()
    of_sets = (target >= len(config.classes)) & (target != UNKNOWN)
    sets = np.where(of_sets, target - len(config.classes) + 1, 0).astype(np.uint8)
    firsts = [UNKNOWN, *(places[members[0]] for members in config.sets.values())]
    return sets, np.where(of_sets, np.array(firsts, np.uint8)[sets], target)


def _ignore(scene: TrainingScene, whole: PixelGrid, area: Window) -> None:
    """Take the recipe's ``ignore`` windows of the whole scene for not measured."""
    for place in scene.config.ignore:
        here = _inside(place, whole, scene.config).intersection(area)
        if here is not None:
            rows = slice(here.row - area.row, here.bottom - area.row)
            cols = slice(here.col - area.col, here.right - area.col)
            scene.measured[rows, cols] = False


def squares(shape: tuple[int, int], size: int, halo: int) -> Iterator[tuple[Window, Window]]:
    """Yield squares that cover a scene once, each with the window around it.

    Args:
        shape: (H, W) of the scene.
        size: side of a window, px; smaller at the scene's edges.
        halo: px of the window around its square.
    """
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
    """Say what is wrong where no label lies on a measured pixel, with both extents."""
    if not scene.config.labels:
        return ""
    if any((scene.known(rows) & scene.measured[rows]).any() for rows in scene.strips()):
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
        f"{scene.config.path}: {targets.extents()}; give labels of this place, or correct the "
        f"CRS of one of them"
    )


def short_names(scenes: Sequence[TrainingScene]) -> dict[str, str]:
    """Name each scene: path -> name without suffix, or as much of the path as no other one has."""
    paths = sorted({str(scene.config.path) for scene in scenes})
    if len({Path(path).stem for path in paths}) == len(paths):
        return {path: Path(path).stem for path in paths}
    common = os.path.commonpath([Path(path).parent for path in paths])
    return {path: str(Path(path).relative_to(common)) for path in paths}
