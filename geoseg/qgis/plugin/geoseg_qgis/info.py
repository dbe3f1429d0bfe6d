"""Scene information."""

from __future__ import annotations

import html
from typing import Any

from qgis.core import QgsProcessingParameterFileDestination, QgsProcessingParameterRasterLayer

from .geoseg_predict import Run, SharedAlgorithm, tr


class PageAlgorithm(SharedAlgorithm):
    """What gives text: in the log, and on request as a web page."""

    def add_page(self) -> None:
        """Add the parameter for the page."""
        kind = tr("Web page (*.html)")
        self.add(QgsProcessingParameterFileDestination("OUTPUT", tr("Page"), kind, None, True))

    def show(
        self, text: str, title: str, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Put text into the log, and into the page that was asked for; give the outputs."""
        feedback.pushInfo(text)
        path = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if not path:
            return {}
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{html.escape(title)}"
                f"</title></head><body><pre style='white-space: pre-wrap'>{html.escape(text)}"
                f"</pre></body></html>\n"
            )
        return {"OUTPUT": path}


class GeosegInfo(PageAlgorithm):
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
        self.add_page()

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg info."""
        layer = self.raster(parameters, "INPUT", context)
        options = self.options(parameters, context)
        arguments = [
            "info",
            *options,
            layer.dataProvider().dataSourceUri(),
            *self.model(parameters, context),
        ]
        run = Run(arguments, feedback)
        run.wait()
        return self.show("\n".join(run.printed), layer.name(), parameters, context, feedback)
