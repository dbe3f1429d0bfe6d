"""Predict a folder of scenes, one after another."""

from __future__ import annotations

import fnmatch
import os
from typing import Any

from qgis.core import (
    QgsProcessingMultiStepFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterString,
)

from .geoseg_predict import (
    QgsProcessingException,
    Run,
    SharedAlgorithm,
    ask_json,
    enum,
    find_geoseg,
    tr,
)


class GeosegFolder(SharedAlgorithm):
    """Predicts every scene of a folder."""

    NAME = "folder"
    LABEL = "Predict a folder of scenes"
    HELP = (
        "Predicts every scene of a folder, one after another, as 'Predict land cover' does. The "
        "maps are called like the scenes, with _landcover. A scene that fails is listed at the "
        "end, and the others are predicted all the same.\n\nA folder that is a scene itself, with "
        "a file for each band (a .SAFE of Sentinel-2, a Landsat product), becomes one map."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        folder = enum(QgsProcessingParameterFile, "Behavior", "Folder")
        self.add(QgsProcessingParameterFile("INPUT", tr("Folder of scenes"), folder))
        self.add(
            QgsProcessingParameterString(
                "PATTERN", tr("Names of the scenes"), "*.tif;*.tiff;*.jp2;*.SAFE"
            ),
            tr("With * and ?; several are separated by a semicolon."),
        )
        self.add_model()
        self.add_polygon_options()
        self.add_options("predict", "--tta flips")
        self.add(QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of maps")))
        self.addOutput(QgsProcessingOutputNumber("DONE", tr("Scenes predicted")))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg predict once for each scene."""
        folder = self.parameterAsString(parameters, "INPUT", context)
        output = self.parameterAsString(parameters, "OUTPUT", context)
        patterns = self.parameterAsString(parameters, "PATTERN", context).lower().split(";")
        if not os.path.isdir(folder):
            raise QgsProcessingException(f"{folder} is no folder")
        find_geoseg()  # else every scene would fail
        if _is_scene(folder):
            scenes = {os.path.basename(os.path.normpath(folder)): folder}
        else:
            scenes = _scenes_in(folder, output, patterns)
        try:
            os.makedirs(output, exist_ok=True)
        except OSError as error:
            raise QgsProcessingException(f"{output} can't be made ({error.strerror})") from error
        options = self.options(parameters, context)
        shared = [
            *self.model(parameters, context),
            *self.polygon_options(parameters, context),
            *("--overwrite", "--progress", "json"),
        ]
        steps = QgsProcessingMultiStepFeedback(len(scenes), feedback)
        failed = []
        for number, (name, path) in enumerate(scenes.items()):
            steps.setCurrentStep(number)
            map_ = os.path.join(output, f"{os.path.splitext(name)[0]}_landcover.tif")
            try:
                arguments = ["predict", *options, path, "--output", map_, *shared]
                Run(arguments, steps).follow()
            except QgsProcessingException as error:
                if feedback.isCanceled():
                    raise
                failed.append(f"{name}: {error}")
                feedback.reportError(failed[-1])
        if failed:
            # Each was reported when it failed.
            raise QgsProcessingException(
                f"{len(failed)} of {len(scenes)} scenes failed; the other maps are in {output}. "
                + "; ".join(failed[:5])
                + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
            )
        return {"OUTPUT": output, "DONE": len(scenes)}


def _is_scene(folder: str) -> bool:
    """Whether a folder is one scene, with a file for each band; of one file, it is the file."""
    try:
        found = ask_json("info", folder, "--json")
    except (QgsProcessingException, TimeoutError):
        return False  # no file is named after a band
    return len(found["paths"]) > 1


def _scenes_in(folder: str, output: str, patterns: list[str]) -> dict[str, str]:
    """Find the scenes of a folder.

    Returns:
        Name -> path.

    Raises:
        QgsProcessingException: there are none, or two would have the same map.
    """
    names = [
        name
        for name in sorted(os.listdir(folder))
        if any(fnmatch.fnmatch(name.lower(), pattern.strip()) for pattern in patterns)
    ]
    if os.path.isdir(output) and os.path.samefile(folder, output):
        maps = {f"{os.path.splitext(name)[0]}_landcover.tif" for name in names}
        names = [name for name in names if name not in maps]
    if not names:
        raise QgsProcessingException(
            f"{folder} holds no file or folder called {' or '.join(patterns)}"
        )
    stems = [os.path.splitext(name)[0] for name in names]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise QgsProcessingException(
            f"several scenes are called {', '.join(twice)}, and their maps would be, too; give a "
            f"pattern that takes one of them"
        )
    return {name: os.path.join(folder, name) for name in names}
