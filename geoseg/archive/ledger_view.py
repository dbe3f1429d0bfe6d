"""What a ledger says: jobs and attempts, counted and one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from geoseg.archive.coordinators import at_work
from geoseg.archive.entries import JOB_COLUMNS, STATES, Attempt, Job, job_of
from geoseg.archive.ledger_file import LedgerFile

__all__ = ["LedgerView"]


class LedgerView:
    """Answers questions about a ledger; changes nothing."""

    def __init__(self, base: LedgerFile) -> None:
        """Look at an open file."""
        self._base = base

    def counts(self, *, asked: bool = False) -> dict[str, int]:
        """Count whole jobs, not their blocks, by state.

        Args:
            asked: only those that this coordinator was asked for.
        """
        found = dict.fromkeys(STATES, 0)
        which = " AND +key IN (SELECT key FROM asked)" if asked else ""
        found.update(
            self._base.rows(
                f"SELECT state, count(*) FROM jobs WHERE parent IS NULL{which} GROUP BY state"
            )
        )
        return found

    def runs(self) -> int:
        """Count the runs that are at work."""
        return at_work(self._base, time.time())

    def jobs(
        self, state: str | None = None, *, blocks: bool = False, asked: bool = False
    ) -> Iterator[Job]:
        """Go through the jobs in their order.

        Args:
            state: only those in it.
            blocks: those that are blocks of scenes, too.
            asked: only those that this coordinator was asked for.
        """
        where = [] if blocks else ["parent IS NULL"]
        where += [] if state is None else ["state = ?"]
        where += ["+key IN (SELECT key FROM asked)"] if asked else []
        rows = self._base.each(
            f"SELECT {JOB_COLUMNS} FROM jobs"
            + (f" WHERE {' AND '.join(where)}" if where else "")
            + " ORDER BY number, key",
            () if state is None else (state,),
        )
        return map(job_of, rows)

    def blocks(self, key: str) -> Iterator[Job]:
        """Go through the blocks of a scene's job in their order."""
        rows = self._base.each(
            f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY by_parent WHERE parent = ? "
            "ORDER BY number, key",
            (key,),
        )
        return map(job_of, rows)

    def job(self, key: str) -> Job | None:
        """Look up a job."""
        rows = self._base.rows(f"SELECT {JOB_COLUMNS} FROM jobs WHERE key = ?", (key,))
        return job_of(rows[0]) if rows else None

    def attempts(self, key: str | None = None) -> Iterator[Attempt]:
        """Go through the attempts at a job, or at all, in their order."""
        rows = self._base.each(
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
        ((began, ended),) = self._base.rows(
            "SELECT min(began), max(ended) FROM attempts WHERE ended IS NOT NULL"
        )
        rows = self._base.rows("SELECT DISTINCT host FROM attempts WHERE host != '' ORDER BY 1")
        hosts = [host for (host,) in rows]
        found: dict[str, set[str]] = {}
        for (text,) in self._base.rows("SELECT DISTINCT versions FROM attempts"):
            for part in filter(None, text.split(", ")):
                program, _, version = part.partition(" ")
                found.setdefault(program, set()).add(version)
        return began, ended, hosts, {p: ", ".join(sorted(v)) for p, v in found.items()}

    def peaks(self) -> dict[str, int]:
        """The most bytes of memory that a worker took for a job or a block of it, by its key."""
        return dict(
            self._base.rows(
                "SELECT coalesce(parent, attempts.key), max(peak_bytes) FROM attempts "
                "LEFT JOIN jobs ON jobs.key = attempts.key WHERE peak_bytes IS NOT NULL GROUP BY 1"
            )
        )
