"""Outputs appear under their final names whole, all together, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from geoseg.errors import OutputError

__all__ = ["Staging", "explain_write_error"]

#: Small files that GDAL and QGIS keep beside a raster; those of an overwritten one would lie.
_SIDECARS = (".aux.xml", ".ovr", ".msk")


class Staging:
    """A hidden folder beside each output, from which finished files are renamed into place.

    Use as a context manager; what was not published when it ends is removed.
    """

    def __init__(self, finals: Sequence[Path], *, overwrite: bool = False) -> None:
        """Check that the outputs can be written, before any work.

        Args:
            finals: the outputs' final paths.
            overwrite: replace what is there.

        Raises:
            OutputError: an output exists, two are the same file, or a folder can't be written.
        """
        seen: dict[Path, Path] = {}
        for final in finals:
            if final.absolute() in seen:
                raise OutputError(f"{final} is named as two outputs; give each its own file")
            seen[final.absolute()] = final
            if final.is_dir():
                raise OutputError(f"{final} is a folder; the output must be a file's name")
            if final.exists() and not overwrite:
                raise OutputError(
                    f"{final} exists already; give --overwrite to replace it, or -o another name"
                )
            if not final.parent.is_dir():
                raise OutputError(f"{final.parent} is no folder; make it first, or -o another name")
        self.finals = list(finals)
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
        return next(iter(self._folders.values())) / f"scratch-{name}"

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
        for final in finals:
            try:
                for suffix in _SIDECARS:
                    with suppress(FileNotFoundError):
                        Path(f"{final}{suffix}").unlink()
                os.replace(self.path(final), final)
            except OSError as error:
                raise explain_write_error(error, final) from error


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
