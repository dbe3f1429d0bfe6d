"""Outputs appear under their final names whole, all together, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, where two runs of the same outputs are the user's to avoid
    fcntl = None  # type: ignore[assignment]

__all__ = ["Staging", "explain_write_error"]

#: Small files that GDAL, QGIS and SQLite keep beside a file; those of an overwritten one would lie.
_SIDECARS = (".aux.xml", ".ovr", ".msk", "-wal", "-shm", "-journal")


#: In the hidden folder: what is not published; what the run is made from; the outputs that are
#: being renamed into place, and which files they are.
_SCRATCH, _RECORD, _PUBLISHING = "scratch", "run.json", "publishing.json"
#: What flock says on file systems that can't lock (some of networks).
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
#: A disk with less room than this is full, whatever a library calls it.
_FULL_BYTES = 1 << 20


class Staging:
    """A hidden folder beside each output, from which finished files are renamed into place.

    Use as a context manager; what was not published when it ends is removed. A run that can be
    resumed says what it is made from: then the folder beside its first output has a name of its
    own (see :meth:`resumable`), is kept where :attr:`keep` is True at an early end, and is found
    again by the next run.

    Attributes:
        keep: whether what is there shall stay for a later run; only counts for a run that can be
            resumed and ends before it has published its outputs.
    """

    def __init__(
        self,
        finals: Sequence[Path],
        *,
        overwrite: bool = False,
        replaced: Sequence[Path] = (),
    ) -> None:
        """Check that the outputs can be written, before any work.

        Args:
            finals: the outputs' final paths.
            overwrite: replace what is there.
            replaced: those of them that are replaced in any case.

        Raises:
            OutputError: an output exists, two are the same file, or a folder can't be written.
        """
        self._home: Path | None = None
        if finals:
            self._home = finals[0].absolute().parent / f".geoseg-{finals[0].name}"
        half = self._half_published()
        seen: set[Path] = set()
        for final in finals:
            if final.resolve() in seen:
                raise OutputError(f"{final} is named as two outputs; give each its own file")
            seen.add(final.resolve())
            if final.is_dir():
                raise OutputError(f"{final} is a folder; the output must be a file's name")
            ours = final in replaced or final.absolute() in half
            if final.exists() and not overwrite and not ours:
                raise OutputError(
                    f"{final} exists already; give --overwrite to replace it, or another name"
                )
            if not final.parent.is_dir():
                raise OutputError(
                    f"{final.parent} is no folder; make it first, or give another name"
                )
            log = Path(f"{final}-wal")
            if log.exists() and log.stat().st_size > 0:
                raise OutputError(
                    f"{final} is open in another program (QGIS?), which has unsaved changes to "
                    f"it; close it there, or give another name"
                )
        self.finals = list(finals)
        self.overwrite = overwrite
        self.replaced = [*replaced, *(final for final in finals if final.absolute() in half)]
        self.keep = False
        self._run: Mapping[str, Any] | None = None
        self._restart = False
        self._lock: int | None = None
        self._folders: dict[Path, Path] = {}

    def resumable(self, run: Mapping[str, Any], *, restart: bool = False) -> Staging:
        """Have what is finished kept for a later run of the same.

        Args:
            run: what the outputs are made from and how, for JSON.
            restart: forget what an earlier run of these outputs left.

        Returns:
            Itself; entering it raises an OutputError where another run is at work on the same
            outputs, or an earlier one of them was made from something else.
        """
        self._run, self._restart = run, restart
        return self

    def earlier(self) -> dict[str, Any] | None:
        """What a run of these outputs that was stopped is made from, or None where there is none.

        It may be of something else: entering tells.
        """
        if self._home is None:
            return None
        try:
            found = json.loads((self._home / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _half_published(self) -> set[Path]:
        """Outputs that a run which was killed while it renamed them has left."""
        if self._home is None:
            return set()
        try:
            noted = json.loads((self._home / _PUBLISHING).read_text(encoding="utf-8"))
            files = {Path(name): about for name, about in noted.items()}
        except (OSError, ValueError, AttributeError):
            return set()
        return {path for path, about in files.items() if path.exists() and _about(path) == about}

    def __enter__(self) -> Staging:
        """Make the hidden folders."""
        try:
            for final in self.finals:
                parent = final.absolute().parent
                if parent in self._folders:
                    continue
                if self._run is None:
                    made = tempfile.mkdtemp(prefix=f".geoseg-{os.getpid()}-", dir=parent)
                    self._folders[parent] = Path(made)
                elif not self._folders:
                    assert self._home is not None
                    self._folders[parent] = self._resumable(self._home)
                else:
                    # Of the same name at each try, so that nothing of a killed run stays; the
                    # first folder's lock is for this one, too.
                    mark = hashlib.sha256(str(self._home).encode()).hexdigest()[:12]
                    self._folders[parent] = folder = parent / f".geoseg-{mark}"
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
        except OSError as error:
            self._remove()
            raise explain_write_error(error, final) from error
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove what was not published and is not to be kept."""
        if self.keep and self._folders:
            # The first one is the one that the next run looks for.
            self._folders.pop(next(iter(self._folders)))
        self._remove()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _resumable(self, folder: Path) -> Path:
        """Take a run's folder for this process alone, and see that it is of the same run.

        Raises:
            OutputError: another process has it, or it is of another run.
        """
        folder.mkdir(exist_ok=True)
        # Held until the process ends, however it does.
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise OutputError(
                f"another run is at work on {self.finals[0]} now; wait for it, or give another name"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(lock)
                raise
        self._lock = lock
        record = folder / _RECORD
        if not self._restart and record.exists():
            try:
                before = json.loads(record.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                before = None
            changed = _changes(before, json.loads(json.dumps(self._run)))
            if changed:
                os.close(lock)
                self._lock = None
                raise OutputError(
                    f"a run that was stopped has left finished strips for {self.finals[0]}, and "
                    f"this one differs from it: {'; '.join(changed)}. Give the same command to "
                    f"go on, or --restart to begin anew"
                )
            self.keep = True
            _clear(folder, but=("lock", _RECORD, _PUBLISHING, _SCRATCH))
        else:
            _clear(folder, but=("lock", _PUBLISHING))
            _write_whole(record, self._run)
        return folder

    def _remove(self) -> None:
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def path(self, final: Path) -> Path:
        """Where to write an output until it is whole; same suffix, same file system."""
        return self._folders[final.absolute().parent] / final.name

    def scratch(self, name: str) -> Path:
        """A file that is not published."""
        folder = next(iter(self._folders.values())) / _SCRATCH
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise explain_write_error(error, self.finals[0]) from error
        return folder / name

    def final_names(self, text: str) -> str:
        """A message with the outputs' final paths in place of those in the hidden folders."""
        for final in self.finals:
            text = text.replace(str(self.path(final)), str(final))
        return text

    def free_bytes(self) -> int:
        """Free space on the fullest file system among the outputs'."""
        return min(shutil.disk_usage(folder).free for folder in self._folders.values())

    def publish(self, finals: Sequence[Path]) -> None:
        """Rename outputs into place, in order.

        Args:
            finals: final paths whose files are written and whole.

        Raises:
            OutputError: the file system refuses.
        """
        for final in finals:
            try:
                _sync(self.path(final))
            except OSError as error:
                raise explain_write_error(error, final) from error
        new = [final for final in finals if not final.exists()]
        there = [final for final in finals if final not in new and final not in self.replaced]
        if not self.overwrite and there:
            other = there[0]
            raise OutputError(
                f"{other} appeared while this run was at work, so another run writes there; "
                f"nothing was replaced"
            )
        with _uninterrupted():
            try:
                if self._run is not None:
                    # Killed from here on, the next run knows its own.
                    assert self._home is not None
                    noted = {str(f.absolute()): _about(self.path(f)) for f in finals}
                    _write_whole(self._home / _PUBLISHING, noted)
                self.keep = False
                for final in finals:
                    for suffix in _SIDECARS:
                        with suppress(FileNotFoundError):
                            Path(f"{final}{suffix}").unlink()
                    os.replace(self.path(final), final)
            except OSError as error:
                self.keep = self._run is not None
                for published in new:
                    with suppress(OSError):
                        published.unlink()
                raise explain_write_error(error, final) from error


def _about(path: Path) -> list[int]:
    """What tells a file from any other, and stays when it is renamed."""
    about = path.stat()
    return [about.st_ino, about.st_size, about.st_mtime_ns]


def _write_whole(path: Path, value: Any) -> None:
    """Write JSON that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value), encoding="utf-8")
    _sync(partial)
    os.replace(partial, path)


def _clear(folder: Path, but: Sequence[str]) -> None:
    """Empty a folder, but for some names: a killed run's half outputs are begun anew."""
    for old in folder.iterdir():
        if old.name not in but:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def _changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """What differs between two runs, in words."""
    if not isinstance(before, dict):
        return ["its record can't be read"]
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the outputs have their names, all of them."""
    if threading.current_thread() is not threading.main_thread():
        # Python's handlers run in the main thread alone: nothing interrupts this one.
        yield
        return
    came: list[int] = []
    # A mask of this thread's would not do: another thread, a runtime's, would take the signal.
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that Python did not set and can't set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


def _sync(path: Path) -> None:
    """Have the file on disk before its name is: a crash must not leave an empty output."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def explain_write_error(error: BaseException, path: Path) -> OutputError:
    """An OutputError that says why a file could not be written."""
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _is_full(path)
    if full or "No space left" in text or "File too large" in text:
        return OutputError(f"{path}: the disk is full; free some space or choose another folder")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: the folder can't be written; choose another with -o")
    return OutputError(f"{path} can't be written ({text.splitlines()[0] if text else error!r})")


def _is_full(path: Path) -> bool:
    """Whether there is no room; libraries often speak of something else then."""
    folder = next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False
