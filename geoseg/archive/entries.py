"""What stands in the ledger: jobs, and the attempts at them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["JOB_COLUMNS", "STATES", "Attempt", "Job", "NewJob", "job_of"]

STATES = ("waiting", "running", "done", "quarantined")
#: Of the ledger's table, in the order of :class:`Job`.
JOB_COLUMNS = (
    "key, name, source, state, kind, reason, tries, losses, due, attempt, parent, pending, result"
)


@dataclass(frozen=True)
class NewJob:
    """A job to be entered.

    Attributes:
        key: of what is done and how.
        name: of its scene, for people.
        source: what a worker needs to find the scene; JSON.
        parent: key of the job that this one is a block of.
    """

    key: str
    name: str
    source: Mapping[str, Any]
    parent: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as the ledger has it.

    Attributes:
        key: of what is done and how.
        name: of its scene, for people.
        source: what a worker needs to find the scene.
        state: one of :data:`STATES`.
        kind: why it is in quarantine, in a word; "" else.
        reason: why, in a line; of a job that waits again, why it failed last.
        tries: attempts that ended in a fault that may pass.
        losses: workers that went away with it.
        due: seconds since 1970 before which it is not claimed again.
        attempt: the id of the latest attempt; None before the first.
        parent: key of the job that this one is a block of.
        pending: blocks that are to be done before it.
        result: what its worker reported; empty until it is done.
    """

    key: str
    name: str
    source: Mapping[str, Any]
    state: str
    kind: str
    reason: str
    tries: int
    losses: int
    due: float
    attempt: int | None
    parent: str | None
    pending: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One try at a job.

    Attributes:
        id: of the attempt.
        key: of the job.
        host: where it ran; "" where it did not begin.
        worker: its address.
        versions: of geoseg and what computes.
        began: seconds since 1970.
        ended: likewise; None while it runs.
        outcome: ``done``, ``failed``, ``lost``, ``given back``, ``split``; "" while it runs.
        error: a line.
        peak_bytes: of the process's memory; None where it is not known.
    """

    id: int
    key: str
    host: str
    worker: str
    versions: str
    began: float
    ended: float | None
    outcome: str
    error: str
    peak_bytes: int | None


def job_of(row: Sequence[Any]) -> Job:
    """Make a job of a row with :data:`JOB_COLUMNS`."""
    values = dict(zip(JOB_COLUMNS.split(", "), row, strict=True))
    values["source"], values["result"] = json.loads(row[2]), json.loads(row[12])
    return Job(**values)
