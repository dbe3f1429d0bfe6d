"""The rows of a plan: what a run would do with each scene, and how large its map is.

First scenes are compared with the ledger (:func:`compare`), which takes no look at their pixels.
Then those that are to be done are opened, as ``geoseg predict --dry-run`` opens them, and the last
pixel is read, which a file that was cut off does not have (:func:`look`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geoseg.archive.asked import Asked, further_outputs
from geoseg.archive.entries import Job, NewJob
from geoseg.archive.faults import fault_of
from geoseg.archive.footprint import footprint
from geoseg.archive.ledger_view import LedgerView
from geoseg.archive.sources import SceneSource, addresses, scene_to_open
from geoseg.archive.stac_item import ITEM_NAME
from geoseg.archive.stamps import CHANGED, GONE, has_changed
from geoseg.archive.store import FolderStore
from geoseg.geo.window import Window
from geoseg.prediction.options import PredictOptions
from geoseg.prediction.plan import Plan, make_plan
from geoseg.scene.sources import is_remote

__all__ = ["TO_DO", "PlanRow", "compare", "look", "plan_of"]

#: States of scenes that a run would do.
TO_DO = ("new", "waiting", "recompute")


@dataclass(frozen=True)
class PlanRow:
    """A scene, and what a run would do with it.

    Attributes:
        key: of its job.
        name: for people.
        state: ``new``, ``waiting``, ``recompute`` or ``refused``; or the ledger's ``running``,
            ``done`` or ``quarantined``.
        reason: why, in a line; "" for what is new or done.
        record: what the ledger keeps of the scene.
        kind: of what is refused: see :data:`geoseg.archive.faults.KINDS`; "" else.
        took: seconds and bytes of the map that is there; none where there is none.
        height: of the map, px; None where it isn't known.
        width: likewise.
        geometry: of the map, GeoJSON; None where it isn't known.
        box: west, south, east, north in degrees; likewise.
    """

    key: str
    name: str
    state: str
    reason: str
    record: Mapping[str, Any]
    kind: str = ""
    took: tuple[float, int] | tuple[()] = ()
    height: int | None = None
    width: int | None = None
    geometry: Mapping[str, Any] | None = None
    box: tuple[float, ...] | None = field(default=None)

    @property
    def pixels(self) -> int | None:
        """Of the map; None where that isn't known."""
        return None if self.height is None or self.width is None else self.height * self.width

    @property
    def source(self) -> str:
        """Where the scene is, for people."""
        if "item" in self.record:
            return str(self.record.get("place") or self.record["item"].get("id", ""))
        return ";".join(self.record["files"])


def compare(
    scenes: Iterable[SceneSource], asked: Asked, out: Path, ledger: LedgerView | None
) -> Iterator[PlanRow]:
    """Say of each scene what the ledger says of it, or that it is new.

    Args:
        scenes: of a manifest; one that comes twice is given once.
        asked: of all jobs.
        out: the archive's folder.
        ledger: of the archive; None where there is none yet.
    """
    seen: set[str] = set()
    for scene in scenes:
        new = scene.job(asked.meant, asked.files.sha256)
        if new.key in seen:
            continue
        seen.add(new.key)
        job = None if ledger is None else ledger.job(new.key)
        if job is None:
            yield PlanRow(new.key, new.name, "new", "", new.source)
        else:
            yield _known(job, new, out)


def _known(job: Job, new: NewJob, out: Path) -> PlanRow:
    state, reason = job.state, job.reason
    took: tuple[float, int] | tuple[()] = ()
    job = replace(job, source=new.source)
    if state == "done":
        took = (job.result["seconds"], job.result["bytes"])
        if FolderStore(out).gone([job]):
            state, reason = "recompute", GONE
        elif has_changed(job):
            state, reason = "recompute", CHANGED
    elif state == "quarantined":
        reason = f"{job.kind}: {reason}"
    return PlanRow(job.key, job.name, state, reason, new.source, took=took)


def look(row: PlanRow, asked: Asked, suffix: str, out: Path) -> PlanRow:
    """Find out how large a scene's map is, and where; or why there will be none.

    Args:
        row: as :func:`compare` gave it.
        asked: of all jobs.
        suffix: of the polygons' files.
        out: the archive's folder.
    """
    if row.state == "done":
        return _as_made(row, out)
    box = row.record.get("footprint")
    if row.state not in TO_DO:
        return _within(row, box)
    try:
        plan = plan_of(row.record, asked, suffix, out / row.key)
        grid = plan.grid
        with plan.reader(grid) as reader:
            reader.read(Window(grid.height - 1, grid.width - 1, 1, 1))
    except Exception as error:  # noqa: BLE001 - whatever it is, the job would end by it
        remote = "item" in row.record or any(map(is_remote, row.record["files"]))
        fault = fault_of(error, remote=remote)
        refused = replace(row, state="refused", kind=fault.kind)
        return _within(replace(refused, reason=f"{fault.kind}: {fault.reason}"), box)
    whole = Window(0, 0, grid.height, grid.width)
    row = replace(row, height=grid.height, width=grid.width)
    if (place := footprint(grid, whole)) is None:
        return row
    return replace(row, geometry=place[0], box=tuple(place[1]))


def plan_of(record: Mapping[str, Any], asked: Asked, suffix: str, folder: Path) -> Plan:
    """Make the plan of ``geoseg predict`` for a scene.

    Args:
        record: what the ledger keeps of it.
        asked: of all jobs.
        suffix: of the polygons' files.
        folder: of the job.

    Raises:
        GeosegError: something does not fit.
    """
    options = {**asked.options, **record.get("options", {}), **further_outputs(folder, asked.also)}
    if not options.get("no_vector"):
        options["vector"] = folder / f"polygons{suffix}"
    wanted = PredictOptions(output=folder / "landcover.tif", **options)
    return make_plan(scene_to_open(addresses(record)), wanted, files=asked.files, look=False)


def _as_made(row: PlanRow, out: Path) -> PlanRow:
    """What the item beside a map says of it."""
    try:
        item = json.loads((out / row.key / ITEM_NAME).read_text(encoding="utf-8"))
        height, width = map(int, item["properties"]["proj:shape"])
        box = tuple(map(float, item["bbox"])) if "bbox" in item else None
        return replace(row, height=height, width=width, geometry=item["geometry"], box=box)
    except (OSError, ValueError, LookupError, TypeError):
        return row  # geoseg batch verify looks at what is wrong with it


def _within(row: PlanRow, box: Any) -> PlanRow:
    """Give a scene that was not opened the place that the manifest gives it."""
    if box is None:
        return row
    west, south, east, north = box
    halves = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    rings = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in halves]
    if len(rings) == 1:
        geometry = {"type": "Polygon", "coordinates": rings[0]}
    else:
        geometry = {"type": "MultiPolygon", "coordinates": rings}
    return replace(row, box=tuple(box), geometry=geometry)
