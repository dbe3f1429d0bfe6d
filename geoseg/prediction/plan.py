"""The plan of a run: every decision, made and checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.cards.card import ModelCard
from geoseg.cards.files import ModelFiles
from geoseg.cards.legend import ClassInfo, not_sure_class
from geoseg.core.importing import require
from geoseg.errors import UsageError
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.model_grid import ModelGrid, Taps, on_model_grid
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.geo.window import Window
from geoseg.prediction.area import crop_window, in_polygons, read_polygons
from geoseg.prediction.block_memory import cache_bytes
from geoseg.prediction.chip_crf import CRFOptions, check_chip, parse_options
from geoseg.prediction.members import find_members
from geoseg.prediction.oddities import oddities
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.overlap import border_of, overlap_of
from geoseg.prediction.paths import Outputs, check_vector_format, outputs_of, protect_inputs
from geoseg.prediction.scene_clouds import open_with_clouds, with_seen_clouds
from geoseg.prediction.stitch import held_bytes
from geoseg.rasters.writing import POLYGON_STRIP, try_creation_options
from geoseg.scene.by_numbers import Decided, Taken, decide_by_numbers
from geoseg.scene.opening import Source
from geoseg.scene.radiometry import Radiometry, find_radiometry
from geoseg.scene.reader import SceneReader
from geoseg.scene.resampling import shared_ground
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand, finest_grid
from geoseg.scene.survey import Survey
from geoseg.scene.undeclared import Fill

__all__ = ["HELD_STRIPS", "OutputLane", "Plan", "make_plan"]

#: The newest finished strips that stay in memory for who follows them, where there is one lane.
HELD_STRIPS = 2


@dataclass(frozen=True)
class OutputLane:
    """A lane, on the output's grid and on the model's.

    Attributes:
        left: first column of the output.
        right: the first one after.
        model: the columns of the model's grid that these are made from.
    """

    left: int
    right: int
    model: Lane


@dataclass(frozen=True)
class Plan:
    """Everything that a run needs to know.

    Attributes:
        options: the user's.
        files: the model; of several the first, which says how chips lie.
        members: all models, the first one included.
        chosen: why this one.
        scene: what was opened.
        bands: of the scene, in the model's order.
        radiometry: from numbers to the card's quantity.
        grid: the output's pixels: the scene's own grid, cropped to bbox and AOI.
        model_grid: the pixels that are classified; ``grid`` unless the gsd differs much.
        ground: the pixels that the network sees: ``model_grid``, and what lies around it.
        taps: where the output's pixels lie among those of ``model_grid``, down and across; None
            where they are the same.
        chips: where the chips lie on ``model_grid``.
        aoi: geometries in the grid's CRS.
        survey: what was seen of the whole scene.
        fill: numbers that are nodata although no tag says so; the bands know them.
        outputs: final paths.
        warnings: what the user should know.
    """

    options: PredictOptions
    files: ModelFiles
    members: tuple[ModelFiles, ...]
    chosen: str
    scene: Scene
    bands: tuple[SceneBand, ...]
    radiometry: Radiometry
    grid: PixelGrid
    model_grid: PixelGrid
    ground: PixelGrid
    taps: tuple[Taps, Taps] | None
    chips: ChipGrid
    aoi: tuple[Any, ...]
    survey: Survey
    fill: Fill
    outputs: Outputs
    warnings: tuple[str, ...]

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.files.card

    @property
    def not_sure(self) -> ClassInfo | None:
        """The class of pixels whose confidence is too low; None where that is not asked for."""
        return not_sure_class(self.card.classes) if self.options.min_confidence > 0 else None

    @property
    def legend(self) -> tuple[ClassInfo, ...]:
        """The classes of the map: the card's, and what is not sure."""
        return self.card.classes if self.not_sure is None else (*self.card.classes, self.not_sure)

    @property
    def crf(self) -> CRFOptions | None:
        """How the CRF works, or None without one."""
        return parse_options(self.options.crf_options) if self.options.crf else None

    @property
    def resampled(self) -> bool:
        """Whether the network sees another grid than the output's."""
        return self.taps is not None

    @property
    def channels(self) -> int:
        """Numbers of each pixel that a runtime gives: one a class, and the members' agreement."""
        return len(self.card.classes) + (self.outputs.agreement is not None)

    @property
    def factor(self) -> tuple[float, float]:
        """(down, across): the output's pixels per pixel of the model's grid."""
        return (1.0, 1.0) if self.taps is None else (self.taps[0].factor, self.taps[1].factor)

    def reader(self, grid: PixelGrid) -> SceneReader:
        """A reader of the chosen bands on a grid, for which only what lies in the AOI is there."""
        return self._reader(grid, self.aoi)

    def ground_reader(self) -> SceneReader:
        """A reader of all that the network sees, for :func:`geoseg.prediction.chips.chip_rows`."""
        return self._reader(self.ground, ())

    def _reader(self, grid: PixelGrid, aoi: Sequence[Any]) -> SceneReader:
        return SceneReader(
            self.bands,
            grid,
            src_nodata=self.options.src_nodata,
            aoi=aoi,
            clouds=self.scene.clouds,
        )

    @property
    def wanted(self) -> Callable[[Window], NDArray[np.bool_]] | None:
        """Gives which pixels of a window of ``ground`` are to be classified; None for all."""
        return self._in_aoi if self.aoi else None

    def _in_aoi(self, window: Window) -> NDArray[np.bool_]:
        """Where a pixel's centre lies in the AOI, (H, W), or that of one which is made from it."""
        around = 0 if self.taps is None else 1 + math.ceil(1 / min(self.factor))
        return in_polygons(self.aoi, self.ground, window, around=around)

    def lane_bytes(self, lane: OutputLane) -> int:
        """Bytes that a lane's arrays hold at most: rows of chips, what is stitched, strips."""
        agreement = self.outputs.agreement is not None
        classes = len(self.card.classes) + agreement
        height = self.chips.chip_height
        kinds = {b.dtype for b in self.bands}
        item = np.dtype(kinds.pop()).itemsize if len(kinds) == 1 and not self.resampled else 4
        read = lane.model.starts[-1] + self.chips.chip_width - lane.model.starts[0]
        # One row of chips in use, one waiting, and one in the making with what it keeps.
        pixels = 4 * (len(self.bands) * item + 1) * height * read
        # A strip that is made, one that is written, and those that are held for who follows them:
        # classes and stored probabilities.
        width = lane.right - lane.left
        left = 1 if self.options.probs_dtype == "uint8" else 4
        stored = 1 + agreement + (classes if self.outputs.probs is not None else 0)
        rows = math.ceil(height * max(1.0, self.factor[0]))
        strips = (2 + HELD_STRIPS) * (1 + left * stored) * rows * width
        stitched = held_bytes(self.chips, lane.model, classes)
        if self.resampled:
            # A strip, the rows of it that are kept, and what is made of them.
            stitched += 2 * 4 * classes * height * (lane.model.right - lane.model.left)
            stitched += 3 * 4 * classes * rows * width
        return pixels + stitched + strips

    def lanes(self, limit: int) -> tuple[OutputLane, ...]:
        """As few lanes as a limit of memory allows.

        Args:
            limit: bytes for the arrays of a lane.

        Raises:
            UsageError: the narrowest lanes take more.
        """
        most = len(self.chips.col_starts)
        for count in range(1, most + 1):
            # Mostly the first lane already takes too much: no need to look at the others.
            if all(self.lane_bytes(lane) <= limit for lane in self._each_lane(count)):
                return self._lanes(count)
        need = max(self.lane_bytes(lane) for lane in self._lanes(most))
        raise UsageError(
            f"the memory that is left for arrays is {limit / 1e6:.0f} MB and the narrowest lanes "
            f"take {need / 1e6:.0f} MB; raise --mem-limit by {math.ceil((need - limit) / 1e6)} MB, "
            f"or make --size smaller"
        )

    def lanes_at(self, lefts: Sequence[int]) -> tuple[OutputLane, ...] | None:
        """The lanes that begin at these columns of the output, or None where none do."""
        if not lefts:
            return None
        # Few cuts fall together, so it takes hardly more lanes than there are beginnings.
        for count in range(len(lefts), len(self.chips.col_starts) + 1):
            found = [a for a, b in pairwise(self._edges(count)) if a < b]
            if found == list(lefts):
                return self._lanes(count)
            if len(found) > len(lefts) + 1:
                break
        return None

    def _edges(self, count: int) -> Iterator[int]:
        """First columns of the output's lanes, and the first one after all of them.

        Some may be equal: there is no lane between them.
        """
        grid, starts = self.chips, self.chips.col_starts
        count = min(count, len(starts))
        across = self.factor[1] if self.resampled else 1
        middle = grid.chip_width // 2
        yield 0
        for i in range(1, count):
            cut = min(max(starts[round(i * len(starts) / count)] + middle, 0), grid.width - 1)
            yield min(round(cut * across), self.grid.width)
        yield self.grid.width

    def _lanes(self, count: int) -> tuple[OutputLane, ...]:
        """The scene's columns in lanes of like width, parted in the middle of chips."""
        return tuple(self._each_lane(count))

    def _each_lane(self, count: int) -> Iterator[OutputLane]:
        """The same lanes, from the left, one after the other."""
        grid = self.chips
        for a, b in pairwise(self._edges(count)):
            if a < b:
                columns = a, b
                if self.taps is not None:
                    first, last = self.taps[1].needed(a, b)
                    columns = first - grid.col, last - grid.col
                yield OutputLane(a, b, Lane.of(grid, *columns))

    def strip_needed(self, number: int) -> int:
        """The strip from which on rows are needed to make those of a strip of the output.

        Args:
            number: of the strip.

        Returns:
            Its own number, or that of one above whose last rows it is interpolated from.
        """
        lane = Lane.whole(self.chips)
        above = number - 1 if self.resampled else number
        while above > 0 and self.chips.strip(above, lane) is None:
            above -= 1
        return max(above, 0)

    @property
    def polygon_bytes(self) -> int:
        """Bytes that are held to make polygons beside the network, without those that stay open."""
        if self.outputs.vector is None:
            return 0
        pixels = min(POLYGON_STRIP, self.grid.height * self.grid.width)
        floats = 1 + (len(self.card.classes) if self.outputs.probs is not None else 0)
        # Four strips read, two being labelled and traced, and their tables.
        return pixels * (4 * (1 + 4 * floats) + 2 * 12 + 48)

    @property
    def cache_bytes(self) -> int:
        """GDAL's block cache: a few rows of blocks of every band, so that none is decoded twice."""
        return cache_bytes(self.read_bands, self.options.mem_limit)

    @property
    def read_bands(self) -> tuple[SceneBand, ...]:
        """All that is read of the scene: the bands, and the cloud layer."""
        return *self.bands, *self.scene.cloud_bands


def make_plan(
    scene: Source, options: PredictOptions, *, files: ModelFiles | None = None, look: bool = True
) -> Plan:
    """Open the scene and the model and decide everything.

    Args:
        scene: see :func:`geoseg.scene.opening.open_scene`.
        options: the user's.
        files: the model that the options name, where it was read already: for many scenes.
        look: at the scene's numbers; False where only places and sizes are asked for.

    Raises:
        GeosegError: something doesn't fit; nothing was written.
    """
    opened = open_with_clouds(scene, options)
    outputs = outputs_of(opened.name, options)
    members, chosen = ((files,), "asked for") if files else find_members(opened, options)
    files = members[0]
    inputs: list[str | Path] = [*opened.all_files, *(m.path for m in members)]
    protect_inputs(outputs, [*inputs, *([options.aoi] if options.aoi else [])])
    card = files.card
    bands = opened.choose(card.bands, options.bands)
    radiometry = find_radiometry(
        opened, bands, card.quantity, scale=options.scale, offset=options.offset
    )
    full = finest_grid(bands)
    aoi = (
        read_polygons(options.aoi, full.crs, options.rules, "--aoi")
        if options.aoi is not None
        else ()
    )
    part = crop_window(full, options, aoi)
    grid = full.crop(part)
    check_vector_format(outputs, options, grid)
    seen, notes = on_model_grid(full, card.gsd, card.gsd_range, card.name)
    try_creation_options(options.creation_options, options.raster_dtypes)
    size = options.size or card.size
    multiple = math.lcm(*(m.card.multiple for m in members))
    taps = seen.taps(full, part)
    needed = part if taps is None else _needed(seen, *taps)
    ground = needed.around(shared_ground(bands, seen.grid))
    overlap, margin = overlap_of(options, members, size, multiple, seen.grid)
    chips = ChipGrid(
        needed.height,
        needed.width,
        size,
        overlap,
        multiple,
        margin=0 if options.taper == "none" else margin,
        border=border_of(options, members),
        row=seen.place[0] + needed.row,
        col=seen.place[1] + needed.col,
        ground=ground.shifted(-needed.row, -needed.col),
    )
    if options.min_confidence > 0:
        not_sure_class(card.classes)  # is refused before the scene is looked at
    if options.crf:
        require("torch", "--crf")
        crf = parse_options(options.crf_options)
        check_chip(crf, chips.chip_height, chips.chip_width)
    shared = full.crop(shared_ground(bands, full))
    decided = Decided(bands, radiometry, Survey(shared), Fill())
    if look:
        taken, name = Taken.of(card), opened.name
        decided = decide_by_numbers(
            name, bands, shared, radiometry, taken, options.asked, opened.clouds
        )
        opened = with_seen_clouds(opened, options, [m.card for m in members], decided)
    odd = oddities(opened, bands, radiometry, card, chips, options)
    return Plan(
        options=replace(
            options,
            size=chips.size,
            overlap=overlap,
            precision="fp32" if options.exact else options.precision,
        ),
        files=files,
        members=members,
        chosen=chosen,
        scene=opened,
        bands=decided.bands,
        radiometry=decided.radiometry,
        grid=grid,
        model_grid=seen.grid.crop(needed),
        ground=seen.grid.crop(ground),
        taps=taps,
        chips=chips,
        aoi=aoi,
        survey=decided.survey,
        fill=decided.fill,
        outputs=outputs,
        warnings=(*notes, *odd, *decided.notes),
    )


def _needed(seen: ModelGrid, down: Taps, across: Taps) -> Window:
    """The window of the model's grid that the output is made from."""
    top, bottom = (edge - seen.place[0] for edge in down.needed(0, down.length))
    left, right = (edge - seen.place[1] for edge in across.needed(0, across.length))
    return Window(top, left, bottom - top, right - left)
