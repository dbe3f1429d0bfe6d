"""Predict land cover from QGIS Processing, by the ``geoseg`` command in its own environment.

This file is part of the plugin, and works without it: copied into Processing's folder of scripts
it is the algorithm ``script:geosegpredict``. It needs the standard library and QGIS (3.22 to 4.x),
nothing else. What geoseg's other algorithms share is here, too: how the command is found, run,
followed and stopped. The file is long because it has to be the only one of a script.
"""

from __future__ import annotations

import contextlib
import itertools
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
import time
from collections import deque
from textwrap import shorten
from typing import Any

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsPalettedRasterRenderer,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsSettings,
    QgsSymbol,
    QgsVectorLayer,
)

# qgis-stubs has no line for it.
from qgis.core import QgsProcessingException as QgsProcessingException  # type: ignore[attr-defined]
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QThread

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
_CANCELLED = "cancelled; what was finished is kept for the next run with these outputs"
#: Seconds between two texts about the same stage.
STAGE = 10.0
#: What QGIS sets for its own Python, GDAL, PROJ and Qt: geoseg has others.
_OF_QGIS = ("GDAL_", "PROJ_", "QT_", "PYTHON")
_OF_QGIS_TOO = {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
_INSTALL = (
    "install geoseg (the page for QGIS in its manual has the lines), then run its own program: "
    + (
        "%USERPROFILE%\\geoseg\\Scripts\\geoseg qgis install"
        if os.name == "nt"
        else "~/geoseg/bin/geoseg qgis install"
    )
    + "; or set that program's path in Settings > Options > Processing > Providers > geoseg"
)
_FLATPAK = (
    "QGIS' flatpak may start programs outside of it once it is allowed to: flatpak override --user "
    "--talk-name=org.freedesktop.Flatpak org.qgis.qgis"
)
#: Options of ``geoseg info`` that say how a scene is read, each with a value.
_OF_SCENE = (
    "-m",
    "--model",
    "-b",
    "--bands",
    "--band-names",
    "--scale",
    "--offset",
    "--src-nodata",
    "--stretch",
    "--clouds",
    "--max-pixels",
    "--input-root",
    "--allow-vrt",
)
#: Those without one.
_FLAGS_OF_SCENE = ("--nearblack",)
#: Options of the command line that have a field in the dialogs -> its label.
_FIELDS = {
    "--model": "Model",
    "-m": "Model",
    "--bands": "Bands",
    "--band-names": "Names of the bands",
    "--scale": "Scale",
    "--offset": "Offset",
    "--bbox": "Extent",
    "--aoi": "Area of interest",
    "--clouds": "Clouds",
    "--cloud-buffer": "Distance from clouds",
    "--min-confidence": "Least confidence",
    "--min-area": "Minimum area",
    "--simplify": "Simplification",
    "--points": "Labelled points",
    "--labels": "Labels",
    "--column": "Column of the true class",
    "--count": "Points in all",
    "-n": "Points in all",
    "--allocation": "Points of a class",
    "--output": "the output",
    "-o": "the output",
}


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
    given = os.path.expanduser(given)
    if in_flatpak():
        return [
            *("flatpak-spawn", "--host", "--watch-bus", "--env=PYTHONUTF8=1"),
            given or "geoseg",
        ]
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
    private = [a for a in arguments if a.startswith("/tmp/")] if in_flatpak() else []
    if private:
        raise QgsProcessingException(
            f"{private[0]} is in a folder that QGIS' flatpak shares with nobody; choose one in "
            f"your home folder, and set one there in Settings > Options > Processing > General > "
            f"Temporary output folder"
        )
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
    except (OSError, ValueError) as error:  # ValueError: a character that no argument can have
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
            f"{code}); {_FLATPAK if in_flatpak() else _INSTALL}"
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
        error = _last_error(said)
        raise QgsProcessingException(in_dialog(error) if error else _ended(code))
    return printed


def ask_json(*arguments: str) -> Any:
    """Run a command that prints JSON and ends soon: QGIS' window waits for it.

    Raises:
        QgsProcessingException: it failed, or printed something else.
        TimeoutError: it has not ended in time.
    """
    printed = ask(*arguments, seconds=15)
    try:
        return json.loads(printed)
    except ValueError as error:
        raise QgsProcessingException(
            f"geoseg {arguments[0]} printed no JSON but {shorten(printed, 80)!r}; {_INSTALL}"
        ) from error


def _ask(line: list[str], seconds: float) -> tuple[int, str, str]:
    process = _open(line)
    try:
        printed, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise TimeoutError(f"geoseg {line[-1]} has not ended after {seconds:g} s") from None
    except KeyboardInterrupt:  # Ctrl-C in qgis_process's terminal
        _kill(process)
        raise QgsProcessingException(tr("cancelled")) from None
    return process.returncode, printed, said


def _kill(process: subprocess.Popen[str]) -> None:
    """End a command and what it has started, at once."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _last_error(said: str) -> str:
    """Find what the command complained of on standard error."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("geoseg: error: ", "Error: "))]
    # Python 3.8, which some QGIS 3.22 have, knows no removeprefix.
    return re.sub(r"^(geoseg: )?(error: )?", "", (errors or lines or [""])[-1])


def _ended(code: int) -> str:
    """Say how a command ended that said nothing itself."""
    if code == -9:
        return tr(
            "geoseg was killed, as the system does where memory is short; leave it less, for "
            "example by --mem-limit 2GB in Further options"
        )
    if code < 0:
        try:
            return f"geoseg was ended by {signal.Signals(-code).name}"
        except ValueError:
            pass
    return f"geoseg ended with exit code {code}"


def _let_qgis_work() -> None:
    """Have QGIS hear of Ctrl-C where an algorithm runs in its main thread, as in qgis_process."""
    application = QCoreApplication.instance()
    if application is not None and QThread.currentThread() == application.thread():
        flag = enum(QEventLoop, "ProcessEventsFlag", "ExcludeUserInputEvents")
        QCoreApplication.processEvents(flag)


def in_dialog(message: str) -> str:
    """Call options of the command line as the dialog's fields are called."""
    shown = re.sub(
        r"(?<![\w-])--?[a-z][a-z-]*(?=[\s,;:.)=]|$)",
        lambda found: f"'{_FIELDS[found[0]]}'" if found[0] in _FIELDS else found[0],
        message,
    )
    if re.search(r"(?<![\w-])--[a-z]", shown):
        shown += tr(" (what begins with -- goes into Advanced > Further options)")
    return shown


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
        self._shown = "", 0.0
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
        try:
            self._listen()
        except BaseException:
            self._end()
            raise
        code = self._process.wait()
        if code:
            error = self._error or _last_error("\n".join(self._said))
            raise QgsProcessingException(in_dialog(error) if error else _ended(code))

    def _listen(self) -> None:
        """Take lines until the command has ended.

        Raises:
            QgsProcessingException: the user cancelled, or an event is none that this knows.
        """
        open_streams, ended, looked = 2, None, 0.0
        while open_streams:
            now = time.monotonic()
            if now - looked > POLL:
                looked = now
                _let_qgis_work()
                if self._feedback.isCanceled():
                    raise QgsProcessingException(tr(_CANCELLED))
                # What the command has started may hold its streams open.
                if self._process.poll() is not None:
                    ended = ended or now
                    if now - ended > PATIENCE:
                        return
            try:
                is_output, line = self._lines.get(timeout=POLL)
            except queue.Empty:
                continue
            except KeyboardInterrupt:  # Ctrl-C in qgis_process's terminal
                raise QgsProcessingException(tr(_CANCELLED)) from None
            if line is None:
                open_streams -= 1
            elif is_output:
                self._take(line)
            elif line.strip():
                self._said.append(line)
                self._feedback.pushConsoleInfo(line)

    def _end(self) -> None:
        """End the command: it removes what is half written."""
        if os.name == "posix":
            self._process.terminate()
        else:
            # Windows has no signal for this: the command ends when nobody reads its events. There
            # is one every second, and the thread that reads is the one that may close the pipe.
            self._leaving.set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        _kill(self._process)  # or what is left of what it has started

    def _take(self, line: str) -> None:
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            self.printed.append(line)
            return
        if kind == "start" and event.get("protocol") != PROTOCOL:
            raise QgsProcessingException(
                f"geoseg {event.get('version')} speaks protocol {event.get('protocol')}, and this "
                f"plugin {PROTOCOL}; run: geoseg qgis install"
            )
        try:
            self._pass_on(kind, event)
        except (KeyError, TypeError, ValueError) as error:
            raise QgsProcessingException(
                f"geoseg printed an event that this plugin does not know ({shorten(line, 80)}); "
                f"run: geoseg qgis install"
            ) from error

    def _pass_on(self, kind: str, event: dict[str, Any]) -> None:
        """Pass on an event of the protocol."""
        if kind == "start":
            chosen, made = event["model"], event["runtime"]
            self._feedback.pushInfo(f"model {chosen['name']}: {chosen['chosen']}")
            self._feedback.pushInfo(f"values {event['scene']['radiometry']['source']}")
            self._feedback.pushInfo(f"with {made['name']} {made['precision']} on {made['device']}")
        elif kind == "progress":
            self._feedback.setProgress(100 * event["done"] / max(event["total"], 1))
            self._show_stage(event)
        elif kind == "warning":
            self._feedback.pushWarning(event["message"])
        elif kind == "note":
            self._feedback.pushInfo(event["message"])
        elif kind == "error":
            self._error = event["message"]
        elif kind == "result":
            self.result = event

    def _show_stage(self, event: dict[str, Any]) -> None:
        """Say what goes on, some seconds apart: QGIS puts every text into the log, too."""
        stage, now = event["stage"], time.monotonic()
        if stage == self._shown[0] and now - self._shown[1] < STAGE:
            return
        # The first estimates are made of next to nothing.
        early = stage != self._shown[0] and stage == "predict"
        self._shown = stage, now
        texts = {"predict": tr("Predicting"), "polygons": tr("Making polygons")}
        text = texts.get(stage, stage)
        if stage == "predict" and not early:
            text = tr("{}: {} s left").format(text, event["seconds_left"])
        self._feedback.setProgressText(text)


class Styled(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer the names and colours of classes that geoseg wrote beside or into it."""

    #: QGIS keeps no reference to them; what is older than these has been loaded.
    kept: deque[Styled] = deque(maxlen=256)

    def __init__(self, raster: str) -> None:
        """Take note of the class raster, whose colours polygons get where they have none."""
        super().__init__()
        self._raster = raster
        Styled.kept.append(self)

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Load the style."""
        layer.loadDefaultStyle()
        # A style beside a file may be that of the class raster, which has the same name.
        if isinstance(layer, QgsVectorLayer) and not isinstance(
            layer.renderer(), QgsCategorizedSymbolRenderer
        ):
            self._colour(layer)
        layer.triggerRepaint()

    def _colour(self, layer: QgsVectorLayer) -> None:
        raster = QgsRasterLayer(self._raster)  # its renderer goes with it
        renderer = raster.renderer()
        if not isinstance(renderer, QgsPalettedRasterRenderer):
            return
        categories = []
        for entry in renderer.classes():
            symbol = QgsSymbol.defaultSymbol(layer.geometryType())
            if symbol is not None:
                symbol.setColor(entry.color)
                categories.append(QgsRendererCategory(int(entry.value), symbol, entry.label))
        layer.setRenderer(QgsCategorizedSymbolRenderer("class_id", categories))


def class_table(report: str) -> list[str]:
    """Read the classes' shares and areas from a report of geoseg predict, the largest first."""
    try:
        with open(report, encoding="utf-8") as file:
            classes = json.load(file)["classes"]
    except (OSError, ValueError, KeyError):  # outside of a flatpak
        return []
    lines = []
    for entry in sorted(classes, key=lambda c: -c["pixels"]):
        area = entry["area_m2"]
        shown = "" if area is None else f", {area / 1e6:.3f} km²"
        if entry["pixels"]:
            lines.append(f"{entry['name']}: {100 * entry['share']:.1f} %{shown}")
    return lines


class SharedAlgorithm(QgsProcessingAlgorithm):
    """What geoseg's algorithms have in common.

    Of a script Processing takes the algorithm whose class comes first by name, so this one must
    come after the other.

    Attributes:
        NAME: for programs.
        LABEL: in the toolbox.
        GROUP: a key of GROUPS.
        HELP: a paragraph or two.
        TAGS: further words by which it is found.
    """

    GROUPS = {"landcover": "Land cover", "accuracy": "Accuracy", "help": "Help"}
    NAME, LABEL, GROUP, HELP = "", "", "landcover", ""
    TAGS = "land cover, land use, classification, segmentation, deep learning, machine learning"

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
        """Describe it; in QGIS' window with a picture, and field by field."""
        text = tr(self.HELP)
        if getattr(sys.modules.get("qgis.utils"), "iface", None) is None:
            return text
        picture = os.path.join(os.path.dirname(__file__), "help.png")
        parts = [f'<p><img src="{picture}" width="240"></p>'] if os.path.exists(picture) else []
        parts += [f"<p>{paragraph}</p>" for paragraph in text.split("\n\n")]
        for parameter in self.parameterDefinitions():
            if parameter.help():
                parts.append(f"<p><b>{parameter.description()}</b><br>{parameter.help()}</p>")
        return "".join(parts)

    def tags(self) -> list[str]:
        """Words by which the toolbox finds it."""
        return [tr(word) for word in self.TAGS.split(", ")]

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
        """Add model, bands, and what the scene's numbers mean."""
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
                "Numbers of the scene's bands in the model's order (4,3,2), or names that the "
                "scene has, in any order; empty: those that the model needs."
            ),
        )
        self.add(
            QgsProcessingParameterString("BAND_NAMES", tr("Names of the bands"), "", False, True),
            tr(
                "What the scene's bands are, one name a band in its order (red,green,blue,nir), "
                "where the scene does not say it."
            ),
        )
        kind = enum(QgsProcessingParameterNumber, "Type", "Double")
        for name, label, text in (
            (
                "SCALE",
                tr("Scale"),
                tr(
                    "Reflectance = number * scale + offset, where the scene does not say it: "
                    "0.0001 for reflectance * 10000, 0.0000275 for Landsat Collection 2."
                ),
            ),
            ("OFFSET", tr("Offset"), tr("0 if left out; -0.2 for Landsat Collection 2.")),
        ):
            self.add(QgsProcessingParameterNumber(name, label, kind, None, True), text)

    def model(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Make the arguments that say which model and bands, and what the numbers mean."""
        arguments = []
        for name, option in (
            ("MODEL", "--model"),
            ("BANDS", "--bands"),
            ("BAND_NAMES", "--band-names"),
        ):
            text = self.parameterAsString(parameters, name, context).strip()
            arguments += [option, text] if text else []
        for name, option in (("SCALE", "--scale"), ("OFFSET", "--offset")):
            value = self.number(parameters, name, context)
            arguments += [] if value is None else [f"{option}={value!r}"]
        return arguments

    def add_number(self, name: str, label: str, help_: str) -> None:
        """Add a parameter for a number from 0 on, which may be left out."""
        kind = enum(QgsProcessingParameterNumber, "Type", "Double")
        self.add(QgsProcessingParameterNumber(name, label, kind, None, True, 0.0), help_)

    def number(self, parameters: dict[str, Any], name: str, context: Any) -> float | None:
        """Take a number; QGIS makes 0 of what is none.

        Raises:
            QgsProcessingException: it is no number.
        """
        value = parameters.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError as error:
                raise QgsProcessingException(f"{name} is {value!r}, and no number") from error
        return float(self.parameterAsDouble(parameters, name, context))

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
            value = self.number(parameters, name, context)
            arguments += [] if value is None else [f"{option}={value!r}"]
        return arguments

    def add_options(self, command: str, example: str) -> None:
        """Add the parameter for further options of the command line, with an example."""
        self.add(
            QgsProcessingParameterString("OPTIONS", tr("Further options"), "", False, True),
            tr("Options of geoseg {} as on a command line, for example: {}").format(
                command, example
            ),
            advanced=True,
        )

    def options(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Split what was given for OPTIONS; they come first, so that the dialog's fields win.

        Raises:
            QgsProcessingException: a quote is not closed.
        """
        text = self.parameterAsString(parameters, "OPTIONS", context)
        words = shlex.shlex(text, posix=True)
        words.whitespace_split, words.commenters = True, ""
        if os.name == "nt":
            words.escape = ""  # of paths
        try:
            return list(words)
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
        provider = layer.dataProvider()
        if provider is not None and layer.crs() != provider.crs():
            raise QgsProcessingException(
                f"{name}: QGIS was told that the layer {layer.name()} is in {layer.crs().authid()},"
                f" and its file says {provider.crs().authid() or 'nothing'}, which is what geoseg "
                f"reads; write the CRS into the file (Raster > Projections > Assign Projection)"
            )
        return layer

    def path_of(self, layer: Any) -> str:
        """Take the path of a raster layer as GDAL knows it, without options for opening it."""
        path = str(layer.dataProvider().dataSourceUri()).split("|option:")[0]
        return os.path.abspath(path) if os.path.exists(path) else path

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

    def styled(self, context: Any, raster: str, layers: dict[str, str]) -> None:
        """Have layers get a name and geoseg's style when QGIS loads them.

        Args:
            context: of the run.
            raster: the class raster.
            layers: path -> name; those on top first.
        """
        for number, (path, name) in enumerate(layers.items()):
            if path and context.willLoadLayerOnCompletion(path):
                details = context.layerToLoadOnCompletionDetails(path)
                details.name = name
                if hasattr(details, "layerSortKey"):  # from QGIS 3.32 on
                    details.layerSortKey = -number
                details.setPostProcessor(Styled(raster))


def what_fits(shown: Any) -> tuple[bool, str]:
    """Read from what geoseg info prints whether a model fits the scene, and if none, why.

    Raises:
        QgsProcessingException: it is something else.
    """
    try:
        models = list(shown["models"])
        if any(model["fits"] for model in models):
            return True, ""
        # Models for other pixel sizes come last: they were not meant.
        models.sort(key=lambda model: "pixels are" in model["why"])
        return False, in_dialog("; ".join(f"{m['name']}: {m['why']}" for m in models))
    except (KeyError, TypeError) as error:
        raise QgsProcessingException(
            "geoseg info prints something else than this plugin reads; run: geoseg qgis install"
        ) from error


def _is_wanted(output: Any) -> bool:
    """Whether an output is asked for: of others QGIS would look for a layer without a name."""
    if isinstance(output, QgsProcessingOutputLayerDefinition):  # in the batch dialog, always
        output = output.sink.staticValue() or output.sink.expressionString()
    return bool(output)


class GeosegPredict(SharedAlgorithm):
    """Turns a scene into a land-cover raster and polygons."""

    NAME = "predict" if __package__ else "geosegpredict"
    LABEL = "Predict land cover"
    HELP = (
        "Turns a satellite or aerial scene into a raster of land-cover classes and polygons, with "
        "names and colours.\n\nThe embedded models take surface or top-of-atmosphere reflectance "
        "in six bands at 10 to 30 m, or red, green and blue at 0.2 to 2 m. A model of your own is "
        "a folder or a .zip. Clouds are no class: say where they are. The embedded model for "
        "aerial pictures has learned from one desert city, and errs in green country."
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
        self.add(
            QgsProcessingParameterFile("CLOUDS", tr("Clouds"), optional=True),
            tr(
                "A mask of clouds (0 and 1, or 0 and 255), a product's cloud layer, or polygons: "
                "none of it is predicted. Without, what a product itself says of its clouds counts."
            ),
        )
        self.add_number(
            "CLOUD_BUFFER",
            tr("Distance from clouds (m)"),
            tr("So far around clouds and their shadows nothing is predicted, too; 60 by default."),
        )
        self.add_number(
            "MIN_CONFIDENCE",
            tr("Least confidence (0 to 1)"),
            tr('Pixels whose class is less probable are "not sure", a class of its own.'),
        )
        self.add_polygon_options()
        self.add_options("predict", "--tta flips")
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Class raster")),
            tr("Each pixel's class, with names and colours."),
        )
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
            path = self.path_of(self.raster(parameters, "INPUT", context))
            asked = [path, *self.model(parameters, context), *self._how_read(parameters, context)]
            asked += self._clouds(parameters, context)
            return what_fits(ask_json("info", *asked, "--json"))
        except QgsProcessingException as error:
            return False, str(error)
        except TimeoutError:  # a slow server: the run itself will say
            return True, ""

    def _how_read(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Take from OPTIONS what says how the scene is read."""
        given, taken = iter(self.options(parameters, context)), []
        for word in given:
            if word in _OF_SCENE:
                taken += [word, *itertools.islice(given, 1)]
            elif word in _FLAGS_OF_SCENE or word.split("=")[0] in _OF_SCENE:
                taken.append(word)
        return taken

    def _clouds(self, parameters: dict[str, Any], context: Any) -> list[str]:
        """Make the argument that says where clouds are."""
        file = self.parameterAsFile(parameters, "CLOUDS", context)
        return ["--clouds", file] if file else []

    def _extent(self, parameters: dict[str, Any], context: Any, layer: Any) -> list[str]:
        """Make the arguments that say which part is predicted."""
        extent = self.parameterAsExtent(parameters, "EXTENT", context, layer.crs())
        if extent.isNull() or extent.isEmpty():
            if parameters.get("EXTENT"):
                raise QgsProcessingException(tr("EXTENT holds no area"))
            return []
        corners = extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()
        return [f"--bbox={','.join(map(repr, corners))}"]

    def processAlgorithm(
        self, parameters: dict[str, Any], context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Run geoseg predict."""
        layer = self.raster(parameters, "INPUT", context)
        arguments = ["predict", *self.options(parameters, context), self.path_of(layer)]
        arguments += self.model(parameters, context)
        arguments += self._extent(parameters, context, layer)
        if parameters.get("AOI"):
            arguments += ["--aoi", self.vector(parameters, "AOI", context, feedback)]
        arguments += self._clouds(parameters, context)
        buffer = self.number(parameters, "CLOUD_BUFFER", context)
        arguments += [] if buffer is None else [f"--cloud-buffer={buffer!r}"]
        least = self.number(parameters, "MIN_CONFIDENCE", context)
        arguments += [] if least is None else [f"--min-confidence={least!r}"]
        arguments += self.polygon_options(parameters, context)
        outputs = {}
        for name, option in (
            ("OUTPUT", "--output"),
            ("VECTOR", "--vector"),
            ("CONFIDENCE", "--confidence"),
            ("PROBABILITIES", "--probs"),
        ):
            if _is_wanted(parameters.get(name)):
                outputs[name] = self.parameterAsOutputLayer(parameters, name, context)
                arguments += [option, outputs[name]]
            elif name == "VECTOR":
                arguments.append("--no-vector")
        arguments += ["--overwrite", "--progress", "json"]
        made = Run(arguments, feedback).follow()
        for line in class_table(made["report"]):
            feedback.pushInfo(line)
        names = {
            "PROBABILITIES": tr("{} probabilities"),
            "CONFIDENCE": tr("{} confidence"),
            "VECTOR": tr("{} polygons"),
            "OUTPUT": tr("{} land cover"),
        }
        layers = {
            outputs[k]: text.format(layer.name()) for k, text in names.items() if k in outputs
        }
        self.styled(context, outputs["OUTPUT"], layers)
        return outputs
