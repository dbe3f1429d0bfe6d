"""Commands in processes that are forked off one that has imported what they need.

A process of its own imports for more than a second before it does a thing, which is what most tests
of the command line would spend their time on. What comes after is the same here: arguments, folder,
environment, streams, signals, and the end of the interpreter. Tests of how a process begins, or of
what it loads and takes, start one by :mod:`subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]

#: What commands import sooner or later. Nothing of it leaves a thread.
MODULES = (
    *("geoseg.cli.app", "geoseg.evaluation.run", "geoseg.mosaicking.run", "geoseg.prediction.run"),
    *("geoseg.polygons.polygonize", "geoseg.prediction.dry_run", "geoseg.runtimes.on_openvino"),
    *("geopandas", "onnx", "openvino", "pyarrow.pandas_compat", "pyogrio", "scipy.ndimage"),
    *("pytest", "tests.helpers", "tests.oracles"),
)


class Forked:
    """A process, as :class:`subprocess.Popen` has them, of which nobody has to wait for the end.

    Attributes:
        pid: of the process.
        returncode: None while it goes on; minus the signal that ended it.
        stdout: what it prints, as text.
        stderr: likewise.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        largest_file: int | None = None,
    ) -> None:
        """Begin a command.

        Args:
            command: ``[sys.executable, "-m", "geoseg", ...]``, or ``"-c"`` and code.
            cwd: the folder to run in; None for that of the tests.
            env: the environment; None for that of the tests.
            largest_file: bytes beyond which no file grows, as on a full disk, or None.
        """
        asked = {
            "command": [str(word) for word in command],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "largest_file": largest_file,
        }
        mine, theirs = socket.socketpair()
        output, errors = os.pipe(), os.pipe()
        with open(os.devnull, "rb") as nothing:
            fds = [nothing.fileno(), output[1], errors[1], theirs.fileno()]
            socket.send_fds(_nursery(), [b"."], fds)
        for end in (output[1], errors[1]):
            os.close(end)
        theirs.close()
        self._channel = mine
        self.stdout: IO[str] = open(output[0], encoding="utf-8")  # noqa: SIM115
        self.stderr: IO[str] = open(errors[0], encoding="utf-8")  # noqa: SIM115
        mine.sendall(json.dumps(asked).encode() + b"\n")
        self._answers = mine.makefile("r", encoding="ascii")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
        self._answers.close()
        self._channel.close()
        self._ended.set()

    def poll(self) -> int | None:
        """The exit code, or None where it goes on."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """The rest of what it prints to standard output and standard error, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on; it is killed.
        """
        said = ["", ""]

        def read(place: int, file: IO[str]) -> None:
            if not file.closed:
                with file:
                    said[place] = file.read()

        files = enumerate((self.stdout, self.stderr))
        readers = [threading.Thread(target=read, args=given, daemon=True) for given in files]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            raise
        for reader in readers:
            reader.join(timeout)
        return said[0], said[1]


def run(
    command: Sequence[object], *, timeout: float = 300.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        command: as :class:`Forked` takes it, as all options.
        timeout: seconds after which it is killed, and the test fails.
        options: further ones.
    """
    process = Forked(command, **options)
    output, errors = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess([*command], process.returncode, output, errors)


@functools.cache
def _nursery() -> socket.socket:
    """Where to ask for processes; it ends with the tests."""
    mine, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        mine.close()
        process.wait(60)

    atexit.register(end)
    return mine


# In the other processes


def _born(nursery: socket.socket) -> dict[str, Any] | None:
    """Fork whenever it is asked for; what a new process is to do, and None where all is done."""
    while True:
        word, fds, _, _ = socket.recv_fds(nursery, 1, 4)
        if not word:
            return None
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    nursery.close()
    channel = socket.socket(fileno=fds.pop())
    words = channel.makefile("rw", encoding="utf-8")
    asked: dict[str, Any] = json.loads(words.readline())
    child = os.fork()
    if child:  # the keeper, who says how the process ends
        for fd in fds:
            os.close(fd)
        print(child, file=words, flush=True)
        print(os.waitpid(child, 0)[1], file=words, flush=True)
        os._exit(0)
    words.close()
    channel.close()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
    return asked


def main() -> None:
    """Import, wait to be asked, and become what is asked for."""
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("geoseg.core.jit").warm_up()
    assert threading.active_count() == 1  # another would be missing in the processes to come
    asked = _born(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        return
    _, how, what, *words = asked["command"]
    sys.argv = [what if how == "-m" else how, *words]
    if how == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        assert (how, what) == ("-m", "geoseg")
        importlib.import_module("geoseg.cli").main()


if __name__ == "__main__":
    main()
