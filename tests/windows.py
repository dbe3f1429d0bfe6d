"""Makes this process behave as on Windows, where that differs and can be simulated.

Import it after the libraries, whose builds for Linux need what is taken away here, and before
geoseg. What GDAL and other libraries open by themselves counts as open, too.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import sys
from types import SimpleNamespace
from typing import Any

_open, _listdir, _readlink = io.open, os.listdir, os.readlink
_os_open, _unlink, _replace, _rename, _fsync = os.open, os.unlink, os.replace, os.rename, os.fsync


def _is_open(path: Any) -> bool:
    """Whether this process has a file open, or mapped into memory."""
    real = os.path.realpath(os.fspath(path))
    with _open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        if any(line.rstrip().endswith(f" {real}") for line in maps):
            return True
    for number in _listdir("/proc/self/fd"):
        try:
            if _readlink(f"/proc/self/fd/{number}") == real:
                return True
        except OSError:
            continue
    return False


def _guard(path: Any) -> None:
    if os.path.isfile(path) and _is_open(path):
        raise PermissionError(errno.EACCES, "used by another process", os.fspath(path))


def _no_linux(path: Any) -> None:
    if isinstance(path, str | os.PathLike) and str(os.fspath(path)).startswith(("/proc", "/sys/")):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))


def _unlink_closed(path: Any, **options: Any) -> None:
    if options.get("dir_fd") is None:
        _guard(path)
    _unlink(path, **options)


def _replace_closed(source: Any, target: Any, **options: Any) -> None:
    _guard(source)
    _guard(target)
    _replace(source, target, **options)


def _rename_closed(source: Any, target: Any, **options: Any) -> None:
    if os.path.exists(target):
        raise FileExistsError(errno.EEXIST, "Cannot create a file that exists", str(target))
    _guard(source)
    _rename(source, target, **options)


def _open_no_folder(path: Any, flags: int, *args: Any, **options: Any) -> int:
    _no_linux(path)
    # The nameless files of tempfile are something else there, and work.
    nameless = getattr(os, "O_TMPFILE", 0)
    if os.path.isdir(path) and flags & nameless != nameless:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return _os_open(path, flags, *args, **options)


def _open_no_linux(path: Any, *args: Any, **options: Any) -> Any:
    _no_linux(path)
    return _open(path, *args, **options)


def _locking(handle: int, mode: int, count: int) -> None:
    try:
        _flock(handle, 6)
    except OSError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


def simulate() -> None:
    """Take away what Windows has not, from now on."""
    import fcntl

    import psutil

    # It asks Windows for these; the build for Linux reads /proc.
    free, held = psutil.virtual_memory(), psutil.Process().memory_info()
    psutil.virtual_memory = lambda: free
    psutil.Process = lambda: SimpleNamespace(memory_info=lambda: held)

    global _flock
    _flock = fcntl.flock
    flags = fcntl.fcntl, fcntl.F_GETFL

    def fsync(handle: int) -> None:
        """FlushFileBuffers takes no handle that was opened for reading."""
        if flags[0](handle, flags[1]) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        _fsync(handle)

    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[name] = None  # type: ignore[assignment]
    sys.modules["msvcrt"] = SimpleNamespace(locking=_locking, LK_NBLCK=2)  # type: ignore[assignment]
    for name in (
        *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "sysconf", "getuid", "geteuid"),
        *("sched_getaffinity", "fork", "getpgid", "setsid", "chown", "mkfifo"),
    ):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "pthread_kill", "pthread_sigmask"):
        delattr(signal, name)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    os.unlink = os.remove = _unlink_closed  # type: ignore[assignment]
    os.replace, os.rename = _replace_closed, _rename_closed
    os.fsync, os.open = fsync, _open_no_folder
    builtins.open = io.open = _open_no_linux


_flock: Any = None
