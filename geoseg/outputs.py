"""Outputs appear under their final names whole, all together, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from geoseg.errors import OutputError

__all__ = ["Staging", "explain_write_error"]

#: Small files that GDAL, QGIS and SQLite keep beside a file; those of an overwritten one would lie.
_SIDECARS = (".aux.xml", ".ovr", ".msk", "-wal", "-shm", "-journal")


class Staging:
    """A hidden folder beside each output, from which finished files are renamed into place.

    Use as a context manager; what was not published when it ends is removed.
    """

    def __init__(
        self, finals: Sequence[Path], *, overwrite: bool = False, replaced: Sequence[Path] = ()
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
        self._folders: dict[Path, Path] = {}

    def __enter__(self) -> Staging:
        """Make the hidden folders."""
        try:
            for final in self.finals:
                parent = final.absolute().parent
                if parent not in self._folders:
                    self._folders[parent] = Path(
                        tempfile.mkdtemp(prefix=f".geoseg-{os.getpid()}-", dir=parent)
                    )
        except OSError as error:
            self._remove()
            raise explain_write_error(error, final) from error
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove what was not published."""
        self._remove()

    def _remove(self) -> None:
        for folder in self._folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()

    def path(self, final: Path) -> Path:
        """Where to write an output until it is whole; same suffix, same file system."""
        return self._folders[final.absolute().parent] / final.name

    def scratch(self, name: str) -> Path:
        """A file that is not published."""
        folder = next(iter(self._folders.values())) / "scratch"
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
                for final in finals:
                    for suffix in _SIDECARS:
                        with suppress(FileNotFoundError):
                            Path(f"{final}{suffix}").unlink()
                    os.replace(self.path(final), final)
            except OSError as error:
                for published in new:
                    with suppress(OSError):
                        published.unlink()
                raise explain_write_error(error, final) from error


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
