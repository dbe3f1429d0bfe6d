"""Maps read through few open files: what each has in a window of the mosaic."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj.exceptions
import shapely
from numpy.typing import NDArray

from geoseg.core.gdal import first_line
from geoseg.core.names import public_name
from geoseg.errors import SceneError
from geoseg.geo.window import Window
from geoseg.mosaicking.grid import MosaicGrid, footprints
from geoseg.mosaicking.maps import MapFile
from geoseg.mosaicking.places import Places
from geoseg.rasters.class_raster import read_class_window, read_window
from geoseg.rasters.writing import NODATA, decode_probability
from geoseg.scene.files import opened
from geoseg.scene.sources import Rules

__all__ = ["Layer", "Layers"]

#: Files that are open at a time: a system may allow a process 64, and libraries need some.
MOST_OPEN = 24
#: Pixels of a map that are read at a time for a window, where the mosaic's are far larger.
MOST_READ = 1 << 24
#: A footprint is larger than what was measured by this, px of the mosaic and of its size.
MARGIN, SLACK = 2.0, 0.01


@dataclass(frozen=True)
class Layer:
    """What a map has in a window.

    Attributes:
        number: of the map, among those given to :class:`Layers`.
        ids: uint8 (H, W); 255 where the map has no class.
        confidence: float32 (H, W), NaN where it is not known; None where nobody asks.
    """

    number: int
    ids: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None


class _OpenFiles:
    """Open rasters; of too many the one is closed that was not used for the longest time."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open: OrderedDict[str, tuple[AbstractContextManager[Any], Any]] = OrderedDict()

    def dataset(self, path: str) -> Any:
        """Give rasterio's dataset of a file, which stays open for a while.

        Raises:
            SceneError: it can't be opened.
        """
        if path not in self._open:
            while len(self._open) >= MOST_OPEN:
                _, (context, _) = self._open.popitem(last=False)
                context.__exit__(None, None, None)
            context = opened(path, self._rules)
            self._open[path] = context, context.__enter__()
        self._open.move_to_end(path)
        return self._open[path][1]

    def close(self) -> None:
        """Close all."""
        with ExitStack() as stack:
            for context, _ in self._open.values():
                stack.push(context)
        self._open.clear()


class Layers:
    """The maps of a mosaic, by rank. Use as a context manager."""

    def __init__(
        self, mosaic: MosaicGrid, maps: Sequence[MapFile], rules: Rules, *, confidence: bool
    ) -> None:
        """Find out where each lies.

        Args:
            mosaic: whose pixels are asked for.
            maps: by rank, the one on top first; of one legend.
            rules: what they may point to.
            confidence: whether their confidence is wanted, too.

        Raises:
            UsageError: a map has no place in the mosaic's CRS.
        """
        self.mosaic = mosaic
        self.maps = list(maps)
        self._confidence = confidence
        self._files = _OpenFiles(rules)
        self._places: list[Places] = []
        boxes, self._of_box = [], []
        for number, one in enumerate(self.maps):
            places = Places(mosaic, one.grid)
            self._places.append(places)
            for box in footprints(one, mosaic.crs):
                margin = 0.0 if places.aligned else MARGIN
                boxes.append(_enlarged(mosaic.touched(box), margin))
                self._of_box.append(number)
        self._tree = shapely.STRtree(boxes)
        self._known = np.zeros(256, bool)
        self._known[[c.id for c in self.maps[0].classes]] = True

    def __enter__(self) -> Layers:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the files."""
        self._files.close()

    @property
    def resampled(self) -> list[bool]:
        """Whether each map's pixels are others than the mosaic's."""
        return [places.aligned is None for places in self._places]

    def within(self, window: Window) -> list[int]:
        """List the maps that may have a class in a window, by rank.

        Args:
            window: in pixels of the endless grid.
        """
        box = shapely.box(window.col, window.row, window.right, window.bottom)
        return sorted({self._of_box[int(i)] for i in self._tree.query(box)})

    def read(self, window: Window) -> Iterator[Layer]:
        """Read what the maps have in a window, by rank; those without a class there are left out.

        Args:
            window: in pixels of the endless grid.

        Raises:
            SceneError: a map can't be read, or holds a class that its legend does not have.
        """
        for number in self.within(window):
            layer = self._layer(number, window)
            if layer is not None:
                yield layer

    def _layer(self, number: int, window: Window) -> Layer | None:
        places = self._places[number]
        ids = np.full((window.height, window.width), NODATA, np.uint8)
        confidence = None
        if self._confidence:
            confidence = np.full(ids.shape, np.nan, np.float32)
        layer = Layer(number, ids, confidence)
        if places.aligned is not None:
            common = window.intersection(places.aligned)
            if common is not None:
                here = _within(common, window)
                self._fill(layer, _within(common, places.aligned), (here.rows, here.cols), None)
        else:
            try:
                self._warp(layer, window, window)
            except pyproj.exceptions.ProjError as error:
                raise SceneError(
                    f"{self.maps[number].path} can't be brought to {self.mosaic.crs} "
                    f"({first_line(error)}); choose another --crs, or leave this map out"
                ) from error
        return layer if (ids != NODATA).any() else None

    def _warp(self, layer: Layer, whole: Window, part: Window) -> None:
        """Fill a part of a window with the map's pixels in which the mosaic's centres lie."""
        rows, cols = self._places[layer.number].pixels(part)
        inside = rows >= 0
        if not inside.any():
            return
        top, left = int(rows[inside].min()), int(cols[inside].min())
        source = Window(
            top, left, int(rows[inside].max()) + 1 - top, int(cols[inside].max()) + 1 - left
        )
        if source.height * source.width > MOST_READ and part.height * part.width > 1:
            for quarter in _quarters(part):
                self._warp(layer, whole, quarter)
            return
        here = _within(part, whole)
        y, x = np.nonzero(inside)
        chosen = rows[inside] - top, cols[inside] - left
        self._fill(layer, source, (y + here.row, x + here.col), chosen)

    def _fill(self, layer: Layer, source: Window, here: Any, chosen: Any) -> None:
        """Take a window of a map, or those of its pixels that are chosen.

        Raises:
            SceneError: see :meth:`read`.
        """
        one = self.maps[layer.number]
        dataset = self._files.dataset(one.path)
        ids, valid = read_class_window(dataset, public_name(one.path), source)
        if chosen is not None:
            ids, valid = ids[chosen], valid[chosen]
        ids = np.where(valid, ids, np.uint8(NODATA))
        stray = ~self._known[ids] & (ids != NODATA)
        if stray.any():
            raise SceneError(
                f"{one.path} holds the ids {np.unique(ids[stray]).tolist()}, and its legend has "
                f"only {np.flatnonzero(self._known).tolist()}; give the raster as it was written, "
                f"or correct its tags"
            )
        layer.ids[here] = ids
        if layer.confidence is not None:
            layer.confidence[here] = self._shares(one, source, chosen)

    def _shares(self, one: MapFile, source: Window, chosen: Any) -> NDArray[np.float32]:
        assert one.confidence is not None
        dataset = self._files.dataset(one.confidence)
        values, valid = read_window(dataset, public_name(one.confidence), source)
        if chosen is not None:
            values, valid = values[chosen], valid[chosen]
        return np.where(valid, decode_probability(values), np.float32(np.nan))


def _within(part: Window, whole: Window) -> Window:
    """Give a window in pixels of another one."""
    return Window(part.row - whole.row, part.col - whole.col, part.height, part.width)


def _quarters(window: Window) -> Iterator[Window]:
    """Cut a window of more than a pixel into two or four."""
    down, across = (window.height + 1) // 2, (window.width + 1) // 2
    for row in range(window.row, window.bottom, down):
        for col in range(window.col, window.right, across):
            yield Window(row, col, min(down, window.bottom - row), min(across, window.right - col))


def _enlarged(window: Window, margin: float) -> Any:
    """Make a box of a footprint, larger than what was measured along its outline."""
    across = margin and margin + SLACK * window.width
    down = margin and margin + SLACK * window.height
    return shapely.box(
        window.col - across, window.row - down, window.right + across, window.bottom + down
    )
