"""The engine: rows of chips through the network, stitched and decided, strip by strip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import (
    ProbabilitiesError,
)
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.prediction.background import Background
from geoseg.prediction.chip_crf import ChipCRF
from geoseg.prediction.chips import ChipRow, chip_rows, prefetch
from geoseg.prediction.decide import decide
from geoseg.prediction.journal import StripStore
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.rasters import (
    pixels_done,
)
from geoseg.prediction.regrid import regrid
from geoseg.prediction.report import (
    Meter,
    RunLog,
)
from geoseg.prediction.stitch import stitch
from geoseg.rasters.writing import (
    NODATA,
    RasterSpec,
    encode_probability,
)
from geoseg.runtimes import Runtime, checked

__all__ = ["predict_strips"]


#: Pixels of a resampled strip that are classified at a time: what is made of them stays in the
#: cache. Of other strips pieces are.
DECIDED_AT_ONCE = 1 << 17


def predict_strips(
    plan: Plan,
    runtime: Runtime,
    lanes: Sequence[OutputLane],
    store: StripStore,
    background: Background,
    log: RunLog,
) -> None:
    """Run the network over the scene, lane by lane, and keep each finished strip.

    Strips are written by a thread while the next ones are computed. Where something beside fails,
    so does the run, at once.
    """
    meter = Meter(plan, lanes, pixels_done(store), log)
    with ThreadPoolExecutor(1, "geoseg-write") as writing:
        waiting: deque[Future[None]] = deque()
        for number, lane in enumerate(lanes):
            first = store.finished(number)
            for strip in _strips(plan, lane, first, runtime, store.specs, meter, log):
                background.check()
                task = partial(
                    log.clocked("write", store.write), number, strip.window, strip.arrays
                )
                chips = strip.run, strip.skipped
                waiting.append(writing.submit(task, [int(n) for n in strip.counts], chips))
                meter.tell(strip.window)
                # One is written while the next one is made.
                with log.clock("wait for writing"):
                    while len(waiting) > 1:
                        waiting.popleft().result()
        with log.clock("wait for writing"):
            for future in waiting:
                future.result()


class _Strip:
    """The outputs' rows of a strip, which become known piece by piece.

    Attributes:
        window: of the output's grid; None where it holds no row of it.
        arrays: raster -> its rows, (height, width) or (bands, height, width) of its spec's dtype;
            nodata where no piece was put.
        counts: pixels of each class, int64 (K,).
        run: chips of its row of chips that went through the network.
        skipped: those without a measured pixel.
    """

    def __init__(
        self, plan: Plan, window: Window | None, specs: Mapping[str, RasterSpec], runtime: Runtime
    ) -> None:
        """Nothing is known yet.

        Args:
            plan: of the run.
            window: see the class.
            specs: of the rasters that are kept.
            runtime: of the probabilities.
        """
        self.window, self.run, self.skipped = window, 0, 0
        self.arrays: dict[str, NDArray[Any]] = {}
        if window is not None:
            for name, spec in specs.items():
                bands = () if name != "probs" else (len(spec.descriptions),)
                shape = (*bands, window.height, window.width)
                self.arrays[name] = np.full(shape, spec.nodata, spec.dtype)
        self._legend = np.array([c.id for c in plan.card.classes], dtype=np.uint8)
        self.counts = np.zeros(len(self._legend), dtype=np.int64)
        self._dtype, self._runtime = plan.options.probs_dtype, runtime

    def put(self, window: Window, probs: Any, valid: NDArray[np.bool_]) -> None:
        """Classes and stored probabilities of a piece.

        Args:
            window: of the output's grid, within the strip.
            probs: (K, height, width) on the runtime's device, and the members' agreement after it
                where that is kept.
            valid: (height, width).

        Raises:
            ProbabilitiesError: one is NaN or infinite.
        """
        assert self.window is not None, "a piece lies in a strip"
        classes = probs[: len(self._legend)]
        decided = decide(classes, valid, self._legend, NODATA)
        if not decided.finite:
            raise ProbabilitiesError(
                f"the model gave NaN or infinite probabilities in rows {window.row} to "
                f"{window.bottom - 1}; its weights or the scene's --scale are wrong"
            )
        self.counts += decided.counts
        top, left = window.row - self.window.row, window.col - self.window.col
        here = np.s_[..., top : top + window.height, left : left + window.width]
        self.arrays["raster"][here] = decided.ids
        if "confidence" in self.arrays:
            self.arrays["confidence"][here] = encode_probability(decided.best, valid, self._dtype)
        if "probs" in self.arrays:
            numbers = self._runtime.to_numpy(classes)
            self.arrays["probs"][here] = encode_probability(numbers, valid, self._dtype)
        if "agreement" in self.arrays:
            share = self._runtime.to_numpy(probs[-1])
            self.arrays["agreement"][here] = encode_probability(share, valid, self._dtype)


def _strips(
    plan: Plan,
    lane: OutputLane,
    first: int,
    runtime: Runtime,
    specs: Mapping[str, RasterSpec],
    meter: Meter,
    log: RunLog,
) -> Iterator[_Strip]:
    """A lane's strips from number ``first`` on."""
    chips, model = plan.chips, lane.model
    starts = chips.row_starts
    if first == len(starts):
        return
    # Resampling needs the last rows of the strip above.
    needed = max(first - 1, 0) if plan.resampled else first
    # Chips from here on reach into it.
    begin = next(i for i, row in enumerate(starts) if row + chips.chip_height > starts[needed])
    state = _LaneState(meter, starts[first])
    with ExitStack() as stack:
        reader = stack.enter_context(plan.reader(plan.model_grid))
        rows = prefetch(log.timed("read", chip_rows(reader, chips, model, begin, reader.uniform)))
        rows = stack.enter_context(closing(rows))
        pieces = stitch(
            _forward(plan, runtime, rows, state, log),
            chips,
            classes=runtime.classes,
            zeros=runtime.zeros,
            asarray=runtime.asarray,
            taper=plan.options.taper,
            margin=plan.margin,
            lane=model,
            first=begin,
        )
        # What comes of rows of chips that only reach into the first strip is no strip of its own.
        wanted = (
            (window, probs)
            for window, probs in log.timed("stitch", pieces)
            if window.row >= starts[needed]
        )
        if not plan.resampled:
            strip: _Strip | None = None
            for window, probs in wanted:
                if strip is None:
                    whole = chips.strip(first, model)
                    strip, first = _Strip(plan, whole, specs, runtime), first + 1
                if probs is None:
                    strip.run, strip.skipped = state.take(whole)
                    yield strip
                    strip = None
                else:
                    with log.clock("decide"):
                        strip.put(window, probs, state.valid(whole, window))
            return
        own = stack.enter_context(plan.reader(plan.grid))
        source, target = ((g.height, g.width) for g in (plan.model_grid, plan.grid))
        gathered = _gather(wanted, chips, model, needed, runtime)
        regridded = regrid(gathered, source, target, plan.factor, (lane.left, lane.right))
        for number, (place, probs) in enumerate(log.timed("regrid", regridded), start=needed):
            chip_counts = state.take(chips.strip(number, model))
            if number < first:
                continue
            strip = _Strip(plan, place, specs, runtime)
            strip.run, strip.skipped = chip_counts
            if place is not None:
                with log.clock("read"):
                    valid = own.read(place)[1]
                with log.clock("decide"):
                    # Beside a chip that was skipped there may be nothing to interpolate from.
                    valid &= probs.sum(axis=0) > 0
                    thin = max(1, DECIDED_AT_ONCE // place.width)
                    for top in range(0, place.height, thin):
                        part = slice(top, top + thin)
                        height = len(valid[part])
                        window = Window(place.row + top, place.col, height, place.width)
                        strip.put(window, probs[:, part], valid[part])
            yield strip


def _gather(
    pieces: Iterable[tuple[Window, Any]], chips: ChipGrid, lane: Lane, first: int, runtime: Runtime
) -> Iterator[tuple[Window, NDArray[np.float32]]]:
    """Whole strips of pieces, 0 where there is none; the next strip overwrites the array."""
    width = lane.right - lane.left
    buffer = np.zeros((runtime.classes, chips.chip_height, width), np.float32)
    strip = chips.strip(first, lane)
    for window, probs in pieces:
        if probs is not None:
            top, left = window.row - strip.row, window.col - strip.col
            here = np.s_[:, top : top + window.height, left : left + window.width]
            buffer[here] = runtime.to_numpy(probs)
            continue
        yield strip, buffer[:, : strip.height]
        buffer[:] = 0.0
        first += 1
        if strip.bottom < chips.height:
            strip = chips.strip(first, lane)


class _LaneState:
    """What is known of rows of chips until their strips are finished."""

    def __init__(self, meter: Meter, begin: int) -> None:
        """Start.

        Args:
            meter: is told how far the chips are.
            begin: row of the first strip that was not finished before.
        """
        self._rows: dict[int, tuple[NDArray[np.bool_], int, int]] = {}
        self._meter, self._begin = meter, begin
        self._shares: dict[int, float] = {}

    def done(self, window: Window) -> None:
        """A chip is done."""
        self._meter.chip(self._shares[window.row])

    def add(self, row: ChipRow, run: int) -> None:
        """Keep a row's validity and counts."""
        pixels = row.strip.height * row.strip.width if row.strip.row >= self._begin else 0
        self._shares[row.strip.row] = pixels / max(run, 1)
        if not run:
            self._meter.chip(pixels)
        self._rows[row.strip.row] = row.strip_valid, run, len(row.windows) - run

    def valid(self, strip: Window, piece: Window) -> NDArray[np.bool_]:
        """Which of a piece's pixels were measured."""
        top, left = piece.row - strip.row, piece.col - strip.col
        return self._rows[strip.row][0][top : top + piece.height, left : left + piece.width]

    def take(self, strip: Window) -> tuple[int, int]:
        """Chips run and chips skipped; the strip is forgotten after."""
        return self._rows.pop(strip.row)[1:]


def _forward(
    plan: Plan, runtime: Runtime, rows: Iterable[ChipRow], state: _LaneState, log: RunLog
) -> Iterator[tuple[Window, Any]]:
    """Each chip's probabilities, in the grid's order; all-nodata chips are left out."""
    crf = ChipCRF(plan.card, plan.radiometry, plan.crf) if plan.crf else None

    def chips() -> Iterator[tuple[_Chip, NDArray[Any]]]:
        for row in log.timed("wait for reading", rows):
            run = len(row.windows) * row.alike if row.alike is not None else None
            if run is None:
                run = sum(row.is_measured(window) for window in row.windows)
            state.add(row, run)
            for window in row.windows if run else ():
                with log.clock("chips"):
                    pixels = row.chip(window)
                if pixels is None:
                    continue
                if crf is None:
                    yield _Chip(window), pixels
                else:
                    yield _Chip(window, pixels, row.measured(window)), pixels

    answers = checked.run(runtime, chips(), plan.options.batch_size, classes=plan.channels)
    for chip, probs in log.timed("forward", answers):
        if crf is not None:
            assert chip.pixels is not None and chip.measured is not None
            with log.clock("crf"):
                legend = len(plan.card.classes)
                arguments = chip.pixels[None], chip.measured[None], [chip.window]
                smooth = crf(probs[None, :legend], *arguments)[0]
                # What the members agreed on is left as it is.
                probs = smooth if len(probs) == legend else np.concatenate([smooth, probs[-1:]])
        state.done(chip.window)
        yield chip.window, probs


@dataclass(frozen=True)
class _Chip:
    """What is still needed of a chip when its probabilities come back.

    Attributes:
        window: where it lies.
        pixels: raw numbers (C, H, W), where a CRF follows.
        measured: (H, W), likewise.
    """

    window: Window
    pixels: NDArray[Any] | None = None
    measured: NDArray[np.bool_] | None = None
