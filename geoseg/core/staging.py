"""Outputs appear under their final names whole, all together, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from geoseg.core.files import NAME_BYTES, replace_file, sync_file, write_whole
from geoseg.core.jsontext import json_text
from geoseg.core.ownership import holds_statistics_alone, is_ours
from geoseg.core.signals import uninterrupted
from geoseg.core.workfolder import WorkFolder, work_folder_of
from geoseg.core.write_errors import explain_write_error
from geoseg.errors import OutputError

__all__ = ["Staging", "check_closed"]

#: What GDAL reads beside a raster as part of it: it would lie about a new one of that name.
_RASTER_SIDECARS = (".ovr", ".msk", ".aux.xml")
#: What is read beside a Shapefile: indexes and encodings of its rows, by the name without .shp.
_SHAPEFILE_SIDECARS = (".qix", ".sbn", ".sbx", ".cst")
#: What SQLite and QGIS keep beside a file that is open; empty ones go with it.
_DATABASE_SIDECARS = ("-wal", "-shm", "-journal")

#: In the hidden folder: what is not published; what the run is made from; the outputs that are
#: being renamed into place, and which files they are; what they replace, until all have names.
_SCRATCH, _RECORD, _PUBLISHING, _BEFORE = "scratch", "run.json", "publishing.json", "before"


class Staging:
    """A hidden folder beside each output, from which finished files are renamed into place.

    Use as a context manager. Each output's folder (see :mod:`geoseg.core.workfolder`) is this run's
    alone, so that of two runs which share an output the second is refused. What was not published
    at the end is removed. Where a run can be resumed and says what it is made from, the folder of
    its first output is kept where :attr:`keep` is True at an early end, and is found again by the
    next run.

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
            OutputError: an output exists and is not to be replaced, or geoseg did not make it; two
                are the same file; a name is too long; or a folder is missing.
        """
        self.finals = list(finals)
        self.overwrite = overwrite
        half = self._half_published()
        self.replaced = [*replaced, *(final for final in finals if final.absolute() in half)]
        self.keep = False
        self._run: Mapping[str, Any] | None = None
        self._restart = False
        self._folders: dict[Path, WorkFolder] = {}
        seen: set[Path] = set()
        for final in finals:
            if final.resolve() in seen:
                raise OutputError(f"{final} is named as two outputs; give each its own file")
            seen.add(final.resolve())
            self._check(final)

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

    def _check(self, final: Path) -> None:
        """Refuse to write an output where nothing may be written, or something be lost.

        Raises:
            OutputError: see :meth:`__init__`.
        """
        length = len(os.fsencode(final.name))
        if length > NAME_BYTES:
            raise OutputError(
                f"{final}: the name has {length} bytes and may have {NAME_BYTES}, since geoseg "
                f"works in a folder that is called after it; give a shorter name"
            )
        if final.suffix.lower() in (".tif", ".tiff", ".vrt"):
            _check_utf8(final)
        if final.is_dir():
            raise OutputError(f"{final} is a folder; the output must be a file's name")
        if final.is_symlink() and not final.exists():
            raise OutputError(
                f"{final} is a link to {os.readlink(final)}, which is not there; remove the link, "
                f"or give another name"
            )
        if final.exists() and not self.overwrite and final not in self.replaced:
            raise OutputError(
                f"{final} exists already; give --overwrite to replace it, or another name"
            )
        if not final.parent.is_dir():
            raise OutputError(f"{final.parent} is no folder; make it first, or give another name")
        check_closed(final)
        if final not in self.replaced:
            _check_foreign(final)

    def earlier(self) -> dict[str, Any] | None:
        """Read what a stopped run of these outputs is made from, or None where there is none.

        It may be of something else, which entering finds out.
        """
        found = self._noted(_RECORD)
        return found if isinstance(found, dict) else None

    def differs(self, run: Mapping[str, Any]) -> list[str]:
        """Say in what a stopped run of these outputs differs from another; its record is there."""
        return _changes(self.earlier(), run)

    def _noted(self, name: str) -> Any:
        """Read a JSON file that a stopped run has left in the first output's folder, or None."""
        if not self.finals:
            return None
        try:
            return json.loads((work_folder_of(self.finals[0]) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _half_published(self) -> set[Path]:
        """Outputs that a run which was killed while it renamed them has left."""
        noted = self._noted(_PUBLISHING)
        named = noted if isinstance(noted, dict) else {}
        files = {Path(name): about for name, about in named.items()}
        return {path for path, about in files.items() if path.exists() and _about(path) == about}

    def __enter__(self) -> Staging:
        """Take the hidden folders.

        Raises:
            OutputError: a folder can't be made or is another run's, or a stopped run that is to go
                on was of something else.
        """
        try:
            for final in self.finals:
                folder = self._folders[final.absolute()] = WorkFolder.take(final)
                if final is not self.finals[0] or self._run is None:
                    folder.clear()
                else:
                    self._go_on(folder)
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError):
                raise explain_write_error(error, final) from error
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Remove what was not published and is not to be kept."""
        self._leave()

    def _leave(self) -> None:
        """Give the folders back: all are removed but the first, where it is to be kept."""
        for number, folder in enumerate(self._folders.values()):
            if self.keep and number == 0:
                folder.release()
            else:
                folder.remove()
        self._folders.clear()

    def _go_on(self, folder: WorkFolder) -> None:
        """Keep what an earlier run of the same has left in the first folder.

        Raises:
            OutputError: it is of another run.
        """
        record = folder.path / _RECORD
        if self._restart or not record.exists():
            folder.clear(but=[_PUBLISHING])
            write_whole(record, json_text(self._run).encode())
            return
        self.keep = True
        changed = self.differs(self._run or {})
        if changed:
            raise OutputError(
                f"a run that was stopped has left finished strips for {self.finals[0]}, and "
                f"this one differs from it: {'; '.join(changed)}. Give the same command to "
                f"go on, or --restart to begin anew"
            )
        folder.clear(but=[_RECORD, _PUBLISHING, _SCRATCH])

    def path(self, final: Path) -> Path:
        """Where to write an output until it is whole; same suffix, same file system."""
        parent = final.absolute().parent
        # One folder for all outputs that lie in one: some formats write several files at once.
        folder = next(f for path, f in self._folders.items() if path.parent == parent)
        return folder.path / final.name

    def scratch(self, name: str) -> Path:
        """Give the path of a file that is not published."""
        folder = next(iter(self._folders.values())).path / _SCRATCH
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise explain_write_error(error, self.finals[0]) from error
        return folder / name

    def final_names(self, text: str) -> str:
        """Put the outputs' final paths in a message in place of those in the hidden folders."""
        for final in self.finals:
            text = text.replace(str(self.path(final)), str(final))
        return text

    @contextmanager
    def speaking_of_finals(self) -> Iterator[None]:
        """Errors name the outputs' final paths, not hidden ones that are gone by then."""
        try:
            yield
        except OutputError as error:
            raise type(error)(self.final_names(str(error))) from error

    def free_bytes(self) -> int:
        """Look up the free space on the fullest file system among the outputs'."""
        return min(shutil.disk_usage(folder.path).free for folder in self._folders.values())

    def publish(self, finals: Sequence[Path]) -> None:
        """Rename outputs into place, in order.

        Args:
            finals: final paths whose files are written and whole.

        Raises:
            OutputError: the file system refuses.
        """
        for final in finals:
            try:
                sync_file(self.path(final))
            except OSError as error:
                raise explain_write_error(error, final) from error
        for final in (f for f in finals if f not in self.replaced):
            if final.exists() and not self.overwrite:
                raise OutputError(
                    f"{final} appeared while this run was at work, so another program writes "
                    f"there; nothing was replaced"
                )
            _check_foreign(final)
        with uninterrupted():
            if self._run is not None:
                # Killed from here on, the next run knows its own.
                noted = {str(f.absolute()): _about(self.path(f)) for f in finals}
                write_whole(work_folder_of(self.finals[0]) / _PUBLISHING, json_text(noted).encode())
            self._rename(finals)
            self.keep = False

    def _rename(self, finals: Sequence[Path]) -> None:
        """Rename outputs into place; where one fails, all others are as they were.

        Raises:
            OutputError: the file system refuses.
        """
        undo: list[tuple[Path, Path | None]] = []
        try:
            for final in finals:
                for sidecar in _sidecars(final):
                    sidecar.unlink(missing_ok=True)
                undo.append((final, self._set_aside(final)))
                replace_file(self.path(final), final)
        except OSError as error:
            self.keep = self._run is not None
            for path, before in reversed(undo):
                with suppress(OSError):
                    if before is not None:
                        replace_file(before, path)
                    elif path != final:
                        path.unlink()
            raise explain_write_error(error, final) from error

    def _set_aside(self, final: Path) -> Path | None:
        """Give a file that is to be replaced a second name, or None where there is none."""
        if not os.path.lexists(final):
            return None
        folder = self.path(final).parent / _BEFORE
        folder.mkdir(exist_ok=True)
        before = folder / final.name
        before.unlink(missing_ok=True)
        try:
            os.link(final, before, follow_symlinks=False)
        except (OSError, NotImplementedError):  # a file system without a second name
            replace_file(final, before)
        return before


def check_closed(final: Path) -> None:
    """Refuse a database that another program is writing.

    Args:
        final: an output, whatever it is.

    Raises:
        OutputError: what is not written yet lies beside it.
    """
    for suffix in ("-wal", "-journal"):
        log = Path(f"{final}{suffix}")
        if log.exists() and log.stat().st_size > 0:
            raise OutputError(
                f"{final} is open in another program (QGIS?), which has unsaved changes to it; "
                f"close it there, or give another name"
            )


def _sidecars(final: Path) -> Iterator[Path]:
    """List what may lie beside a file, and is read with it."""
    suffix = final.suffix.lower()
    if suffix in (".tif", ".tiff", ".png", ".vrt"):
        yield from (Path(f"{final}{sidecar}") for sidecar in _RASTER_SIDECARS)
    elif suffix == ".shp":
        yield from (final.with_suffix(sidecar) for sidecar in _SHAPEFILE_SIDECARS)
    elif suffix == ".gpkg":
        yield from (Path(f"{final}{sidecar}") for sidecar in _DATABASE_SIDECARS)


def _check_utf8(final: Path) -> None:
    """Refuse a path that GDAL, which takes UTF-8, could not write a raster to.

    Other outputs get their names after they are written.

    Raises:
        OutputError: it is none.
    """
    path = str(final.absolute())
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = path.encode(errors="backslashreplace").decode()
        raise OutputError(
            f"{shown}: the name is not UTF-8, which GDAL needs; give another name or folder"
        ) from error


def _check_foreign(final: Path) -> None:
    """Refuse to replace, or to write beside, what geoseg did not make.

    Raises:
        OutputError: there is such a file.
    """
    if final.exists() and final.stat().st_size > 0 and not is_ours(final):
        raise OutputError(
            f"{final} was not made by geoseg as it is now, and --overwrite replaces nothing else; "
            f"move it away, or give another name"
        )
    if final.suffix.lower() == ".gpkg":
        return
    for sidecar in _sidecars(final):
        if os.path.lexists(sidecar) and not holds_statistics_alone(sidecar):
            raise OutputError(
                f"{sidecar} would be read as a part of {final}, and geoseg did not make it; move "
                f"it away, or give another name"
            )


def _about(path: Path) -> list[int]:
    """Describe what sets a file apart from any other, and stays when it is renamed."""
    about = path.stat()
    return [about.st_ino, about.st_size, about.st_mtime_ns]


def _changes(before: Any, run: Mapping[str, Any]) -> list[str]:
    """Say what differs between the record of a run, as it was read, and another run."""
    if not isinstance(before, dict):
        return ["its record can't be read"]
    now = json.loads(json_text(run))
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
