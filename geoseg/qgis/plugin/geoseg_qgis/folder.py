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

from .geoseg_predict import QgsProcessingException, Run, SharedAlgorithm, enum, tr


class GeosegFolder(SharedAlgorithm):
    """Predicts every scene of a folder."""

    NAME = "folder"
    LABEL = "Predict a folder of scenes"
    HELP = (
        "Predicts every scene of a folder, one after another, as 'Predict land cover' does. The "
        "maps are called like the scenes, with _landcover. A scene that fails is listed at the "
        "end, and the others are predicted all the same."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        folder = enum(QgsProcessingParameterFile, "Behavior", "Folder")
        self.add(QgsProcessingParameterFile("INPUT", tr("Folder of scenes"), folder))
        self.add(
            QgsProcessingParameterString(
                "PATTERN", tr("Names of the scenes"), "*.tif;*.tiff;*.jp2"
            ),
            tr("With * and ?; several are separated by a semicolon."),
        )
        self.add_model()
        self.add_polygon_options()
        self.add_options("predict")
        self.add(QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of maps")))
        self.addOutput(QgsProcessingOutputNumber("DONE", tr("Scenes predicted")))

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg predict once for each scene."""
        folder = self.parameterAsString(parameters, "INPUT", context)
        output = self.parameterAsString(parameters, "OUTPUT", context)
        patterns = self.parameterAsString(parameters, "PATTERN", context).lower().split(";")
        scenes = [
            name
            for name in sorted(os.listdir(folder))
            if any(fnmatch.fnmatch(name.lower(), pattern.strip()) for pattern in patterns)
            and os.path.isfile(os.path.join(folder, name))
        ]
        if not scenes:
            raise QgsProcessingException(f"{folder} holds no file called {' or '.join(patterns)}")
        stems = [os.path.splitext(name)[0] for name in scenes]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise QgsProcessingException(
                f"several scenes are called {', '.join(twice)}, and their maps would be, too; "
                f"give a pattern that takes one of them"
            )
        os.makedirs(output, exist_ok=True)
        shared = [
            *self.options(parameters, context),
            *self.model(parameters, context),
            *self.polygon_options(parameters, context),
            *("--overwrite", "--progress", "json"),
        ]
        steps = QgsProcessingMultiStepFeedback(len(scenes), feedback)
        failed = []
        for number, (name, stem) in enumerate(zip(scenes, stems)):
            steps.setCurrentStep(number)
            map_ = os.path.join(output, f"{stem}_landcover.tif")
            try:
                arguments = ["predict", os.path.join(folder, name), "--output", map_, *shared]
                Run(arguments, steps).follow()
            except QgsProcessingException as error:
                if feedback.isCanceled():
                    raise
                failed.append(f"{name}: {error}")
                feedback.reportError(failed[-1])
        if failed:
            raise QgsProcessingException(
                f"{len(failed)} of {len(scenes)} scenes failed; the other maps are in {output}. "
                + "; ".join(failed)
            )
        return {"OUTPUT": output, "DONE": len(scenes)}
