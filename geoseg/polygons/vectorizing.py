"""``geoseg vectorize``: a class raster in, a file of polygons out, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.core.names import public_name
from geoseg.core.staging import Staging
from geoseg.errors import UsageError
from geoseg.polygons.formats import VECTORIZE_FORMATS, check_suffix, files_of
from geoseg.polygons.formats.layers import OtherLayers
from geoseg.polygons.polygonize import write_polygons
from geoseg.scene.sources import Rules, is_remote

__all__ = ["Vectorized", "vectorize"]


@dataclass(frozen=True)
class Vectorized:
    """What was written.

    Attributes:
        path: the file.
        polygons: how many of each class, by name.
    """

    path: Path
    polygons: dict[str, int]


def vectorize(
    raster: str | Path,
    output: str | Path | None = None,
    *,
    confidence: str | Path | None = None,
    probs: str | Path | None = None,
    model: str | Path | None = None,
    layer: str = "landcover",
    input_root: str | Path | Sequence[str | Path] = (),
    allow_vrt: str = "local",
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Vectorized:
    """Turn a class raster into a file of polygons.

    Args:
        raster: of one band of whole numbers; names and colours of the classes are read from its
            tags and colour table, as ``geoseg predict`` writes them.
        output: .gpkg, .fgb, .parquet, .geojson, .pmtiles or .shp; the raster's name with
            .gpkg in the current folder by default.
        confidence: raster of the winning probability, for the columns of the same name.
        probs: raster of all probabilities, one band a class.
        model: embedded model's name, or a model folder or .zip, whose legend is used instead.
        layer: the layer's name, where the format has layers. A GeoPackage that is there already
            keeps its other layers, whoever made them.
        input_root: folders into which files may point, besides their own.
        allow_vrt: ``any`` lets files point anywhere.
        overwrite: replace the output; of a GeoPackage with other layers this one alone.
        progress: called with the number of rows that are done, and of all rows.
        **options: the fields of :class:`geoseg.polygons.options.PolygonOptions`.

    Returns:
        The file and the number of polygons.

    Raises:
        UsageError: the options contradict each other or the raster, or there would be too many
            polygons.
        SceneError: a raster is not what it should be, or is damaged.
        OutputError: the output can't be written.

    Example:
        >>> import geoseg
        >>> geoseg.vectorize("map.tif", "map.gpkg", simplify=15).polygons  # doctest: +SKIP
    """
    rules = Rules.of(input_root, allow_vrt)
    stem = Path(public_name(raster).split("?")[0]).stem
    final = Path(output) if output is not None else Path(f"{stem}.gpkg")
    check_suffix(final, VECTORIZE_FORMATS)
    for path in (raster, confidence, probs):
        if path is None or is_remote(str(path)):
            continue
        if final.resolve() == Path(path).resolve():
            raise UsageError(f"{final} is an input of this run; give the output another name")
    classes = None
    if model is not None:
        from geoseg.zoo import find_model

        classes = find_model(str(model)).card.classes
    files = files_of(final)
    others = OtherLayers.of(final, layer, overwrite=overwrite)
    replaced = [] if others is None else [final]
    with (
        Staging(files, overwrite=overwrite, replaced=replaced) as staging,
        staging.speaking_of_finals(),
    ):
        counts = write_polygons(
            staging.path(final),
            raster,
            confidence,
            classes,
            probs_path=probs,
            layer=layer,
            rules=rules,
            progress=progress,
            **options,
        )
        if others is not None:
            others.add(staging.path(final))
        staging.publish([file for file in files if staging.path(file).exists()])
    return Vectorized(final, counts)
