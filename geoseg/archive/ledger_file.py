"""The file of a ledger: SQLite with a mark of its own, opened, changed and read.

Whatever SQLite reports is one line for people, with what to do.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError

__all__ = ["LedgerFile"]

#: Marks the file as this program's, and its layout.
_APPLICATION, _LAYOUT = 0x67656F73, 1
#: Seconds for which another coordinator's write is waited for.
_PATIENCE = 30.0
#: Places of errors that lie with the disk, in SQLite's words.
_FULL = ("disk is full", "disk I/O error")

# What is long stands last: to reach what is behind it, SQLite reads it.
_SCHEMA = """
CREATE TABLE coordinators (id TEXT PRIMARY KEY, host TEXT, pid INTEGER, born REAL, seen REAL);
CREATE TABLE jobs (
    key TEXT PRIMARY KEY, number INTEGER, name TEXT, state TEXT, kind TEXT, tries INTEGER DEFAULT 0,
    losses INTEGER DEFAULT 0, due REAL DEFAULT 0, attempt INTEGER, parent TEXT,
    pending INTEGER DEFAULT 0, reason TEXT, result TEXT, source TEXT);
CREATE INDEX in_order ON jobs (number, key);
CREATE INDEX by_state ON jobs (state, key) WHERE parent IS NULL;
CREATE INDEX ready ON jobs (losses, number, key, due, parent)
    WHERE state = 'waiting' AND pending = 0;
CREATE INDEX by_parent ON jobs (parent) WHERE parent IS NOT NULL;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, key TEXT, coordinator TEXT, host TEXT, worker TEXT, versions TEXT,
    began REAL, ended REAL, outcome TEXT, error TEXT, peak_bytes INTEGER);
CREATE INDEX by_key ON attempts (key);
CREATE INDEX open ON attempts (coordinator) WHERE ended IS NULL;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT);
"""

# What this coordinator was asked for, and what is being entered: no other sees these.
_OWN = """
CREATE TEMP TABLE asked (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE entering (
    place INTEGER PRIMARY KEY, key TEXT, name TEXT, parent TEXT, source TEXT);
"""


class LedgerFile:
    """An open file of a ledger."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Args:
            path: of the file; its folder is there.

        Raises:
            OutputError: it is another program's, or the disk refuses.
        """
        self._path = path
        with self._explained():
            # Another thread may close it, which waits until this one has gone.
            self._base = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            self._set_up()
        except BaseException:
            self._base.close()
            raise

    def _set_up(self) -> None:
        if self._state() == 0:
            with self.writing():
                if self._state() == 0:  # nobody was faster
                    for statement in _SCHEMA.split(";\n"):
                        self.change(statement)
                    self.change(f"PRAGMA application_id = {_APPLICATION}")
                    self.change(f"PRAGMA user_version = {_LAYOUT}")
        self._write_ahead()
        # What was reported as done is on disk: a power cut loses nothing.
        self.change("PRAGMA synchronous = FULL")
        self.change("PRAGMA fullfsync = ON")  # macOS
        for statement in _OWN.split(";\n"):
            self.change(statement)

    def _state(self) -> int:
        """Look whether the file is a ledger; before anything of it is changed.

        Returns:
            The number of its tables and indices: 0 of a new one.

        Raises:
            OutputError: it is another program's.
        """
        with self._snapshot():  # another coordinator may be making it just now
            ((mark,),) = self.rows("PRAGMA application_id")
            ((layout,),) = self.rows("PRAGMA user_version")
            ((parts,),) = self.rows("SELECT count(*) FROM sqlite_master")
        ours = (mark, layout) == (_APPLICATION, _LAYOUT)
        if ours or (parts, mark, layout) == (0, 0, 0):
            return int(parts)
        if mark == _APPLICATION:
            raise OutputError(
                f"{self._path} is a ledger of another version of geoseg (its layout is {layout}, "
                f"and {_LAYOUT} is read); go on with that version, or give another folder"
            )
        raise OutputError(
            f"{self._path} is a database of another program (its mark is {mark:x}), and is left as "
            f"it is; give another folder"
        )

    def _write_ahead(self) -> None:
        """Have readers and a writer not wait for each other; others may be about it as well."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._base.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise self._error(error) from error
                time.sleep(0.05)

    def close(self) -> None:
        """Close it."""
        self._base.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make a change whole or not at all, with no other coordinator amid it.

        Raises:
            OutputError: the disk refuses.
        """
        with self._explained():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:  # a full disk ends it
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """Have several questions answered by one state of the file."""
        if self._base.in_transaction:
            yield
            return
        with self._explained():
            self._base.execute("BEGIN")
            try:
                yield
            finally:
                self._base.execute("ROLLBACK")

    def change(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Do a statement that gives nothing; within a change, or for this coordinator alone.

        Raises:
            OutputError: the disk refuses.
        """
        with self._explained():
            return self._base.execute(statement, values)

    def change_many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Do a statement again and again.

        Raises:
            OutputError: the disk refuses.
        """
        with self._explained():
            self._base.executemany(statement, values)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Give all rows of a question.

        Raises:
            OutputError: the file is damaged, or the disk refuses.
        """
        with self._explained():
            return self._base.execute(statement, values).fetchall()

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Go through the rows of a question, of which one at a time is in memory.

        Raises:
            OutputError: the file is damaged, or the disk refuses.
        """
        with self._explained():
            cursor = self._base.execute(statement, values)
        while True:
            with self._explained():
                row = cursor.fetchone()
            if row is None:
                return
            yield row

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> OutputError:
        said = str(error)
        if any(words in said for words in _FULL):
            return OutputError(
                f"{self._path} can't be written ({said}: No space left, or the disk fails); make "
                f"space, and give the same command again: what is done stays done"
            )
        if "locked" in said:
            return OutputError(
                f"{self._path} is being written by another run for more than {_PATIENCE:g} s; give "
                f"the same command again once that has ended"
            )
        if "malformed" in said or "not a database" in said:
            return OutputError(
                f"{self._path} is no ledger, or is damaged ({said}); move it away: the archive "
                f"begins anew then, and maps are made again"
            )
        return OutputError(
            f"{self._path} can't be used as a ledger ({said}); check the folder and the disk"
        )
