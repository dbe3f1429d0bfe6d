"""What a run of ``geoseg batch`` would do and cost: a plan to look at, before hours of work.

Nothing is changed: no ledger is made, and of an archive that is there only the two files of the
plan are written. Rows wait on disk, so that a hundred thousand scenes take no more memory than a
hundred.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import rasterio.errors

from geoseg.archive.asked import Asked, check_numbers
from geoseg.archive.cluster import Share, connected, share_of
from geoseg.archive.estimates import Measured, Rates
from geoseg.archive.ledger import Ledger
from geoseg.archive.manifest import read_manifest
from geoseg.archive.place import find_ledger, make_archive, there_is_a_ledger
from geoseg.archive.plan_files import check_plan_files, write_plan_files
from geoseg.archive.plan_rows import TO_DO, PlanRow, compare, look
from geoseg.archive.probes import SCENES, probe
from geoseg.archive.sources import SceneSource
from geoseg.archive.store import store_of
from geoseg.core.importing import require
from geoseg.core.wording import counted
from geoseg.core.workers import Stop, Workers, stoppable
from geoseg.errors import UsageError
from geoseg.events import PlanProgress, Progress

__all__ = ["ArchivePlan", "plan_batch"]

#: Scenes that are opened at a time: most of it is waiting for servers.
LOOKERS = 8
#: Maps that are done of which others can be estimated.
ENOUGH_DONE = 3
#: Reasons that a plan lists.
_EXAMPLES = 5


@dataclass(frozen=True)
class ArchivePlan:
    """What a run would do and cost.

    Attributes:
        out: the archive's folder.
        files: the plan's table, and the same as GeoJSON.
        counts: scenes by state; see :class:`geoseg.archive.plan_rows.PlanRow`.
        refused: scenes that are refused by kind; see :data:`geoseg.archive.faults.KINDS`.
        examples: name and reason of the first few of these.
        pixels: of all maps that would be made.
        worker_seconds: that this would take one worker; None where that is not known, as it is for
            the numbers below then.
        wall_seconds: that it would take all workers.
        bytes: of all files that would be made.
        workers: that would be at work; 0 where a cluster has none now.
        price: of the worker-hours; None where none was given for one.
        basis: from what times and sizes are known.
    """

    out: Path
    files: tuple[Path, Path]
    counts: Mapping[str, int]
    refused: Mapping[str, int]
    examples: tuple[tuple[str, str], ...]
    pixels: int
    worker_seconds: float | None
    wall_seconds: float | None
    bytes: int | None
    workers: int
    price: float | None
    basis: str

    @property
    def scenes(self) -> int:
        """How many the manifest names."""
        return sum(self.counts.values())

    @property
    def to_do(self) -> int:
        """How many would be done."""
        return sum(self.counts.get(state, 0) for state in TO_DO)

    def as_json(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        kept = {k: v for k, v in asdict(self).items() if k not in ("out", "files", "examples")}
        kept["examples"] = [{"name": name, "reason": reason} for name, reason in self.examples]
        files = [str(path) for path in self.files]
        return {"archive": str(self.out), "files": files, "to_do": self.to_do, **kept}


def plan_batch(
    manifest: str | Iterable[SceneSource],
    out: str | Path,
    *,
    model: str | Path,
    workers: int | None = None,
    threads: int | None = None,
    mem_limit: int | None = None,
    scheduler: str | None = None,
    vector_suffix: str = ".gpkg",
    also: Iterable[str] = (),
    price_per_hour: float | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ArchivePlan:
    """Say what :func:`geoseg.batch` would do, and write that into ``plan.csv``, ``plan.geojson``.

    Each scene that would be done is opened, and its last pixel is read; jobs are done on windows
    of a few, unless the archive has maps of the same kind.

    Args:
        manifest: as for ``batch``; so are all that are not listed here.
        out: the archive's folder, which is made where it is not there.
        model: as for ``batch``.
        workers: as for ``batch``.
        threads: as for ``batch``.
        mem_limit: as for ``batch``.
        scheduler: as for ``batch``; its workers are counted, and given nothing to do.
        vector_suffix: as for ``batch``.
        also: as for ``batch``.
        price_per_hour: of one worker.
        progress: called with each event (see :mod:`geoseg.events`).
        **options: as for ``batch``.

    Raises:
        UsageError: an option contradicts another, or the manifest holds no scene.
        ModelError: the model can't be read.
        MissingExtraError: Dask is not installed.
        OutputError: the folder is somebody else's, or holds files with the plan's names that are.
    """
    require("batch", "geoseg batch")
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UsageError(f"the price of an hour is {price_per_hour}; it must be at least 0")
    check_numbers(threads=threads)
    asked = Asked.of(model, options, also)
    share = share_of(workers, threads, mem_limit) if scheduler is None else None
    report = progress or (lambda event: None)
    scenes = read_manifest(manifest) if isinstance(manifest, str) else manifest
    if not isinstance(store_of(out).place, Path):
        raise UsageError(
            f"a plan is files in a folder, and {out} is a bucket; give a new folder with -o for "
            f"--dry-run: hours and bytes are the same"
        )
    archive = make_archive(Path(out))
    check_plan_files(archive)
    there = _count_workers(scheduler, share)
    own = (share.threads, share.memory) if share else (threads, mem_limit)
    asked = replace(asked, options={**asked.options, "threads": own[0], "mem_limit": own[1]})
    with _on_disk() as first, _on_disk() as second:
        known, seen = _Spool(first), _Spool(second)
        _compare(scenes, asked, archive, known)
        found = _look(known, asked, vector_suffix, archive, seen, report)
        rates = _rates(found, asked, vector_suffix, scheduler is not None, report)
        total = _Total()
        rows = (_estimated(row, rates, total) for row in seen)
        files = write_plan_files(archive, rows, version("geoseg"))
    return _plan(archive, files, found, total, rates, there, price_per_hour, report)


def _count_workers(scheduler: str | None, share: Share | None) -> int:
    if share is not None:
        return share.workers
    with connected(scheduler, share) as pool:
        return pool.slots()


def _on_disk() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", prefix="geoseg-plan-")


class _Spool:
    """Rows in a file, in their order."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self.count = file, 0

    def add(self, row: PlanRow) -> None:
        """Append a row."""
        self._file.write(json.dumps(vars(row)) + "\n")
        self.count += 1

    def __iter__(self) -> Iterator[PlanRow]:
        """Go through the rows."""
        self._file.seek(0)
        for line in self._file:
            yield PlanRow(**json.loads(line))


def _compare(scenes: Iterable[SceneSource], asked: Asked, out: Path, spool: _Spool) -> None:
    """Compare all scenes with the ledger, if there is one."""
    with ExitStack() as stack:
        ledger = None
        if there_is_a_ledger(out) and (path := find_ledger(out)).exists():
            ledger = stack.enter_context(Ledger(path))
        for row in compare(scenes, asked, out, ledger):
            spool.add(row)


@dataclass
class _Found:
    """What was found of all scenes."""

    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)
    pixels: int = 0
    done: Measured = field(default_factory=Measured)
    sample: list[PlanRow] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, row: PlanRow) -> None:
        """Count a scene."""
        self.counts[row.state] += 1
        if row.state == "refused":
            self.refused[row.kind] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append((row.name, row.reason))
        elif row.state in TO_DO:
            self.pixels += row.pixels or 0
            self._draw(row, sum(self.counts[state] for state in TO_DO))
        elif row.state == "done" and row.took and row.pixels:
            self.done.add(row.pixels, *row.took)

    def _draw(self, row: PlanRow, count: int) -> None:
        """Keep a few scenes, each of all that came with the same chance."""
        if len(self.sample) < SCENES:
            self.sample.append(row)
        elif (place := self.chance.randrange(count)) < SCENES:
            self.sample[place] = row


def _look(
    known: _Spool, asked: Asked, suffix: str, out: Path, spool: _Spool, report: Progress
) -> _Found:
    """Open all scenes that are to be done, several at a time."""
    found, tell = _Found(), _teller(report, known.count)
    one = partial(look, asked=asked, suffix=suffix, out=out)

    def work(stop: Stop) -> None:
        with Workers(LOOKERS, stop) as workers:
            for row in workers.map(one, known, 4 * LOOKERS):
                spool.add(row)
                found.add(row)
                stop.report(partial(tell, spool.count, found.counts["refused"]))

    with warnings.catch_warnings():  # of all threads at once
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        stoppable(work)
    return found


def _teller(report: Progress, total: int) -> Callable[[int, int], None]:
    said = time.monotonic()

    def tell(done: int, refused: int) -> None:
        nonlocal said
        if time.monotonic() - said > 1 or done == total:
            said = time.monotonic()
            about: PlanProgress = {
                "event": "progress",
                "stage": "plan",
                "done": done,
                "total": total,
                "refused": refused,
            }
            report(about)

    return tell


def _rates(
    found: _Found, asked: Asked, suffix: str, elsewhere: bool, report: Progress
) -> Rates | None:
    """What a scene takes: by the archive's maps, else by probes."""
    if found.done.count >= ENOUGH_DONE:
        return found.done.rates(f"{found.done.count} maps of this archive that are done")
    if not found.sample:
        return None
    report({"event": "note", "message": f"probing {counted(len(found.sample), 'scene')}"})
    rates = probe(found.sample, asked, suffix, report)
    if rates is None or not elsewhere:
        return rates
    return replace(rates, words=f"{rates.words}; the workers of --scheduler may be faster or not")


@dataclass
class _Total:
    """Of all scenes that are to be done."""

    seconds: float = 0.0
    longest: float = 0.0
    bytes: int = 0


def _estimated(
    row: PlanRow, rates: Rates | None, total: _Total
) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Give a row's values for the plan's files, and its geometry."""
    seconds = size = None
    if row.state in TO_DO and rates is not None and row.pixels:
        seconds = round(rates.seconds.at(row.pixels), 3)
        size = round(rates.bytes.at(row.pixels))
        total.seconds, total.bytes = total.seconds + seconds, total.bytes + size
        total.longest = max(total.longest, seconds)
    box = dict(zip(("west", "south", "east", "north"), row.box or [None] * 4, strict=True))
    values = {
        **{name: getattr(row, name) for name in ("key", "name", "state", "reason")},
        **{name: getattr(row, name) for name in ("width", "height", "pixels", "source")},
        "seconds": seconds,
        "bytes": size,
        **box,
    }
    return values, row.geometry


def _plan(
    out: Path,
    files: tuple[Path, Path],
    found: _Found,
    total: _Total,
    rates: Rates | None,
    workers: int,
    price_per_hour: float | None,
    report: Progress,
) -> ArchivePlan:
    nothing = not any(found.counts[state] for state in TO_DO)
    known = nothing or rates is not None
    wall = max(total.seconds / workers, total.longest) if known and workers else None
    price = None
    if known and price_per_hour is not None:
        price = total.seconds / 3600 * price_per_hour
    free = shutil.disk_usage(out).free
    if total.bytes > free:
        message = f"about {total.bytes / 1e9:.3g} GB are needed, and {free / 1e9:.3g} GB are free"
        report({"event": "warning", "message": f"{message} in {out}"})
    return ArchivePlan(
        out,
        files,
        dict(sorted(found.counts.items())),
        dict(found.refused.most_common()),
        tuple(found.examples),
        found.pixels,
        total.seconds if known else None,
        wall,
        total.bytes if known else None,
        workers,
        price,
        rates.words if rates is not None else "",
    )
