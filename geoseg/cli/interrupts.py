"""What Ctrl-C, and SIGTERM of a batch system, do to the command line.

Imports hardly anything, so that it is at work before what takes time to load.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time

TYPE_CHECKING = False  # not from typing, which takes as long to load as the rest of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

__all__ = ["INTERRUPTED", "Interrupts", "interrupt_main"]

#: The exit code.
INTERRUPTED = 130
#: Batch systems, and shells with their children, send a signal twice. After so many seconds
#: another one means that the user is tired of waiting.
PATIENCE = 2.0
#: Seconds after a signal at which the process ends all the same: where the main thread has not
#: come back from a library to hear of it, and where it cleans up since.
IN_LIBRARY, CLEANING = 1.8, 4.0


class Interrupts:
    """Handlers of the signals that end a run.

    While the command is loaded nothing is there to be cleaned up, and libraries that are half
    imported swallow exceptions or turn them into others: the process ends at once. While it is at
    work KeyboardInterrupt is raised in the main thread, once. At the end, which waits for threads,
    the process ends at once, too.

    Attributes:
        came: when a signal was raised as KeyboardInterrupt (``time.monotonic()``); None so far.
        cleaning: seconds after it at which the process ends all the same; a command may need more.
    """

    def __init__(self, *, json: bool) -> None:
        """Install nothing yet.

        Args:
            json: whether standard output takes events.
        """
        self.came: float | None = None
        self.cleaning = CLEANING
        self._process = os.getpid()
        self._json = json
        self._working = False
        self._code: int | None = None
        self._before: dict[int, Any] = {}
        self._spared: set[CodeType] = set()
        self._hooks = sys.unraisablehook, sys.excepthook

    def install(self) -> None:
        """Install the handlers; signals that are ignored (nohup) stay ignored."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # the last one is of Windows
            number = getattr(signal, name, None)
            if number is None or signal.getsignal(number) is signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:  # not the main thread, which alone may
                return
        sys.unraisablehook, sys.excepthook = self._unraisable, self._printed

    def watch(self) -> None:
        """Have a thread end the process in time where the main thread can't.

        Python runs a signal's handler when the main thread is back from whatever library it called,
        and GDAL, OpenVINO or a server that hangs may take minutes. The thread hears of a signal at
        once, by a pipe.
        """
        try:
            hear, wake = os.pipe()
            os.set_blocking(wake, False)
            signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        except (OSError, ValueError):  # no descriptor left, or not the main thread
            return
        _thread.start_new_thread(self._end_in_time, (hear,))
        # At its very end Python gives the signals back to the system, which would kill a process
        # that has done its work. What is registered first is called last.
        atexit.register(self._ignore)

    def _ignore(self) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _end_in_time(self, hear: int) -> None:
        while not set(os.read(hear, 1)) & set(self._before):
            pass
        time.sleep(IN_LIBRARY)
        if self.came is not None:
            time.sleep(self.cleaning - IN_LIBRARY)
        if self._code is not None:
            os._exit(self._code)
        self._leave(
            "interrupted amid something that takes long; the same command goes on with what was "
            "finished, or removes what is left of it"
        )

    def restore(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
        sys.unraisablehook, sys.excepthook = self._hooks

    def spare(self, function: Callable[..., Any]) -> None:
        """Raise nothing amid a function of Python's, but after it.

        Args:
            function: what it has done would be done again.
        """
        self._spared.add(function.__code__)

    def working(self) -> None:
        """Note that from now on there may be something to clean up."""
        self._working = True

    def ended(self, code: int) -> None:
        """Note that nothing is left to do but to end.

        Args:
            code: that the process ends with, whatever comes.
        """
        self._code = code

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # forked by some library, which ends it
            os._exit(INTERRUPTED)
        if self._code is not None:
            os._exit(self._code)
        if not self._working:
            self._leave("interrupted; nothing was written")
        if frame is not None and frame.f_code in self._spared:
            # Once: what is blocked there is not waited for.
            self._spared.clear()
            _interrupt_again()
            return
        if self.came is None:
            self.came = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self.came > PATIENCE:
            self._leave("interrupted twice; the same command may find files of this run to remove")

    def _leave(self, message: str) -> None:
        """End the process at once. No stream of Python's may be used amid whatever it did."""
        if self._json:
            event = f'{{"event": "error", "code": {INTERRUPTED}, "message": "{message}"}}\n'
            _write(1, event)
        _write(2, f"geoseg: error: {message}\n")
        os._exit(INTERRUPTED)

    def _unraisable(self, about: Any) -> None:
        """Raise the interrupt again where Python would only print it."""
        if about.exc_type is not KeyboardInterrupt or self._code is not None:
            self._hooks[0](about)
            return
        self.came = None
        _interrupt_again()

    def _printed(self, kind: type[BaseException], error: BaseException, where: Any) -> None:
        """Print an exception, but not the interrupt.

        C code does that: what is compiled against numpy prints whatever stopped it from being
        imported, and raises an ImportError instead.
        """
        if not issubclass(kind, KeyboardInterrupt):
            self._hooks[1](kind, error, where)


def _interrupt_again() -> None:
    """Have the signal come again, when Python is no longer where nothing can be raised."""
    import threading

    threading.Thread(target=_interrupt_soon, daemon=True).start()


def _interrupt_soon() -> None:
    time.sleep(0.05)
    interrupt_main()


def interrupt_main() -> None:
    """Have the main thread interrupted as by Ctrl-C, from any thread."""
    import threading

    # A shell has what it starts in the background ignore SIGINT.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    number = signal.SIGTERM if ignored else signal.SIGINT

    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)  # which also ends what it waits for
    else:
        _thread.interrupt_main(number)


def _write(handle: int, text: str) -> None:
    try:
        os.write(handle, text.encode())
    except OSError:
        return
