"""What is written of a whole archive when a run ends: collection, table of items, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geoseg.archive.collection import write_collection
from geoseg.archive.items import Items
from geoseg.archive.ledger import Ledger
from geoseg.archive.model_item import write_model_item
from geoseg.archive.store import Store
from geoseg.archive.summary import write_summary
from geoseg.archive.verify import Certificate, verify
from geoseg.cards.files import ModelFiles
from geoseg.errors import OutputError

__all__ = ["certify", "close_archive"]


def close_archive(store: Store, ledger: Ledger, model: ModelFiles | None = None) -> dict[str, Any]:
    """Write an archive's collection, its table of items, and its report.

    Args:
        store: of the archive's files.
        ledger: of its jobs.
        model: whose item is written, too.

    Returns:
        The report, as its JSON has it.

    Raises:
        OutputError: a file can't be written, or is somebody else's.
    """
    keys = [job.key for job in ledger.jobs("done")]
    began, ended, hosts, versions = ledger.span()
    with store.closing_folder(keys) as out:
        if model is not None:
            write_model_item(out, model)
        if keys:
            write_collection(out, Items(out, keys))
        return write_summary(
            _records(ledger),
            out,
            shown_as=str(store.place),
            wall_seconds=None if began is None or ended is None else ended - began,
            hosts=hosts,
            versions=versions,
        )


def _records(ledger: Ledger) -> Iterator[dict[str, Any]]:
    peaks = ledger.peaks()
    for job in ledger.jobs():
        result = dict(job.result)
        if result:
            result["peak_bytes"] = peaks.get(job.key)
        yield {
            "key": job.key,
            "name": job.name,
            "state": job.state,
            "kind": job.kind,
            "reason": job.reason,
            "tries": job.tries,
            "losses": job.losses,
            "result": result or None,
        }


class _Expected(Mapping[str, Mapping[str, Mapping[str, Any]]]):
    """What the ledger says of the files of jobs that are done, looked up one by one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keys = {job.key for job in ledger.jobs("done")}

    def __getitem__(self, key: str) -> Mapping[str, Mapping[str, Any]]:
        job = self._ledger.job(key) if key in self._keys else None
        if job is None:
            raise KeyError(key)
        files: Mapping[str, Mapping[str, Any]] = job.result["files"]
        return files

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def certify(store: Store, ledger: Ledger) -> Certificate:
    """Compare every file of an archive with what the ledger and its items say.

    Args:
        store: of the archive's files.
        ledger: of its jobs.

    Raises:
        OutputError: the place itself can't be read.
    """
    unfinished = {job.key for job in ledger.jobs() if job.state != "done"}
    try:
        return verify(store, _Expected(ledger), unfinished=unfinished)
    except OSError as error:
        raise OutputError(
            f"{store.place} can't be read ({error}); nothing is known of it"
        ) from error
