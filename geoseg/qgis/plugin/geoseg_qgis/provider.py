"""The plugin and its provider of algorithms."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .diagnostics import GeosegDiagnostics
from .evaluate import GeosegEvaluate
from .folder import GeosegFolder
from .geoseg_predict import SETTING, GeosegPredict
from .info import GeosegInfo
from .sample import GeosegSample
from .vectorize import GeosegVectorize


class GeosegProvider(QgsProcessingProvider):
    """Brings geoseg's algorithms, and the setting of where the command is."""

    def id(self) -> str:
        """Name it for programs."""
        return "geoseg"

    def name(self) -> str:
        """Name it in the toolbox."""
        return "geoseg"

    def longName(self) -> str:
        """Describe it in a line."""
        return "geoseg: land-cover maps"

    def icon(self) -> QIcon:
        """Load the icon."""
        return QIcon(os.path.join(os.path.dirname(__file__), "icon.svg"))

    def loadAlgorithms(self) -> None:
        """Add the algorithms."""
        for algorithm in (
            GeosegPredict,
            GeosegFolder,
            GeosegVectorize,
            GeosegEvaluate,
            GeosegSample,
            GeosegInfo,
            GeosegDiagnostics,
        ):
            self.addAlgorithm(algorithm())

    def load(self) -> bool:
        """Add the setting, then the algorithms."""
        from processing.core.ProcessingConfig import ProcessingConfig, Setting

        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(self.name(), SETTING, "The program geoseg", "", valuetype=Setting.FILE)
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Take the setting away."""
        from processing.core.ProcessingConfig import ProcessingConfig

        if SETTING in ProcessingConfig.settings:  # not after a load that was interrupted
            ProcessingConfig.removeSetting(SETTING)

    def defaultVectorFileExtension(self, hasGeometry: bool = True) -> str:
        """Choose GeoPackage, which holds names and colours."""
        return "gpkg"

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        """List what geoseg writes."""
        return ["gpkg", "fgb", "parquet", "geojson"]

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """List what geoseg writes."""
        return ["tif"]

    def supportsNonFileBasedOutput(self) -> bool:
        """Refuse memory layers and databases: geoseg writes files."""
        return False


class GeosegPlugin:
    """Registers the provider, in QGIS' window and in qgis_process."""

    def __init__(self, iface: Any) -> None:
        """Note nothing but that there is no provider yet."""
        self.provider: GeosegProvider | None = None

    def initProcessing(self) -> None:
        """Register the provider; qgis_process calls this alone."""
        self.provider = GeosegProvider()
        registry = QgsApplication.processingRegistry()
        assert registry is not None
        registry.addProvider(self.provider)

    def initGui(self) -> None:
        """Register the provider."""
        self.initProcessing()

    def unload(self) -> None:
        """Remove the provider."""
        registry = QgsApplication.processingRegistry()
        if self.provider is not None and registry is not None:
            registry.removeProvider(self.provider)
            self.provider = None
