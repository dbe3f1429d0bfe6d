"""The commands: one thin file each, loaded when it is called; and how they end."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

import click

from geoseg.cli.interrupts import INTERRUPTED, Interrupts
from geoseg.cli.streams import print_json
from geoseg.errors import GeosegError

if TYPE_CHECKING:
    from geoseg.events import ErrorEvent

__all__ = ["run"]

#: Command -> (module, line for the list of commands). Importing a command may be heavy, its help
#: in the list is not.
_COMMANDS = {
    "predict": ("geoseg.cli.predict", "Turn a scene into a land-cover raster and polygons."),
    "batch": ("geoseg.cli.batch", "Predict many scenes into an archive, and look after it."),
    "vectorize": ("geoseg.cli.vectorize", "Turn a class raster into polygons."),
    "mosaic": ("geoseg.cli.mosaic", "Make one map of many."),
    "info": ("geoseg.cli.info", "Show what geoseg sees in a scene, and which models fit it."),
    "models": ("geoseg.cli.models", "List, show, import, export and time models."),
    "train": ("geoseg.cli.train", "Train a network, from images and labels or a recipe."),
    "sample": ("geoseg.cli.sample", "Draw points at which to check a map."),
    "check-seams": ("geoseg.cli.check_seams", "Measure whether a map shows where its chips met."),
    "qgis": ("geoseg.cli.qgis", "Bring geoseg into QGIS' Processing toolbox."),
    "evaluate": (
        "geoseg.cli.evaluate",
        "Measure how accurate a map or a model is, by points or labels.",
    ),
}

#: What makes a command take less memory, and what any.
_ANY_SMALLER = "free some, or take a machine that has more"
_SMALLER = {
    "predict": "use a smaller --mem-limit, --size or --bbox",
    "train": "use a smaller --batch or --chip",
    "evaluate": "use a smaller --boundary-tolerance, or fewer polygons at a time",
}


class _Commands(click.Group):
    """Loads a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geoseg")
@click.pass_obj
def _cli(interrupts: Interrupts | None) -> None:
    """Land-cover maps from satellite and aerial scenes."""
    if interrupts is not None:  # else a caller's own
        interrupts.working()


def run(args: list[str], interrupts: Interrupts, *, json: bool) -> int:
    """Run a command, and print in one line what went wrong.

    Args:
        args: without the program's name.
        interrupts: learns when the command begins to work, and when it has ended.
        json: whether an error is an event on standard output, too.

    Returns:
        The exit code.
    """
    # The libraries are hundreds of thousands of objects that live as long as the process: at its
    # end Python need not look for garbage among them.
    atexit.register(gc.freeze)
    # rasterio's, of arrays that are resampled; catching it there would not be safe among threads.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform, gcps, or rpcs")
    try:
        code = _cli.main(args, prog_name="geoseg", standalone_mode=False, obj=interrupts)
        code = code if isinstance(code, int) else 0
        interrupts.ended(code)
        return code
    except BaseException as error:  # noqa: BLE001 - the last resort: one line and a code
        from geoseg.core.names import scrub  # what fails can wait some milliseconds, help can't

        code, message = _explained(error, args, interrupted=interrupts.came is not None)
        message = scrub(message)
        interrupts.ended(code)
        if any(a in ("-vv", "-vvv") for a in args) or args.count("-v") > 1:
            print(scrub(traceback.format_exc()), file=sys.stderr)
        if isinstance(error, click.ClickException) and code != INTERRUPTED:
            error.show()
        elif message:
            print(f"geoseg: error: {message}", file=sys.stderr)
        if json and message:
            event: ErrorEvent = {"event": "error", "code": code, "message": message}
            print_json(event, indent=None)
        return code


def _explained(error: BaseException, args: list[str], *, interrupted: bool) -> tuple[int, str]:
    """Find the exit code, and put what went wrong into a line."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        # Click raises Abort from a KeyboardInterrupt; a command may say in it what was kept.
        kept = str(error.__cause__ or error)
        return INTERRUPTED, f"interrupted; {kept or 'nothing was written'}"
    if interrupted:
        # What a library made of the KeyboardInterrupt.
        return INTERRUPTED, "interrupted"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, ""
    if isinstance(error, click.ClickException):
        return (2 if isinstance(error, click.UsageError) else 1), error.format_message()
    if isinstance(error, GeosegError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        command = next((a for a in args if a in _COMMANDS), "")
        return 1, f"out of memory; {_SMALLER.get(command, _ANY_SMALLER)}"
    message = None
    if isinstance(error, ImportError):
        from geoseg.core.importing import reported

        message = reported(error)
    return 1, message or f"unexpected {type(error).__name__}: {error}; -vv shows where"
