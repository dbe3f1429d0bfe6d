"""Sample points to label."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .geoseg_predict import Run, SharedAlgorithm, enum, tr

_ALLOCATIONS = ["proportional", "equal", "olofsson"]


class GeosegSample(SharedAlgorithm):
    """Draws points at which to check a map."""

    NAME = "sample"
    LABEL = "Sample points to label"
    GROUP = "accuracy"
    HELP = (
        "Draws a random sample of a class raster's pixels, class by class. Fill the column "
        "'reference' with the name or id of the class that is really there, then run 'Evaluate a "
        "map' with these points."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        whole = enum(QgsProcessingParameterNumber, "Type", "Integer")
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Class raster")))
        self.add(QgsProcessingParameterNumber("COUNT", tr("Points in all"), whole, 300, False, 1))
        self.add(
            QgsProcessingParameterEnum(
                "ALLOCATION",
                tr("Points of a class"),
                _ALLOCATIONS,
                False,
                _ALLOCATIONS[0],
                False,
                True,
            ),
            tr("By its area, the same for all, or at least 50 and by area (Olofsson et al. 2014)."),
        )
        self.add(
            QgsProcessingParameterBoolean("BLIND", tr("Leave the mapped class out"), False, True),
            tr("So that whoever fills in the classes does not see what the map says."),
        )
        self.add(
            QgsProcessingParameterNumber("SEED", tr("Seed"), whole, 0, False, 0),
            tr("The same seed gives the same points."),
            advanced=True,
        )
        self.add_options("sample")
        points = enum(QgsProcessing, "SourceType", "TypeVectorPoint")
        self.add(QgsProcessingParameterVectorDestination("OUTPUT", tr("Points"), points))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg sample."""
        layer = self.raster(parameters, "INPUT", context)
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        options = self.options(parameters, context)
        arguments = ["sample", *options, layer.dataProvider().dataSourceUri(), "--output", output]
        for name, option in (("COUNT", "--count"), ("SEED", "--seed")):
            arguments += [option, str(self.parameterAsInt(parameters, name, context))]
        allocation = self.parameterAsEnumString(parameters, "ALLOCATION", context)
        arguments += ["--allocation", allocation] if allocation else []
        if self.parameterAsBool(parameters, "BLIND", context):
            arguments.append("--blind")
        arguments += ["--overwrite", "--progress", "json"]
        Run(arguments, feedback).follow()
        return {"OUTPUT": output}
