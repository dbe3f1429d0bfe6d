"""What each pixel of a training scene should become, from labels or from a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from torch import nn

from geoseg.cards.card import ModelCard
from geoseg.core.gdal import GDAL_ERRORS, explain_read_error
from geoseg.errors import TrainingError
from geoseg.geo.geodesy import GroundGrid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.labels.classes import class_ids
from geoseg.labels.labels import RasterLabels, bounds_in, on_grid, open_labels
from geoseg.labels.polygons import PolygonFile, read_polygons
from geoseg.labels.vector_files import class_column, is_vector, read_features
from geoseg.labels.window import check_crs
from geoseg.networks import load_network
from geoseg.networks.normalize import normalize
from geoseg.rasters.class_raster import ClassRaster
from geoseg.runtimes import Runtime, checked, load_runtime
from geoseg.scene.radiometry import Radiometry
from geoseg.scene.scene import gdal_options, opened
from geoseg.training.recipe import SceneConfig, TrainConfig
from geoseg.zoo import find_model

__all__ = ["CLASS_COLUMNS", "UNKNOWN", "Targets", "Teacher", "load_teacher", "open_targets"]

#: Where nothing says what is there; class ids end at 254, so a legend has at most 255 classes.
UNKNOWN = 255

#: Columns that say the class of a vector label where the recipe names none: what someone who
#: looked wrote into a sample comes before the map's own class.
CLASS_COLUMNS = ("reference", "class_id")

#: Shapes that lie in a pixel as a whole, or each of their parts does.
POINTS = (shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT)

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
    sources: list[tuple[Path, Read, tuple[float, ...]]] = field(default_factory=list)
    stray: dict[Path, Counter[str]] = field(default_factory=dict)
    disputed: int = 0

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Targets of a window; where label files overlap, the first one counts.

        Args:
            window: within the grid.

        Returns:
            uint8 (H, W), places in the legend, UNKNOWN where no label is.
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
                    f"ignored; mend classes, label_values or ignore_label"
                )

    def meet(self) -> bool:
        """Whether the extent of some labels reaches over the scene's."""
        west, south, east, north = self._bounds()
        return any(
            b[0] < east and b[2] > west and b[1] < north and b[3] > south
            for _, _, b in self.sources
        )

    def _bounds(self) -> tuple[float, float, float, float]:
        grid = self.grid
        corners = [(0, 0), (grid.width, 0), (0, grid.height), (grid.width, grid.height)]
        x, y = zip(*(grid.transform @ corner for corner in corners), strict=True)
        return min(x), min(y), max(x), max(y)

    def extents(self) -> str:
        """Where the scene and its labels lie, for a message."""
        lines = [f"the scene reaches over {_shown(self._bounds())}"]
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
        UsageError: a vector file lacks the column, or holds shapes without area and no radius.
        LabelError: a CRS is missing on one side, or a text in the column is no class.
    """
    targets = Targets(grid, scene.path)
    with ExitStack() as stack:
        for path in scene.labels:
            targets.stray[path] = Counter()
            if not path.exists():
                raise TrainingError(f"{path}: no such file; mend the scene's labels")
            if is_vector(path):
                read, bounds = _vector(config, scene, path, targets)
            else:
                read, bounds = _raster(config, scene, path, targets, stack)
            targets.sources.append((path, read, bounds))
        yield targets


# Vector files


def _vector(
    config: TrainConfig, scene: SceneConfig, path: Path, targets: Targets
) -> tuple[Read, tuple[float, ...]]:
    legend = {c.id: str(config.label_values.get(c.name, c.name)) for c in config.classes}
    column = scene.column
    if scene.radius > 0:
        polygons = _buffered(path, column, legend, scene, targets.grid)
    else:
        polygons = read_polygons(
            path,
            column,
            legend,
            ignore=scene.ignore_label,
            owner="the recipe",
            usual=CLASS_COLUMNS,
            rules=scene.rules,
        )
    placed = polygons.on(targets.grid, str(scene.path))
    place = _places(config)

    def read(window: Window) -> NDArray[np.uint8]:
        found = placed.window(window)
        targets.disputed += int(found.disputed.sum())
        return np.where(found.known, place[found.ids.clip(0, 254)], np.uint8(UNKNOWN))

    return read, placed.bounds


def _places(config: TrainConfig) -> NDArray[np.uint8]:
    """Class id -> place in the legend."""
    place = np.full(256, UNKNOWN, np.uint8)
    for i, c in enumerate(config.classes):
        place[c.id] = i
    return place


def _buffered(
    path: Path, column: str | None, legend: Mapping[int, str], scene: SceneConfig, grid: PixelGrid
) -> PolygonFile:
    """Points and lines with the scene's radius around them, and polygons as they are.

    A point has the pixel that it lies in at least, however small the radius.

    Raises:
        TrainingError: there is no CRS to measure metres in.
    """
    kinds = ["Point", "LineString", "Polygon"]
    kinds += [f"Multi{kind}" for kind in kinds]
    frame = read_features(str(path), column, kinds, "point, line or polygon", scene.rules)
    column = class_column(str(path), frame, column, CLASS_COLUMNS)
    check_crs(grid.crs is not None, str(scene.path), frame.crs is not None, str(path))
    if frame.crs is None:
        raise TrainingError(
            f"radius is in metres, and neither {scene.path} nor {path} has a CRS that gives "
            f"metres; give them one (gdal_edit.py -a_srs)"
        )
    ids, ignored = class_ids(
        frame[column], legend, scene.ignore_label, str(path), owner="the recipe", things="features"
    )
    rows = np.flatnonzero(ids >= 0)
    if not len(rows):
        raise TrainingError(
            f"{path}: none of its {len(frame)} features has a class in the column {column!r}"
        )
    labelled = frame.geometry.iloc[rows]
    metres = labelled.to_crs(_metres_around(grid))
    area = metres.geom_type.isin(["Polygon", "MultiPolygon"])
    # 16 segments a quarter: the circle's area is right to 0.2 %.
    round_ = metres.where(area, metres.buffer(scene.radius, quad_segs=16))
    parts, feature = shapely.get_parts(np.asarray(round_.array), return_index=True)
    squares, of_point = _pixels_under(labelled, grid, metres.crs)
    feature = np.concatenate((feature, of_point))
    order = np.argsort(feature, kind="stable")
    shapes = shapely.multipolygons(np.concatenate((parts, squares))[order], indices=feature[order])
    return PolygonFile(
        str(path),
        column,
        ids[rows],
        shapely.force_2d(shapes),
        rows,
        pyproj.CRS(metres.crs),
        len(frame),
        len(frame) - len(rows) - ignored,
        ignored,
    )


def _pixels_under(
    shapes: geopandas.GeoSeries, grid: PixelGrid, crs: Any
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Squares around the centres of the pixels that points lie in, and each one's place in shapes.

    Args:
        shapes: points of them are looked at, all else is left out.
        grid: whose pixels they are.
        crs: in which the squares are wanted.
    """
    own = pyproj.CRS.from_user_input(grid.crs)
    points = np.array(shapes.to_crs(own).array)
    points[~np.isin(shapely.get_type_id(points), POINTS)] = None
    xy, place = shapely.get_coordinates(points, return_index=True)
    col, row = np.floor(_moved(~grid.transform, xy)).T
    inside = (col >= 0) & (col < grid.width) & (row >= 0) & (row < grid.height)
    col, row = col[inside], row[inside]
    # Half a pixel wide: no other pixel's centre lies in them.
    squares = shapely.box(col + 0.25, row + 0.25, col + 0.75, row + 0.75)
    on_grid = shapely.transform(squares, partial(_moved, grid.transform))
    return np.asarray(geopandas.GeoSeries(on_grid, crs=own).to_crs(crs).array), place[inside]


def _moved(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places (N, 2) under an affine transform; what has no place stays without one."""
    a, b, c, d, e, f = tuple(transform)[:6]
    x, y = xy.T
    with np.errstate(invalid="ignore"):
        return np.column_stack((a * x + b * y + c, d * x + e * y + f))


def _metres_around(grid: PixelGrid) -> pyproj.CRS:
    """A CRS in which a metre is one near the grid, however far the labels reach beyond it."""
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*(grid.transform @ (grid.width / 2, grid.height / 2)))
    return pyproj.CRS.from_dict({"proj": "aeqd", "lon_0": lon, "lat_0": lat, "datum": "WGS84"})


# Rasters


def _raster(
    config: TrainConfig, scene: SceneConfig, path: Path, targets: Targets, stack: ExitStack
) -> tuple[Read, tuple[float, ...]]:
    stack.enter_context(gdal_options(str(path)))
    dataset = stack.enter_context(opened(str(path), scene.rules))
    bands = dataset.count - (ColorInterp.alpha in dataset.colorinterp)
    colored = any(str(v).startswith("#") for v in config.label_values.values())
    if bands == 3 or (bands == 1 and colored):
        labels = ClassRaster(str(path), dataset, GroundGrid.of(dataset), {})
        check_crs(targets.grid.crs is not None, str(scene.path), dataset.crs is not None, str(path))
        bounds = bounds_in(targets.grid.crs, labels)
        # A virtual warp has no colour table.
        table = _color_table(dataset, path) if bands == 1 else None
        on = stack.enter_context(on_grid(labels, targets.grid, str(scene.path)))
        return _colors(config, path, on, table), bounds
    ids = stack.enter_context(
        open_labels(path, targets.grid, {}, str(scene.path), rules=scene.rules)
    )
    assert isinstance(ids, RasterLabels)
    return _ids(config, scene, ids, targets), ids.bounds


def _ids(config: TrainConfig, scene: SceneConfig, labels: RasterLabels, targets: Targets) -> Read:
    """Of a raster of class ids."""
    path = Path(labels.path)
    values = []
    for c in config.classes:
        value = config.label_values.get(c.name, c.id)
        if not isinstance(value, int):
            raise TrainingError(
                f"label_values.{c.name} is {value!r} and {path} is a raster of ids; give the id"
            )
        values.append(value)
    _check_distinct(values, config)
    ignored = [v for v in scene.ignore_label if isinstance(v, int)]

    def read(window: Window) -> NDArray[np.uint8]:
        found = labels.window(window)
        target = np.full(found.ids.shape, UNKNOWN, np.uint8)
        for i, value in enumerate(values):
            target[found.known & (found.ids == value)] = i
        strange = found.ids[found.known & (target == UNKNOWN) & ~np.isin(found.ids, ignored)]
        for value, n in zip(*np.unique(strange, return_counts=True), strict=True):
            targets.stray[path][str(value)] += int(n)
        return target

    return read


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


def _colors(config: TrainConfig, path: Path, dataset: Any, table: NDArray[np.int64] | None) -> Read:
    """Of a raster of class colours; any other colour says nothing (an edge, say)."""
    from rasterio.windows import Window as RasterioWindow

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

    def read(window: Window) -> NDArray[np.uint8]:
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            if table is not None:
                code = table[dataset.read(1, window=area)]
            else:
                rgb = dataset.read([1, 2, 3], window=area).astype(np.int64)
                code = (rgb[0] << 16) | (rgb[1] << 8) | rgb[2]
            known = dataset.dataset_mask(window=area) != 0
        except GDAL_ERRORS as error:
            raise TrainingError(
                f"{path}: rows {window.row} to {window.bottom - 1} can't be read: "
                f"{explain_read_error(error, str(path))}"
            ) from error
        target = np.full(code.shape, UNKNOWN, np.uint8)
        for i, color in enumerate(colors):
            target[known & (code == color)] = i
        return target

    return read


def _color_table(dataset: Any, path: Path) -> NDArray[np.int64]:
    """Number -> colour of a raster with a colour table."""
    try:
        table = dataset.colormap(1)
    except ValueError as error:
        raise TrainingError(
            f"label_values gives colours, and {path} has one band without a colour table; give ids"
        ) from error
    colors = np.full(256, -1, np.int64)
    for number, (red, green, blue, _) in table.items():
        colors[number] = (red << 16) | (green << 8) | blue
    return colors


# A teacher


@dataclass(frozen=True)
class Teacher:
    """A model whose probabilities are learned.

    Attributes:
        card: its card.
        network: in evaluation mode, on the device.
        device: where it is.
        runtime: the same network, fastest for chips of one size.
        side: that size, px.
    """

    card: ModelCard
    network: nn.Module
    device: torch.device
    runtime: Runtime
    side: int

    def probs(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its answer to a chip.

        Args:
            values: float32 (C, H, W), in its quantity and band order.

        Returns:
            float32 (K, H, W).
        """
        if values.shape[1:] == (self.side, self.side):
            answers = self.runtime.to_numpy(checked.probs(self.runtime, values[None]))
            return np.asarray(answers[0], np.float32)
        x = torch.from_numpy(np.ascontiguousarray(values))[None].to(self.device)
        with torch.inference_mode():
            logits = self.network(normalize(x, self.card.normalization)) / self.card.temperature
            probs: NDArray[np.float32] = logits.float().softmax(dim=1)[0].cpu().numpy()
        return probs


def load_teacher(config: TrainConfig, device: torch.device) -> Teacher | None:
    """Read a recipe's teacher.

    Args:
        config: the recipe.
        device: where the network shall be.

    Returns:
        The teacher, or None where the recipe has none.

    Raises:
        TrainingError: its classes or quantity are others, or it gives no softmax probabilities.
        ModelError: it can't be read.
    """
    if config.teacher is None:
        return None
    model = find_model(config.teacher)
    card = model.card
    theirs, ours = [c.name for c in card.classes], [c.name for c in config.classes]
    if theirs != ours:
        raise TrainingError(
            f"the teacher's classes are {theirs} and the recipe's are {ours}; they must be the "
            f"same, in the same order"
        )
    if card.activation != "softmax":
        raise TrainingError(
            f"the teacher's activation is {card.activation!r}; only softmax can be learned"
        )
    if card.quantity != config.quantity:
        raise TrainingError(
            f"the teacher takes {card.quantity} and the recipe {config.quantity}; make them alike"
        )
    network = load_network(model).to(device).to(memory_format=torch.channels_last)
    side, bands = config.chip + 2 * config.teacher_halo, len(card.bands)
    runtime = load_runtime(
        model,
        Radiometry((1.0,) * bands, (0.0,) * bands, "the recipe"),
        # Not by trial: the same seed shall give the same weights.
        precision="fp32",
        device=str(device),
        threads=1,
        sample=lambda: [np.zeros((bands, side, side), np.float32)],
        chips=config.steps * (config.fresh if config.pool else config.batch * config.accumulate),
    )
    return Teacher(card, network, device, runtime, side)
