"""Labels of a training scene on its grid: which class each pixel is to become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from geoseg.core.gdal import gdal_options
from geoseg.errors import TrainingError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.colours import ColorLabels, color_table, colors_on_grid
from geoseg.labels.labels import RasterLabels, open_labels
from geoseg.labels.vector_files import is_vector
from geoseg.labels.window import Bounds
from geoseg.scene.files import opened
from geoseg.training.recipe import TrainConfig
from geoseg.training.scene_config import SceneConfig, is_color
from geoseg.training.vector_labels import read_shapes

__all__ = ["UNKNOWN", "Targets", "open_targets"]

#: Where nothing says what is there; class ids end at 254, so a legend has at most 255 classes.
UNKNOWN = 255

#: Reads a window of one label file: uint8 (H, W), places in the legend or UNKNOWN.
Read = Callable[[Window], NDArray[np.uint8]]


@dataclass
class Targets:
    """A scene's labels on its grid.

    Attributes:
        grid: where the pixels lie.
        path: of the scene.
        sources: (path, read, bounds in the grid's CRS) of each label file.
        stray: what is neither a class nor ignored, with pixels, of each file.
        disputed: pixels read in which shapes of different classes overlap; these have no label.
    """

    grid: PixelGrid
    path: Path
    sources: list[tuple[Path, Read, Bounds]] = field(default_factory=list)
    stray: dict[Path, Counter[str]] = field(default_factory=dict)
    disputed: int = 0

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read the targets of a window; where label files overlap, the first one counts.

        Args:
            window: within the grid.

        Returns:
            uint8 (H, W), places in the legend, from their number on sets of classes
            (:meth:`TrainConfig.targets`), UNKNOWN where no label is.
        """
        target = np.full((window.height, window.width), UNKNOWN, np.uint8)
        for _, read, _ in self.sources:
            missing = target == UNKNOWN
            if missing.any():
                target[missing] = read(window)[missing]
        return target

    def check(self, legend: str) -> None:
        """Refuse labels that are no class.

        Args:
            legend: what they may be, for the message.

        Raises:
            TrainingError: there are some.
        """
        for path, found in self.stray.items():
            if found:
                shown = ", ".join(f"{text} ({n} px)" for text, n in found.most_common(8))
                raise TrainingError(
                    f"the labels {path} hold {shown}, which are neither classes ({legend}) nor "
                    f"ignored; correct classes, label_values or ignore_label"
                )

    def meet(self) -> bool:
        """Say whether the extent of some labels reaches over the scene's."""
        west, south, east, north = self.bounds()
        return any(
            b[0] < east and b[2] > west and b[1] < north and b[3] > south
            for _, _, b in self.sources
        )

    def bounds(self) -> Bounds:
        """Give the scene's bounds in its CRS."""
        grid = self.grid
        corners = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
        x, y = zip(*(grid.transform @ corner for corner in corners), strict=True)
        return min(x), min(y), max(x), max(y)

    def extents(self) -> str:
        """Say where the scene and its labels lie, for a message."""
        lines = [f"the scene reaches over {_shown(self.bounds())}"]
        lines += [f"{path.name} over {_shown(bounds)}" for path, _, bounds in self.sources]
        return ", ".join(lines) + " (west, south, east, north in the scene's CRS)"


def _shown(bounds: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.7g}" for v in bounds) + ")"


@contextmanager
def open_targets(config: TrainConfig, scene: SceneConfig, grid: PixelGrid) -> Iterator[Targets]:
    """Open a scene's labels.

    Args:
        config: the recipe, for its legend.
        scene: one of its scenes.
        grid: where the targets are wanted.

    Yields:
        What reads them; nothing but UNKNOWN where the scene has no labels.

    Raises:
        TrainingError: a file can't be read, or can't be brought to the grid.
        UsageError: a vector file has no such column, or holds shapes without area and no radius.
        LabelError: a CRS is missing on one side, or a text in the column is no class.
    """
    targets = Targets(grid, scene.path)
    with ExitStack() as stack:
        for path in scene.labels:
            targets.stray[path] = Counter()
            if not path.exists():
                raise TrainingError(f"{path}: no such file; correct the scene's labels")
            if is_vector(path):
                read, bounds = _vector(config, scene, path, targets)
            else:
                read, bounds = _raster(config, scene, path, targets, stack)
            targets.sources.append((path, read, bounds))
        if scene.everywhere:
            place = config.targets()[scene.everywhere]
            targets.sources.append((scene.path, _all_of(place), targets.bounds()))
        yield targets


def _all_of(place: int) -> Read:
    """Prepare the reading of one class or set, wherever it is asked for."""
    return lambda window: np.full((window.height, window.width), place, np.uint8)


def _vector(
    config: TrainConfig, scene: SceneConfig, path: Path, targets: Targets
) -> tuple[Read, Bounds]:
    """Prepare the reading of a vector file; counts disputed pixels in ``targets``."""
    placed = read_shapes(config, scene, path, targets.grid).on(targets.grid, str(scene.path))

    def read(window: Window) -> NDArray[np.uint8]:
        found = placed.window(window)
        targets.disputed += int(found.disputed.sum())
        return np.where(found.known, found.ids, UNKNOWN).astype(np.uint8)

    return read, placed.bounds


def _raster(
    config: TrainConfig, scene: SceneConfig, path: Path, targets: Targets, stack: ExitStack
) -> tuple[Read, Bounds]:
    """Prepare the reading of a raster of class colours or ids; ``stack`` closes it."""
    stack.enter_context(gdal_options(str(path)))
    dataset = stack.enter_context(opened(str(path), scene.rules))
    bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
    said = scene.label_map or config.label_values.values()
    colored = any(str(value).startswith("#") for value in said)
    # Where some of the map is of ids, they are what one band holds.
    colored &= not any(key.isdecimal() for key in scene.label_map)
    if bands == 3 or (bands == 1 and colored):
        table = _color_table(dataset, path) if bands == 1 else None
        colors = _places_by_color(config, scene, path)
        mask = stack.enter_context(
            colors_on_grid(dataset, str(path), targets.grid, colors, str(scene.path), table)
        )
        return _of_colors(mask), mask.bounds
    ids = stack.enter_context(
        open_labels(path, targets.grid, {}, str(scene.path), rules=scene.rules)
    )
    assert isinstance(ids, RasterLabels)
    return _of_ids(config, scene, ids, targets), ids.bounds


def _of_ids(
    config: TrainConfig, scene: SceneConfig, labels: RasterLabels, targets: Targets
) -> Read:
    """Prepare the reading of class ids; counts those of no class in ``targets``."""
    path = Path(labels.path)
    places = _places_by_id(config, scene, path)
    ignored = [v for v in scene.ignore_label if isinstance(v, int)]

    def read(window: Window) -> NDArray[np.uint8]:
        found = labels.window(window)
        target = np.full(found.ids.shape, UNKNOWN, np.uint8)
        for value, place in places.items():
            target[found.known & (found.ids == value)] = place
        strange = found.ids[found.known & (target == UNKNOWN) & ~np.isin(found.ids, ignored)]
        for value, n in zip(*np.unique(strange, return_counts=True), strict=True):
            targets.stray[path][str(value)] += int(n)
        return target

    return read


def _places_by_id(config: TrainConfig, scene: SceneConfig, path: Path) -> dict[int, int]:
    """Find which id is which class or set: id -> place.

    Raises:
        TrainingError: a class has no id, or two have the same.
    """
    if scene.label_map:
        return _mapped(config, scene, path, str.isdecimal, "ids such as 3", int)
    values = []
    for c in config.classes:
        value = config.label_values.get(c.name, c.id)
        if not isinstance(value, int):
            raise TrainingError(
                f"label_values.{c.name} is {value!r} and {path} is a raster of ids; give the id"
            )
        values.append(value)
    _check_distinct(values, config)
    return {value: place for place, value in enumerate(values)}


def _mapped(
    config: TrainConfig,
    scene: SceneConfig,
    path: Path,
    fits: Callable[[str], bool],
    kind: str,
    number: Callable[[str], int],
) -> dict[int, int]:
    """Find what a scene's ``label_map`` says of the numbers of one label file.

    Raises:
        TrainingError: nothing.
    """
    places = config.targets()
    found = {number(key): places[name] for key, name in scene.label_map.items() if fits(key)}
    if not found:
        raise TrainingError(
            f"{path} holds {kind}, and the scene's label_map names "
            f"{', '.join(map(repr, scene.label_map))}; say what they mean there"
        )
    return found


def _check_distinct(values: Sequence[int | str], config: TrainConfig) -> None:
    """Refuse labels in which one value stands for several classes.

    Raises:
        TrainingError: it is so.
    """
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        names = [c.name for c, value in zip(config.classes, values, strict=True) if value == twice]
        raise TrainingError(
            f"in the labels {twice} stands for {' and '.join(names)}; give each class a value of "
            f"its own in label_values"
        )


def _places_by_color(config: TrainConfig, scene: SceneConfig, path: Path) -> dict[int, int]:
    """Find which colour is which class or set: 0xRRGGBB -> place.

    Raises:
        TrainingError: a class has no colour, or two have the same.
    """
    if scene.label_map:
        kind = "colours such as #6EC1E4"
        return _mapped(config, scene, path, is_color, kind, lambda key: int(key[1:], 16))
    colors = []
    for c in config.classes:
        text = str(config.label_values.get(c.name, c.color))
        try:
            if len(text) != 7:
                raise ValueError(text)
            colors.append(int(text.removeprefix("#"), 16))
        except ValueError as error:
            raise TrainingError(
                f"label_values.{c.name} is {text!r} and {path} is a raster of colours; give the "
                f"colour as #RRGGBB"
            ) from error
    _check_distinct([f"#{color:06X}" for color in colors], config)
    return {color: place for place, color in enumerate(colors)}


def _of_colors(labels: ColorLabels) -> Read:
    """Prepare the reading of class colours; any other colour says nothing (an edge, say)."""

    def read(window: Window) -> NDArray[np.uint8]:
        found = labels.window(window)
        return np.where(found.known, found.ids, UNKNOWN).astype(np.uint8)

    return read


def _color_table(dataset: Any, path: Path) -> NDArray[np.int64]:
    """Read the colour table of a raster: (256,) 0xRRGGBB of each number, -1 where it has none."""
    try:
        return color_table(dataset)
    except ValueError as error:
        raise TrainingError(
            f"label_values gives colours, and {path} has one band without a colour table; give ids"
        ) from error
