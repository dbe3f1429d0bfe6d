"""The command line: one thin file a command, loaded when it is called."""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import click

from geoseg.errors import GeosegError
from geoseg.names import scrub

__all__ = ["main"]

#: Command -> (module, line for the list of commands). Importing a command may be heavy, its help
#: in the list is not.
_COMMANDS = {
    "predict": ("geoseg.cli.predict", "Turn a scene into a land-cover raster and polygons."),
    "vectorize": ("geoseg.cli.vectorize", "Turn a class raster into polygons."),
    "info": ("geoseg.cli.info", "Say what geoseg sees in a scene and which models fit it."),
    "models": ("geoseg.cli.models", "List, show and import models."),
    "train": ("geoseg.cli.train", "Teach a network, from images and labels or a recipe."),
    "sample": ("geoseg.cli.sample", "Draw points at which to check a map."),
    "check-seams": ("geoseg.cli.seams", "Say whether a map shows where its chips met."),
    "evaluate": ("geoseg.cli.evaluate", "Say how right a map or a model is, by points or labels."),
}

#: What makes a command take less memory.
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
def _cli() -> None:
    """Land-cover maps from satellite and aerial scenes."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on standard
    error; -vv adds the traceback.

    Args:
        args: without the program's name; ``sys.argv`` by default.
    """
    args = sys.argv[1:] if args is None else args
    # The libraries are hundreds of thousands of objects that live as long as the process: at its
    # end Python need not look for garbage among them.
    atexit.register(gc.freeze)
    # A batch system ends a job with SIGTERM: clean up as for Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _cli.main(args, prog_name="geoseg", standalone_mode=False)
        _exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        # Click raises Abort from a KeyboardInterrupt; a command may say in it what was kept.
        kept = str(error.__cause__ or error)
        _fail(f"interrupted; {kept or 'nothing was written'}", 130, args)
    except click.ClickException as error:
        error.show()
        _exit(2 if isinstance(error, click.UsageError) else 1)
    except GeosegError as error:
        _fail(str(error), error.exit_code, args)
    except BrokenPipeError:
        # Whoever read the progress is gone; there is no one to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(1)
    except MemoryError:
        command = next((a for a in args if a in _COMMANDS), "")
        hint = _SMALLER.get(command, "free some, or take a machine that has more")
        _fail(f"out of memory; {hint}", 1, args)
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        _fail(f"unexpected {type(error).__name__}: {error}; -vv shows where", 1, args)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int, args: list[str]) -> NoReturn:
    message = scrub(message)
    if any(a in ("-vv", "-vvv") for a in args) or args.count("-v") > 1:
        print(scrub(traceback.format_exc()), file=sys.stderr)
    if _wants_json(args):
        import json

        event = {"event": "error", "code": code, "message": message}
        print(json.dumps(event, ensure_ascii=False), flush=True)
    print(f"geoseg: error: {message}", file=sys.stderr)
    _exit(code)


def _wants_json(args: list[str]) -> bool:
    pairs = itertools.pairwise(args)
    return "--progress=json" in args or ("--progress", "json") in pairs


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.exit(code)
