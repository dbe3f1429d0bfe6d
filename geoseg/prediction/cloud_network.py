"""Clouds by a network: asked on chips at fixed places of the world's grid, each answered once.

So a pixel has the same answer in whatever part of the scene, and runs that go on, lanes and blocks
need no file of clouds.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.geo.model_grid import ModelGrid
from geoseg.geo.window import Window
from geoseg.prediction.cloud_files import by_squares
from geoseg.scene.fill import fill_nearest
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene_band import SceneBand

__all__ = ["CloudNetwork"]

#: Pixels whose answers are kept: those of 700,000 square km at 30 m, in 92 MB.
MOST_KEPT = 737_280_000


class CloudNetwork(ABC):
    """Answers of a network for one scene, each computed once, by whichever thread asks first."""

    def __init__(
        self,
        bands: tuple[SceneBand, ...],
        seen: ModelGrid,
        side: int,
        margin: int,
        src_nodata: float | None,
        most_kept: int | None = None,
    ) -> None:
        """Keep what is needed; nothing is opened.

        Args:
            bands: in the network's order.
            seen: the grid that it sees.
            side: of its chips, px.
            margin: what of them is not trusted on each side, px.
            src_nodata: the user's.
            most_kept: answers that are kept; None for as many as :data:`MOST_KEPT` allows.
        """
        self._bands, self._grid, self._place = bands, seen.grid, seen.place
        self._side, self._margin, self._inner = side, margin, side - 2 * margin
        self._src_nodata = src_nodata
        self._most_kept = most_kept or max(1, MOST_KEPT // self._inner**2)
        self._kept: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    @abstractmethod
    def _ask(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Ask the network of a chip.

        Args:
            pixels: numbers as read (C, side, side), of each a value.

        Returns:
            (side, side), True = a cloud or its shadow.
        """

    @contextmanager
    def opened(self) -> Iterator[Callable[[Window], NDArray[np.bool_]]]:
        """Open the scene; see :class:`geoseg.scene.scene.FoundClouds`."""
        with SceneReader(self._bands, self._grid, src_nodata=self._src_nodata) as reader:
            yield partial(self._find, reader)

    def _find(self, reader: SceneReader, area: Window) -> NDArray[np.bool_]:
        return by_squares(area.shifted(*self._place), self._inner, partial(self._square, reader))

    def _square(self, reader: SceneReader, square: Window) -> NDArray[np.bool_]:
        key, inner = (square.row, square.col), self._inner
        with self._lock:
            if key not in self._kept:
                self._kept[key] = np.packbits(self._answer(reader, square))
                if len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            bits = np.unpackbits(self._kept[key], count=inner * inner)
        return bits.reshape(inner, inner).astype(bool)

    def _answer(self, reader: SceneReader, square: Window) -> NDArray[np.bool_]:
        """Ask the network of a square of the world's grid, with what lies around it."""
        side, margin = self._side, self._margin
        top, left = square.row - margin - self._place[0], square.col - margin - self._place[1]
        chip = Window(top, left, side, side)
        inside = chip.intersection(Window(0, 0, self._grid.height, self._grid.width))
        assert inside is not None, "squares that are asked of hold some of the scene"
        pixels, valid = reader.read(inside)
        if not valid.any():
            return np.zeros((self._inner, self._inner), dtype=bool)
        if not valid.all():
            pixels = fill_nearest(pixels, valid)
        around = (
            (inside.row - chip.row, chip.bottom - inside.bottom),
            (inside.col - chip.col, chip.right - inside.right),
        )
        pixels = np.pad(pixels, ((0, 0), *around), mode="symmetric")
        found = self._ask(pixels)
        return found[margin : side - margin, margin : side - margin]
