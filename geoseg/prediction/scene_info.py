"""What geoseg sees in a scene, and which models fit it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg.core.jsontext import nodata_value
from geoseg.errors import GeosegError
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import make_plan
from geoseg.prediction.preflight import band_statistics, preflight
from geoseg.prediction.report import grid_report, item_report, layer_report
from geoseg.prediction.scene_clouds import open_with_clouds
from geoseg.scene.opening import Source
from geoseg.scene.radiometry import find_radiometry
from geoseg.scene.scene import Scene
from geoseg.scene.scene_band import SceneBand
from geoseg.zoo import list_maps

__all__ = ["scene_info"]


def scene_info(
    source: Source,
    *,
    models: Sequence[str | Path] | None = None,
    bands: str | None = None,
    band_names: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    src_nodata: float | None = None,
    nearblack: bool = False,
    stretch: tuple[float, float] | None = None,
    assets: Sequence[str] = (),
    clouds: str | Path = "auto",
    max_pixels: float | None = None,
    input_root: str | Path | Sequence[str | Path] = (),
    allow_vrt: str = "local",
) -> dict[str, Any]:
    """Describe a scene and try models on it; nothing is predicted or written.

    Args:
        source: see :func:`geoseg.scene.opening.open_scene`.
        models: names or folders; the embedded ones by default.
        bands: as for predict.
        band_names: as for predict.
        scale: as for predict.
        offset: as for predict.
        src_nodata: as for predict.
        nearblack: as for predict.
        stretch: as for predict.
        assets: as for predict.
        clouds: as for predict.
        max_pixels: as for predict.
        input_root: as for predict.
        allow_vrt: as for predict.

    Returns:
        A report for :func:`geoseg.core.jsontext.json_text`; a band's nodata is a number, ``"nan"``,
        ``"inf"``, ``"-inf"`` or None.

    Raises:
        SceneError: the scene can't be opened. That a model does not fit is no error but part of
            the report.
    """
    options: dict[str, Any] = {"bands": bands, "scale": scale, "offset": offset}
    options |= {"src_nodata": src_nodata, "input_root": input_root, "allow_vrt": allow_vrt}
    options |= {"nearblack": nearblack, "stretch": stretch}
    options |= {"max_pixels": max_pixels, "assets": assets, "band_names": band_names}
    options["clouds"] = clouds
    scene = open_with_clouds(source, PredictOptions(**options))
    tried = [_try_model(source, model, options) for model in models or list_maps()]
    numbers = _numbers(scene, scale, offset)
    return {**_described(scene), "numbers": numbers, "models": tried}


def _described(scene: Scene) -> dict[str, Any]:
    """A scene as JSON."""
    return {
        "name": scene.name,
        "paths": list(scene.paths),
        "sensor": scene.sensor.name if scene.sensor else None,
        "sensor_by": scene.sensor_by,
        "grid": grid_report(scene.grid),
        "bands": [
            {
                "name": b.name,
                "name_by": _name_by(b),
                "label": b.label,
                "index": b.index,
                "path": b.path,
                "dtype": b.dtype,
                "nodata": nodata_value(b.nodata),
                "nodata_by": "" if b.nodata is None else b.nodata_by or "the file's nodata tag",
                "scale": b.scale,
                "offset": b.offset,
            }
            for b in scene.bands
        ],
        "ignored": list(scene.ignored),
        "item": item_report(scene),
        "clouds": layer_report(scene),
        "notes": list(scene.notes),
    }


def _name_by(band: SceneBand) -> str:
    """What says a band's name, or why it has none."""
    if band.name is None:
        return "its label is no band's name" if band.has_words else "nothing says it"
    return band.named_by or "its label"


def _numbers(scene: Scene, scale: float | None, offset: float | None) -> dict[str, Any]:
    """What the numbers of the bands with names are in reflectance, and what says so."""
    bands = [band for band in scene.bands if band.name is not None]
    if not bands:
        return {"scale": None, "offset": None, "why": "no band has a name"}
    try:
        found = find_radiometry(scene, bands, "reflectance", scale=scale, offset=offset)
    except GeosegError as error:
        return {"scale": None, "offset": None, "why": str(error)}
    scales, offsets = (list(dict.fromkeys(values)) for values in (found.gain, found.bias))
    return {"scale": scales, "offset": offsets, "why": found.source}


def _try_model(source: Source, model: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    """Whether a model fits; why not, or how the scene looks to it."""
    try:
        plan = make_plan(source, PredictOptions(model=model, no_vector=True, **options))
        doubts = preflight(plan)
    except GeosegError as error:
        return {"name": str(model), "fits": False, "why": str(error)}
    statistics = band_statistics(plan.survey, plan.radiometry, plan.card.bands)
    return {
        "name": plan.card.name,
        "fits": True,
        "bands": {w: str(b) for w, b in zip(plan.card.bands, plan.bands, strict=True)},
        "radiometry": plan.radiometry.source,
        "valid_share": plan.survey.valid_share,
        "statistics": [asdict(s) for s in statistics],
        "notes": [*plan.warnings, *doubts],
    }
