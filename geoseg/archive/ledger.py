"""The ledger of an archive: one SQLite file that says in which state every job is, and why.

A job is in exactly one state. It is **waiting** until a coordinator claims it, **running** while
somebody has it, then **done**, or **quarantined** with its reason. Every attempt is kept. Whoever
reports an outcome names the attempt: one that was given up meanwhile changes nothing.

Coordinators alone open the file; workers report to them. A claim belongs to a coordinator, which
shows a sign of life (:meth:`Ledger.alive`); what a dead one had running goes back.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from geoseg.archive.entries import JOB_COLUMNS, STATES, Attempt, Job, NewJob, job_of
from geoseg.errors import OutputError

__all__ = ["LEASE", "LOSSES", "Ledger"]

#: Seconds without a sign of life after which a coordinator's jobs are anybody's.
LEASE = 60.0
#: Workers that a job may take with it.
LOSSES = 3
#: Marks the file as this program's, and its layout.
_APPLICATION, _LAYOUT = 0x67656F73, 1
#: Seconds for which another coordinator's write is waited for.
_PATIENCE = 30.0

_SCHEMA = """
CREATE TABLE coordinators (id TEXT PRIMARY KEY, host TEXT, pid INTEGER, born REAL, seen REAL);
CREATE TABLE jobs (
    key TEXT PRIMARY KEY, number INTEGER, name TEXT, source TEXT, state TEXT, kind TEXT,
    reason TEXT, tries INTEGER DEFAULT 0, losses INTEGER DEFAULT 0, due REAL DEFAULT 0,
    attempt INTEGER, parent TEXT, pending INTEGER DEFAULT 0, result TEXT);
CREATE INDEX by_state ON jobs (state, number);
CREATE INDEX by_parent ON jobs (parent) WHERE parent IS NOT NULL;
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, key TEXT, coordinator TEXT, host TEXT, worker TEXT, versions TEXT,
    began REAL, ended REAL, outcome TEXT, error TEXT, peak_bytes INTEGER);
CREATE INDEX by_key ON attempts (key);
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT);
"""


class Ledger:
    """An open ledger. Use as a context manager; one thread at a time.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open a ledger, or make one.

        Args:
            path: of the file; its folder is there.
            clock: gives the seconds since 1970.

        Raises:
            OutputError: the file is no ledger, or the disk refuses.
        """
        self.path = path
        self._clock = clock
        self._id = uuid.uuid4().hex
        try:
            # Another thread may close it, which waits until this one has gone.
            self._base = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._set_up()
        except sqlite3.Error as error:
            raise OutputError(f"{path} is no ledger that can be used ({error})") from error

    def _set_up(self) -> None:
        base = self._base
        base.execute("PRAGMA journal_mode = WAL")
        # What was reported as done is on disk: a power cut loses nothing.
        base.execute("PRAGMA synchronous = FULL")
        with self._writing():
            (mark,) = base.execute("PRAGMA application_id").fetchone()
            (layout,) = base.execute("PRAGMA user_version").fetchone()
            (tables,) = base.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                for statement in _SCHEMA.split(";\n"):
                    base.execute(statement)
                base.execute(f"PRAGMA application_id = {_APPLICATION}")
                base.execute(f"PRAGMA user_version = {_LAYOUT}")
            elif (mark, layout) != (_APPLICATION, _LAYOUT):
                raise sqlite3.DatabaseError(f"its mark is {mark:x}, its layout {layout}")
        base.execute("CREATE TEMP TABLE asked (key TEXT PRIMARY KEY)")

    def __enter__(self) -> Ledger:
        """Give the ledger itself."""
        return self

    def __exit__(self, *about: object) -> None:
        """Close the file."""
        self._base.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make a change whole or not at all, with no other coordinator amid it."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    # What there is to do

    def add(self, jobs: Iterable[NewJob]) -> tuple[int, int]:
        """Enter jobs, and note that this coordinator was asked for them.

        Args:
            jobs: those that are there already stay as they are.

        Returns:
            How many are new, and how many were there.
        """
        new = known = 0
        with self._writing():
            (number,) = self._base.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()
            for job in jobs:
                number += 1
                made = self._base.execute(
                    "INSERT OR IGNORE INTO jobs (key, number, name, source, state, kind, reason, "
                    "parent, result) VALUES (?, ?, ?, ?, 'waiting', '', '', ?, '{}')",
                    (job.key, number, job.name, json.dumps(dict(job.source)), job.parent),
                ).rowcount
                self._base.execute("INSERT OR IGNORE INTO asked VALUES (?)", (job.key,))
                new, known = new + made, known + 1 - made
        return new, known

    def again(self, keys: Iterable[str], reason: str) -> int:
        """Have jobs that are done or in quarantine done again.

        Args:
            keys: of the jobs.
            reason: why, in a line.

        Returns:
            How many there are.
        """
        count = 0
        with self._writing():
            for key in keys:
                # Its blocks are thought of anew: what they made may be what is missing.
                self._base.execute("DELETE FROM jobs WHERE parent = ?", (key,))
                count += self._base.execute(
                    "UPDATE jobs SET state = 'waiting', kind = '', reason = ?, tries = 0, "
                    "losses = 0, due = 0, pending = 0, result = '{}' WHERE key = ? AND state IN "
                    "('done', 'quarantined')",
                    (reason, key),
                ).rowcount
        return count

    def claim(self, most: int) -> list[Job]:
        """Take jobs that this coordinator was asked for, the first ones first.

        Args:
            most: of them.

        Returns:
            The jobs, each with a new attempt.
        """
        now = self._clock()
        taken = []
        with self._writing():
            self._free_abandoned(now)
            rows = self._base.execute(
                f"SELECT {JOB_COLUMNS} FROM jobs WHERE state = 'waiting' AND pending = 0 "
                "AND due <= ? AND key IN (SELECT key FROM asked) AND (parent IS NULL OR parent IN "
                "(SELECT key FROM jobs WHERE state = 'waiting')) "
                # One that was lost waits for the others: what took its worker may have passed.
                "ORDER BY losses, number, key LIMIT ?",
                (now, most),
            ).fetchall()
            for row in rows:
                attempt = self._base.execute(
                    "INSERT INTO attempts (key, coordinator, host, worker, versions, began, "
                    "outcome, error) VALUES (?, ?, '', '', '', ?, '', '')",
                    (row[0], self._id, now),
                ).lastrowid
                self._base.execute(
                    "UPDATE jobs SET state = 'running', attempt = ? WHERE key = ?",
                    (attempt, row[0]),
                )
                taken.append(job_of((*row[:3], "running", *row[4:9], attempt, *row[10:])))
        return taken

    def alive(self) -> None:
        """Show that this coordinator is at work; at least every ``LEASE / 4`` seconds."""
        me = psutil.Process()
        with self._writing():
            self._base.execute(
                "INSERT OR REPLACE INTO coordinators VALUES (?, ?, ?, ?, ?)",
                (self._id, socket.gethostname(), me.pid, me.create_time(), self._clock()),
            )

    def _free_abandoned(self, now: float) -> None:
        """Give back what coordinators have running that are gone; within a change."""
        for one, host, pid, born, seen in self._base.execute(
            "SELECT * FROM coordinators WHERE id != ?", (self._id,)
        ).fetchall():
            if _is_at_work(host, pid, born, seen, now):
                continue
            self._base.execute(
                "UPDATE jobs SET state = 'waiting', reason = 'its coordinator went away' "
                "WHERE state = 'running' AND attempt IN "
                "(SELECT id FROM attempts WHERE coordinator = ? AND ended IS NULL)",
                (one,),
            )
            self._base.execute(
                "UPDATE attempts SET ended = ?, outcome = 'given back', "
                "error = 'its coordinator went away' WHERE coordinator = ? AND ended IS NULL",
                (now, one),
            )
            self._base.execute("DELETE FROM coordinators WHERE id = ?", (one,))

    # What came of it

    def started(self, job: Job, host: str, worker: str, versions: str) -> None:
        """Note where an attempt runs."""
        with self._writing():
            self._base.execute(
                "UPDATE attempts SET host = ?, worker = ?, versions = ?, began = ? WHERE id = ?",
                (host, worker, versions, self._clock(), job.attempt),
            )

    def done(self, job: Job, result: Mapping[str, Any], peak_bytes: int | None = None) -> bool:
        """Note that a job is done.

        Args:
            job: as it was claimed.
            result: what to keep of it; JSON.
            peak_bytes: of the worker's memory.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "done", "", peak_bytes)
            if not self._move(job, "done", result=result):
                return False
            if job.parent is not None:
                self._base.execute(
                    "UPDATE jobs SET pending = pending - 1 WHERE key = ?", (job.parent,)
                )
            return True

    def quarantine(self, job: Job, kind: str, reason: str, peak_bytes: int | None = None) -> bool:
        """Note that a job failed for a lasting reason; of a block the whole scene did.

        Args:
            job: as it was claimed.
            kind: why, in a word.
            reason: why, in a line.
            peak_bytes: of the worker's memory.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "failed", reason, peak_bytes)
            return self._quarantine(job, kind, reason)

    def _quarantine(self, job: Job, kind: str, reason: str) -> bool:
        moved = self._move(job, "quarantined", kind=kind, reason=reason)
        if moved and job.parent is not None:
            self._base.execute(
                "UPDATE jobs SET state = 'quarantined', kind = ?, reason = ? "
                "WHERE key = ? AND state = 'waiting'",
                (kind, f"{job.name}: {reason}", job.parent),
            )
        return moved

    def try_later(
        self, job: Job, reason: str, seconds: float, peak_bytes: int | None = None
    ) -> bool:
        """Note that a job failed for a reason that may pass.

        Args:
            job: as it was claimed.
            reason: why, in a line.
            seconds: for which it waits.
            peak_bytes: of the worker's memory.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "failed", reason, peak_bytes)
            due = self._clock() + seconds
            return self._move(job, "waiting", reason=reason, due=due, tries=1)

    def lost(self, job: Job, reason: str) -> bool:
        """Note that a job's worker went away; the third time it goes to quarantine.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "lost", reason)
            if job.losses + 1 >= LOSSES:
                said = f"{LOSSES} workers went away with it, the last one: {reason}"
                return self._quarantine(job, "crashed", said)
            return self._move(job, "waiting", reason=reason, losses=1)

    def give_back(self, job: Job, reason: str) -> bool:
        """Note that a job was begun, or not, and its worker was told to go; nobody is to blame.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "given back", reason)
            return self._move(job, "waiting", reason=reason)

    def split(self, job: Job, blocks: Sequence[NewJob]) -> bool:
        """Put blocks in front of a job, which waits until they are done.

        Args:
            job: as it was claimed.
            blocks: of its scene.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._writing():
            self._end(job, "split", "")
            if not self._move(job, "waiting", reason=f"waits for {len(blocks)} blocks"):
                return False
            (number,) = self._base.execute(
                "SELECT number FROM jobs WHERE key = ?", (job.key,)
            ).fetchone()
            pending = 0
            for block in blocks:
                self._base.execute(
                    "INSERT OR IGNORE INTO jobs (key, number, name, source, state, kind, reason, "
                    "parent, result) VALUES (?, ?, ?, ?, 'waiting', '', '', ?, '{}')",
                    (block.key, number, block.name, json.dumps(dict(block.source)), job.key),
                )
                self._base.execute("INSERT OR IGNORE INTO asked VALUES (?)", (block.key,))
                pending += self._base.execute(
                    "SELECT count(*) FROM jobs WHERE key = ? AND state != 'done'", (block.key,)
                ).fetchone()[0]
            self._base.execute("UPDATE jobs SET pending = ? WHERE key = ?", (pending, job.key))
            return True

    def _end(self, job: Job, outcome: str, error: str, peak_bytes: int | None = None) -> None:
        """Close an attempt, even one that is not the job's any more; within a change."""
        self._base.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, error = ?, peak_bytes = ? "
            "WHERE id = ? AND ended IS NULL",
            (self._clock(), outcome, error, peak_bytes, job.attempt),
        )

    def _move(
        self,
        job: Job,
        state: str,
        *,
        kind: str = "",
        reason: str = "",
        due: float = 0.0,
        tries: int = 0,
        losses: int = 0,
        result: Mapping[str, Any] | None = None,
    ) -> bool:
        """Change the state of a running job whose attempt this is; within a change."""
        changed = self._base.execute(
            "UPDATE jobs SET state = ?, kind = ?, reason = ?, due = ?, tries = tries + ?, "
            "losses = losses + ?, result = ? WHERE key = ? AND state = 'running' AND attempt = ?",
            (
                *(state, kind, reason, due, tries, losses, json.dumps(dict(result or {}))),
                *(job.key, job.attempt),
            ),
        )
        return changed.rowcount == 1

    # What it says

    def counts(self, *, asked: bool = False) -> dict[str, int]:
        """Count whole jobs, not their blocks, by state.

        Args:
            asked: only those that this coordinator was asked for.
        """
        found = dict.fromkeys(STATES, 0)
        found.update(
            self._base.execute(
                "SELECT state, count(*) FROM jobs WHERE parent IS NULL"
                + (" AND key IN (SELECT key FROM asked)" if asked else "")
                + " GROUP BY state"
            )
        )
        return found

    def jobs(self, state: str | None = None, *, blocks: bool = False) -> Iterator[Job]:
        """Go through the jobs in their order.

        Args:
            state: only those in it.
            blocks: those that are blocks of scenes, too.
        """
        where = [] if blocks else ["parent IS NULL"]
        where += [] if state is None else ["state = ?"]
        rows = self._base.execute(
            f"SELECT {JOB_COLUMNS} FROM jobs"
            + (f" WHERE {' AND '.join(where)}" if where else "")
            + " ORDER BY number, key",
            () if state is None else (state,),
        )
        return (job_of(row) for row in rows)

    def job(self, key: str) -> Job | None:
        """Look up a job."""
        row = self._base.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE key = ?", (key,)).fetchone()
        return None if row is None else job_of(row)

    def attempts(self, key: str | None = None) -> Iterator[Attempt]:
        """Go through the attempts at a job, or at all, in their order."""
        rows = self._base.execute(
            "SELECT id, key, host, worker, versions, began, ended, outcome, error, peak_bytes "
            "FROM attempts" + ("" if key is None else " WHERE key = ?") + " ORDER BY id",
            () if key is None else (key,),
        )
        return (Attempt(*row) for row in rows)

    def span(self) -> tuple[float | None, float | None, list[str], dict[str, str]]:
        """When the first attempt began and the last one ended, on which hosts, with which versions.

        Returns:
            Seconds since 1970 twice; names; program -> versions.
        """
        began, ended = self._base.execute(
            "SELECT min(began), max(ended) FROM attempts WHERE ended IS NOT NULL"
        ).fetchone()
        rows = self._base.execute("SELECT DISTINCT host FROM attempts WHERE host != '' ORDER BY 1")
        hosts = [host for (host,) in rows]
        found: dict[str, set[str]] = {}
        for (text,) in self._base.execute("SELECT DISTINCT versions FROM attempts"):
            for part in filter(None, text.split(", ")):
                program, _, version = part.partition(" ")
                found.setdefault(program, set()).add(version)
        return began, ended, hosts, {p: ", ".join(sorted(v)) for p, v in found.items()}

    def peaks(self) -> dict[str, int]:
        """The most bytes of memory that a worker took for a job, by key."""
        rows = self._base.execute(
            "SELECT key, max(peak_bytes) FROM attempts WHERE peak_bytes IS NOT NULL GROUP BY key"
        )
        return dict(rows.fetchall())

    def next_due(self) -> float | None:
        """Seconds until a job that was asked for may be claimed; None where none waits."""
        (due,) = self._base.execute(
            "SELECT min(due) FROM jobs WHERE state = 'waiting' AND pending = 0 AND key IN "
            "(SELECT key FROM asked) AND (parent IS NULL OR parent IN "
            "(SELECT key FROM jobs WHERE state = 'waiting'))"
        ).fetchone()
        return None if due is None else max(0.0, due - self._clock())

    def note(self, name: str, value: Any = None) -> Any:
        """Look up what was noted under a name, after noting a value where one is given; JSON."""
        if value is not None:
            with self._writing():
                self._base.execute(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value))
                )
        row = self._base.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])


def _is_at_work(host: str, pid: int, born: float, seen: float, now: float) -> bool:
    """Whether a coordinator is there; of this machine the system knows, whatever the clock says."""
    if host != socket.gethostname():
        return abs(now - seen) < LEASE
    if pid == os.getpid():
        return True
    try:
        return abs(psutil.Process(pid).create_time() - born) < 1
    except psutil.NoSuchProcess:
        return False
