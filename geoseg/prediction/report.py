"""The account of a run: what was decided, counted, timed and warned of."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from geoseg.core.importing import package_version
from geoseg.core.jsontext import nodata_value
from geoseg.core.machine import machine_mark, peak_memory
from geoseg.core.names import public_name
from geoseg.core.ownership import holds_statistics_alone, significant_text
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.prediction.plan import OutputLane, Plan
from geoseg.prediction.run_log import RunLog
from geoseg.runtimes import Runtime
from geoseg.scene.scene import Scene
from geoseg.scene.undeclared import Fill

__all__ = [
    "ClassCounts",
    "file_state",
    "fill_report",
    "grid_report",
    "item_report",
    "layer_report",
    "plan_report",
    "raster_tags",
    "run_record",
    "run_report",
    "runtime_report",
]


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of the output.

    Attributes:
        per_class: pixels of each class of the map's legend, in its order.
        area_m2: square metres of each class of the map's legend; None without CRS.
        clouded: pixels that were measured and are left out for clouds.
        undeclared: pixels that are nodata although no tag says so.
    """

    per_class: NDArray[np.int64]
    area_m2: NDArray[np.float64] | None
    clouded: int = 0
    undeclared: int = 0

    @property
    def valid(self) -> int:
        """Pixels with a class."""
        return int(self.per_class.sum())

    @property
    def cloud_share(self) -> float:
        """Of the measured pixels, those that are left out for clouds."""
        return self.clouded / max(1, self.valid + self.clouded)


def raster_tags(plan: Plan) -> dict[str, str]:
    """Note where a raster comes from, without what changes from run to run."""
    options = {k: v for k, v in _options_report(plan).items() if k not in _WITHOUT_EFFECT}
    item = item_report(plan.scene)
    return {
        "GEOSEG_VERSION": version("geoseg"),
        "GEOSEG_MODEL": "+".join(files.card.name for files in plan.members),
        "GEOSEG_MODEL_SHA256": "+".join(files.sha256 for files in plan.members),
        "GEOSEG_SCENE": plan.scene.name,
        **({} if item is None else {"GEOSEG_ITEM": json.dumps(item, sort_keys=True)}),
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
        *("output", "vector", "probs", "confidence", "agreement", "border"),
        "applicability",
        *("preview", "model", "overwrite", "input_root"),
    ):
        kept.pop(name)
    kept["src_nodata"] = nodata_value(plan.options.src_nodata)
    file = plan.options.cloud_file
    kept["clouds"] = Path(public_name(file)).name if file else plan.options.clouds
    kept["aoi"] = Path(public_name(plan.options.aoi)).name if plan.options.aoi else None
    kept["assets"] = list(plan.options.assets)
    kept["creation_options"] = list(plan.options.creation_options)
    kept["crf_options"] = asdict(plan.crf) if plan.crf else {}
    return kept


def runtime_report(runtime: Runtime) -> dict[str, str]:
    """Describe what computes, and why, as JSON."""
    names = ("name", "precision", "device", "choice")
    return {name: getattr(runtime, name) for name in names}


def _chips_report(plan: Plan) -> dict[str, Any]:
    """Describe where the chips lie, for :mod:`geoseg.evaluation.seam_check`."""
    return asdict(plan.chips)


def run_record(plan: Plan, runtime: Runtime, lanes: Sequence[OutputLane]) -> dict[str, Any]:
    """Collect all that a strip's bytes depend on: a run goes on with strips of the same alone."""
    unlike = (*_WITHOUT_EFFECT, "creation_options")  # of the files that are made of the strips
    options = {k: v for k, v in _options_report(plan).items() if k not in unlike}
    outputs = plan.outputs
    aoi = [public_name(plan.options.aoi)] if plan.options.aoi else []
    files = {path: file_state(Path(path)) for path in [*plan.scene.all_files, *aoi]}
    clouds = plan.scene.clouds
    return {
        **options,
        "margin": plan.chips.margin,
        "version": version("geoseg"),
        "scene": {path: about for path, about in files.items() if about is not None},
        "bands read": [str(band) for band in plan.bands],
        "clouds read": clouds.record if clouds else None,
        "fill": [nodata_value(number) for number in plan.fill.numbers],
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


def file_state(path: Path) -> list[int | str] | None:
    """Tell a file from what it was before.

    Args:
        path: of a file that is read; it need not be on this machine.

    Returns:
        Its size and time, or a hash of what counts in it; [] where it is not there; None where
        nothing of it changes a pixel.
    """
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


def grid_report(grid: PixelGrid) -> dict[str, Any]:
    """Describe where pixels lie, as JSON."""
    return {
        "height": grid.height,
        "width": grid.width,
        "crs": grid.crs.to_string() if grid.crs else None,
        "transform": list(grid.transform)[:6],
        "gsd": list(grid.gsd) if grid.gsd else None,
    }


def plan_report(plan: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    card = plan.card
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
            "item": item_report(plan.scene),
            "clouds": layer_report(plan.scene),
            "fill": fill_report(plan.fill),
        },
        "grid": grid_report(plan.grid),
        "model_grid": {
            "height": plan.model_grid.height,
            "width": plan.model_grid.width,
            "resampled": plan.resampled,
        },
        "options": _options_report(plan),
    }


def item_report(scene: Scene) -> dict[str, str | None] | None:
    """Describe the STAC item that a scene was opened from, as JSON; None where there is none."""
    item = scene.item
    if item is None:
        return None
    kept = {"id": item.id, "collection": item.collection, "href": item.href or None}
    return {**kept, "datetime": item.datetime}


def layer_report(scene: Scene) -> dict[str, Any] | None:
    """Describe the layer that says which pixels are clouds, as JSON; None where none is used."""
    clouds = scene.clouds
    if clouds is None:
        return None
    return {"layer": clouds.name, "source": clouds.source, "buffer_m": clouds.buffer}


def fill_report(fill: Fill) -> dict[str, Any] | None:
    """Describe what is nodata although no tag says so, as JSON; None where nothing is."""
    if not fill.numbers:
        return None
    numbers = [nodata_value(number) for number in fill.numbers]
    return {"numbers": numbers, "sampled_share": fill.share}


def _clouds_report(plan: Plan, counts: ClassCounts) -> dict[str, Any] | None:
    """Say how much was left out for clouds, as JSON; None where no layer is used."""
    layer = layer_report(plan.scene)
    return layer and {**layer, "pixels": counts.clouded, "share": counts.cloud_share}


def _not_sure_report(plan: Plan, counts: ClassCounts) -> dict[str, Any] | None:
    """Say how much is not sure, as JSON; None where that was not asked for."""
    own = plan.not_sure
    if own is None:
        return None
    pixels = int(counts.per_class[-1])
    least = plan.options.min_confidence
    return {"min_confidence": least, "id": own.id, "pixels": pixels, "share": pixels / counts.valid}


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
        "border": outputs.border,
        "applicability": outputs.applicability,
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
            "margin": plan.chips.margin,
        },
        "pixels": {"total": total, "valid": counts.valid, "nodata": total - counts.valid},
        "clouds": _clouds_report(plan, counts),
        "undeclared_nodata": {"pixels": counts.undeclared, "share": counts.undeclared / total},
        "classes": [
            {
                "id": c.id,
                "name": c.name,
                "pixels": int(counts.per_class[i]),
                "share": float(counts.per_class[i] / counts.valid),
                "area_m2": float(counts.area_m2[i]) if counts.area_m2 is not None else None,
            }
            for i, c in enumerate(plan.legend)
        ],
        "not_sure": _not_sure_report(plan, counts),
        "warnings": log.warnings,
        "seconds": {
            **{stage: round(spent, 3) for stage, spent in log.seconds.items()},
            "total": round(time.perf_counter() - log.started, 3),
        },
        "peak_memory_bytes": peak_memory(),
        "outputs": {k: str(v) for k, v in named.items() if v is not None},
    }


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Look up versions of installed packages; a runtime of the caller's own is none."""
    found = {}
    for name in names:
        with suppress(ImportError):
            found[name] = package_version(name)
    return found
