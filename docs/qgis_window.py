"""Makes the manual's picture of QGIS' window, docs/img/qgis-window.png.

In a profile that has the plugin, with a map of the example scene, under an X server such as Xvfb:

    geoseg predict examples/landsat7_nc_2000.tif -o map.tif
    export QGIS_WINDOW="examples/landsat7_nc_2000.tif map.tif window.png"
    qgis --nologo --code docs/qgis_window.py

The picture in the algorithms' help is cut out of what ``geoseg predict --preview`` makes of the
scene. The picture of the dialog is dialog.png of ``tests/qgis/ways.py dialog SCENE FOLDER``.
"""

from __future__ import annotations

import os

from qgis.core import QgsContrastEnhancement, QgsMultiBandColorRenderer, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QApplication, QDockWidget, QTreeView
from qgis.utils import iface

SCENE, MAP, PICTURE = os.environ["QGIS_WINDOW"].split()
scene, classes = QgsRasterLayer(SCENE, "scene"), QgsRasterLayer(MAP, "map")


def show() -> None:
    """Add the layers, and open what is to be seen."""
    for layer in (scene, classes):
        QgsProject.instance().addMapLayer(layer)
    provider = scene.dataProvider()
    renderer = QgsMultiBandColorRenderer(provider, 3, 2, 1)
    setters = (
        (3, renderer.setRedContrastEnhancement),
        (2, renderer.setGreenContrastEnhancement),
        (1, renderer.setBlueContrastEnhancement),
    )
    for band, setter in setters:
        found = provider.bandStatistics(band)
        stretch = QgsContrastEnhancement(provider.dataType(band))
        stretch.setMinimumValue(found.mean - 2 * found.stdDev)
        stretch.setMaximumValue(found.mean + 2 * found.stdDev)
        stretch.setContrastEnhancementAlgorithm(QgsContrastEnhancement.StretchToMinimumMaximum)
        setter(stretch)
    scene.setRenderer(renderer)
    classes.renderer().setOpacity(0.65)
    window = iface.mainWindow()
    window.resize(1400, 900)
    window.findChild(QDockWidget, "Browser").hide()
    iface.layerTreeView().expandAll()
    toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
    toolbox.show()
    for tree in toolbox.findChildren(QTreeView):
        tree.expandRecursively(tree.model().index(tree.model().rowCount() - 1, 0))
        tree.scrollToBottom()
    iface.mapCanvas().setExtent(classes.extent())
    iface.mapCanvas().refresh()
    QTimer.singleShot(4000, save)


def save() -> None:
    """Keep the picture, and end."""
    iface.messageBar().clearWidgets()
    QApplication.processEvents()
    iface.mainWindow().grab().save(PICTURE)
    os._exit(0)


QTimer.singleShot(3000, show)
