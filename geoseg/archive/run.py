"""The straight line of ``geoseg batch``: manifest -> ledger -> workers -> maps -> report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.archive.asked import Asked, check_numbers
from geoseg.archive.closing import close_archive
from geoseg.archive.cluster import connected, share_of
from geoseg.archive.coordinator import Limits, Task, run_jobs
from geoseg.archive.ledger import Ledger
from geoseg.archive.manifest import read_manifest
from geoseg.archive.reachable import check_scenes
from geoseg.archive.sources import SceneSource
from geoseg.archive.stamps import CHANGED, GONE, has_changed
from geoseg.archive.store import Store, store_of
from geoseg.core.importing import require
from geoseg.core.wording import counted
from geoseg.errors import UsageError
from geoseg.events import Progress

__all__ = ["ArchiveRun", "batch"]

#: States of jobs that this run has nothing more to do with.
ENDED = ("done", "quarantined")


@dataclass(frozen=True)
class ArchiveRun:
    """What a run of ``geoseg batch`` did.

    Attributes:
        out: the archive's folder or address.
        counts: jobs that it was asked for, by state.
        stopped: why it ended before all was done; "" else.
        warned: maps of the archive that come with warnings.
    """

    out: Path | str
    counts: Mapping[str, int]
    stopped: str
    warned: int


def batch(
    manifest: str | Iterable[SceneSource],
    out: str | Path,
    *,
    model: str | Path,
    workers: int | None = None,
    threads: int | None = None,
    mem_limit: int | None = None,
    scheduler: str | None = None,
    gpu: bool = False,
    vector_suffix: str = ".gpkg",
    also: Iterable[str] = (),
    job_timeout: float | None = None,
    max_hours: float | None = None,
    max_bytes: int | None = None,
    split: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ArchiveRun:
    """Predict the scenes of an archive, by several processes or a Dask cluster.

    Nothing is done twice: the ledger in the archive's folder knows what is done, and a run that
    was stopped, by whatever, goes on when it is called again. A scene that fails does not stop the
    others.

    Args:
        manifest: a folder, a glob, a list or STAC items; see
            :func:`geoseg.archive.manifest.read_manifest`. Or the scenes themselves.
        out: the archive's folder, or ``s3://BUCKET/PREFIX``.
        model: an embedded model's name, or a model folder or .zip.
        workers: processes on this machine; None for as many as it has cores and memory for.
        threads: of each job; None for the cores that there are for it.
        mem_limit: bytes that each job may take; None for what there is for it.
        scheduler: address of a Dask scheduler, whose workers do the jobs.
        gpu: have jobs done by workers with the resource GPU alone.
        vector_suffix: of the polygons: ``.gpkg``, ``.fgb``, ``.parquet`` or ``.geojson``.
        also: outputs of each job besides: ``confidence``, ``probs``, ``agreement``, ``border``,
            ``preview``.
        job_timeout: seconds that a job may take.
        max_hours: after which the run stops in order.
        max_bytes: of outputs, after which the run stops in order.
        split: pixels; a scene with more is computed in blocks of about so many, by any workers.
        progress: called with each event (see :mod:`geoseg.events`).
        **options: the fields of :class:`geoseg.prediction.options.PredictOptions`, but for those
            that name outputs.

    Raises:
        UsageError: an option contradicts another, or the manifest holds no scene.
        ModelError: the model can't be read.
        MissingExtraError: Dask is not installed; or boto3, for a bucket.
        OutputError: the folder or bucket is somebody else's or can't be written, or is full.
        SceneError: none of the first scenes may be read with these credentials.
    """
    require("batch", "geoseg batch")
    check_numbers(
        threads=threads,
        job_timeout=job_timeout,
        max_hours=max_hours,
        max_bytes=max_bytes,
        split=split,
    )
    shared = Asked.of(model, options, also)
    share = share_of(workers, threads, mem_limit) if scheduler is None else None
    report = progress or (lambda event: None)
    scenes = read_manifest(manifest) if isinstance(manifest, str) else manifest
    store = store_of(out)
    if split is not None and not isinstance(store.place, Path):
        raise UsageError(
            f"--split needs a folder that all workers see, where blocks meet; {out} is a bucket: "
            f"write to a folder, or leave --split out"
        )
    with Ledger(store.make()) as ledger:
        ledger.alive()
        new, known = ledger.add(scene.job(shared.meant, shared.files.sha256) for scene in scenes)
        again = ledger.again(_gone(store, ledger), GONE)
        changed = ledger.again(_changed(ledger), CHANGED)
        report({"event": "note", "message": _found(new, known, again, changed, ledger)})
        asked = dict(shared.options)
        asked["threads"] = share.threads if share else threads
        asked["mem_limit"] = share.memory if share else mem_limit
        task = Task(
            str(store.place),
            asked,
            vector_suffix,
            job_timeout,
            {"GPU": 1} if gpu else {},
            split,
            shared.also,
        )
        limits = Limits(None if max_hours is None else 3600 * max_hours, max_bytes)
        stopped = ""
        if ledger.next_due() is not None:
            check_scenes(ledger, shared.options)
            if share is not None:
                report({"event": "note", "message": share.words})
            with connected(scheduler, share) as pool, _goes_on(ledger):
                if pool.dashboard:
                    report({"event": "note", "message": f"dashboard {pool.dashboard}"})
                stopped = run_jobs(ledger, pool, task, limits, _teller(report))
        store.tidy(job.key for state in ENDED for job in ledger.jobs(state))
        about = close_archive(store, ledger, shared.files)
        warned = about["warnings"]["jobs"]
        return ArchiveRun(store.place, ledger.counts(asked=True), stopped, warned)


@contextmanager
def _goes_on(ledger: Ledger) -> Iterator[None]:
    """Say, where the user interrupts the run, what is done."""
    try:
        yield
    except KeyboardInterrupt as error:
        counts = ledger.counts(asked=True)
        raise KeyboardInterrupt(
            f"{counts['done']} of {counted(sum(counts.values()), 'scene')} are done, and the same "
            f"command goes on after them"
        ) from error


def _gone(store: Store, ledger: Ledger) -> list[str]:
    """Find jobs that are done, and of whose map somebody has removed a file."""
    return store.gone(ledger.jobs("done"))


def _changed(ledger: Ledger) -> list[str]:
    """Find jobs that are done, and whose scene is another one by now."""
    return [job.key for job in ledger.jobs("done", asked=True) if has_changed(job)]


def _found(new: int, known: int, again: int, changed: int, ledger: Ledger) -> str:
    counts = ledger.counts(asked=True)
    words = [f"{new} new", f"{counts['done']} done"]
    words += [f"{again} to be done again, as their maps are gone"] if again else []
    words += [f"{changed} to be done again, as their scenes have changed"] if changed else []
    words += [f"{counts['quarantined']} in quarantine"] if counts["quarantined"] else []
    left = counts["waiting"] + counts["running"] - new - again - changed
    words += [f"{left} left to do from before"] if left > 0 else []
    return f"{counted(new + known, 'scene')}: {', '.join(words)}"


def _teller(report: Progress) -> Callable[[Mapping[str, int], float], None]:
    began, first = time.monotonic(), -1

    def tell(counts: Mapping[str, int], speed: float) -> None:
        nonlocal first
        done, total = counts["done"] + counts["quarantined"], sum(counts.values())
        first = done if first < 0 else first
        spent = time.monotonic() - began
        left = None if done == first else round(spent / (done - first) * (total - done))
        report(
            {
                "event": "progress",
                "stage": "archive",
                "done": done,
                "total": total,
                "running": counts["running"],
                "quarantined": counts["quarantined"],
                "mpx_s": speed / 1e6,
                "seconds_left": left,
            }
        )

    return tell
