"""Predict land cover from QGIS Processing, by the ``geoseg`` command in its own environment.

This file is part of the plugin, and works without it: copied into Processing's folder of scripts
it is the algorithm ``script:geosegpredict``. It needs the standard library and QGIS (3.22 to 4.x),
nothing else. What geoseg's other algorithms share is here, too: how the command is found, run,
followed and stopped. The file is long because it has to be the only one of a script.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from textwrap import shorten
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsSettings,
)

# qgis-stubs has no line for it.
from qgis.core import QgsProcessingException as QgsProcessingException  # type: ignore[attr-defined]
from qgis.PyQt.QtCore import QCoreApplication

#: The number of geoseg's protocol of events that this reads.
PROTOCOL = 1
#: Versions of geoseg, major and minor, from which on this works.
NEEDS = (0, 1)
#: Programs that are geoseg, with the time of their last change.
_CHECKED: set[tuple[str, float | None]] = set()
#: Where Processing keeps the path of the command.
SETTING = "GEOSEG_EXECUTABLE"
#: Seconds between two looks at whether the user has cancelled, and after which a command that
#: was asked to end is killed.
POLL, PATIENCE = 0.1, 2.5
#: What QGIS sets for its own Python, GDAL, PROJ and Qt: geoseg has others.
_OF_QGIS = ("GDAL_", "PROJ_", "QT_", "PYTHON")
_OF_QGIS_TOO = {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
_INSTALL = (
    "install it (pip install geoseg) and run: geoseg qgis install; or set its path in Settings > "
    "Options > Processing > Providers > geoseg"
)


def tr(text: str) -> str:
    """Translate a text of the dialogs."""
    return str(QCoreApplication.translate("geoseg", text))


def enum(owner: Any, scope: str, name: str) -> Any:
    """Take one of QGIS' constants by its scoped name, or by its flat one where it is elsewhere."""
    found = getattr(getattr(owner, scope, None), name, None)
    return getattr(owner, name) if found is None else found


def in_flatpak() -> bool:
    """Whether QGIS runs in a flatpak; geoseg is outside then."""
    return os.path.exists("/.flatpak-info")


def find_geoseg() -> list[str]:
    """Find the command: in Processing's setting, in GEOSEG_EXECUTABLE or on the PATH.

    Returns:
        What its arguments are put after.

    Raises:
        QgsProcessingException: it is not there.
    """
    stored = str(QgsSettings().value(f"Processing/Configuration/{SETTING}", "") or "").strip()
    given = stored or os.environ.get(SETTING, "").strip()
    if in_flatpak():
        return ["flatpak-spawn", "--host", "--watch-bus", given or "geoseg"]
    if given and not (os.path.isfile(given) and os.access(given, os.X_OK)):
        where = "Processing's setting" if stored else f"the variable {SETTING}"
        raise QgsProcessingException(
            f"{where} says that geoseg is {given}, which is no program that can be run; {_INSTALL}"
        )
    found = given or shutil.which("geoseg")
    if not found:
        raise QgsProcessingException(f"the program geoseg was not found; {_INSTALL}")
    return [found]


def environment() -> dict[str, str]:
    """Make the command's environment: that of QGIS without what belongs to QGIS."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OF_QGIS) and name not in _OF_QGIS_TOO
    }
    return {**kept, "PYTHONUTF8": "1"}


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start the command.

    Raises:
        QgsProcessingException: it is not there, can't be started, or is none that this works with.
    """
    command = find_geoseg()
    _check_version(command)
    return _open([*command, *arguments])


def _open(line: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C in qgis_process's terminal is QGIS' alone: it cancels.
            start_new_session=os.name == "posix",
            # Else Windows opens a console.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise QgsProcessingException(f"{line[0]} can't be started ({error}); {_INSTALL}") from error


def _check_version(command: list[str]) -> None:
    """Ask a program once whether it is geoseg, and new enough.

    Raises:
        QgsProcessingException: it is not.
    """
    program = command[-1]
    changed = os.path.getmtime(program) if os.path.exists(program) else None
    if (program, changed) in _CHECKED:
        return
    try:
        code, printed, said = _ask([*command, "--version"], seconds=60)
    except TimeoutError:
        raise QgsProcessingException(
            f"{program} --version has not ended after 60 s; {_INSTALL}"
        ) from None
    found = re.fullmatch(r"geoseg, version ((\d+)\.(\d+)\S*)\s*", printed)
    if code or found is None:
        answer = _last_error(said) if code else shorten(printed, 80)
        raise QgsProcessingException(
            f"{program} is no geoseg that works: to --version it answers {answer!r} (exit code "
            f"{code}); {_INSTALL}"
        )
    if (int(found[2]), int(found[3])) < NEEDS:
        raise QgsProcessingException(
            f"{program} is geoseg {found[1]}, and this plugin needs {'.'.join(map(str, NEEDS))} or "
            f"newer; update it (pip install --upgrade), then run: geoseg qgis install"
        )
    _CHECKED.add((program, changed))


def ask(*arguments: str, seconds: float = 60) -> str:
    """Run a command that ends soon, and take what it prints.

    Raises:
        QgsProcessingException: it failed; with its own words.
        TimeoutError: it has not ended in time.
    """
    command = find_geoseg()
    _check_version(command)
    code, printed, said = _ask([*command, *arguments], seconds)
    if code:
        raise QgsProcessingException(_last_error(said) or f"geoseg ended with {code}")
    return printed


def _ask(line: list[str], seconds: float) -> tuple[int, str, str]:
    process = _open(line)
    try:
        printed, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise TimeoutError(f"geoseg {line[-1]} has not ended after {seconds:g} s") from None
    return process.returncode, printed, said


def _kill(process: subprocess.Popen[str]) -> None:
    """End a command and what it has started, at once."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _last_error(said: str) -> str:
    """Find what the command complained of on standard error."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("geoseg: error: ", "Error: "))]
    return (errors or lines or [""])[-1].removeprefix("geoseg: ").removeprefix("error: ")


class Run:
    """One run of the command, whose events go to QGIS' feedback.

    Attributes:
        printed: lines on standard output that are no events.
        result: the last event of that name.
    """

    def __init__(self, arguments: list[str], feedback: QgsProcessingFeedback) -> None:
        """Start it.

        Raises:
            QgsProcessingException: it can't be started.
        """
        self.printed: list[str] = []
        self.result: dict[str, Any] = {}
        self._feedback = feedback
        self._said: deque[str] = deque(maxlen=100)
        self._error = ""
        self._lines: queue.Queue[tuple[bool, str | None]] = queue.Queue()
        feedback.pushCommandInfo("geoseg " + " ".join(map(shlex.quote, arguments)))
        self._leaving = threading.Event()
        self._process = start(arguments)
        for stream, is_output in ((self._process.stdout, True), (self._process.stderr, False)):
            reader = threading.Thread(target=self._read, args=(stream, is_output), daemon=True)
            reader.start()

    def _read(self, stream: Any, is_output: bool) -> None:
        with stream:
            for line in stream:
                if self._leaving.is_set():
                    break
                self._lines.put((is_output, line.rstrip("\n")))
        self._lines.put((is_output, None))

    def follow(self) -> dict[str, Any]:
        """Wait for the end of a command with ``--progress json``, and pass on what it reports.

        Returns:
            The event "result".

        Raises:
            QgsProcessingException: the command failed or made nothing, or the user cancelled.
        """
        self.wait()
        if not self.result:
            raise QgsProcessingException(
                tr("geoseg made nothing; leave options such as --help and --dry-run out of OPTIONS")
            )
        return self.result

    def wait(self) -> None:
        """Wait for the end of any command.

        Raises:
            QgsProcessingException: the command failed, or the user cancelled.
        """
        open_streams = 2
        while open_streams:
            if self._feedback.isCanceled():
                self._end()
                raise QgsProcessingException(
                    tr("cancelled; what was finished is kept for the next run with these outputs")
                )
            try:
                is_output, line = self._lines.get(timeout=POLL)
            except queue.Empty:
                continue
            if line is None:
                open_streams -= 1
            elif is_output:
                self._take(line)
            elif line.strip():
                self._said.append(line)
                self._feedback.pushConsoleInfo(line)
        code = self._process.wait()
        if code:
            error = self._error or _last_error("\n".join(self._said))
            raise QgsProcessingException(error or f"geoseg ended with {code}")

    def _end(self) -> None:
        """End the command: it removes what is half written."""
        if os.name == "posix":
            self._process.terminate()
        else:
            # Windows has no signal for this: the command ends when nobody reads its events. There
            # is one every second, and the thread that reads is the one that may close the pipe.
            self._leaving.set()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            _kill(self._process)

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            self.printed.append(line)
            return
        if kind == "start":
            if event["protocol"] != PROTOCOL:
                self._end()
                raise QgsProcessingException(
                    f"geoseg {event['version']} speaks protocol {event['protocol']}, and this "
                    f"plugin {PROTOCOL}; run: geoseg qgis install"
                )
            chosen = event["model"]
            self._feedback.pushInfo(f"model {chosen['name']}: {chosen['chosen']}")
        elif kind == "progress":
            self._feedback.setProgress(100 * event["done"] / max(event["total"], 1))
            self._feedback.setProgressText(_stage(event))
        elif kind == "warning":
            self._feedback.pushWarning(event["message"])
        elif kind == "note":
            self._feedback.pushInfo(event["message"])
        elif kind == "error":
            self._error = event["message"]
        elif kind == "result":
            self.result = event


def _stage(event: dict[str, Any]) -> str:
    if event["stage"] == "predict":
        return tr("Predicting: {} s left").format(event["seconds_left"])
    return tr("Making polygons") if event["stage"] == "polygons" else str(event["stage"])


class Styled(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the names and colours of classes that geoseg wrote beside or into it."""

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Load the style."""
        layer.loadDefaultStyle()
        layer.triggerRepaint()


#: QGIS keeps no reference to it; it has no state, so one does for all layers.
_STYLED = Styled()


class SharedAlgorithm(QgsProcessingAlgorithm):
    """What geoseg's algorithms have in common.

    Of a script Processing takes the algorithm whose class comes first by name, so this one must
    come after the other.

    Attributes:
        NAME: for programs.
        LABEL: in the toolbox.
        GROUP: a key of GROUPS.
        HELP: a paragraph or two.
    """

    GROUPS = {"landcover": "Land cover", "accuracy": "Accuracy", "help": "Help"}
    NAME, LABEL, GROUP, HELP = "", "", "landcover", ""

    def createInstance(self) -> SharedAlgorithm:
        """Make another one."""
        return type(self)()

    def name(self) -> str:
        """Name it for programs."""
        return self.NAME

    def displayName(self) -> str:
        """Name it in the toolbox."""
        return tr(self.LABEL)

    def shortHelpString(self) -> str:
        """Describe it, in QGIS' window with a picture."""
        text = tr(self.HELP)
        picture = os.path.join(os.path.dirname(__file__), "help.png")
        window = getattr(sys.modules.get("qgis.utils"), "iface", None)
        if window is None or not os.path.exists(picture):
            return text
        paragraphs = "</p><p>".join(text.split("\n\n"))
        return f'<p><img src="{picture}" width="240"></p><p>{paragraphs}</p>'

    def group(self) -> str:
        """Name the group in the toolbox."""
        return tr(self.GROUPS[self.GROUP])

    def groupId(self) -> str:
        """Name the group for programs."""
        return self.GROUP

    def add(self, parameter: Any, help_: str = "", *, advanced: bool = False) -> None:
        """Add a parameter with its help."""
        if help_:
            parameter.setHelp(help_)
        if advanced:
            flag = enum(QgsProcessingParameterDefinition, "Flag", "FlagAdvanced")
            parameter.setFlags(parameter.flags() | flag)
        self.addParameter(parameter)

    def add_model(self) -> None:
        """Add model and bands."""
        model = QgsProcessingParameterString("MODEL", tr("Model"), "", False, True)
        if __package__:  # a script is a single file
            widget = {"class": f"{__package__}.model_widget.ModelWidget"}
            model.setMetadata({"widget_wrapper": widget})
        self.add(
            model,
            tr(
                "Name of an embedded model, or a model folder or .zip; empty: the embedded one "
                "that suits the scene."
            ),
        )
        self.add(
            QgsProcessingParameterString("BANDS", tr("Bands"), "", False, True),
            tr(
                "Numbers of the scene's bands in the model's order (4,3,2), where the scene does "
                "not say what its bands are."
            ),
        )

    def model(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Make the arguments that say which model and bands."""
        arguments = []
        for name, option in (("MODEL", "--model"), ("BANDS", "--bands")):
            text = self.parameterAsString(parameters, name, context).strip()
            arguments += [option, text] if text else []
        return arguments

    def add_number(self, name: str, label: str, help_: str) -> None:
        """Add a parameter for a number from 0 on, which may be left out."""
        kind = enum(QgsProcessingParameterNumber, "Type", "Double")
        self.add(QgsProcessingParameterNumber(name, label, kind, None, True, 0.0), help_)

    def add_polygon_options(self) -> None:
        """Add what shapes polygons."""
        self.add_number(
            "MIN_AREA",
            tr("Minimum area (m²)"),
            tr("Regions smaller than this go to a neighbour."),
        )
        self.add_number(
            "SIMPLIFY",
            tr("Simplification of borders (m)"),
            tr("Tolerance; neighbours keep their shared borders."),
        )

    def polygon_options(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Make the arguments of what shapes polygons."""
        arguments = []
        for name, option in (("MIN_AREA", "--min-area"), ("SIMPLIFY", "--simplify")):
            if parameters.get(name) is not None:
                arguments += [option, repr(self.parameterAsDouble(parameters, name, context))]
        return arguments

    def add_options(self, command: str) -> None:
        """Add the parameter for further options of the command line."""
        self.add(
            QgsProcessingParameterString("OPTIONS", tr("Further options"), "", False, True),
            tr("Options of geoseg {} as on a command line, for example: --tta flips").format(
                command
            ),
            advanced=True,
        )

    def options(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Split what was given for OPTIONS; they come first, so that the dialog's fields win.

        Raises:
            QgsProcessingException: a quote is not closed.
        """
        text = self.parameterAsString(parameters, "OPTIONS", context)
        try:
            return shlex.split(text)
        except ValueError as error:
            raise QgsProcessingException(f"OPTIONS: {text!r}: {error}") from error

    def raster(self, parameters: dict[str, Any], name: str, context: Any) -> Any:
        """Take a raster layer that is a file.

        Raises:
            QgsProcessingException: it is no such layer.
        """
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{name}: the layer {layer.name()} comes from {layer.providerType()}, and geoseg "
                f"reads files; save it as a GeoTIFF first"
            )
        return layer

    def vector(self, parameters: dict[str, Any], name: str, context: Any, feedback: Any) -> str:
        """Write a vector layer as QGIS shows it, with edits and filter, and take its path.

        Raises:
            QgsProcessingException: there is no such layer.
        """
        # No format is good enough as it is: a file may hold several layers.
        path = self.parameterAsCompatibleSourceLayerPath(
            parameters, name, context, [], "gpkg", feedback
        )
        if not path:
            raise QgsProcessingException(self.invalidSourceError(parameters, name))
        return str(path)

    def styled(self, context: Any, *paths: str) -> None:
        """Have layers get geoseg's style when QGIS loads them."""
        for path in paths:
            if path and context.willLoadLayerOnCompletion(path):
                context.layerToLoadOnCompletionDetails(path).setPostProcessor(_STYLED)


class GeosegPredict(SharedAlgorithm):
    """Turns a scene into a land-cover raster and polygons."""

    NAME = "predict" if __package__ else "geosegpredict"
    LABEL = "Predict land cover"
    HELP = (
        "Turns a satellite or aerial scene into a raster of land-cover classes and polygons, with "
        "names and colours.\n\nThe embedded models take surface or top-of-atmosphere reflectance "
        "in six bands at 10 to 30 m, or red, green and blue at 0.2 to 2 m. A model of your own is "
        "a folder or a .zip. Clouds are no class: mask them first."
    )

    def initAlgorithm(self, config: Any = None) -> None:
        """Define the parameters."""
        self.add(QgsProcessingParameterRasterLayer("INPUT", tr("Scene")))
        self.add_model()
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), None, True),
            tr("Predict only this part."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "AOI",
                tr("Area of interest"),
                [enum(QgsProcessing, "SourceType", "TypeVectorPolygon")],
                None,
                True,
            ),
            tr("Predict only inside these polygons, in whatever CRS."),
        )
        self.add_polygon_options()
        self.add_options("predict")
        self.add(QgsProcessingParameterRasterDestination("OUTPUT", tr("Class raster")))
        self.add(
            QgsProcessingParameterVectorDestination(
                "VECTOR",
                tr("Polygons"),
                enum(QgsProcessing, "SourceType", "TypeVectorPolygon"),
                None,
                True,
                True,
            )
        )
        for name, label in (
            ("CONFIDENCE", tr("Confidence")),
            ("PROBABILITIES", tr("Probabilities of all classes")),
        ):
            self.add(QgsProcessingParameterRasterDestination(name, label, None, True, False))

    def checkParameterValues(self, parameters: dict[str, Any], context: Any) -> tuple[bool, str]:
        """Ask geoseg whether a model fits the scene."""
        fine, message = super().checkParameterValues(parameters, context)
        if not fine:
            return False, message or ""
        try:
            # QGIS' window waits for this.
            shown = json.loads(ask("info", *self._scene(parameters, context), "--json", seconds=15))
        except QgsProcessingException as error:
            return False, str(error)
        except TimeoutError:  # a slow server: the run itself will say
            return True, ""
        models = shown["models"]
        if any(model["fits"] for model in models):
            return True, ""
        return False, "; ".join(f"{m['name']}: {m['why']}" for m in models)

    def _scene(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Make the arguments that say which scene, model and bands."""
        layer = self.raster(parameters, "INPUT", context)
        return [layer.dataProvider().dataSourceUri(), *self.model(parameters, context)]

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg predict."""
        options = self.options(parameters, context)
        arguments = ["predict", *options, *self._scene(parameters, context)]
        layer = self.raster(parameters, "INPUT", context)
        extent = self.parameterAsExtent(parameters, "EXTENT", context, layer.crs())
        if not extent.isNull():
            west, south, east, north = (
                extent.xMinimum(),
                extent.yMinimum(),
                extent.xMaximum(),
                extent.yMaximum(),
            )
            arguments.append(f"--bbox={west!r},{south!r},{east!r},{north!r}")
        if parameters.get("AOI"):
            arguments += ["--aoi", self.vector(parameters, "AOI", context, feedback)]
        arguments += self.polygon_options(parameters, context)
        outputs = {}
        for name, option in (
            ("OUTPUT", "--output"),
            ("VECTOR", "--vector"),
            ("CONFIDENCE", "--confidence"),
            ("PROBABILITIES", "--probs"),
        ):
            path = self.parameterAsOutputLayer(parameters, name, context)
            if path:
                outputs[name] = path
                arguments += [option, path]
            elif name == "VECTOR":
                arguments.append("--no-vector")
        arguments += ["--overwrite", "--progress", "json"]
        Run(arguments, feedback).follow()
        self.styled(context, *outputs.values())
        return outputs
