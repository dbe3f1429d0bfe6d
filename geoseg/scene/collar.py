"""The near-black collar of a picture: what is connected to its edge, found before it is read.

It is followed from the edge inwards, block by block, so only blocks that it reaches are read, and
it is the same whatever part of the scene is wanted. A block of which all or nothing is collar takes
no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geoseg.core.gdal import block_cache
from geoseg.core.importing import IMPORTING
from geoseg.errors import UsageError
from geoseg.geo.window import Window
from geoseg.scene.dark_edges import NEAR_BLACK
from geoseg.scene.reader import SceneReader
from geoseg.scene.scene_band import SceneBand, finest_grid

__all__ = ["Collar", "find_collar"]

#: Side of the blocks, px: a whole number of most files' blocks.
BLOCK = 512
#: GDAL's block cache meanwhile: a row of blocks of a wide file is read several times.
CACHE_BYTES = 128 << 20

#: (row, column) among the blocks.
Place = tuple[int, int]


@dataclass(eq=False)
class Collar:
    """Which pixels of a file are collar.

    Attributes:
        height: of the file, px.
        width: of the file, px.
        full: blocks that are all collar.
        parts: of blocks that are partly so, the bits of their rows (h, ceil(w / 8)).
        pixels: how many are collar.
    """

    height: int
    width: int
    full: set[Place] = field(default_factory=set)
    parts: dict[Place, NDArray[np.uint8]] = field(default_factory=dict)
    pixels: int = 0

    def mask(self, window: Window) -> NDArray[np.bool_] | None:
        """Find the collar in a window of the file.

        Args:
            window: within it.

        Returns:
            (H, W), True = collar; None where there is none.
        """
        found: NDArray[np.bool_] | None = None
        for row in range(window.row // BLOCK, (window.bottom - 1) // BLOCK + 1):
            for col in range(window.col // BLOCK, (window.right - 1) // BLOCK + 1):
                place = row, col
                if place not in self.full and place not in self.parts:
                    continue
                block = self.window(place)
                inside = block.intersection(window)
                assert inside is not None, "the block reaches into the window"
                if found is None:
                    found = np.zeros((window.height, window.width), dtype=bool)
                here = inside.shifted(-window.row, -window.col)
                there = inside.shifted(-block.row, -block.col)
                found[here.rows, here.cols] = self.block(place)[there.rows, there.cols]
        return found

    def window(self, place: Place) -> Window:
        """Where a block lies in the file."""
        row, col = place[0] * BLOCK, place[1] * BLOCK
        return Window(row, col, min(BLOCK, self.height - row), min(BLOCK, self.width - col))

    def block(self, place: Place) -> NDArray[np.bool_]:
        """The collar in a block, (h, w)."""
        window = self.window(place)
        if place in self.full:
            return np.ones((window.height, window.width), dtype=bool)
        if place not in self.parts:
            return np.zeros((window.height, window.width), dtype=bool)
        return _unpacked(self.parts[place], window.width)


def find_collar(bands: Sequence[SceneBand], src_nodata: float | None = None) -> Collar:
    """Follow what is near black, or was not measured, from the edge of a picture inwards.

    Args:
        bands: of 8 bits, on one grid.
        src_nodata: the number that means "not measured", in place of what the files say.

    Raises:
        UsageError: they are not.
        SceneError: a block can't be read.
    """
    grid = finest_grid(bands)
    wrong = next((band for band in bands if band.dtype != "uint8"), None)
    if wrong is not None:
        raise UsageError(
            f"--nearblack is for pictures of 8 bits, and {wrong} is {wrong.dtype}; for a fill of 0 "
            f"give --src-nodata 0"
        )
    if not all(band.grid.same_pixels(grid) for band in bands):
        raise UsageError(
            "--nearblack needs bands of one pixel grid, as what is black in all of them counts; "
            "leave it out, or give bands of one grid"
        )
    found = Collar(grid.height, grid.width)
    with block_cache(CACHE_BYTES), SceneReader(bands, grid, src_nodata=src_nodata) as reader:
        _Search(found, reader).run()
    return found


class _Search:
    """Blocks that the collar may still grow into."""

    def __init__(self, found: Collar, reader: SceneReader) -> None:
        """Begin at the edge of the picture."""
        self._found, self._reader = found, reader
        self._last = ((found.height - 1) // BLOCK, (found.width - 1) // BLOCK)
        self._waiting = set(self._along_the_edge())
        self._seeds: dict[Place, NDArray[np.bool_]] = {}  # from blocks beside
        self._dark: dict[Place, NDArray[np.uint8]] = {}  # bits of blocks that were read

    def _along_the_edge(self) -> Iterator[Place]:
        rows, cols = self._last
        for col in range(cols + 1):
            yield from ((0, col), (rows, col))
        for row in range(1, rows):
            yield from ((row, 0), (row, cols))

    def run(self) -> None:
        """Grow until nothing is left to grow into."""
        while self._waiting:
            place = min(self._waiting)  # from the top, as most files are read
            self._waiting.remove(place)
            self._grow(place)

    def _grow(self, place: Place) -> None:
        found = self._found
        before, dark = found.block(place), self._dark_in(place)
        seeds = self._seeds_in(place)
        if not (seeds & dark & ~before).any():
            return
        collar = dark if dark.all() else _connected(dark, seeds) | before
        found.pixels += int(collar.sum() - before.sum())
        if collar.all():
            found.full.add(place)
            found.parts.pop(place, None)
            self._dark.pop(place, None)
        else:
            found.parts[place] = np.packbits(collar, axis=1)
        row, col = place
        for beside, mine, theirs in (
            ((row - 1, col), np.s_[0], np.s_[-1]),
            ((row + 1, col), np.s_[-1], np.s_[0]),
            ((row, col - 1), np.s_[:, 0], np.s_[:, -1]),
            ((row, col + 1), np.s_[:, -1], np.s_[:, 0]),
        ):
            new = collar[mine] & ~before[mine]
            inside = 0 <= beside[0] <= self._last[0] and 0 <= beside[1] <= self._last[1]
            if inside and beside not in found.full and new.any():
                window = found.window(beside)
                nothing = np.zeros((window.height, window.width), dtype=bool)
                self._seeds.setdefault(beside, nothing)[theirs] |= new
                self._waiting.add(beside)

    def _seeds_in(self, place: Place) -> NDArray[np.bool_]:
        """Pixels of a block at which the collar may begin: beside it, and on the edge."""
        window, found = self._found.window(place), self._found
        seeds = self._seeds.pop(place, None)
        if seeds is None:
            seeds = np.zeros((window.height, window.width), dtype=bool)
        seeds[0] |= window.row == 0
        seeds[-1] |= window.bottom == found.height
        seeds[:, 0] |= window.col == 0
        seeds[:, -1] |= window.right == found.width
        return seeds

    def _dark_in(self, place: Place) -> NDArray[np.bool_]:
        """Where a block is near black in all bands, or was not measured."""
        window = self._found.window(place)
        if place not in self._dark:
            pixels, valid = self._reader.read(window)
            dark = (pixels <= NEAR_BLACK).all(axis=0) | ~valid
            self._dark[place] = np.packbits(dark, axis=1)
        return _unpacked(self._dark[place], window.width)


def _connected(dark: NDArray[np.bool_], seeds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The dark areas that hold a seed; pixels are connected along their sides."""
    with IMPORTING:
        from scipy.ndimage import label

    areas, count = label(dark)
    reached = np.zeros(count + 1, dtype=bool)
    reached[areas[seeds]] = True
    reached[0] = False
    found: NDArray[np.bool_] = reached[areas]
    return found


def _unpacked(bits: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, axis=1, count=width).astype(bool)
