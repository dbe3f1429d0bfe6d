"""The ledger of an archive: one SQLite file that says in which state every job is, and why.

A job is in exactly one state. It is **waiting** until a coordinator claims it, **running** while
somebody has it, then **done**, or **quarantined** with its reason. Every attempt is kept. Whoever
reports an outcome names the attempt: one that was given up meanwhile changes nothing.

Coordinators alone open the file; workers report to them. A claim belongs to a coordinator, which
shows a sign of life (:meth:`Ledger.alive`); what a dead one had running goes back.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from geoseg.archive.coordinators import LEASE, free, free_abandoned, show_alive
from geoseg.archive.entries import JOB_COLUMNS, Job, NewJob, job_of
from geoseg.archive.ledger_file import LedgerFile
from geoseg.archive.ledger_view import LedgerView
from geoseg.errors import OutputError

__all__ = ["LEASE", "LONGEST", "LOSSES", "Ledger"]

#: Workers that a job may take with it.
LOSSES = 3
#: Seconds for which a job may wait for its next try: one that would wait for longer has seen
#: another clock.
LONGEST = 3600.0
#: Jobs that are entered at a time.
_PART = 500


class Ledger(LedgerView):
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
        super().__init__(LedgerFile(path))
        self._shown = False

    def __enter__(self) -> Ledger:
        """Give the ledger itself."""
        return self

    def __exit__(self, *about: object) -> None:
        """Give back what this coordinator still has running, and close the file."""
        try:
            if self._shown:
                with suppress(OutputError), self._base.writing():
                    free(self._base, self._id, "the run was stopped", self._clock())
        finally:
            self._base.close()

    # What there is to do

    def add(self, jobs: Iterable[NewJob]) -> tuple[int, int]:
        """Enter jobs, and note that this coordinator was asked for them.

        Args:
            jobs: those that are there already stay as they are; but what is known of the scenes
                of those that nobody is at is what is given here.

        Returns:
            How many are new, and how many were there.
        """
        base, jobs = self._base, iter(jobs)
        base.change("DELETE FROM entering")
        # They may come from a server, slowly: nobody else waits for that.
        while part := list(islice(jobs, _PART)):
            base.change_many(
                "INSERT INTO entering (key, name, parent, source) VALUES (?, ?, ?, ?)",
                [(j.key, j.name, j.parent, json.dumps(dict(j.source))) for j in part],
            )
        with base.writing():
            (last,) = base.rows("SELECT coalesce(max(number), 0) FROM jobs")[0]
            new = base.change(
                "INSERT OR IGNORE INTO jobs (key, number, name, source, state, kind, reason, "
                "parent, result) SELECT key, ? + place, name, source, 'waiting', '', '', parent, "
                "'{}' FROM entering ORDER BY place",
                (last,),
            ).rowcount
            base.change(
                "UPDATE jobs SET source = entering.source FROM entering WHERE jobs.key = "
                "entering.key AND jobs.source != entering.source AND jobs.state != 'running'"
            )
            base.change("INSERT OR IGNORE INTO asked SELECT key FROM entering")
            (count,) = base.rows("SELECT count(DISTINCT key) FROM entering")[0]
        base.change("DELETE FROM entering")
        return new, count - new

    def again(self, keys: Iterable[str], reason: str) -> int:
        """Have jobs that are done or in quarantine done again.

        Args:
            keys: of the jobs.
            reason: why, in a line.

        Returns:
            How many there are.
        """
        count = 0
        with self._base.writing():
            for key in keys:
                changed = self._base.change(
                    "UPDATE jobs SET state = 'waiting', kind = '', reason = ?, tries = 0, "
                    "losses = 0, due = 0, pending = 0, result = '{}' WHERE key = ? AND state IN "
                    "('done', 'quarantined')",
                    (reason, key),
                ).rowcount
                if changed:
                    # Its blocks are thought of anew: what they made may be what is missing.
                    self._base.change("DELETE FROM jobs WHERE parent = ?", (key,))
                count += changed
        return count

    def forget(self, keys: Iterable[str]) -> int:
        """Take jobs in quarantine off the list; attempts at them stay.

        Args:
            keys: of the jobs. A manifest that names their scenes enters them anew.

        Returns:
            How many there were.
        """
        count = 0
        with self._base.writing():
            for key in keys:
                gone = self._base.change(
                    "DELETE FROM jobs WHERE key = ? AND state = 'quarantined'", (key,)
                ).rowcount
                if gone:
                    self._base.change("DELETE FROM jobs WHERE parent = ?", (key,))
                count += gone
        return count

    def claim(self, most: int) -> list[Job]:
        """Take jobs that this coordinator was asked for, or blocks of them, the first ones first.

        Args:
            most: of them.

        Returns:
            The jobs, each with a new attempt.
        """
        now = self._clock()
        taken = []
        with self._base.writing():
            if not self._shown:
                self._show_alive(now)
            free_abandoned(self._base, self._id, now)
            rows = self._base.rows(
                # In the index's order, until there are enough: else all that wait are sorted.
                f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY ready "
                "WHERE state = 'waiting' AND pending = 0 "
                "AND (due <= ? OR due > ?) AND coalesce(parent, key) IN (SELECT key FROM asked) "
                "AND (parent IS NULL "
                "OR (SELECT state FROM jobs AS scene WHERE scene.key = jobs.parent) = 'waiting') "
                # One that was lost waits for the others: what took its worker may have passed.
                "ORDER BY losses, number, key LIMIT ?",
                (now, now + LONGEST, most),
            )
            for row in rows:
                attempt = self._base.change(
                    "INSERT INTO attempts (key, coordinator, host, worker, versions, began, "
                    "outcome, error) VALUES (?, ?, '', '', '', ?, '', '')",
                    (row[0], self._id, now),
                ).lastrowid
                self._base.change(
                    "UPDATE jobs SET state = 'running', attempt = ? WHERE key = ?",
                    (attempt, row[0]),
                )
                taken.append(job_of((*row[:3], "running", *row[4:9], attempt, *row[10:])))
        return taken

    def alive(self) -> None:
        """Show that this coordinator is at work; at least every ``LEASE / 4`` seconds."""
        with self._base.writing():
            self._show_alive(self._clock())

    def _show_alive(self, now: float) -> None:
        show_alive(self._base, self._id, now)
        self._shown = True

    # What came of it

    def started(self, job: Job, host: str, worker: str, versions: str) -> None:
        """Note where an attempt runs."""
        with self._base.writing():
            self._base.change(
                "UPDATE attempts SET host = ?, worker = ?, versions = ? "
                "WHERE id = ? AND ended IS NULL",
                (host, worker, versions, job.attempt),
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
        with self._base.writing():
            self._end(job, "done", "", peak_bytes)
            if not self._move(job, "done", result=result):
                return False
            if job.parent is not None:
                self._base.change(
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
        with self._base.writing():
            self._end(job, "failed", reason, peak_bytes)
            return self._quarantine(job, kind, reason)

    def _quarantine(self, job: Job, kind: str, reason: str) -> bool:
        moved = self._move(job, "quarantined", kind=kind, reason=reason)
        if moved and job.parent is not None:
            self._base.change(
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
            seconds: for which it waits, at most :data:`LONGEST`.
            peak_bytes: of the worker's memory.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._base.writing():
            self._end(job, "failed", reason, peak_bytes)
            due = self._clock() + min(seconds, LONGEST)
            return self._move(job, "waiting", reason=reason, due=due, tries=1)

    def lost(self, job: Job, reason: str) -> bool:
        """Note that a job's worker went away; the third time it goes to quarantine.

        Returns:
            Whether the attempt was still the job's.
        """
        with self._base.writing():
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
        with self._base.writing():
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
        with self._base.writing():
            self._end(job, "split", "")
            if not self._move(job, "waiting", reason=f"waits for {len(blocks)} blocks"):
                return False
            (number,) = self._base.rows("SELECT number FROM jobs WHERE key = ?", (job.key,))[0]
            for block in blocks:
                self._base.change(
                    "INSERT OR IGNORE INTO jobs (key, number, name, source, state, kind, reason, "
                    "parent, result) VALUES (?, ?, ?, ?, 'waiting', '', '', ?, '{}')",
                    (block.key, number, block.name, json.dumps(dict(block.source)), job.key),
                )
            self._base.change(
                "UPDATE jobs SET pending = "
                "(SELECT count(*) FROM jobs WHERE parent = ? AND state != 'done') WHERE key = ?",
                (job.key, job.key),
            )
            return True

    def _end(self, job: Job, outcome: str, error: str, peak_bytes: int | None = None) -> None:
        """Close an attempt, even one that is not the job's any more; within a change."""
        self._base.change(
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
        changed = self._base.change(
            "UPDATE jobs SET state = ?, kind = ?, reason = ?, due = ?, tries = tries + ?, "
            "losses = losses + ?, result = ? WHERE key = ? AND state = 'running' AND attempt = ?",
            (
                *(state, kind, reason, due, tries, losses, json.dumps(dict(result or {}))),
                *(job.key, job.attempt),
            ),
        )
        return changed.rowcount == 1

    # What is left

    def next_due(self) -> float | None:
        """Seconds until a job that was asked for may be claimed; None where none waits."""
        now = self._clock()
        ((due,),) = self._base.rows(
            "SELECT min(CASE WHEN due > ? THEN 0 ELSE due END) FROM jobs INDEXED BY ready "
            "WHERE state = 'waiting' AND pending = 0 "
            "AND coalesce(parent, key) IN (SELECT key FROM asked) AND (parent IS NULL OR "
            "(SELECT state FROM jobs AS scene WHERE scene.key = jobs.parent) = 'waiting')",
            (now + LONGEST,),
        )
        return None if due is None else max(0.0, due - now)

    def note(self, name: str, value: Any = None) -> Any:
        """Look up what was noted under a name, after noting a value where one is given; JSON."""
        if value is not None:
            with self._base.writing():
                self._base.change(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value))
                )
        rows = self._base.rows("SELECT value FROM notes WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else None
