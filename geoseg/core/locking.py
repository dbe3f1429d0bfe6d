"""Locks that keep other runs away from a folder, on POSIX systems and on Windows.

A lock is an open file: it is held until it is released or the process ends, however it does. Some
file systems (of networks) can't lock: there a lock keeps away the runs of this process alone.

The library filelock (4.3) was tried in its place, and does less. Where a file system can't lock, it
raises an error or goes over to marker files, which a killed process leaves behind; it locks pipes,
too; and removing the file is left to its user, which is where the care is needed.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from geoseg.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # everything else
    msvcrt = None  # type: ignore[assignment]

__all__ = ["BusyError", "Lock"]

#: What says that another one holds the lock: flock says EWOULDBLOCK (which is EAGAIN), locks of
#: network file systems also EACCES, Windows EACCES or EDEADLK.
_BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
#: What says that the file system can't lock.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
#: How often a file that went away between opening and locking is opened again; each time another
#: run has ended meanwhile.
_TRIES = 1000

#: Paths that are locked by this process. Where locks belong to processes (NFS), or there are none,
#: the system would let two threads in.
_held: set[str] = set()
_guard = threading.Lock()


class BusyError(OutputError):
    """Another run, of this process or another one, holds a lock."""


class Lock:
    """A lock that is held. Use as a context manager, or release it.

    Attributes:
        path: the file.
        by_system: whether the system keeps other processes away; False where the file system
            can't lock.
    """

    def __init__(self, path: Path, handle: int, key: str, *, by_system: bool) -> None:
        """Hold an open file that is locked; see :meth:`take`."""
        self.path, self.by_system = path, by_system
        self._handle: int | None = handle
        self._key = key

    @classmethod
    def take(cls, path: Path) -> Lock:
        """Lock a file, which is made where it is not there; no symbolic link is followed.

        Args:
            path: of the file. Its folder is there.

        Returns:
            The lock, which is held.

        Raises:
            BusyError: another run holds it, of this process or another one.
            OSError: the file can't be made or opened, or is no plain file.
        """
        key = os.path.normcase(os.path.realpath(path.parent) + os.sep + path.name)
        with _guard:
            if key in _held:
                raise BusyError(f"another run holds {path}; wait for it")
            _held.add(key)
        try:
            handle, by_system = _open_locked(path)
        except BaseException:
            _forget(key)
            raise
        return cls(path, handle, key, by_system=by_system)

    def release(self, *, remove: bool = False) -> None:
        """Let others in; a second call does nothing.

        Args:
            remove: the file, too. Who has opened it already sees that it is gone and makes a new
                one.
        """
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            if remove:
                # While it is held: nobody's but this run's own is removed.
                with suppress(OSError):
                    self.path.unlink()
            os.close(handle)
            if remove and fcntl is None:
                # Windows removes no open file, neither this run's above nor another's here.
                with suppress(OSError):
                    self.path.unlink()
        finally:
            _forget(self._key)

    def __enter__(self) -> Lock:
        """Give the lock itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Release it; the file stays."""
        self.release()


def _forget(key: str) -> None:
    with _guard:
        _held.discard(key)


def _open_locked(path: Path) -> tuple[int, bool]:
    """Open and lock the file that stands under a path now; handle, and whether it is locked."""
    for _ in range(_TRIES):
        handle = _open(path)
        try:
            by_system = _lock(handle, path)
            if _is_still(handle, path):
                return handle, by_system
        except BaseException:
            os.close(handle)
            raise
        # Another run has removed it since: its lock would keep nobody away.
        os.close(handle)
    raise BusyError(f"other runs make and remove {path} all the time; wait for them")


def _open(path: Path) -> int:
    """Open a plain file for reading and writing; children of this process don't get the handle."""
    nofollow = getattr(os, "O_NOFOLLOW", 0)
    if not nofollow and path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path))
    handle = os.open(path, os.O_RDWR | os.O_CREAT | nofollow, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return handle


def _lock(handle: int, path: Path) -> bool:
    """Lock without waiting; False where the file system can't.

    Raises:
        BusyError: another one holds it.
    """
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            # The first byte, which need not exist.
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            return False
    except OSError as error:
        if error.errno in _BUSY:
            raise BusyError(f"another run holds {path}; wait for it") from error
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_still(handle: int, path: Path) -> bool:
    """Whether an open file is the one that stands under its path."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
