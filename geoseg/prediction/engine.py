"""The engine: reader -> compute -> sink, lane by lane and strip by strip.

A thread reads one row of chips ahead, the caller's thread computes, and one thread, the sink,
takes finished strips. What travels is, in this order::

    ChipRow -> (StripInput, its chips' probabilities) -> Piece ... StripEnd -> Strip

Where the runtime computes on a device of its own, a row of chips goes there once, as raw numbers,
and one finished strip comes back (:mod:`geoseg.prediction.on_device`); the steps are the same.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.prefetch import prefetch
from geoseg.geo.window import Window
from geoseg.prediction.chip_crf import ChipCRF
from geoseg.prediction.chips import ChipRow, StripInput, chip_rows
from geoseg.prediction.journal import StripStore
from geoseg.prediction.meter import Meter
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.rasters import pixels_done
from geoseg.prediction.regrid import regrid
from geoseg.prediction.run_log import RunLog
from geoseg.prediction.sink import Sink
from geoseg.prediction.stitch import Piece, StripEnd, stitch
from geoseg.prediction.strip import Strip
from geoseg.rasters.writing import RasterSpec
from geoseg.runtimes import Runtime, checked, on_device

if TYPE_CHECKING:
    from geoseg.prediction.on_device import DeviceRow

__all__ = ["predict_strips"]

#: Pixels of a resampled strip that are classified at a time: what is made of them stays in the
#: cache. Of other strips pieces are.
DECIDED_AT_ONCE = 1 << 17

#: A chip's probabilities, and where it lies.
Answer = tuple[Window, Any]


def predict_strips(
    plan: Plan,
    runtime: Runtime,
    lanes: Sequence[OutputLane],
    store: StripStore,
    check: Callable[[], None],
    log: RunLog,
    cancelled: threading.Event,
    last: int | None = None,
) -> None:
    """Run the network over the scene, lane by lane, and keep each finished strip.

    Args:
        plan: of the run.
        runtime: the network.
        lanes: all of them.
        store: of the strips; begins with those that are finished.
        check: raises what something else has failed by: so does the run, at once.
        log: that clocks and reports.
        cancelled: set when the run ends before its time.
        last: number of the first strip that is not wanted any more; None for all.
    """
    last = len(plan.chips.row_starts) if last is None else last
    meter = Meter(plan, lanes, pixels_done(store), log)
    with Sink(store, log) as sink:
        for number, lane in enumerate(lanes):
            for part in store.missing(number, last):
                run = _Lane(plan, lane, part, runtime, store, meter, log)
                for strip in run.strips(cancelled):
                    check()
                    sink.put(number, strip)
                    meter.strip(strip.window)


class _Lane:
    """Strips of a lane that lie one below the other."""

    def __init__(
        self,
        plan: Plan,
        lane: OutputLane,
        numbers: tuple[int, int],
        runtime: Runtime,
        store: StripStore,
        meter: Meter,
        log: RunLog,
    ) -> None:
        """Take note of everything.

        Args:
            plan: of the run.
            lane: of the output.
            numbers: of the first strip, and of the first one after.
            runtime: the network.
            store: whose rasters are made.
            meter: notes how far the chips are.
            log: that clocks.
        """
        self._plan, self._lane, self._runtime = plan, lane, runtime
        self._first, self._last = numbers
        self._meter, self._log = meter, log
        self._needed = plan.strip_needed(self._first)
        self._specs = store.specs
        self._new = _strip_maker(plan, store.specs, runtime)

    def strips(self, cancelled: threading.Event) -> Iterator[Strip]:
        """Compute the strips, from the top."""
        plan, log, chips, lane = self._plan, self._log, self._plan.chips, self._lane.model
        starts = chips.row_starts
        # Chips from here on reach into the first strip that is needed.
        end = starts[self._needed]
        begin = next(i for i, row in enumerate(starts) if row + chips.chip_height > end)
        read = log.timed("read", self._read(begin))
        with closing(prefetch(self._sent(read), cancelled=cancelled)) as rows:
            stitched = stitch(
                self._forward(log.timed("wait for reading", rows)),
                chips,
                classes=self._runtime.classes,
                zeros=self._runtime.zeros,
                asarray=self._runtime.asarray,
                taper=plan.options.taper,
                lane=lane,
                first=begin,
                last=self._last,
            )
            # What comes of rows of chips that only reach into the first strip is no strip itself.
            parts = (p for p in log.timed("stitch", stitched) if p.row.number >= self._needed)
            yield from (self._resampled if plan.resampled else self._direct)(parts)

    def _read(self, begin: int) -> Iterator[ChipRow]:
        """Read rows of chips from a number on; the thread that reads opens and closes the scene."""
        plan = self._plan
        with plan.ground_reader() as reader:
            rows = chip_rows(
                reader,
                plan.chips,
                self._lane.model,
                begin,
                reader.uniform,
                reader.left_out,
                plan.wanted,
            )
            yield from islice(rows, self._last - begin)

    def _sent(
        self, rows: Generator[ChipRow, None, None]
    ) -> Generator[ChipRow | DeviceRow, None, None]:
        """Rows of chips where they are cut: in memory, or on the runtime's device."""
        device = on_device(self._runtime)
        with closing(rows):
            if device is None:
                yield from rows
                return
            from geoseg.prediction.on_device import DeviceRow

            for row in rows:
                yield DeviceRow(row, device)

    def _forward(
        self, rows: Iterable[ChipRow | DeviceRow]
    ) -> Iterator[tuple[StripInput, Iterable[Answer]]]:
        """Each row of chips with its chips' probabilities; all-nodata chips are left out."""
        begun: deque[StripInput] = deque()  # rows whose chips the runtime has taken
        with closing(self._answers(rows, begun)) as answers:
            while True:
                ahead = [] if begun else list(islice(answers, 1))
                while begun:
                    row = begun.popleft()
                    if not row.run:
                        yield row, ()
                        continue
                    # Of the last row that was begun only some chips may have been taken yet.
                    yield row, chain(ahead, islice(answers, row.run - len(ahead)))
                    break
                else:
                    return

    def _answers(
        self, rows: Iterable[ChipRow | DeviceRow], begun: deque[StripInput]
    ) -> Generator[Answer, None, None]:
        """Each chip's probabilities, in the grid's order; rows are added to those begun."""
        plan, log = self._plan, self._log
        crf = ChipCRF(plan.card, plan.radiometry, plan.crf) if plan.crf else None

        def chips() -> Iterator[tuple[_Chip, Any]]:
            for row in rows:
                known = row.strip_input
                begun.append(known)
                share = self._share(known)
                if not known.run:
                    self._meter.chip(share)
                for window in row.to_run:
                    with log.clock("chips"):
                        pixels = row.chip(window)
                    if crf is None:
                        yield _Chip(window, share), pixels
                    else:
                        yield _Chip(window, share, pixels, row.measured(window)), pixels

        answers = checked.run(
            self._runtime, chips(), plan.options.batch_size, classes=plan.channels
        )
        for chip, probs in log.timed("forward", answers):
            if crf is not None:
                with log.clock("crf"):
                    place = plan.chips.place(chip.window)
                    probs = _smoothed(crf, chip, place, probs, len(plan.card.classes))
            self._meter.chip(chip.share)
            yield chip.window, probs

    def _share(self, row: StripInput) -> float:
        """Pixels of the model's grid that each chip of a row stands for, when it is done."""
        if row.number < self._first or row.window is None:
            return 0.0  # it only reaches into strips below
        return row.window.height * row.window.width / max(row.run, 1)

    def _direct(self, parts: Iterable[Piece[StripInput] | StripEnd[StripInput]]) -> Iterator[Strip]:
        """Strips of the model's own grid, which is the output's."""
        strip: Strip | None = None
        for part in parts:
            row = part.row
            if strip is None:
                strip = self._new(row.window)
            if isinstance(part, StripEnd):
                strip.close(row.run, row.skipped, row.clouded)
                yield strip
                strip = None
            else:
                with self._log.clock("decide"):
                    strip.put(part.window, part.probs, row.valid_in(part.window))

    def _resampled(
        self, parts: Iterable[Piece[StripInput] | StripEnd[StripInput]]
    ) -> Iterator[Strip]:
        """Strips of the output's grid, which is finer or coarser than the model's."""
        plan, log = self._plan, self._log
        assert plan.taps is not None, "of a run that resamples"
        ended: deque[StripInput] = deque()
        whole = _gather(parts, plan.chips.chip_height, self._runtime, ended)
        columns = self._lane.left, self._lane.right
        placed = regrid(whole, plan.taps, (plan.chips.row, plan.chips.col), columns)
        with plan.reader(plan.grid) as reader:
            for number, (place, probs) in enumerate(log.timed("regrid", placed), self._needed):
                row = ended.popleft()
                if number < self._first:
                    continue
                strip, clouded = Strip(plan, place, self._specs, self._runtime), 0
                if place is not None:
                    with log.clock("read"):
                        valid = reader.read(place)[1]
                        # Of the output's pixels, not of those that the network sees.
                        left_out = reader.left_out()
                        clouded = 0 if left_out is None else int(left_out.sum())
                    with log.clock("decide"):
                        _put_resampled(strip, place, probs, valid)
                strip.close(row.run, row.skipped, clouded)
                yield strip


def _strip_maker(
    plan: Plan, specs: Mapping[str, RasterSpec], runtime: Runtime
) -> Callable[[Window | None], Strip]:
    """Choose where strips are made: in memory, or on the runtime's device.

    Args:
        plan: of the run.
        specs: of the rasters that are kept.
        runtime: that gives the probabilities.

    Returns:
        A function that begins the strip of a window of the output's grid, or one without rows.
    """
    device = on_device(runtime)
    if device is None:
        return partial(Strip, plan, specs=specs, runtime=runtime)
    from geoseg.prediction.on_device import DeviceStrips

    return DeviceStrips(plan, specs, device).begin


@dataclass(frozen=True)
class _Chip:
    """What is needed of a chip when its probabilities come back.

    Attributes:
        window: where it lies.
        share: pixels that it stands for in the run's progress.
        pixels: raw numbers (C, H, W), where a CRF follows.
        measured: which pixels were measured, (H, W), where a CRF follows.
    """

    window: Window
    share: float
    pixels: Any = None
    measured: Any = None


def _smoothed(crf: ChipCRF, chip: _Chip, place: tuple[int, int], probs: Any, classes: int) -> Any:
    """A chip's probabilities (K, H, W) after the CRF; the members' agreement is left as it is."""
    smooth = crf(probs[None, :classes], chip.pixels[None], chip.measured[None], [place])[0]
    if len(probs) == classes:
        return smooth
    return np.concatenate([smooth, probs[-1:]])


def _gather(
    parts: Iterable[Piece[StripInput] | StripEnd[StripInput]],
    height: int,
    runtime: Runtime,
    ended: deque[StripInput],
) -> Iterator[tuple[Window | None, NDArray[np.float32]]]:
    """Put pieces together to whole strips.

    Args:
        parts: of :func:`geoseg.prediction.stitch.stitch`.
        height: of the highest strip, px.
        runtime: on whose device the pieces are.
        ended: to which each strip's row of chips is added.

    Yields:
        (strip's window, probabilities (K, height, width)), 0 where there is no piece; the next
        strip overwrites the array. None for a strip without rows.
    """
    buffer: Any = None
    for part in parts:
        strip = part.row.window
        if strip is None:
            ended.append(part.row)
            yield None, np.zeros((runtime.classes, 0, 0), np.float32)
            continue
        if buffer is None:
            buffer = runtime.zeros((runtime.classes, height, strip.width))
        if isinstance(part, StripEnd):
            ended.append(part.row)
            yield strip, runtime.to_numpy(buffer)[:, : strip.height]
            buffer[:] = 0.0
        else:
            w = part.window
            top, left = w.row - strip.row, w.col - strip.col
            buffer[:, top : top + w.height, left : left + w.width] = part.probs


def _put_resampled(
    strip: Strip, place: Window, probs: NDArray[np.float32], valid: NDArray[np.bool_]
) -> None:
    """Fill a whole strip, some rows at a time."""
    # Beside a chip that was skipped there may be nothing to interpolate from. What is no number
    # stays valid, and is refused.
    valid &= ~(probs.sum(axis=0) <= 0)
    thin = max(1, DECIDED_AT_ONCE // place.width)
    for top in range(0, place.height, thin):
        rows = slice(top, top + thin)
        height = len(valid[rows])
        window = Window(place.row + top, place.col, height, place.width)
        strip.put(window, probs[:, rows], valid[rows])
