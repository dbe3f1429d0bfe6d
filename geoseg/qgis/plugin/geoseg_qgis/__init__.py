"""The plugin of QGIS: geoseg's algorithms for Processing."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Make the plugin.

    Args:
        iface: QGIS' window; None in qgis_process.
    """
    from .provider import GeosegPlugin

    return GeosegPlugin(iface)
