"""What to send along with a report that something fails."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from qgis.core import Qgis

from .geoseg_predict import (
    PROTOCOL,
    QgsProcessingException,
    ask,
    environment,
    find_geoseg,
    in_flatpak,
    tr,
)
from .info import PageAlgorithm


class GeosegDiagnostics(PageAlgorithm):
    """Describes this QGIS, the plugin and the geoseg that it found."""

    NAME = "diagnostics"
    LABEL = "Geoseg diagnostics"
    GROUP = "help"
    TAGS = "version, doctor, error"
    HELP = (
        "Describes this QGIS, the plugin, and the geoseg that it finds: what to read first when "
        "something fails, and what to send along with a report."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameter."""
        self.add_page(tr("Diagnostics"))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Collect it; a geoseg that is missing or broken is a finding, no failure."""
        dropped = sorted({*os.environ} - {*environment()})
        found = [
            f"QGIS        {Qgis.version()}{' in a flatpak' if in_flatpak() else ''}",
            f"its Python  {sys.version.split()[0]}, {platform.platform()}",
            f"plugin      protocol {PROTOCOL}, {os.path.dirname(__file__)}",
            f"kept from geoseg: {', '.join(dropped) or 'no variable'}",
        ]
        try:
            found.append(f"program     {' '.join(find_geoseg())}")
            found.append(f"version     {ask('--version').strip()}")
        except (QgsProcessingException, TimeoutError) as error:
            found.append(f"geoseg can't be used: {error}")
        else:
            for arguments in (["doctor"], ["models", "list"]):
                try:
                    found.append(ask(*arguments).strip())
                except (QgsProcessingException, TimeoutError) as error:
                    if arguments != ["doctor"]:  # which not every geoseg has
                        found.append(f"geoseg {' '.join(arguments)}: {error}")
        return self.show("\n".join(found), "geoseg diagnostics", parameters, context, feedback)
