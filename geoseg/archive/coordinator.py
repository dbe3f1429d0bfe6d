"""The coordinator's loop: claim jobs, have workers do them, and enter what came of them.

It holds no state that the ledger does not have: killed at any moment, another one goes on. Dask
carries jobs to workers and outcomes back; it decides nothing, repeats nothing and may lose all.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geoseg.archive.entries import Job
from geoseg.archive.ledger import LEASE, Ledger
from geoseg.archive.sources import addresses
from geoseg.archive.splitting import block_jobs, block_task
from geoseg.archive.worker import run_job, too_long
from geoseg.errors import DeviceError, OutputError

if TYPE_CHECKING:
    from distributed import Future

    from geoseg.archive.cluster import Workers

__all__ = ["Limits", "Task", "run_jobs"]

#: Times that a job is tried whose fault may pass, and seconds before the second try; each further
#: one waits twice as long, give or take a half, up to the most.
TRIES, FIRST_WAIT, LONGEST_WAIT = 5, 5.0, 600.0
#: Seconds between two looks at the workers, and between two words about how far the run is.
LOOK, SAY = 5.0, 1.0
#: Seconds for which a worker is waited for where there is none.
PATIENCE = 300.0


@dataclass(frozen=True)
class Task:
    """What all jobs of a run share.

    Attributes:
        out: the archive's folder or address.
        options: of ``predict``.
        vector_suffix: of the polygons' files.
        timeout: seconds that a job may take, or None.
        resources: of Dask's, that a worker needs for a job.
        split: pixels of a scene's blocks, about, where it is larger; None to split none.
        also: outputs of each job besides; see :mod:`geoseg.archive.asked`.
    """

    out: str
    options: Mapping[str, Any]
    vector_suffix: str = ".gpkg"
    timeout: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    split: float | None = None
    also: tuple[str, ...] = ()

    def of(self, job: Job, blocks: Sequence[Job] = ()) -> dict[str, Any]:
        """What a worker gets for a job, with its blocks, which are done."""
        return {
            "key": job.parent or job.key,
            "source": addresses(job.source),
            "out": self.out,
            "options": dict(self.options),
            "vector_suffix": self.vector_suffix,
            "timeout": self.timeout,
            **block_task(job, blocks, self.split),
            "also": list(self.also),
        }


@dataclass(frozen=True)
class Limits:
    """When a run stops in order, to go on another time.

    Attributes:
        seconds: that it may take, or None.
        bytes: that it may write, or None.
    """

    seconds: float | None = None
    bytes: int | None = None


def run_jobs(
    ledger: Ledger,
    workers: Workers,
    task: Task,
    limits: Limits,
    say: Callable[[Mapping[str, int], float], None],
) -> str:
    """Do all jobs that the ledger was asked for, as far as that can be done.

    Args:
        ledger: with the jobs.
        workers: who do them.
        task: what jobs share.
        limits: when to stop in order.
        say: hears now and then how many jobs are in which state, and pixels a second.

    Returns:
        "" where nothing is left to do, or why the run stopped before.

    Raises:
        OutputError: the disk is full, or the archive's bucket refuses.
        DeviceError: there is no worker for some minutes.
    """
    return _Loop(ledger, workers, task, limits, say).run()


class _Loop:
    def __init__(
        self,
        ledger: Ledger,
        workers: Workers,
        task: Task,
        limits: Limits,
        say: Callable[[Mapping[str, int], float], None],
    ) -> None:
        self._ledger, self._workers, self._task = ledger, workers, task
        self._limits, self._say = limits, say
        #: Jobs that workers have, and when they got them.
        self._running: dict[Future[Any], tuple[Job, float]] = {}
        self._ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._began = self._there = time.monotonic()
        self._looked = self._said = self._alive = float("-inf")
        self._slots = 0
        self._bytes = self._pixels = 0
        self._stopping = ""

    def run(self) -> str:
        """Go on until nothing is left, or the run has to stop."""
        try:
            while self._step():
                pass
            self._tell(always=True)
            return self._stopping
        finally:
            self._give_back()

    def _step(self) -> bool:
        now = time.monotonic()
        if now - self._alive > LEASE / 4:
            self._ledger.alive()
            self._alive = now
        if now - self._looked > (LOOK if self._slots else SAY):
            self._slots = self._workers.slots()
            self._looked = now
            self._there = now if self._slots else self._there
            if now - self._there > PATIENCE:
                raise DeviceError(
                    f"there has been no worker for {PATIENCE:g} s; the run has stopped in order, "
                    f"and the same command goes on once there is one"
                )
        self._check_limits(now)
        if not self._stopping and len(self._running) < self._slots:
            for job in self._ledger.claim(self._slots - len(self._running)):
                self._submit(job)
        if not self._running:
            due = None if self._stopping else self._ledger.next_due()
            if due is None:
                return False
        with suppress(queue.Empty):
            self._settle(self._ended.get(timeout=0.2))
        self._tell()
        return True

    def _check_limits(self, now: float) -> None:
        seconds, most = self._limits.seconds, self._limits.bytes
        if seconds is not None and now - self._began > seconds:
            self._stopping = f"it has run for {seconds / 3600:.3g} hours (--max-hours)"
        elif most is not None and self._bytes > most:
            self._stopping = f"it has written {self._bytes / 1e9:.3g} GB (--max-bytes)"

    def _submit(self, job: Job) -> None:
        future = self._workers.client.submit(
            run_job,
            self._task.of(job, [*self._ledger.blocks(job.key)]),
            key=f"geoseg-job-{job.key}-{job.attempt}",
            pure=False,
            retries=0,
            resources=dict(self._task.resources) or None,
        )
        self._running[future] = job, time.monotonic()
        future.add_done_callback(self._ended.put)

    def _settle(self, future: Future[Any]) -> None:
        if future not in self._running:
            return
        job, since = self._running.pop(future)
        if future.status == "cancelled":
            self._ledger.give_back(job, "Dask cancelled it")
            return
        try:
            outcome = future.result(timeout=5)
        except Exception as error:  # noqa: BLE001 - a lost worker, or whatever a lost answer ends in
            # Counted in any case: what can't be had of three workers is not asked of a fourth.
            self._lost(job, time.monotonic() - since, _why_lost(error))
        else:
            self._enter(job, outcome)

    def _lost(self, job: Job, seconds: float, reason: str) -> None:
        """Note that a worker went away; after the job's time, it ended itself."""
        most = self._task.timeout
        if most is not None and seconds > most:
            self._ledger.quarantine(job, "too long", f"{too_long(most)}, and hung")
        else:
            self._ledger.lost(job, reason)

    def _enter(self, job: Job, outcome: Mapping[str, Any]) -> None:
        ledger, peak = self._ledger, outcome["peak_bytes"]
        ledger.started(job, outcome["host"], outcome["worker"], outcome["versions"])
        if outcome["outcome"] == "done":
            self._bytes += outcome["result"].get("bytes", 0)
            self._pixels += outcome["result"].get("pixels", 0)
            ledger.done(job, outcome["result"], peak)
        elif outcome["outcome"] == "split":
            ledger.split(job, block_jobs(job, outcome["result"]["blocks"]))
        elif outcome["outcome"] == "given back":
            ledger.give_back(job, outcome["reason"])
        elif outcome["kind"] == "stop":
            ledger.give_back(job, outcome["reason"])
            raise OutputError(
                f"{outcome['reason']}; the run has stopped in order, and the same command goes on "
                f"once that is put right"
            )
        elif outcome["passing"] and job.tries + 1 < TRIES:
            wait = min(FIRST_WAIT * 2**job.tries, LONGEST_WAIT) * random.uniform(0.5, 1.5)
            ledger.try_later(job, outcome["reason"], wait, peak)
        else:
            ledger.quarantine(job, outcome["kind"], outcome["reason"], peak)

    def _tell(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now - self._said > SAY:
            self._said = now
            self._say(self._ledger.counts(asked=True), self._pixels / (now - self._began))

    def _give_back(self) -> None:
        """Leave no job that looks as if somebody were at it."""
        while True:  # what is done already is done
            try:
                self._settle(self._ended.get_nowait())
            except queue.Empty:
                break
            except OutputError:
                continue
        for future, (job, _) in list(self._running.items()):
            with suppress(Exception):
                future.cancel()
            self._ledger.give_back(job, "the run was stopped")
        self._running.clear()


def _why_lost(error: Exception) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker | TimeoutError):
        return "its worker went away amid the job"
    return f"its worker failed ({type(error).__name__}: {error})"
