"""Scene information."""

from __future__ import annotations

import html
import os
from typing import Any

from qgis.core import QgsProcessingParameterFileDestination, QgsProcessingParameterRasterLayer

from .geoseg_predict import QgsProcessingException, Run, SharedAlgorithm, tr

#: In a page of this plugin's, which may be replaced.
_MARK = "<meta name='generator' content='geoseg for QGIS'>"


def _is_page(path: str) -> bool:
    """Whether a file is a page of this plugin's."""
    with open(path, "rb") as file:
        return _MARK.encode() in file.read(1000)


class PageAlgorithm(SharedAlgorithm):
    """What gives text: in the log, and on request as a web page."""

    def add_page(self, label: str) -> None:
        """Add the parameter for the page, which the viewer of results calls by its label."""
        kind = tr("Web page (*.html)")
        self.add(QgsProcessingParameterFileDestination("OUTPUT", label, kind, None, True))

    def show(
        self, text: str, title: str, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Put text into the log, and into the page that was asked for; give the outputs."""
        feedback.pushInfo(text)
        path = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if not path:
            return {}
        page = (
            f"<!DOCTYPE html><html><head><meta charset='utf-8'>{_MARK}<title>{html.escape(title)}"
            f"</title></head><body><pre style='white-space: pre-wrap'>{html.escape(text)}"
            f"</pre></body></html>\n"
        )
        try:
            if os.path.lexists(path) and not _is_page(path):
                raise QgsProcessingException(
                    f"{path} exists and was not made by geoseg; give the page another name"
                )
            with open(path, "w", encoding="utf-8") as file:
                file.write(page)
        except OSError as error:
            raise QgsProcessingException(f"{path} can't be written ({error.strerror})") from error
        return {"OUTPUT": path}


class GeosegInfo(PageAlgorithm):
    """Shows what geoseg sees in a scene."""

    NAME = "info"
    LABEL = "Scene information"
    TAGS = "bands, statistics, model, reflectance"
    HELP = (
        "Shows what geoseg sees in a scene: size, pixels, bands and what their numbers mean; and "
        "which models fit it, or why they don't."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Scene")))
        self.add_model()
        self.add_options("info", "--src-nodata 0")
        self.add_page(tr("Scene information"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg info."""
        layer = self.raster(parameters, "INPUT", context)
        arguments = ["info", *self.options(parameters, context), self.path_of(layer)]
        arguments += self.model(parameters, context)
        run = Run(arguments, feedback)
        run.wait()
        return self.show("\n".join(run.printed), layer.name(), parameters, context, feedback)
