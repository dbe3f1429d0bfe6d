"""Standard output and error that never fail in the midst of a run.

A run may take hours, and its outputs are worth more than the words about it. So what can't be
written is dropped, and reported at the end: a reader that went away (``| head -1``) has what it
wanted, a full disk or a closed descriptor is an error. A run's events (``--progress json``) are
another matter: a program follows them, and where it has gone, nobody waits for the outputs.
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from geoseg.core.jsontext import json_text

__all__ = ["EventLines", "Sink", "guarded_streams", "open_closed_streams", "print_json"]

#: Held while a line is printed: a run's events and its signs of life come from two threads.
_PRINTING = _thread.allocate_lock()
#: Seconds without an event after which there is a sign of life.
ALIVE = 1.0
#: Events after which nothing comes, but for errors, which are printed by themselves.
_LAST = ("result", "dry-run")
#: What says that the reader has gone.
_GONE = {errno.EPIPE, errno.ESHUTDOWN}


class Sink(io.RawIOBase):
    """A raw stream that swallows what can't be written.

    Attributes:
        error: of the first write that failed; None so far.
    """

    def __init__(self, raw: Any) -> None:
        """Write to another raw stream, which is left open at the end."""
        super().__init__()
        self._raw = raw
        self.error: OSError | None = None

    @property
    def failed(self) -> bool:
        """Whether something is missing that somebody waits for."""
        if self.error is None or self.error.errno in _GONE:
            return False
        # Windows calls it so where the reader has gone.
        return not (sys.platform == "win32" and self.error.errno == errno.EINVAL)

    def writable(self) -> bool:
        """Say that it is."""
        return True

    def fileno(self) -> int:
        """Give the other stream's number."""
        number: int = self._raw.fileno()
        return number

    def isatty(self) -> bool:
        """Whether the other stream is a terminal."""
        terminal: bool = self._raw.isatty()
        return terminal

    def write(self, data: Any) -> int:
        """Write, or drop.

        Args:
            data: bytes.

        Returns:
            How many are dealt with.
        """
        while self.error is None:
            try:
                written: int | None = self._raw.write(data)
            except OSError as error:
                self.error = error
            else:
                if written is not None:
                    return written
                time.sleep(0.01)  # a pipe that does not block is full
        return len(data)


def open_closed_streams() -> None:
    """Put something in the place of closed descriptors (``>&-``).

    Else the next file that is opened gets the number, and what a library prints goes into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # What is printed to a closed standard output must fail, that to an error need not.
            made = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if made != number:
                os.dup2(made, number)
                os.close(made)
        if getattr(sys, name) is None:
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as strict JSON, which is read as UTF-8 whatever the terminal's encoding is.

    Args:
        value: see :func:`geoseg.core.jsontext.json_text`.
        indent: spaces a level; None for one line.
    """
    with _PRINTING:
        _print_line(value, indent)
        EventLines.over = True


def _print_line(value: Any, indent: int | None) -> None:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "").replace("_", "")
    print(json_text(value, indent=indent, ascii_only=encoding != "utf8"), flush=True)


def reader_gone() -> bool:
    """Whether nobody reads standard output any more, as far as printing has shown."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Sink) and raw.error is not None and not raw.failed


class EventLines:
    """Prints a run's events as JSON lines, with a sign of life where none comes for a while.

    Whoever follows a run sees from it that the run is not stuck; and the run sees from what it
    prints that whoever follows it has gone, even one that was killed: then it ends, as by Ctrl-C.

    Attributes:
        over: whether the last event was printed.
    """

    over = False

    def __init__(self, interrupt: Callable[[], None]) -> None:
        """Start the thread that shows signs of life.

        Args:
            interrupt: ends the run, whatever thread calls it.
        """
        self._interrupt = interrupt
        self._printed = time.monotonic()
        EventLines.over = False
        _thread.start_new_thread(self._keep_alive, (sys.stdout,))

    def receive(self, event: Any) -> None:
        """Print an event; where nobody reads it, the run is interrupted."""
        with _PRINTING:
            EventLines.over = event["event"] in _LAST
            self._print(event)
        if reader_gone() and not self.over:
            self._interrupt()

    def _print(self, event: Any) -> None:
        _print_line(event, None)
        self._printed = time.monotonic()

    def _keep_alive(self, output: Any) -> None:
        while True:
            time.sleep(max(0.01, self._printed + ALIVE - time.monotonic()))
            with _PRINTING:
                # The stream is another one when the command has ended.
                if self.over or sys.stdout is not output:
                    return
                if time.monotonic() - self._printed >= ALIVE:
                    self._print({"event": "alive"})
            if reader_gone():
                self._interrupt()
                return


@contextmanager
def guarded_streams() -> Iterator[Sink | None]:
    """Have ``sys.stdout`` and ``sys.stderr`` swallow what can't be written.

    Characters that a terminal's encoding does not have are shown as escapes.

    Yields:
        That of standard output; None where it is no stream of the system (in a test).
    """
    before = sys.stdout, sys.stderr
    output = _guard("stdout")
    _guard("stderr")
    guarded = sys.stdout, sys.stderr
    try:
        yield output
    finally:
        for stream in guarded:
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _guard(name: str) -> Sink | None:
    stream: TextIO = getattr(sys, name)
    buffer = getattr(stream, "buffer", None)
    unbuffered = isinstance(buffer, io.RawIOBase)  # PYTHONUNBUFFERED
    raw = buffer if unbuffered else getattr(buffer, "raw", None)
    if raw is None:
        return None
    sink = Sink(raw)
    with suppress(OSError):
        stream.flush()
    text = io.TextIOWrapper(
        io.BufferedWriter(sink),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=unbuffered or name == "stderr" or sink.isatty(),
    )
    setattr(sys, name, text)
    return sink
