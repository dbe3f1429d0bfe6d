"""Finished strips on disk: what is there is never computed again.

A run that is killed at any moment finds whole strips and no half ones
(:mod:`~geoseg.prediction.strip_files`), and a virtual raster over them is what the outputs are made
from.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.core.gdal import GDAL_ERRORS
from geoseg.core.workers import StoppedError
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError
from geoseg.geo.window import Window
from geoseg.prediction.plan import HELD_STRIPS
from geoseg.prediction.strip import FinishedStrip
from geoseg.prediction.strip_files import (
    JournalEntry,
    entry_path,
    is_whole,
    raster_path,
    read_entry,
    strip_numbers,
)
from geoseg.rasters.writing import RasterSpec, write_vrt
from geoseg.scene.vrt import Source, virtual_raster

__all__ = ["StripStore"]

#: Rows of a strip file's blocks.
BLOCK_ROWS = 64
#: That compare a finished raster with its strips.
VERIFY_THREADS = 2


class StripStore:
    """The strips of one run, by lane and row of chips.

    One thread may write them while others read.
    """

    def __init__(
        self,
        folder: Path,
        specs: Mapping[str, RasterSpec],
        lanes: int,
        cancelled: threading.Event | None = None,
        *,
        first: int = 0,
    ) -> None:
        """Read the journal of what is there.

        Args:
            folder: of the strips; made where it is missing.
            specs: of the outputs' rasters by name.
            lanes: how many there are.
            cancelled: set when the run ends before its time, so that nobody waits for strips.
            first: number of the first strip that is wanted, of a store of some strips alone.

        Raises:
            OutputError: the folder can't be made or read.
        """
        self.folder = folder
        self.specs = dict(specs)
        self._first = first
        # From the first one on without a hole; and those below the first hole, by number.
        self._strips: list[list[JournalEntry]] = [[] for _ in range(lanes)]
        self._ahead: list[dict[int, JournalEntry]] = [{} for _ in range(lanes)]
        self._changed = threading.Condition()
        self._held: dict[int, Mapping[str, NDArray[Any]]] = {}
        self._cancelled = cancelled or threading.Event()
        self._failure: OutputError | None = None
        try:
            folder.mkdir(exist_ok=True)
            for lane, number in strip_numbers(folder):
                if lane < lanes and number >= first:
                    self._find(lane, number)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"the strips in {folder} can't be read ({error}); begin anew with --restart"
            ) from error
        for lane in range(lanes):
            self._join(lane)

    def _find(self, lane: int, number: int) -> None:
        """Take note of a strip on disk, where it is whole and follows the one above."""
        strip, ahead = read_entry(self.folder, lane, number), self._ahead[lane]
        if not is_whole(strip, self.folder, lane, number):
            return  # it is made anew
        above = ahead.get(number - 1)
        if number == 0:
            follows = strip.window is None or strip.window.row == 0
        elif above is None or above.window is None or strip.window is None:
            follows = True
        else:
            follows = strip.window.row == above.window.bottom
        if follows:
            ahead[number] = strip

    def _join(self, lane: int) -> None:
        """Have the strips that follow those from the top belong to them."""
        strips, ahead = self._strips[lane], self._ahead[lane]
        while (strip := ahead.pop(self._first + len(strips), None)) is not None:
            strips.append(strip)

    def __len__(self) -> int:
        """Strips that are finished."""
        return sum(1 for _ in self.all())

    def missing(self, lane: int, last: int) -> list[tuple[int, int]]:
        """Find the strips of a lane that are not finished.

        Args:
            lane: its number.
            last: number of the first strip that is not wanted any more.

        Returns:
            Ranges (first, the first after), from the top.
        """
        top = self._first + len(self._strips[lane])
        ends = [n for n in sorted(self._ahead[lane]) if n < last]
        edges = pairwise((top - 1, *ends, max(last, top)))
        return [(above + 1, below) for above, below in edges if above + 1 < below]

    def all(self) -> Iterator[JournalEntry]:
        """The finished strips, lane by lane from the top."""
        for strips, ahead in zip(self._strips, self._ahead, strict=True):
            yield from strips
            for number in sorted(ahead):
                yield ahead[number]

    def write(self, lane: int, strip: FinishedStrip) -> None:
        """Add the next strip of a lane, and wake who waits for its rows.

        Args:
            lane: its number.
            strip: of it.

        Raises:
            OutputError: the disk is full or fails, now or when an earlier strip was written.
        """
        with self._failing_for_good():
            number = self._first + len(self._strips[lane])
            crc: dict[str, tuple[int, ...]] = {}
            sizes: dict[str, int] = {}
            for name, values in strip.arrays.items():
                bands = values[None] if values.ndim == 2 else values
                crc[name] = tuple(zlib.crc32(np.ascontiguousarray(b).data) for b in bands)
                file = raster_path(self.folder, name, lane, number)
                self._write_raster(file, name, bands)
                sizes[name] = file.stat().st_size
            chips = strip.run, strip.skipped
            entry = JournalEntry(strip.window, strip.counts, *chips, crc, sizes, strip.clouded)
            path = entry_path(self.folder, lane, number)
            partial = path.with_suffix(".partial")
            try:
                partial.write_text(json.dumps(asdict(entry)), encoding="utf-8")
                os.replace(partial, path)
            except OSError as error:
                raise explain_write_error(error, self.folder) from error
        with self._changed:
            self._strips[lane].append(entry)
            self._join(lane)
            if len(self._strips) == 1:
                self._held[number] = strip.arrays
                for old in [n for n in self._held if n <= number - HELD_STRIPS]:
                    del self._held[old]
            self._changed.notify_all()

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """A strip that was begun after one that failed must not take its place."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OutputError as error:
            self._failure = error
            raise

    def _write_raster(self, path: Path, name: str, bands: NDArray[Any]) -> None:
        spec = self.specs[name]
        count, height, width = bands.shape
        # A byte a pixel is written, and read again, in less time than it takes to pack it.
        packed = {} if spec.is_plain else {"compress": "zstd", "zstd_level": 1}
        try:
            # Half a file of a run that was killed: rasterio fails to replace what GDAL can't read.
            path.unlink(missing_ok=True)
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=count,
                dtype=spec.dtype,
                # Any but none, which rasterio would warn of whenever it meets the file.
                transform=Affine.translation(1, 1),
                interleave="band",
                blockysize=min(BLOCK_ROWS, height),
                bigtiff="if_safer",
                **packed,
            ) as dataset:
                dataset.write(bands)
        except GDAL_ERRORS as error:
            raise explain_write_error(error, self.folder) from error

    def check_all_there(self) -> None:
        """See that the strips cover the output, before it is made of them.

        Raises:
            OutputError: they don't.
        """
        grid = next(iter(self.specs.values())).grid
        windows = [strip.window for strip in self.all() if strip.window is not None]
        if sum(w.height * w.width for w in windows) != grid.height * grid.width:
            raise OutputError(
                f"the strips in {self.folder} do not cover the output; begin anew with --restart"
            )

    @property
    def rows(self) -> int:
        """Rows of the output that are finished in all lanes, from the top."""
        bottoms = (
            max((s.window.bottom for s in strips if s.window is not None), default=0)
            for strips in self._strips
        )
        return min(bottoms)

    def wait(self, rows: int) -> None:
        """Wait for rows, from the top.

        Args:
            rows: of the output.

        Raises:
            StoppedError: the run has ended, and they won't come.
        """
        with self._changed:
            while self.rows < rows:
                if self._cancelled.is_set():
                    raise StoppedError
                self._changed.wait(timeout=0.1)

    def read(self, name: str, top: int, bottom: int) -> NDArray[Any]:
        """Finished rows of a raster.

        Args:
            name: of the raster.
            top: the first row.
            bottom: the first one below.

        Returns:
            (bands, bottom - top, width).

        Raises:
            OutputError: a strip can't be read.
        """
        spec = self.specs[name]
        shape = (len(spec.descriptions), bottom - top, spec.grid.width)
        rows = np.full(shape, spec.nodata, spec.dtype)
        for lane, strips in enumerate(self._strips):
            for number, strip in enumerate(strips, self._first):
                w = strip.window
                if w is None or w.bottom <= top or w.row >= bottom:
                    continue
                first, last = max(top, w.row), min(bottom, w.bottom)
                part = Window(first - w.row, 0, last - first, w.width)
                found = self._from_memory(name, lane, number, part)
                if found is None:
                    found = self._from_disk(name, lane, number, part)
                rows[:, first - top : last - top, w.col : w.right] = found
        return rows

    def _from_memory(self, name: str, lane: int, number: int, part: Window) -> NDArray[Any] | None:
        """Rows of a strip's raster, (bands, height, width), where it is one of the newest."""
        held = self._held.get(number) if lane == 0 else None
        return None if held is None else held[name][..., part.rows, :]

    def _from_disk(self, name: str, lane: int, number: int, part: Window) -> NDArray[Any]:
        """Rows of a strip's raster, (bands, height, width)."""
        path = raster_path(self.folder, name, lane, number)
        try:
            with rasterio.open(path) as dataset:
                found: NDArray[Any] = dataset.read(
                    window=RasterioWindow(0, part.row, part.width, part.height)
                )
                return found
        except GDAL_ERRORS as error:
            raise OutputError(
                f"{path} can't be read ({error}); begin anew with --restart"
            ) from error

    @contextmanager
    def few_open(self) -> Iterator[None]:
        """Keep hundreds of strips from being open at once, each with buffers of its own.

        GDAL takes it up when it opens a virtual raster and has no other open.
        """
        # A row of a COG's blocks or of overviews reaches into two or three strips of each lane.
        most = max(16, 4 * len(self._strips))
        # Who reads over a network often has GDAL look at no other file: overviews are one.
        with rasterio.Env(GDAL_MAX_DATASET_POOL_SIZE=most, GDAL_DISABLE_READDIR_ON_OPEN="FALSE"):
            yield

    def mosaic(self, name: str, overviews: Sequence[Path] = ()) -> Path:
        """Make one virtual raster of all strips, with names, colours and tags.

        Args:
            name: of the raster.
            overviews: rasters in the folder, the largest first.

        Returns:
            A .vrt in the folder.

        Raises:
            OutputError: it can't be written.
        """
        spec, path = self.specs[name], self.folder / f"{name}.vrt"
        grid = spec.grid
        sources = [
            Source(Path(raster_path(self.folder, name, lane, number).name), strip.window)
            for lane, strips in enumerate(self._strips)
            for number, strip in enumerate(strips, self._first)
            if strip.window is not None
        ]
        text = virtual_raster(
            grid.height,
            grid.width,
            spec.dtype,
            len(spec.descriptions),
            sources,
            overviews=[Path(overview.name) for overview in overviews],
        )
        try:
            write_vrt(text, path, spec)
        except GDAL_ERRORS as error:
            raise explain_write_error(error, self.folder) from error
        return path

    def verify(self, name: str, path: Path) -> None:
        """Compare a finished raster with the strips that it was made from.

        Args:
            name: of the raster.
            path: of the file.

        Raises:
            OutputError: they differ (some disk errors show only so), or it can't be read.
        """
        strips = [strip for strip in self.all() if strip.window is not None]
        parts = [strips[i::VERIFY_THREADS] for i in range(VERIFY_THREADS)]
        try:
            with ThreadPoolExecutor(VERIFY_THREADS, "geoseg-verify") as threads:
                alike = all(threads.map(partial(_are_alike, path, name), parts))
        except GDAL_ERRORS as error:
            raise explain_write_error(error, path) from error
        if not alike:
            raise OutputError(
                f"{path}: what was read back differs from what was written, so the disk is full or "
                f"faulty; free some space or take another one, and begin anew with --restart"
            )


def _are_alike(path: Path, name: str, strips: Sequence[JournalEntry]) -> bool:
    """Whether a finished raster holds what strips held when they were written."""
    with rasterio.open(path) as dataset:
        for strip in strips:
            w = strip.window
            assert w is not None, "of a strip with rows"
            bands = dataset.read(window=RasterioWindow(w.col, w.row, w.width, w.height))
            if tuple(zlib.crc32(band.data) for band in bands) != strip.crc[name]:
                return False
    return True
