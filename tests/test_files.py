"""geoseg.core.files: flushing and renaming, on every system."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from geoseg.core import files
from geoseg.core.files import replace_file, sync_file, sync_folder


def test_a_file_is_flushed_by_a_handle_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' fsync is FlushFileBuffers, which refuses handles that were opened for reading."""
    (tmp_path / "file").write_bytes(b"content")
    flushed, real = [], os.fsync

    def as_windows(handle: int) -> None:
        if os.write(handle, b"") != 0:
            raise AssertionError
        flushed.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", as_windows)
    sync_file(tmp_path / "file")
    assert len(flushed) == 1 and (tmp_path / "file").read_bytes() == b"content"


def test_a_folder_is_flushed_where_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    sync_folder(tmp_path)
    assert len(flushed) == 1

    def as_windows(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", as_windows)
    sync_folder(tmp_path)


@pytest.mark.parametrize(("system", "tries"), [("win32", 3), ("linux", 1)])
def test_a_file_that_a_scanner_has_open_is_replaced_when_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, tries: int
) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    seen, real = [], os.replace

    def in_use(source: Path, target: Path) -> None:
        seen.append(target)
        if len(seen) < 3:
            raise PermissionError(errno.EACCES, "used by another process", str(target))
        real(source, target)

    monkeypatch.setattr(files.sys, "platform", system)
    monkeypatch.setattr(os, "replace", in_use)
    if system == "win32":
        replace_file(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old").read_text() == "new"
    else:
        with pytest.raises(PermissionError):
            replace_file(tmp_path / "new", tmp_path / "old")
    assert len(seen) == tries


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_use(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "used by another process", str(target))

    monkeypatch.setattr(files.sys, "platform", "win32")
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    monkeypatch.setattr(os, "replace", in_use)
    with pytest.raises(PermissionError, match="another process"):
        replace_file(tmp_path / "new", tmp_path / "old")
