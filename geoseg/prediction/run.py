"""The straight line of ``geoseg predict``: scene -> chips -> runtime -> stitch -> writers."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.core.gdal import block_cache
from geoseg.core.importing import IMPORTING
from geoseg.core.jsontext import json_text
from geoseg.core.machine import machine_mark
from geoseg.core.staging import Staging, explain_write_error
from geoseg.errors import (
    OutputError,
    ProbabilitiesError,
    RadiometryError,
    SceneError,
    TooManyPolygonsError,
    UsageError,
)
from geoseg.events import PROTOCOL
from geoseg.geo.chip_grid import ChipGrid, Lane
from geoseg.geo.window import Window
from geoseg.prediction.budget import Budget, memory_budget
from geoseg.prediction.chip_crf import ChipCRF
from geoseg.prediction.chips import ChipRow, chip_rows, prefetch
from geoseg.prediction.decide import decide
from geoseg.prediction.journal import StripStore
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.paths import old_companions
from geoseg.prediction.plan import OutputLane, Plan, make_plan
from geoseg.prediction.preflight import preflight, sample_chips
from geoseg.prediction.regrid import regrid
from geoseg.prediction.report import (
    ClassCounts,
    Meter,
    Progress,
    RunLog,
    plan_report,
    raster_tags,
    run_record,
    run_report,
    runtime_report,
)
from geoseg.prediction.stitch import stitch
from geoseg.rasters.writing import (
    NODATA,
    PROBABILITY_STEPS,
    RasterSpec,
    check_creation_options,
    decode_probability,
    encode_probability,
    write_cog,
    write_overviews,
    write_qml,
)
from geoseg.runtimes import PRECISIONS, RUNTIMES, Runtime, checked, load_runtime
from geoseg.runtimes.choose import LEAST_CHIPS, sample_size
from geoseg.runtimes.ensemble import Ensemble
from geoseg.scene.reader import pixel_dtype

__all__ = ["Prediction", "load_members", "predict"]

#: Chips on which 8 bits are calibrated and judged.
INT8_CHIPS = 16
#: Chips that a choice is made on may take so much memory, or 4 of them what they need.
SAMPLE_BYTES = 64 << 20
#: Of polygons: they keep up with any network, and more would hold more strips in memory.
POLYGON_THREADS = 2
#: Errors that end the same command each time, so that what it has finished is of no use.
STOPS_EACH_TIME = (ProbabilitiesError, RadiometryError, UsageError)
#: Seconds that threads have to end after Ctrl-C, before they are left behind.
PATIENCE = 1.0
#: Pixels of a resampled strip that are classified at a time: what is made of them stays in the
#: cache. Of other strips pieces are.
DECIDED_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Prediction:
    """What a run made.

    Attributes:
        raster: the class raster.
        vector: the polygons; None where they were not asked for, or would have been too many.
        report: the parsed JSON report.
    """

    raster: Path
    vector: Path | None
    report: dict[str, Any]


def predict(
    scene: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    progress: Progress | None = None,
    runtime: Runtime | str = "auto",
    **options: Any,
) -> Prediction:
    """Turn a scene into a class raster and polygons.

    A run that was stopped, by whatever, goes on where it was when the same command is given again,
    and ends with the same bytes.

    Args:
        scene: a raster (path or URL), a list of one-band files, or a folder of them.
        output: the class raster; ``<scene>_landcover.tif`` in the current folder by default.
        progress: called with those of :mod:`geoseg.events`.
        runtime: a key of :data:`geoseg.runtimes.RUNTIMES`, ``auto``, or one of the caller's own.
        **options: the fields of :class:`geoseg.prediction.options.PredictOptions`.

    Returns:
        Paths and report.

    Raises:
        GeosegError: with a line that says what was found, the rule, and what to do. No output has
            appeared then.

    Example:
        >>> import geoseg
        >>> result = geoseg.predict("scene.tif", "map.tif", model="landcover-ms")  # doctest: +SKIP
        >>> result.report["classes"][0]  # doctest: +SKIP
    """
    log = RunLog(progress)
    with log.clock("plan"):
        name = runtime if isinstance(runtime, str) else "auto"
        plan = make_plan(scene, PredictOptions(output=output, runtime=name, **options))
    outputs = plan.outputs
    staging = Staging(outputs.all(), overwrite=plan.options.overwrite)
    earlier = (None if plan.options.restart else staging.earlier()) or {}
    with log.clock("load"):
        if isinstance(runtime, str):
            runtime = load_members(plan, log, earlier)
        budget = memory_budget(plan, runtime)
    lanes = _lanes(plan, budget, earlier)
    staging.resumable(run_record(plan, runtime, lanes), restart=plan.options.restart)
    with (
        staging,
        block_cache(plan.cache_bytes),
        staging.speaking_of_finals(),
    ):
        store = StripStore(staging.scratch("strips"), _specs(plan), len(lanes))
        _check_disk(plan, store, staging)
        memory = {"limit_bytes": budget.limit, "lanes": len(lanes)}
        memory["arrays_bytes"] = max(plan.lane_bytes(lane) for lane in lanes)
        log.tell(
            "start",
            protocol=PROTOCOL,
            version=version("geoseg"),
            memory=memory,
            runtime=runtime_report(runtime),
            **plan_report(plan),
        )
        for message in (*plan.warnings, *old_companions(outputs)):
            log.warn(message)
        if len(store):
            log.tell("note", message=f"going on after {len(store)} finished strips")
        with (
            _kept_strips(staging, store, log),
            _beside(plan, runtime, lanes, store, staging, log) as beside,
        ):
            _predict_strips(plan, runtime, lanes, store, beside, log)
            counts = _count_classes(plan, store, log)
            with log.clock("wait for rasters"):
                log.wait(beside.start(_write_rasters, plan, store, staging, beside.overviews, log))
            log.wait(beside.readiness)
            with log.clock("wait for polygons"):
                if not log.wait(beside.polygons):
                    outputs = replace(outputs, vector=None)
                    plan = replace(plan, outputs=outputs)
            with _explained(outputs.qml):
                write_qml(staging.path(outputs.qml), plan.card.classes)
            if outputs.preview is not None:
                from geoseg.prediction.preview import write_preview

                with log.clock("preview"), _explained(outputs.preview):
                    write_preview(plan, staging.path(outputs.raster), staging.path(outputs.preview))
            text = json_text({**run_report(plan, runtime, counts, log), "memory": memory}, indent=2)
            with _explained(outputs.report):
                staging.path(outputs.report).write_text(text + "\n", encoding="utf-8")
            staging.publish(outputs.all())
    report: dict[str, Any] = json.loads(text)
    log.tell("result", **report["outputs"], report=str(outputs.report))
    return Prediction(outputs.raster, outputs.vector, report)


def _lanes(plan: Plan, budget: Budget, earlier: Mapping[str, Any]) -> tuple[OutputLane, ...]:
    """Those of the run that was stopped, where they fit: other memory may be free now."""
    before = plan.lanes_at(earlier.get("lanes", ()))
    if before and max(plan.lane_bytes(lane) for lane in before) <= budget.at_most:
        return before
    return plan.lanes(budget.arrays)


def load_members(plan: Plan, log: RunLog, earlier: Mapping[str, Any] | None = None) -> Runtime:
    """The runtime of a plan's model, or of all its models and turned chips.

    Args:
        plan: of the run.
        log: is told what the user should know.
        earlier: the record of a run that was stopped: what it chose is not chosen anew.

    Raises:
        GeosegError: see :func:`geoseg.runtimes.load_runtime`.
    """
    options = plan.options
    runtime, precision = _chosen_before(plan, earlier or {}) or (options.runtime, options.precision)
    count = _sample_size(plan, precision)
    sample = cache(lambda: sample_chips(plan, count))
    runtimes = [
        load_runtime(
            files,
            plan.radiometry,
            runtime=runtime,
            precision=precision,
            device=options.device,
            threads=options.threads,
            sample=sample,
            chips=len(plan.chips),
            tell=lambda message: log.tell("note", message=message),
        )
        for files in plan.members
    ]
    if (runtime, precision) != (options.runtime, options.precision):
        for made in runtimes:
            made.choice = f"as the run that was stopped; {made.choice}"
    if len(runtimes) == 1 and options.tta == "none":
        return runtimes[0]
    return Ensemble(runtimes, options.tta, agreement=plan.outputs.agreement is not None)


def _sample_size(plan: Plan, precision: str) -> int:
    """How many chips a choice is made on, or 8 bits are made with."""
    if precision == "int8":
        return INT8_CHIPS
    if precision != "auto":
        return 1
    chips, dtype = plan.chips, pixel_dtype(plan.bands, plan.model_grid)
    each = len(plan.bands) * chips.chip_height * chips.chip_width * np.dtype(dtype).itemsize
    return min(sample_size(len(chips)), max(LEAST_CHIPS, SAMPLE_BYTES // each))


def _chosen_before(plan: Plan, earlier: Mapping[str, Any]) -> tuple[str, str] | None:
    """The runtime and precision of a run that was stopped on this machine."""
    before, here = earlier.get("runtime"), machine_mark()
    if not isinstance(before, list) or len(before) != 3 or earlier.get("machine") != here:
        return None
    name, precision, _ = before
    # Several models may each have a choice of their own.
    if len(plan.members) > 1 or name not in RUNTIMES or precision not in PRECISIONS:
        return None
    options = plan.options
    asked = (options.runtime, name), (options.precision, precision)
    return (name, precision) if all(a in ("auto", b) for a, b in asked) else None


@contextmanager
def _kept_strips(staging: Staging, store: StripStore, log: RunLog) -> Iterator[None]:
    """Keep finished strips where the run was stopped, by whatever but what stops it each time."""
    try:
        yield
    except BaseException as error:
        # A driver that failed, a bug in the caller's progress function: half a day's work is kept.
        found = any(any(strip.counts) for strip in store.all())
        staging.keep = found and not isinstance(error, STOPS_EACH_TIME)
        if staging.keep:
            kept = f"{len(store)} finished strips are kept"
            if isinstance(error, KeyboardInterrupt):
                message = f"{kept}: the same command goes on after them"
                raise KeyboardInterrupt(message) from error
            # Who hears of it may be what failed.
            with suppress(Exception):
                log.tell(
                    "note",
                    message=f"{kept}: once the cause is gone, the same command goes on after them",
                )
        raise


def _predict_strips(
    plan: Plan,
    runtime: Runtime,
    lanes: Sequence[OutputLane],
    store: StripStore,
    beside: _Beside,
    log: RunLog,
) -> None:
    """Run the network over the scene, lane by lane, and keep each finished strip.

    Strips are written by a thread while the next ones are computed. Where something beside fails,
    so does the run, at once.
    """
    meter = Meter(plan, lanes, _pixels_done(store), log)
    with ThreadPoolExecutor(1, "geoseg-write") as writing:
        waiting: deque[Future[None]] = deque()
        for number, lane in enumerate(lanes):
            first = store.finished(number)
            for strip in _strips(plan, lane, first, runtime, store.specs, meter, log):
                beside.check()
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


def _pixels_done(store: StripStore) -> int:
    windows = (strip.window for strip in store.all())
    return sum(window.height * window.width for window in windows if window is not None)


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


def _count_classes(plan: Plan, store: StripStore, log: RunLog) -> ClassCounts:
    """Pixels, areas and chips of all strips.

    Raises:
        SceneError: no pixel was measured.
    """
    per_class = np.zeros(len(plan.card.classes), dtype=np.int64)
    area = np.zeros(len(per_class)) if plan.grid.gsd else None
    for strip in store.all():
        log.chips_run += strip.chips_run
        log.chips_skipped += strip.chips_skipped
        if strip.window is not None:
            counts = np.array(strip.counts)
            per_class += counts
            if area is not None:
                area += counts * _pixel_area(plan, strip.window)
    if per_class.sum() == 0:
        raise SceneError(
            f"{plan.scene.name}: no pixel was measured (all nodata, masked, or outside the "
            f"AOI); check --src-nodata, --bbox and --aoi"
        )
    return ClassCounts(per_class, area)


def _write_rasters(
    plan: Plan, store: StripStore, staging: Staging, overviews: Future[list[Path]], log: RunLog
) -> None:
    """Make the outputs' rasters from the finished strips."""
    store.check_all_there()
    outputs = plan.outputs
    finals = {
        "raster": outputs.raster,
        "probs": outputs.probs,
        "confidence": outputs.confidence,
        "agreement": outputs.agreement,
    }
    with log.clock("cog"), store.few_open():
        for name, final in finals.items():
            if final is not None:
                halved = overviews.result() if name == "raster" else ()
                write_cog(store.mosaic(name, halved), staging.path(final), store.specs[name])
                store.verify(name, staging.path(final))


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


@contextmanager
def _explained(final: Path) -> Iterator[None]:
    """A file that can't be written is told in words."""
    try:
        yield
    except OSError as error:
        raise explain_write_error(error, final) from error


def _specs(plan: Plan) -> dict[str, RasterSpec]:
    """What the rasters are; confidence is also needed for the polygons."""
    outputs, card = plan.outputs, plan.card
    names = tuple(c.name for c in card.classes)
    dtype = plan.options.probs_dtype
    quantized = dtype == "uint8"
    raster = RasterSpec(
        plan.grid,
        "uint8",
        NODATA,
        ("land cover",),
        classes=card.classes,
        tags=raster_tags(plan),
        resampling="MODE",
        creation_options=check_creation_options(plan.options.creation_options),
    )
    probability = replace(
        raster,
        dtype=dtype,
        nodata=NODATA if quantized else float("nan"),
        descriptions=("confidence",),
        scale=1 / PROBABILITY_STEPS if quantized else 1.0,
        classes=(),
        resampling="AVERAGE",
    )
    specs = {"raster": raster}
    if outputs.confidence is not None or outputs.vector is not None:
        specs["confidence"] = probability
    if outputs.probs is not None:
        specs["probs"] = replace(probability, descriptions=names)
    if outputs.agreement is not None:
        specs["agreement"] = replace(probability, descriptions=("agreement",))
    return specs


@dataclass(frozen=True)
class _Beside:
    """What is done beside the network's work, each by a thread.

    Attributes:
        start: begins a further thing, once all strips are finished.
        readiness: what its first chip needs, and what is odd about the scene.
        overviews: the class raster's, made of finished strips.
        polygons: likewise; whether there are any.
    """

    start: Callable[..., Future[None]]
    readiness: Future[None]
    overviews: Future[list[Path]]
    polygons: Future[bool]

    def check(self) -> None:
        """Raise what one of them has failed by."""
        for future in (self.readiness, self.overviews, self.polygons):
            if future.done():
                future.result()


@contextmanager
def _beside(
    plan: Plan,
    runtime: Runtime,
    lanes: Sequence[OutputLane],
    store: StripStore,
    staging: Staging,
    log: RunLog,
) -> Iterator[_Beside]:
    """Begin what is done beside; who leaves early sends home what waits for strips."""
    finished = len(store) == len(lanes) * len(plan.chips.row_starts)
    threads = ThreadPoolExecutor(4, "geoseg-beside")
    futures: list[Future[Any]] = []

    def start(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        futures.append(threads.submit(function, *arguments))
        return futures[-1]

    patient = True
    try:
        yield _Beside(
            start,
            start(_get_ready, plan, None if finished else runtime, log),
            start(_write_overviews, store, log),
            start(_write_polygons, plan, store, staging, log),
        )
    except KeyboardInterrupt:
        # Who interrupts does not wait for GDAL to finish a COG; nothing of it is needed.
        patient = False
        raise
    finally:
        store.stop()
        threads.shutdown(wait=patient, cancel_futures=True)
        wait(futures, PATIENCE)


def _get_ready(plan: Plan, runtime: Runtime | None, log: RunLog) -> None:
    """What needs no pixel, or few of them, and is done while the first ones are read."""
    if runtime is not None:
        chips, dtype = plan.chips, pixel_dtype(plan.bands, plan.model_grid)
        shape = len(plan.bands), chips.chip_height, chips.chip_width
        with log.clock("load"):
            runtime.prepare(np.empty(shape, dtype))
    for message in preflight(plan):
        log.warn(message)


def _write_overviews(store: StripStore, log: RunLog) -> list[Path]:
    """The class raster's overviews, as its rows are finished in all lanes."""
    grid = store.specs["raster"].grid

    def ids(top: int, bottom: int) -> NDArray[Any]:
        found: NDArray[Any] = _finished(store, "raster", top, bottom, log)[0]
        return found

    with log.clock("overviews"):
        return write_overviews(ids, (grid.height, grid.width), store.folder, NODATA)


def _finished(store: StripStore, name: str, top: int, bottom: int, log: RunLog) -> NDArray[Any]:
    """Rows of a raster, once they are finished."""
    with log.clock("wait for strips"):
        store.wait(bottom)
    return store.read(name, top, bottom)


def _write_polygons(plan: Plan, store: StripStore, staging: Staging, log: RunLog) -> bool:
    """Polygons of the class raster, as its rows are finished in all lanes.

    With --min-area the rows are looked at as they come, too, but which neighbour takes what is
    small is only known when all are there: the smallest region of the whole map goes first. Then
    they are read once more.

    Returns:
        Whether they were made. The class raster may have taken hours: it is not lost because it is
        too noisy for polygons.
    """
    final = plan.outputs.vector
    if final is None:
        return False
    # These libraries take half a second, which a runtime's first work leaves room for.
    with IMPORTING:
        from geoseg.core import jit  # noqa: F401 - numba imports scipy
    from geoseg.polygons.polygonize import MOST_POLYGONS, MapRows, write_rows
    from geoseg.rasters.class_raster import grid_as_written

    def ids(top: int, bottom: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        found = _finished(store, "raster", top, bottom, log)[0]
        return found, found != NODATA

    def shares(name: str) -> Callable[[int, int], NDArray[np.float32]]:
        return lambda top, bottom: decode_probability(_finished(store, name, top, bottom, log))

    def tell(done: int, total: int) -> None:
        # Before, how far the network is says more.
        if store.rows == total:
            log.tell("progress", stage="polygons", done=done, total=total)

    raster = plan.outputs.raster
    try:
        with log.clock("polygons"):
            write_rows(
                staging.path(final),
                MapRows(
                    str(raster),
                    grid_as_written(plan.grid, raster),
                    ids,
                    shares("confidence"),
                    shares("probs") if "probs" in store.specs else None,
                ),
                plan.card.classes,
                min_area=plan.options.min_area,
                simplify=plan.options.simplify,
                threads=min(POLYGON_THREADS, plan.options.threads or os.cpu_count() or 1),
                most=float("inf") if plan.options.force else MOST_POLYGONS,
                progress=tell,
                stopped=lambda: store.stopped,
            )
    except TooManyPolygonsError as error:
        staging.path(final).unlink(missing_ok=True)
        old = f"; {final} is of an earlier run" if final.exists() else ""
        log.warn(f"there will be no polygons, but all other outputs{old}: {error}")
        return False
    return True


def _pixel_area(plan: Plan, strip: Window) -> float:
    """Square metres of a pixel in the middle of a strip, on the ellipsoid."""
    area = plan.grid.crop(strip).pixel_area
    return float("nan") if area is None else area


def _check_disk(plan: Plan, store: StripStore, staging: Staging) -> None:
    """Refuse a run that can't fit even when its outputs are well compressed.

    Raises:
        OutputError: there is no room.
    """
    # Class rasters compress to an eighth or less, probabilities to about a third.
    need = sum(plan.output_bytes.values()) // 8
    # What of the strips is not packed, and not there yet; and the overviews.
    plain = sum(spec.is_plain for spec in store.specs.values())
    pixels = plan.grid.height * plan.grid.width
    need += plain * (pixels - _pixels_done(store)) + pixels // 3
    free = staging.free_bytes()
    if free < need:
        raise OutputError(
            f"the run needs about {need / 1e6:.1f} MB and {free / 1e6:.1f} MB are free; free "
            f"some space, or choose another folder with -o"
        )
