"""The command line: one thin file for each command, of which ``app.py`` has the list.

A command takes options (those that several share are in ``options.py``), calls one public function
and prints what it gives; ``progress.py`` draws the bar, ``streams.py`` keeps a run alive when
nobody reads what it prints. Only what Ctrl-C needs (``interrupts.py``) is loaded with this package;
the rest in :func:`main`. Start with ``app.py``.
"""

from __future__ import annotations

import itertools
import os
import sys

from geoseg.cli.interrupts import INTERRUPTED, Interrupts

TYPE_CHECKING = False  # not from typing, which takes as long to load as the rest of this
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["main"]


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. An error is one line on standard
    error; -vv adds the traceback. What can't be printed since its reader has gone (``| head``) is
    no error, and never stops a run, but for events (``--progress json``): whoever follows a run is
    its owner. What can't be printed for another reason makes a 0 a 1.

    Args:
        args: without the program's name; by default ``sys.argv``, and the process is this
            program's own.
    """
    own = args is None
    args = sys.argv[1:] if args is None else args
    interrupts = Interrupts(json=_wants_json(args))
    interrupts.install()
    try:
        from geoseg.cli.streams import Sink, guarded_streams, open_closed_streams

        open_closed_streams()  # before anything else gets their numbers
        if own:
            interrupts.watch()
        from geoseg.cli.app import run

        interrupts.spare(Sink.write)  # else it would be printed twice
        with guarded_streams() as output:
            code = run(args, interrupts, json=_wants_json(args))
            sys.stdout.flush()
            if output is not None and output.failed and not code:
                error = output.error
                assert error is not None
                print(
                    f"geoseg: error: standard output can't be written ({error.strerror}); "
                    f"output files, if any, are complete",
                    file=sys.stderr,
                )
                code = 1
        if own and code == INTERRUPTED and interrupts.came is not None:
            _end_children()
            # Threads amid a long call of a library would be waited for.
            os._exit(code)
    finally:
        if not own:
            interrupts.restore()
    sys.exit(code)


def _wants_json(args: list[str]) -> bool:
    pairs = itertools.pairwise(args)
    return "--progress=json" in args or ("--progress", "json") in pairs


def _end_children() -> None:
    """End the processes of a run on several devices."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        for child in multiprocessing.active_children():
            child.terminate()
