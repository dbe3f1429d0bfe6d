"""The files that a prediction writes, by the user's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.core.ownership import is_ours
from geoseg.errors import UsageError
from geoseg.geo.pixel_grid import PixelGrid
from geoseg.prediction.options import PredictOptions
from geoseg.scene.sources import is_remote

__all__ = ["Outputs", "check_vector_format", "old_companions", "outputs_of", "protect_inputs"]


@dataclass(frozen=True)
class Outputs:
    """Final paths; None is not wanted.

    Attributes:
        raster: the class raster.
        qml: QGIS style of the class raster.
        report: JSON.
        vector: the polygons.
        probs: all probabilities.
        confidence: the winning probability.
        agreement: the share of members that say the class.
        border: where a class may depend on what lies beyond the measured ground.
        applicability: how far a pixel is like what the model was taught on.
        preview: PNG.
    """

    raster: Path
    qml: Path
    report: Path
    vector: Path | None
    probs: Path | None
    confidence: Path | None
    agreement: Path | None
    border: Path | None
    applicability: Path | None
    preview: Path | None

    def all(self) -> list[Path]:
        """In the order in which they are published; the report last, as the sign of success."""
        wanted = (
            self.raster,
            self.qml,
            self.vector,
            self.probs,
            self.confidence,
            self.agreement,
            self.border,
            self.applicability,
            self.preview,
            self.report,
        )
        return [path for path in wanted if path is not None]


def outputs_of(name: str, options: PredictOptions) -> Outputs:
    """Final paths from the options and the scene's name."""
    raster = Path(options.output) if options.output else Path(f"{name}_landcover.tif")
    if raster.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"-o {raster}: the class raster is a GeoTIFF, so the name ends in .tif")
    vector = None
    if not options.no_vector:
        from geoseg.polygons.formats import check_suffix

        vector = Path(options.vector) if options.vector else raster.with_suffix(".gpkg")
        check_suffix(vector)
    preview = Path(options.preview) if options.preview else None
    if preview is not None and preview.suffix.lower() != ".png":
        raise UsageError(f"--preview {preview}: the preview is a PNG, so the name ends in .png")
    for path in (options.probs, options.confidence, options.agreement, options.applicability):
        if path is not None and Path(path).suffix.lower() not in (".tif", ".tiff"):
            raise UsageError(f"{path}: probabilities are a GeoTIFF, so the name ends in .tif")
    border = Path(options.border) if options.border else None
    if border is not None and border.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(f"--border {border}: the border is a GeoTIFF, so the name ends in .tif")
    return Outputs(
        raster=raster,
        qml=raster.with_suffix(".qml"),
        report=raster.with_suffix(".json"),
        vector=vector,
        probs=Path(options.probs) if options.probs else None,
        confidence=Path(options.confidence) if options.confidence else None,
        agreement=Path(options.agreement) if options.agreement else None,
        border=border,
        applicability=Path(options.applicability) if options.applicability else None,
        preview=preview,
    )


def protect_inputs(outputs: Outputs, inputs: Sequence[str | Path]) -> None:
    """Refuse to overwrite what is read, --overwrite or not.

    Raises:
        UsageError: an output is the scene, the AOI, or lies in the model.
    """
    read = [Path(path).resolve() for path in inputs if not is_remote(str(path))]
    for output in outputs.all():
        if any(output.resolve() == path or path in output.resolve().parents for path in read):
            raise UsageError(f"{output} is an input of this run; give the output another name")


def check_vector_format(outputs: Outputs, options: PredictOptions, grid: PixelGrid) -> None:
    """Refuse polygons that can't be made, before the network runs.

    Raises:
        UsageError: they need metres or degrees, and the scene has no CRS that gives them.
    """
    if outputs.vector is None or grid.gsd is not None:
        return
    if outputs.vector.suffix.lower() in (".geojson", ".json"):
        raise UsageError(
            f"{outputs.vector}: GeoJSON is longitude and latitude on WGS 84, and the scene has no "
            f"CRS to bring it there; choose .gpkg"
        )
    if options.min_area > 0 or options.simplify > 0:
        raise UsageError(
            "--min-area and --simplify are in metres, and the scene has no CRS that gives metres; "
            "leave them out, or give the scene a CRS (gdal_edit.py -a_srs)"
        )


def old_companions(outputs: Outputs) -> list[str]:
    """Polygons of an earlier run that will stay beside a class raster that takes its place.

    Args:
        outputs: of the run that is about to be made.

    Returns:
        A warning for each.
    """
    suffixes = (".gpkg", ".fgb", ".parquet", ".geojson")
    beside = [outputs.raster.with_suffix(suffix) for suffix in suffixes]
    return [
        f"{path} is of an earlier run and does not belong to the new class raster; remove it"
        for path in beside
        if path != outputs.vector and outputs.raster.exists() and path.exists() and is_ours(path)
    ]
