"""Sample points to label."""

from __future__ import annotations

from collections import deque
from typing import Any

from qgis.core import (
    QgsEditorWidgetSetup,
    QgsProcessing,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from .geoseg_predict import Run, SharedAlgorithm, enum, tr

_ALLOCATIONS = ["proportional", "equal", "olofsson"]


class _ListedClasses(QgsProcessingLayerPostProcessorInterface):
    """Has the form of a point offer the classes by name."""

    #: QGIS keeps no reference to them; what is older than these has been loaded.
    kept: deque[_ListedClasses] = deque(maxlen=16)

    def __init__(self, classes: list[str]) -> None:
        """Take note of the classes."""
        super().__init__()
        self._classes = classes
        _ListedClasses.kept.append(self)

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Set up the field that is to be filled."""
        listed = [{name: name} for name in self._classes]
        setup = QgsEditorWidgetSetup("ValueMap", {"map": listed})
        layer.setEditorWidgetSetup(layer.fields().indexOf("reference"), setup)


class GeosegSample(SharedAlgorithm):
    """Draws points at which to check a map."""

    NAME = "sample"
    LABEL = "Sample points to label"
    TAGS = "accuracy, validation, stratified, reference, points"
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
        self.add(QgsProcessingParameterNumber("COUNT", tr("Points in all"), whole, 500, False, 1))
        self.add(
            QgsProcessingParameterEnum(
                "ALLOCATION",
                tr("Points of a class"),
                [
                    tr("by its area (proportional)"),
                    tr("the same for all (equal)"),
                    tr("at least 50 each, then by area (olofsson)"),
                ],
                False,
                0,
                False,
            ),
            tr(
                "By area, rare classes get few points; at least 50 each is what Olofsson et al. "
                "2014 recommend."
            ),
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
        self.add_options("sample", "--min-per-class 30")
        points = enum(QgsProcessing, "SourceType", "TypeVectorPoint")
        self.add(QgsProcessingParameterVectorDestination("OUTPUT", tr("Points"), points))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg sample."""
        layer = self.raster(parameters, "INPUT", context)
        output = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        options = self.options(parameters, context)
        arguments = ["sample", *options, self.path_of(layer), "--output", output]
        for name, option in (("COUNT", "--count"), ("SEED", "--seed")):
            value = self.number(parameters, name, context)
            if value is not None:
                # What is no whole number geoseg refuses.
                arguments.append(f"{option}={int(value) if value.is_integer() else value}")
        allocation = _ALLOCATIONS[self.parameterAsEnum(parameters, "ALLOCATION", context)]
        arguments += ["--allocation", allocation]
        if self.parameterAsBool(parameters, "BLIND", context):
            arguments.append("--blind")
        arguments += ["--overwrite", "--progress", "json"]
        made = Run(arguments, feedback).follow()
        for name, count in made["points"].items():
            feedback.pushInfo(tr("{}: {} points").format(name, count))
        if context.willLoadLayerOnCompletion(output):
            details = context.layerToLoadOnCompletionDetails(output)
            details.name = tr("{} points to label").format(layer.name())
            details.setPostProcessor(_ListedClasses([*made["points"]]))
        return {"OUTPUT": output}
