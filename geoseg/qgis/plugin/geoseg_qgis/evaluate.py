"""Evaluate a map."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
)

from .geoseg_predict import Run, SharedAlgorithm, enum, tr

#: Parameter -> option of the command line; one of them is given.
_REFERENCES = {"POINTS": "--points", "LABELS": "--labels", "POLYGONS": "--labels"}


class GeosegEvaluate(SharedAlgorithm):
    """Measures how accurate a class raster is."""

    NAME = "evaluate"
    LABEL = "Evaluate a map"
    TAGS = "accuracy, confusion matrix, validation, kappa, iou, area"
    GROUP = "accuracy"
    HELP = (
        "Measures how accurate a class raster is. Give one of: labelled points that 'Sample points "
        "to label' has drawn (accuracies and the true areas of the classes, with 95 % intervals); "
        "a raster of labels; polygons of labels."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        kinds = {
            "POINTS": [enum(QgsProcessing, "SourceType", "TypeVectorPoint")],
            "POLYGONS": [enum(QgsProcessing, "SourceType", "TypeVectorPolygon")],
        }
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Class raster")))
        self.add(
            QgsProcessingParameterVectorLayer(
                "POINTS", tr("Labelled points"), kinds["POINTS"], None, True
            )
        )
        self.add(QgsProcessingParameterRasterLayer("LABELS", tr("Raster of labels"), None, True))
        self.add(
            QgsProcessingParameterVectorLayer(
                "POLYGONS", tr("Polygons of labels"), kinds["POLYGONS"], None, True
            )
        )
        self.add(
            QgsProcessingParameterString("COLUMN", tr("Column of the true class"), "", False, True),
            tr("Of the points or polygons; empty: reference, or class_id of polygons."),
        )
        self.add_options("evaluate", "--ignore 0")
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT", tr("Report"), tr("Web page (*.html)"))
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "JSON", tr("Report as JSON"), tr("JSON (*.json)"), None, True, False
            )
        )
        self.addOutput(QgsProcessingOutputNumber("ACCURACY", tr("Overall accuracy, 0 to 1")))

    def checkParameterValues(self, parameters: dict[str, Any], context: Any) -> tuple[bool, str]:
        """Refuse none and several references."""
        fine, message = super().checkParameterValues(parameters, context)
        given = [name for name in _REFERENCES if parameters.get(name)]
        if fine and len(given) != 1:
            found = " and ".join(given) or "none"
            return False, (
                f"give one of labelled points (POINTS), raster of labels (LABELS) and polygons of "
                f"labels (POLYGONS); found {found}"
            )
        return fine, message or ""

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg evaluate."""
        layer = self.raster(parameters, "INPUT", context)
        options = self.options(parameters, context)
        arguments = ["evaluate", *options, self.path_of(layer)]
        for name, option in _REFERENCES.items():
            if parameters.get(name):
                arguments += [option, self._reference(parameters, name, context, feedback)]
        column = self.parameterAsString(parameters, "COLUMN", context).strip()
        arguments += ["--column", column] if column else []
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        kept = self.parameterAsFileOutput(parameters, "JSON", context)
        arguments += ["--html", output, *(["--json", kept] if kept else [])]
        arguments += ["--overwrite", "--progress", "json"]
        run = Run(arguments, feedback)
        found = run.follow()["report"]
        # Of points an estimate with an interval, of labels a share of their pixels.
        estimate = found.get("overall_accuracy")
        value = estimate["value"] if estimate else found["measures"]["pixel_accuracy"]
        feedback.pushInfo(tr("Overall accuracy: {:.1f} %").format(100 * value))
        made = {"OUTPUT": output, "ACCURACY": value}
        return {**made, "JSON": kept} if kept else made

    def _reference(self, parameters: dict[str, Any], name: str, context: Any, feedback: Any) -> str:
        """Find the file of labels, or make one of a layer with what is not saved yet."""
        if name == "LABELS":
            return self.path_of(self.raster(parameters, name, context))
        return self.vector(parameters, name, context, feedback)
