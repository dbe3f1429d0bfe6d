"""The account of a mosaic, and the tags of its raster."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geoseg.cards.legend import NOT_SURE_TAG
from geoseg.core.machine import peak_memory
from geoseg.mosaicking.grid import MosaicGrid
from geoseg.mosaicking.maps import MapFile
from geoseg.mosaicking.options import TOPS, MosaicOptions
from geoseg.mosaicking.pixels import Made
from geoseg.prediction.report import grid_report
from geoseg.prediction.run_log import RunLog

__all__ = ["mosaic_report", "mosaic_tags"]

#: How maps on other pixels than the mosaic's are brought to it.
RESAMPLING = (
    "nearest neighbour: a pixel takes the class of the map's pixel in which its centre lies, so a "
    "border may be off by half a pixel of the map, and a detail of one pixel may be there twice or "
    "not at all"
)


def mosaic_tags(maps: Sequence[MapFile], options: MosaicOptions) -> dict[str, str]:
    """Note what the raster is, without what changes from run to run."""
    tags = {
        "GEOSEG_VERSION": version("geoseg"),
        "GEOSEG_MOSAIC": json.dumps({"maps": len(maps), "top": options.top}, sort_keys=True),
        "GEOSEG_CLASSES": json.dumps({c.id: c.name for c in maps[0].classes}),
    }
    if maps[0].not_sure is not None:
        tags[NOT_SURE_TAG] = str(maps[0].not_sure)
    models = {(m.model, m.model_sha256) for m in maps}
    if len(models) == 1 and maps[0].model:
        tags |= {"GEOSEG_MODEL": maps[0].model, "GEOSEG_MODEL_SHA256": maps[0].model_sha256}
    return tags


def mosaic_report(
    maps: Sequence[MapFile],
    resampled: Sequence[bool],
    mosaic: MosaicGrid,
    options: MosaicOptions,
    made: Made,
    outputs: Mapping[str, Path],
    log: RunLog,
) -> dict[str, Any]:
    """The machine-readable account of a mosaic.

    Args:
        maps: by rank.
        resampled: whether each map's pixels are others than the mosaic's.
        mosaic: its grid.
        options: of the run.
        made: what was made.
        outputs: what is there -> its path.
        log: of the run.
    """
    total = mosaic.window.height * mosaic.window.width
    valid = int(made.per_class.sum())
    return {
        "geoseg": version("geoseg"),
        "grid": grid_report(mosaic.pixels()),
        "top": options.top,
        "rule": f"where maps overlap, a pixel has the class of {TOPS[options.top]}"
        if options.top != "frequent"
        else f"where maps overlap, a pixel has {TOPS[options.top]}",
        "resampling": RESAMPLING if any(resampled) else None,
        "maps": [
            {
                "path": one.path,
                "date": one.date.isoformat() if one.date else None,
                "crs": one.grid.crs.to_string() if one.grid.crs else None,
                "gsd": list(one.grid.gsd) if one.grid.gsd else None,
                "model": one.model or None,
                "resampled": other,
                "pixels": int(pixels),
            }
            for one, other, pixels in zip(maps, resampled, made.pixels, strict=True)
        ],
        "pixels": {"total": total, "valid": valid, "nodata": total - valid},
        "classes": [
            {
                "id": c.id,
                "name": c.name,
                "pixels": int(made.per_class[c.id]),
                "share": float(made.per_class[c.id] / valid),
                "area_m2": float(made.area_m2[c.id]),
            }
            for c in maps[0].classes
        ],
        "warnings": log.warnings,
        "seconds": {
            **{stage: round(spent, 3) for stage, spent in log.seconds.items()},
            "total": round(time.perf_counter() - log.started, 3),
        },
        "peak_memory_bytes": peak_memory(),
        "outputs": {kind: str(path) for kind, path in outputs.items()},
    }
