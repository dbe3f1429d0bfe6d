"""The account of a run: what was decided, counted, timed and warned of."""

from __future__ import annotations

import hashlib
import json
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import package_version
from geoseg.core.jsontext import nodata_value
from geoseg.core.machine import machine_mark, peak_memory
from geoseg.core.names import public_name
from geoseg.core.ownership import holds_statistics_alone, significant_text
from geoseg.events import Event, Progress
from geoseg.geo.window import Window
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.runtimes import Runtime

__all__ = [
    "ClassCounts",
    "Meter",
    "Progress",
    "RunLog",
    "plan_report",
    "raster_tags",
    "run_record",
    "run_report",
    "runtime_report",
]

T = TypeVar("T")


@dataclass
class RunLog:
    """Counts, times and warnings of a run, and who hears of them."""

    progress: Progress | None = None
    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    chips_run: int = 0
    chips_skipped: int = 0

    def __post_init__(self) -> None:
        """Set up what the clocks share."""
        self._lock = threading.Lock()
        self._nested = threading.local()
        self._owner = threading.get_ident()
        self._events: deque[Event] = deque()

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time inside to a stage, less what clocks inside of it count; in any thread."""
        inner: list[float] = getattr(self._nested, "inner", [])
        self._nested.inner = inner
        inner.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            own = spent - inner.pop()
            if inner:
                inner[-1] += spent
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + own

    def clocked(self, stage: str, function: Callable[..., T]) -> Callable[..., T]:
        """A function whose calls are clocked."""

        def call(*arguments: Any) -> T:
            with self.clock(stage):
                return function(*arguments)

        return call

    def timed(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """An iterator whose steps are clocked; closing it closes the iterator."""
        iterator = iter(items)
        try:
            while True:
                with self.clock(stage):
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                yield item
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def tell(self, event: str, **values: Any) -> None:
        """Report an event.

        The receiver hears of all events in the thread that made this log, in their order: of what
        other threads report when that one reports next, or waits.
        """
        self._events.append(cast(Event, {"event": event, **values}))
        if threading.get_ident() == self._owner:
            self._deliver()

    def _deliver(self) -> None:
        while self._events:
            event = self._events.popleft()
            if self.progress is not None:
                self.progress(event)

    def wait(self, future: Future[T]) -> T:
        """Wait for what another thread does, and pass on what threads report meanwhile.

        Args:
            future: of its work.

        Returns:
            Its result; what it failed by is raised.
        """
        while not future.done():
            self._deliver()
            with suppress(TimeoutError):
                # Not longer: on Windows Ctrl-C is noticed after it alone.
                return future.result(timeout=0.1)
        self._deliver()
        return future.result()

    def warn(self, message: str) -> None:
        """Report and keep a warning."""
        self.warnings.append(message)
        self.tell("warning", message=message)


#: What a run waits for -> the stages of its main thread that are spent on it.
BOTTLENECKS = {
    "reading": ("wait for reading",),
    "computing": ("chips", "forward", "crf", "stitch", "regrid", "decide"),
    "writing": ("wait for writing",),
}


#: At least so long lies between what is told of chips.
EVERY_SECONDS = 1.0


class Meter:
    """Tells how far the strips are, how fast they come and what they wait for."""

    def __init__(self, plan: Plan, lanes: Sequence[OutputLane], done: int, log: RunLog) -> None:
        """Start.

        Args:
            plan: of the run.
            lanes: all of them.
            done: pixels of strips that were there before.
            log: whom to tell, and what is clocked.
        """
        self._log = log
        self._before = self._done = done
        self._total = plan.grid.height * sum(lane.right - lane.left for lane in lanes)
        self._seen = float(done)
        # A pixel of the model's grid in those of the output.
        mine, models = plan.grid, plan.model_grid
        self._factor = mine.height * mine.width / (models.height * models.width)
        self._started = self._told = time.perf_counter()

    def chip(self, pixels: float) -> None:
        """A chip is done; told now and then, since a strip of a wide scene takes long.

        Args:
            pixels: of the model's grid that are its share of its strip.
        """
        self._seen += pixels * self._factor
        if time.perf_counter() - self._told >= EVERY_SECONDS:
            self._tell()

    def tell(self, window: Window | None) -> None:
        """A strip is finished.

        Args:
            window: of it.
        """
        if window is None:
            return
        self._done += window.height * window.width
        self._tell()

    def _tell(self) -> None:
        # Chips come before their strips; that of a strip which was resampled may be rounded.
        done = min(max(self._done, int(self._seen)), self._total)
        if done <= self._before:
            return  # how fast it is can't be said yet
        self._told = time.perf_counter()
        spent = max(time.perf_counter() - self._started, 1e-6)
        speed = (done - self._before) / spent
        waits = {
            name: sum(self._log.seconds.get(stage, 0.0) for stage in stages)
            for name, stages in BOTTLENECKS.items()
        }
        self._log.tell(
            "progress",
            stage="predict",
            done=done,
            total=self._total,
            mpx_s=round(speed / 1e6, 3),
            seconds_left=round((self._total - done) / speed),
            bottleneck=max(waits, key=waits.__getitem__),
        )


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of the output.

    Attributes:
        per_class: pixels of each class, in the card's order.
        area_m2: likewise; None without CRS.
    """

    per_class: NDArray[np.int64]
    area_m2: NDArray[np.float64] | None

    @property
    def valid(self) -> int:
        """Pixels with a class."""
        return int(self.per_class.sum())


def raster_tags(plan: Plan) -> dict[str, str]:
    """Where a raster comes from; nothing that changes from run to run."""
    options = {k: v for k, v in _options_report(plan).items() if k not in _WITHOUT_EFFECT}
    return {
        "GEOSEG_VERSION": version("geoseg"),
        "GEOSEG_MODEL": "+".join(files.card.name for files in plan.members),
        "GEOSEG_MODEL_SHA256": "+".join(files.sha256 for files in plan.members),
        "GEOSEG_SCENE": plan.scene.name,
        "GEOSEG_OPTIONS": json.dumps(options, sort_keys=True),
        "GEOSEG_CHIPS": json.dumps(_chips_report(plan), sort_keys=True),
        "GEOSEG_CLASSES": json.dumps({c.id: c.name for c in plan.card.classes}),
    }


#: Options that say where and how fast to work, but don't change a pixel: they stay out of the
#: rasters' tags, so that the same result has the same bytes.
_WITHOUT_EFFECT = (
    *("batch_size", "device", "threads", "mem_limit", "max_pixels", "restart"),
    *("no_vector", "min_area", "simplify", "force", "allow_vrt"),
)


def _options_report(plan: Plan) -> dict[str, Any]:
    """The options, without paths."""
    kept = asdict(plan.options)
    for name in (
        *("output", "vector", "probs", "confidence", "agreement", "preview"),
        *("model", "overwrite", "input_root"),
    ):
        kept.pop(name)
    kept["src_nodata"] = nodata_value(plan.options.src_nodata)
    kept["aoi"] = Path(public_name(plan.options.aoi)).name if plan.options.aoi else None
    kept["creation_options"] = list(plan.options.creation_options)
    kept["crf_options"] = asdict(plan.crf) if plan.crf else {}
    return kept


def runtime_report(runtime: Runtime) -> dict[str, str]:
    """What computes, and why, as JSON."""
    names = ("name", "precision", "device", "choice")
    return {name: getattr(runtime, name) for name in names}


def _chips_report(plan: Plan) -> dict[str, int]:
    """Where the chips lie, for :mod:`geoseg.evaluation.seam_check`."""
    margin = 0 if plan.options.taper == "none" else plan.margin
    return {**asdict(plan.chips), "margin": margin}


def run_record(plan: Plan, runtime: Runtime, lanes: Sequence[OutputLane]) -> dict[str, Any]:
    """All that a strip's bytes depend on, for JSON: a run goes on with strips of the same alone."""
    unlike = (*_WITHOUT_EFFECT, "creation_options")  # of the files that are made of the strips
    options = {k: v for k, v in _options_report(plan).items() if k not in unlike}
    outputs = plan.outputs
    aoi = [public_name(plan.options.aoi)] if plan.options.aoi else []
    files = {path: _about(Path(path)) for path in [*plan.scene.paths, *plan.scene.files, *aoi]}
    return {
        **options,
        "margin": plan.margin,
        "version": version("geoseg"),
        "scene": {path: about for path, about in files.items() if about is not None},
        "bands read": [str(band) for band in plan.bands],
        "gain and bias": [list(plan.radiometry.gain), list(plan.radiometry.bias)],
        "grid": [plan.grid.height, plan.grid.width, *list(plan.grid.transform)[:6]],
        "CRS": plan.grid.crs.to_wkt() if plan.grid.crs else None,
        "model": [files.sha256 for files in plan.members],
        "graph": runtime.graph,
        "runtime": [runtime.name, runtime.precision, runtime.device],
        "versions": _versions(runtime.name.split("+")),
        "machine": machine_mark(),
        "probabilities are kept": outputs.probs is not None,
        "confidence is kept": outputs.confidence is not None or outputs.vector is not None,
        "agreement is kept": outputs.agreement is not None,
        "lanes": [lane.left for lane in lanes],
    }


def _about(path: Path) -> list[int | str] | None:
    """What tells a file that is read from any other; None where nothing of it is."""
    if path.suffix.lower() == ".ovr" or holds_statistics_alone(path):
        # QGIS writes such beside a scene that is looked at: no pixel changes by them.
        return None
    if not path.exists():  # remote
        return []
    about = path.stat()
    if path.name.lower().endswith(".aux.xml"):
        # Statistics may be added to what counts.
        with suppress(ElementTree.ParseError):
            return [hashlib.sha256(significant_text(path.read_bytes()).encode()).hexdigest()]
    return [about.st_size, about.st_mtime_ns]


def plan_report(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    grid, card = plan.grid, plan.card
    return {
        "model": {
            "name": card.name,
            "path": str(plan.files.path),
            "sha256": plan.files.sha256,
            "license": card.license,
            "chosen": plan.chosen,
        },
        "members": [files.card.name for files in plan.members],
        "scene": {
            "name": plan.scene.name,
            "paths": list(plan.scene.paths),
            "sensor": plan.scene.sensor.name if plan.scene.sensor else None,
            "bands": {
                wanted: str(band) for wanted, band in zip(card.bands, plan.bands, strict=True)
            },
            "radiometry": asdict(plan.radiometry),
            "ignored": list(plan.scene.ignored),
        },
        "grid": {
            "height": grid.height,
            "width": grid.width,
            "crs": grid.crs.to_string() if grid.crs else None,
            "transform": list(grid.transform)[:6],
            "gsd": list(grid.gsd) if grid.gsd else None,
        },
        "model_grid": {
            "height": plan.model_grid.height,
            "width": plan.model_grid.width,
            "resampled": plan.resampled,
        },
        "options": _options_report(plan),
    }


def run_report(plan: Plan, runtime: Runtime, counts: ClassCounts, log: RunLog) -> dict[str, Any]:
    """The machine-readable account of a run."""
    total = plan.grid.height * plan.grid.width
    outputs = plan.outputs
    named = {
        "raster": outputs.raster,
        "vector": outputs.vector,
        "probs": outputs.probs,
        "confidence": outputs.confidence,
        "agreement": outputs.agreement,
        "preview": outputs.preview,
    }
    return {
        "geoseg": version("geoseg"),
        "versions": {
            "python": platform.python_version(),
            **_versions(("numpy", "rasterio", "shapely", "geopandas")),
            **_versions(runtime.name.split("+")),
        },
        **plan_report(plan),
        "runtime": runtime_report(runtime),
        "chips": {
            "total": len(plan.chips),
            "run": log.chips_run,
            "skipped": log.chips_skipped,
            "size": plan.chips.size,
            "stride": plan.chips.stride,
            "margin": plan.margin,
        },
        "pixels": {"total": total, "valid": counts.valid, "nodata": total - counts.valid},
        "classes": [
            {
                "id": c.id,
                "name": c.name,
                "pixels": int(counts.per_class[i]),
                "share": float(counts.per_class[i] / counts.valid),
                "area_m2": float(counts.area_m2[i]) if counts.area_m2 is not None else None,
            }
            for i, c in enumerate(plan.card.classes)
        ],
        "warnings": log.warnings,
        "seconds": {
            **{stage: round(spent, 3) for stage, spent in log.seconds.items()},
            "total": round(time.perf_counter() - log.started, 3),
        },
        "peak_memory_bytes": peak_memory(),
        "outputs": {k: str(v) for k, v in named.items() if v is not None},
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Of those that are installed packages; a runtime of the caller's own is none."""
    found = {}
    for name in names:
        with suppress(ImportError):
            found[name] = package_version(name)
    return found
