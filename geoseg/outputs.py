"""Outputs appear under their final names whole, all together, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import tempfile
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


#: In the hidden folder: what is not published.
_SCRATCH = "scratch"


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
        seen: set[Path] = set()
        for final in finals:
            if final.resolve() in seen:
                raise OutputError(f"{final} is named as two outputs; give each its own file")
            seen.add(final.resolve())
            if final.is_dir():
                raise OutputError(f"{final} is a folder; the output must be a file's name")
            if final.exists() and not overwrite and final not in replaced:
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
        self.replaced = list(replaced)
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

    def __enter__(self) -> Staging:
        """Make the hidden folders."""
        try:
            for final in self.finals:
                parent = final.absolute().parent
                if parent in self._folders:
                    continue
                if self._run is not None and not self._folders:
                    self._folders[parent] = self._resumable(parent / f".geoseg-{final.name}")
                    continue
                self._folders[parent] = Path(
                    tempfile.mkdtemp(prefix=f".geoseg-{os.getpid()}-", dir=parent)
                )
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
        self._lock = lock
        record = folder / "run.json"
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
            _clear(folder, but=("lock", "run.json", _SCRATCH))
        else:
            _clear(folder, but=("lock",))
            partial = folder / "run.json.partial"
            partial.write_text(json.dumps(self._run), encoding="utf-8")
            os.replace(partial, record)
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
        folder.mkdir(exist_ok=True)
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
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sync(path: Path) -> None:
    """Have the file on disk before its name is: a crash must not leave an empty output."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def explain_write_error(error: BaseException, path: Path) -> OutputError:
    """An OutputError that says why a file could not be written."""
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    full = code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or "No space left" in text or "File too large" in text:
        return OutputError(f"{path}: the disk is full; free some space or choose another folder")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{path}: the folder can't be written; choose another with -o")
    return OutputError(f"{path} can't be written ({text.splitlines()[0] if text else error!r})")
