"""Vectorize a class raster."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .geoseg_predict import Run, SharedAlgorithm, enum, tr


class GeosegVectorize(SharedAlgorithm):
    """Turns a class raster into polygons."""

    NAME = "vectorize"
    LABEL = "Vectorize a class raster"
    TAGS = "polygonize, land cover, classification, generalize, simplify"
    HELP = (
        "Turns a raster of classes into polygons: every pixel with a class lies in exactly one, "
        "and neighbours share their borders, simplified or not. Names and colours are read from "
        "the raster, as geoseg writes them."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Class raster")))
        self.add_polygon_options()
        self.add_options("vectorize", "--only water,trees")
        polygons = enum(QgsProcessing, "SourceType", "TypeVectorPolygon")
        self.add(QgsProcessingParameterVectorDestination("OUTPUT", tr("Polygons"), polygons))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg vectorize."""
        layer = self.raster(parameters, "INPUT", context)
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        options = self.options(parameters, context)
        arguments = [
            "vectorize",
            *options,
            self.path_of(layer),
            "--output",
            output,
        ]
        arguments += self.polygon_options(parameters, context)
        arguments += ["--overwrite", "--progress", "json"]
        made = Run(arguments, feedback).follow()
        for name, count in made["polygons"].items():
            feedback.pushInfo(tr("{}: {} polygons").format(name, count))
        self.styled(context, layer.source(), {output: tr("{} polygons").format(layer.name())})
        return {"OUTPUT": output}
