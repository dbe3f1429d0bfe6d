"""The account of a run: what was decided, counted, timed and warned of."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.plan import Plan
from geoseg.runtimes import Runtime

__all__ = [
    "ClassCounts",
    "Progress",
    "RunLog",
    "peak_memory",
    "plan_report",
    "raster_tags",
    "run_report",
]

Progress = Callable[[dict[str, Any]], None]


@dataclass
class RunLog:
    """Counts, times and warnings of a run, and who hears of them."""

    progress: Progress | None = None
    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    chips_run: int = 0
    chips_skipped: int = 0

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def timed(self, stage: str, items: Iterable[Any]) -> Iterator[Any]:
        """An iterator whose steps are clocked."""
        iterator = iter(items)
        while True:
            with self.clock(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def tell(self, event: str, **values: Any) -> None:
        """Report an event."""
        if self.progress is not None:
            self.progress({"event": event, **values})

    def warn(self, message: str) -> None:
        """Report and keep a warning."""
        self.warnings.append(message)
        self.tell("warning", message=message)


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
        "GEOSEG_MODEL": plan.card.name,
        "GEOSEG_MODEL_SHA256": plan.files.sha256,
        "GEOSEG_SCENE": plan.scene.name,
        "GEOSEG_OPTIONS": json.dumps(options, sort_keys=True),
        "GEOSEG_CLASSES": json.dumps({c.id: c.name for c in plan.card.classes}),
    }


#: Options that say where and how fast to work, but don't change a pixel: they stay out of the
#: rasters' tags, so that the same result has the same bytes.
_WITHOUT_EFFECT = ("batch_size", "device", "threads", "no_vector", "min_area", "simplify")


def _options_report(plan: Plan) -> dict[str, Any]:
    """The options, without paths."""
    kept = asdict(plan.options)
    for name in ("output", "vector", "probs", "confidence", "preview", "model", "overwrite"):
        kept.pop(name)
    kept["aoi"] = Path(plan.options.aoi).name if plan.options.aoi else None
    kept["creation_options"] = list(plan.options.creation_options)
    kept["crf_options"] = asdict(plan.crf) if plan.crf else {}
    return kept


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
        "preview": outputs.preview,
    }
    return {
        "geoseg": version("geoseg"),
        "versions": _versions(),
        **plan_report(plan),
        "device": runtime.device,
        "chips": {
            "total": len(plan.chips),
            "run": log.chips_run,
            "skipped": log.chips_skipped,
            "size": plan.chips.size,
            "stride": plan.chips.stride,
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


def _versions() -> dict[str, str]:
    names = ("numpy", "rasterio", "torch", "shapely", "geopandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def peak_memory() -> int:
    """Of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
