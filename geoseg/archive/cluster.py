"""Where jobs run: processes of this machine, or a Dask cluster of the user's."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

import psutil

from geoseg.core.machine import available_cores
from geoseg.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Share", "Workers", "connected", "share_of"]

#: Part of the free memory that jobs get; Dask, the system and its file cache have the rest.
PART = 0.8
#: Bytes that a job takes where nobody said: interpreter, libraries, a network and a strip.
USUAL = 1_500_000_000
#: Bytes without which no job can say that it has too few.
LEAST = 300_000_000
#: Bytes that a process may have beyond its job's, before it is ended.
MORE = 500_000_000


@dataclass(frozen=True)
class Share:
    """How this machine is shared out.

    Attributes:
        workers: processes, each with one job at a time.
        threads: of each job.
        memory: bytes of each job.
        words: why, for people.
    """

    workers: int
    threads: int
    memory: int
    words: str


def share_of(workers: int | None, threads: int | None, mem_limit: int | None) -> Share:
    """Share out this machine.

    Args:
        workers: as the user wants it, or None.
        threads: of a job, as the user wants it, or None.
        mem_limit: bytes of a job, as the user wants it, or None.

    Raises:
        UsageError: it is more than the machine has.
    """
    cores, free = available_cores(), int(psutil.virtual_memory().available * PART)
    each = mem_limit or USUAL
    if workers is None:
        # A job alone reads, computes and writes at once, so that one thread each loses least.
        workers = max(1, min(cores // (threads or 1), free // each))
    elif workers < 1:
        raise UsageError(f"--workers {workers}: at least one is needed")
    memory = mem_limit or free // workers
    if memory < LEAST:
        raise UsageError(
            f"{memory / 1e6:.0f} MB for each of {workers} workers are too little for any scene; "
            f"use fewer --workers or more --mem-limit"
        )
    if workers * memory > psutil.virtual_memory().total:
        raise UsageError(
            f"{workers} workers of {memory / 1e9:.1f} GB are more than this machine's "
            f"{psutil.virtual_memory().total / 1e9:.1f} GB; use fewer --workers or less --mem-limit"
        )
    threads = threads or max(1, cores // workers)
    words = (
        f"{workers} worker{'s' * (workers > 1)} with {threads} thread{'s' * (threads > 1)} and "
        f"{memory / 1e9:.1f} GB each ({cores} cores, {free / PART / 1e9:.1f} GB free)"
    )
    return Share(workers, threads, memory, words)


@dataclass(frozen=True)
class Workers:
    """Who does the jobs.

    Attributes:
        client: of the cluster.
        dashboard: address of its page; "" where there is none.
        wanted: processes that there should be; 0 where somebody else sees to that.
        revive: starts again those that are gone.
    """

    client: Client
    dashboard: str
    wanted: int
    revive: Callable[[], None]

    def slots(self) -> int:
        """Count the jobs that are done at a time: one by each worker that is there."""
        there = len(self.client.nthreads())
        if there < self.wanted:
            self.revive()
        return there


@contextmanager
def connected(scheduler: str | None, share: Share | None) -> Iterator[Workers]:
    """Start processes on this machine, or reach a cluster.

    Args:
        scheduler: address of the cluster's, such as ``tcp://10.0.0.1:8786``; None for processes.
        share: of this machine; only for processes.

    Raises:
        UsageError: nobody answers at the address.
    """
    import dask
    import distributed  # noqa: F401 - its settings come first: it puts them there once

    settings = {
        # A job's memory is its own business, up to its limit; then the nanny ends its process.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        # A job computes for minutes without a word.
        "distributed.admin.tick.limit": "1h",
        "distributed.deploy.lost-worker-timeout": "5s",
    }
    with dask.config.set(settings), _quiet():
        if share is not None:
            with _processes(share) as workers:
                yield workers
        else:
            with _client(scheduler) as client:
                yield Workers(client, str(client.dashboard_link or ""), 0, lambda: None)


@contextmanager
def _client(address: Any) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(f"no Dask scheduler answers at {address} ({error})") from error
    with client:
        client.register_plugin(_leaving_plugin(), name="geoseg-leaving")
        client.register_plugin(_counting_plugin(), name="geoseg-counting")
        yield client


@contextmanager
def _processes(share: Share) -> Iterator[Workers]:
    from distributed import LocalCluster

    cluster = LocalCluster(
        # They are started below: one that fails to start is started again.
        n_workers=0,
        threads_per_worker=1,
        processes=True,
        # The limit of predict is kept by itself; this one is for what goes wrong.
        memory_limit=int(share.memory * 1.25) + MORE,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=logging.CRITICAL,
    )
    with _without_main(), cluster, _client(cluster) as client:
        page = str(client.dashboard_link or "")

        def revive() -> None:
            for name, process in list(cluster.workers.items()):
                if process.status.name in ("failed", "closed"):  # Dask would not start it again
                    cluster.workers.pop(name, None)
            cluster.scale(share.workers)

        yield Workers(client, page, share.workers, revive)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep processes that are started meanwhile from running the user's script again.

    Python would have them import it, for the sake of functions that are defined there; a script
    without ``if __name__ == "__main__"`` would then begin a run of its own in each worker.
    """
    plain = spawn.get_preparation_data

    def without(name: str) -> dict[str, object]:
        data: dict[str, object] = plain(name)
        return {key: value for key, value in data.items() if not key.startswith("init_main")}

    spawn.get_preparation_data = without
    try:
        yield
    finally:
        spawn.get_preparation_data = plain


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log from the user's terminal: what matters comes by the ledger."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _counting_plugin() -> Any:
    from distributed import SchedulerPlugin

    class Counting(SchedulerPlugin):  # type: ignore[misc]
        """Has the ledger count the workers that a job takes with it, from the first one on.

        A scheduler gives a lost task to other workers by itself, three times unless its owner set
        that otherwise; to it, each of our jobs has used that up.
        """

        async def start(self, scheduler: Any) -> None:
            """Take note of the scheduler."""
            self.scheduler = scheduler

        def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
            """Look at each task that a worker gets."""
            if finish == "processing" and str(key).startswith("geoseg-job-"):
                self.scheduler.tasks[key].suspicious = self.scheduler.allowed_failures

    return Counting()


def _leaving_plugin() -> Any:
    from distributed import WorkerPlugin

    class Leaving(WorkerPlugin):  # type: ignore[misc]
        """Has a worker that is told to go give its job back."""

        def setup(self, worker: Any) -> None:
            """Listen to SIGTERM, which preemption sends."""
            from geoseg.archive.worker import LEAVING

            LEAVING.clear()

            def leave() -> None:
                LEAVING.set()
                self.leaving = asyncio.ensure_future(worker.close_gracefully())

            with suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)

        def teardown(self, worker: Any) -> None:
            """Have the job end that it is at."""
            from geoseg.archive.worker import LEAVING

            LEAVING.set()

    return Leaving()
