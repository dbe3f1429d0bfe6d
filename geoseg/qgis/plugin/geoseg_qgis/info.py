"""Scene information."""

from __future__ import annotations

import html
from typing import Any

from qgis.core import QgsProcessingParameterFileDestination, QgsProcessingParameterRasterLayer

from .geoseg_predict import Run, SharedAlgorithm, tr


def write_page(path: str, title: str, text: str) -> None:
    """Write text as a web page, which is what QGIS shows in its results."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
            f"</head><body><pre style='white-space: pre-wrap'>{html.escape(text)}</pre></body>"
            f"</html>\n"
        )


class GeosegInfo(SharedAlgorithm):
    """Shows what geoseg sees in a scene."""

    NAME = "info"
    LABEL = "Scene information"
    HELP = (
        "Shows what geoseg sees in a scene: size, pixels, bands and what their numbers mean; and "
        "which models fit it, or why they don't."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Scene")))
        self.add_model()
        self.add_options("info")
        self.add(
            QgsProcessingParameterFileDestination(
                "OUTPUT", tr("Page"), tr("Web page (*.html)"), None, True
            )
        )

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg info."""
        layer = self.raster(parameters, "INPUT", context)
        arguments = ["info", layer.dataProvider().dataSourceUri(), *self.model(parameters, context)]
        run = Run(arguments + self.options(parameters, context), feedback)
        run.follow()
        text = "\n".join(run.printed)
        feedback.pushInfo(text)
        output = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if not output:
            return {}
        write_page(output, layer.name(), text)
        return {"OUTPUT": output}
