"""What users of QGIS do beside qgis_process: a program of QGIS' own Python.

Its arguments are what to do, the scene and a folder to work in; it prints JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import qgis.utils
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QCoreApplication, QSettings

PLUGINS = Path("/usr/share/qgis/python/plugins")
PROFILE = Path(os.environ["QGIS_CUSTOM_CONFIG_PATH"]) / "profiles" / "default"


class Interface:
    """As much of QGIS' window as Processing's dialogs ask for."""

    def __init__(self) -> None:
        self.canvas = QgsMapCanvas()

    def mapCanvas(self) -> QgsMapCanvas:
        return self.canvas

    def layerTreeView(self) -> Interface:
        """Nothing is selected in it."""
        return self

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: None


def start() -> QgsApplication:
    """QGIS without a window, with Processing and the plugin."""
    sys.path[:0] = [str(PLUGINS), str(PROFILE / "python" / "plugins")]
    # As the program itself does: settings are the profile's.
    ini, user = QSettings.Format.IniFormat, QSettings.Scope.UserScope
    QSettings.setDefaultFormat(ini)
    QSettings.setPath(ini, user, str(PROFILE))
    QCoreApplication.setOrganizationName("QGIS")
    QCoreApplication.setApplicationName("QGIS3")
    application = QgsApplication([], True, str(PROFILE))
    application.initQgis()
    qgis.utils.iface = Interface()
    from processing.core.Processing import Processing

    Processing.initialize()
    from geoseg_qgis.provider import GeosegPlugin

    application.geoseg = GeosegPlugin(None)
    application.geoseg.initProcessing()
    return application


def script(scene: str, folder: Path) -> Any:
    """processing.run, with progress."""
    import processing

    feedback = QgsProcessingFeedback()
    seen: list[float] = []
    feedback.progressChanged.connect(seen.append)
    made = processing.run(
        "geoseg:predict",
        {"INPUT": scene, "OUTPUT": str(folder / "s.tif"), "VECTOR": str(folder / "s.parquet")},
        feedback=feedback,
    )
    return {"made": made, "progress": seen}


class Heard(QgsProcessingFeedback):
    """What is reported as an error."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def reportError(self, error: str, *fatal: bool) -> None:
        self.errors.append(error)


def refused(scene: str, folder: Path) -> Any:
    """What is said of each run that standard input asks for; None where there was no error."""
    import processing

    found: list[str | None] = []
    for asked in json.load(sys.stdin):
        if "executable" in asked:
            os.environ["GEOSEG_EXECUTABLE"] = asked["executable"]
        heard = Heard()
        try:
            processing.run(f"geoseg:{asked['algorithm']}", asked["parameters"], feedback=heard)
        except QgsProcessingException as error:
            found.append("\n".join([*heard.errors, str(error)]))
        else:
            found.append(None)
    return found


def child(name: str, algorithm: str, **given: Any) -> QgsProcessingModelChildAlgorithm:
    found = QgsProcessingModelChildAlgorithm(algorithm)
    found.setChildId(name)
    source = QgsProcessingModelChildParameterSource
    for parameter, value in given.items():
        if isinstance(value, tuple):
            taken = source.fromChildOutput(*value)
        elif value == "SCENE":
            taken = source.fromModelParameter(value)
        else:
            taken = source.fromStaticValue(value)
        found.addParameterSources(parameter, [taken])
    return found


def model(scene: str, folder: Path) -> Any:
    """A model of predict, then vectorize with other options, then an algorithm of QGIS."""
    made = QgsProcessingModelAlgorithm("land", "test")
    made.addModelParameter(
        QgsProcessingParameterRasterLayer("SCENE", "scene"), QgsProcessingModelParameter("SCENE")
    )
    made.addChildAlgorithm(child("predict", "geoseg:predict", INPUT="SCENE"))
    raster = "predict", "OUTPUT"
    options = {"MIN_AREA": 5000, "SIMPLIFY": 30}
    made.addChildAlgorithm(child("polygons", "geoseg:vectorize", INPUT=raster, **options))
    last = child(
        "trees",
        "native:extractbyattribute",
        INPUT=("polygons", "OUTPUT"),
        FIELD="class_name",
        OPERATOR=0,
        VALUE="trees",
    )
    output = QgsProcessingModelOutput("trees", "trees")
    output.setChildOutputName("OUTPUT")
    output.setChildId("trees")
    last.setModelOutputs({"trees": output})
    made.addChildAlgorithm(last)
    made.updateDestinationParameters()
    assert made.toFile(str(folder / "land.model3"))
    # Some versions put the child's name before it.
    (name,) = (p.name() for p in made.destinationParameterDefinitions())
    return name


def batch(scene: str, folder: Path) -> Any:
    """The batch dialog over three scenes."""
    module = importlib.import_module("processing.gui.BatchAlgorithmDialog")
    loaded: list[list[str]] = []

    def note(algorithm: Any, context: Any, *args: Any, **options: Any) -> bool:
        """Layers are loaded into a window, which is not here."""
        found = context.layersToLoadOnCompletion()
        loaded.append(sorted(details.name for details in found.values()))
        return True

    module.handleAlgorithmResults = note
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoseg:predict")
    window = module.BatchAlgorithmDialog(algorithm)
    panel = window.mainWidget()
    panel.checkLoadLayersOnCompletion.setChecked(True)
    columns = panel.parameter_to_column
    for row in range(3):
        if row >= panel.batchRowCount():
            panel.addRow()
    for row in range(3):
        panel.wrappers[row][columns["INPUT"]].setWidgetValue(scene, panel.processing_context)
        for name, path in (("OUTPUT", f"b{row}.tif"), ("VECTOR", f"b{row}.parquet")):
            cell = panel.tblParameters.cellWidget(row + 1, columns[name])
            cell.setValue(str(folder / path))
    window.runAlgorithm()
    # Newer versions come back at once.
    until = time.monotonic() + 120
    while time.monotonic() < until and not all(
        (folder / f"b{row}.json").exists() for row in range(3)
    ):
        QCoreApplication.processEvents()
        time.sleep(0.01)
    while time.monotonic() < until and len(loaded) < 3:
        QCoreApplication.processEvents()
    return sorted(path.name for path in folder.iterdir()), loaded


def dialog(scene: str, folder: Path) -> Any:
    """The algorithm's dialog, with its picture; the model's field has the embedded ones."""
    from processing.gui.AlgorithmDialog import AlgorithmDialog

    QgsProject.instance().addMapLayer(QgsRasterLayer(scene, "the scene"))
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoseg:predict")
    window = AlgorithmDialog(algorithm, False, None)
    window.resize(900, 900)
    window.show()
    for _ in range(20):
        QCoreApplication.processEvents()
    window.grab().save(str(folder / "dialog.png"))
    field = window.mainWidget().wrappers["MODEL"]
    listed = [field.box.itemText(i) for i in range(field.box.count())]
    values = [field.value()]
    for value in ("landcover-ms", "/a folder", None):
        field.setValue(value)
        values.append(field.value())
    return {"listed": listed, "values": values}


def unsaved(scene: str, folder: Path) -> Any:
    """An evaluation with what was typed in and not saved, and one with a layer in memory."""
    import processing

    made = {"INPUT": scene, "OUTPUT": str(folder / "m.tif"), "VECTOR": str(folder / "m.gpkg")}
    map_ = processing.run("geoseg:predict", made)["OUTPUT"]
    wanted = {"INPUT": map_, "COUNT": 40, "BLIND": False, "OUTPUT": str(folder / "p.gpkg")}
    points = QgsVectorLayer(processing.run("geoseg:sample", wanted)["OUTPUT"], "points", "ogr")
    points.startEditing()
    reference = points.fields().indexOf("reference")
    for feature in points.getFeatures():
        points.changeAttributeValue(feature.id(), reference, feature["class_name"])
    report = folder / "r.json"
    processing.run(
        "geoseg:evaluate",
        {"INPUT": map_, "POINTS": points, "OUTPUT": str(folder / "r.html"), "JSON": str(report)},
    )
    points.rollBack()
    used = json.loads(report.read_text(encoding="utf-8"))["counted"]["used"]
    polygons = QgsVectorLayer(f"{folder / 'm.gpkg'}|layername=landcover", "polygons", "ogr")
    polygons.selectByExpression("class_name = 'trees'")
    some = polygons.materialize(QgsFeatureRequest().setFilterFids(polygons.selectedFeatureIds()))
    found = processing.run(
        "geoseg:evaluate", {"INPUT": map_, "POLYGONS": some, "OUTPUT": str(folder / "q.html")}
    )
    return {"points": used, "polygons": found["ACCURACY"]}


def other_crs(scene: str, folder: Path) -> Any:
    """A layer whose CRS was set by hand."""
    import processing

    layer = QgsRasterLayer(scene, "elsewhere")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32617"))
    try:
        processing.run("geoseg:predict", {"INPUT": layer, "OUTPUT": str(folder / "o.tif")})
    except QgsProcessingException as error:
        return str(error)
    return "done"


def loaded(scene: str, folder: Path) -> Any:
    """What a window shows of points, and of polygons in a file that holds no style."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    registry, project = QgsApplication.processingRegistry(), QgsProject.instance()

    def run_and_load(name: str, **parameters: Any) -> Any:
        context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
        context.setProject(project)
        algorithm = registry.createAlgorithmById(name)
        for output in algorithm.destinationParameterDefinitions():
            path = parameters.get(output.name())
            if path:
                definition = QgsProcessingOutputLayerDefinition(path, project)
                parameters[output.name()] = definition
        results, fine = algorithm.run(parameters, context, feedback)
        assert fine
        handleAlgorithmResults(algorithm, context, feedback)
        return results

    made = run_and_load(
        "geoseg:predict",
        INPUT=scene,
        OUTPUT=str(folder / "l.tif"),
        VECTOR=str(folder / "l.geojson"),
    )
    run_and_load(
        "geoseg:sample", INPUT=made["OUTPUT"], COUNT=20, OUTPUT=str(folder / "points.gpkg")
    )
    layers = {os.path.basename(v.source()): v for v in project.mapLayers().values()}
    polygons, points = layers["l.geojson"], layers["points.gpkg"]
    setup = points.editorWidgetSetup(points.fields().indexOf("reference"))
    return {
        "categories": len(polygons.renderer().categories()),
        "reference": setup.type(),
        "offered": json.dumps(setup.config()),
    }


def cancel_on_windows(scene: str, folder: Path) -> Any:
    """What the plugin does where there is no SIGTERM."""
    module = importlib.import_module("geoseg_qgis.geoseg_predict")

    class Windows:
        """The system's module, under another name."""

        name = "nt"

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    module.os = Windows()
    feedback = QgsProcessingFeedback()
    slow = "--size", "64", "--overlap", "56", "--tta", "d4", "--runtime", "openvino"
    arguments = ["predict", *slow, scene, "-o", str(folder / "s.tif"), "--progress", "json"]
    run = module.Run(arguments, feedback)
    feedback.progressChanged.connect(lambda done: feedback.cancel())
    try:
        run.follow()
    except module.QgsProcessingException as error:
        said = str(error)
    start = time.monotonic()
    return {"error": said, "returncode": run._process.wait(), "seconds": time.monotonic() - start}


if __name__ == "__main__":
    way, scene_path, place = sys.argv[1:]
    application = start()
    found = globals()[way](scene_path, Path(place))
    print(json.dumps(found), flush=True)
    # QGIS' own end crashes while layers live.
    os._exit(0)
