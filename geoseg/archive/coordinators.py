"""Who is at work on a ledger: coordinators show signs of life, and what dead ones had goes back."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from geoseg.archive.ledger_file import LedgerFile

__all__ = ["LEASE", "free", "free_abandoned", "show_alive"]

#: Seconds without a sign of life after which a coordinator's jobs are anybody's.
LEASE = 60.0


@cache
def _here() -> str:
    """Where the number of a process means that process: a machine since its start, a container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def show_alive(base: LedgerFile, one: str, now: float) -> None:
    """Enter that a coordinator of this process is at work; within a change.

    Args:
        base: of the ledger.
        one: the coordinator.
        now: seconds since 1970.
    """
    me = psutil.Process()
    base.change(
        "INSERT OR REPLACE INTO coordinators VALUES (?, ?, ?, ?, ?)",
        (one, _here(), me.pid, me.create_time(), now),
    )


def free_abandoned(base: LedgerFile, me: str, now: float) -> None:
    """Give back what coordinators have running that are gone; within a change.

    Args:
        base: of the ledger.
        me: the coordinator that looks.
        now: seconds since 1970.
    """
    for one, host, pid, born, seen in base.rows("SELECT * FROM coordinators WHERE id != ?", (me,)):
        if not _is_at_work(host, pid, born, seen, now):
            free(base, one, "its coordinator went away", now)


def at_work(base: LedgerFile, now: float) -> int:
    """Count the coordinators that are there.

    Args:
        base: of the ledger.
        now: seconds since 1970.
    """
    rows = base.rows("SELECT host, pid, born, seen FROM coordinators")
    return sum(_is_at_work(host, pid, born, seen, now) for host, pid, born, seen in rows)


def free(base: LedgerFile, one: str, reason: str, now: float) -> None:
    """Give back what a coordinator has running, and forget it; within a change.

    Args:
        base: of the ledger.
        one: the coordinator.
        reason: why, in a line.
        now: seconds since 1970.
    """
    base.change(
        "UPDATE jobs SET state = 'waiting', reason = ? WHERE state = 'running' AND key IN "
        "(SELECT key FROM attempts WHERE coordinator = ? AND ended IS NULL) AND attempt IN "
        "(SELECT id FROM attempts WHERE coordinator = ? AND ended IS NULL)",
        (reason, one, one),
    )
    base.change(
        "UPDATE attempts SET ended = ?, outcome = 'given back', error = ? "
        "WHERE coordinator = ? AND ended IS NULL",
        (now, reason, one),
    )
    base.change("DELETE FROM coordinators WHERE id = ?", (one,))


def _is_at_work(host: str, pid: int, born: float, seen: float, now: float) -> bool:
    """Whether a coordinator is there; of this machine the system knows, whatever the clock says."""
    if host != _here():
        return abs(now - seen) < LEASE
    if pid == os.getpid():
        return True
    try:
        other = psutil.Process(pid)
        # One that was killed is there until its parent has looked.
        is_there = other.status() != psutil.STATUS_ZOMBIE
        return is_there and bool(abs(other.create_time() - born) < 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return abs(now - seen) < LEASE
